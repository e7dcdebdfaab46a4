"""The published architectures: for listing taps before the weights are there, random weights, and benchmarks.

`tiny` is none of them: a text-to-image model that takes no time, to try a command out with.
"""

from __future__ import annotations

from typing import Any

from satdifuser.errors import UserError, nearest

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
}
_SD21 = {**_UNET, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {**_UNET, "_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {**_SD21, "_class_name": "UNet2DConditionModel"},
    "diffusionsat": {**_SD21, "_class_name": "SatUNet", "use_metadata": True, "num_metadata": 7},
    "tiny": {
        **{"_class_name": "UNet2DConditionModel", "sample_size": 4, "in_channels": 4, "out_channels": 4},
        **{"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": [2, 4]},
        **{"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "cross_attention_dim": 24},
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
_TINY_VAE = {**VAE, "block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4}
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
TOKENS = 77


def unet_config(architecture: str) -> dict[str, Any]:
    if architecture not in UNETS:
        raise UserError(f"no architecture {architecture!r}: there is {', '.join(UNETS)}{nearest(architecture, UNETS)}")
    return dict(UNETS[architecture])


def vae_config(architecture: str) -> dict[str, Any]:
    return dict(_TINY_VAE if architecture == "tiny" else VAE)
