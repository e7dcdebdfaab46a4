"""Settings of a UNet that diffusers takes and then fails on are refused by their names, and what runs is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from satdifuser.errors import UserError
from satdifuser.pretrain.networks import build_scheduler, build_unet, build_vae, load_unet, load_vae
from satdifuser.settings.pretraining import Autoencoder

BLOCKS: dict[str, Any] = {
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("attention_head_dim", 64, "unet.attention_head_dim is 64, and a block with attention is 32 wide"),
        ("attention_head_dim", 33, "unet.attention_head_dim is 33"),
        ("attention_head_dim", 0, "unet.attention_head_dim is 0"),
        ("attention_head_dim", -1, "unet.attention_head_dim is -1"),
        ("attention_head_dim", "8", "unet.attention_head_dim is 8"),
        ("norm_num_groups", 5, "unet.norm_num_groups is 5: .*, and 16 is among them"),
        ("norm_num_groups", 0, "unet.norm_num_groups is 0"),
        ("norm_num_groups", -4, "unet.norm_num_groups is -4"),
        ("norm_num_groups", None, "unet.norm_num_groups is None"),
        ("layers_per_block", 0, "unet.layers_per_block is 0"),
        ("layers_per_block", -1, "unet.layers_per_block is -1"),
        ("layers_per_block", 1.5, "unet.layers_per_block is 1.5"),
        (
            "down_block_types",
            ["DownBlock", "DownBlock2D"],
            "unet.down_block_types has DownBlock: .*did you mean Down",
        ),
        ("down_block_types", [1, 2], "unet.down_block_types has 1"),
        ("down_block_types", "DownBlock2D", "unet.down_block_types is DownBlock2D: give a list of 2"),
        ("up_block_types", ["UpDecoderBlock2D", "UpBlock2D"], "unet.up_block_types has UpDecoderBlock2D"),
        ("up_block_types", ["UpBlock2D"], "unet.up_block_types is .*: give a list of 2"),
        ("block_out_channels", 16, "unet.block_out_channels is 16"),
        ("block_out_channels", None, "unet.block_out_channels is None"),
        ("block_out_channels", [16, 0], "unet.block_out_channels is"),
        ("block_out_channels", [16, -32], "unet.block_out_channels is"),
        ("block_out_channels", [16] * 5, "8 px is no multiple of 16; set data.size, or fewer unet.block_out_channels"),
        ("downsample_type", "nope", "unet.downsample_type is nope"),
        ("upsample_type", "nope", "unet.upsample_type is nope"),
        ("downsample_padding", 3, "unet: a network of these settings does not run on 3 bands of 8 px: Sizes"),
        ("time_embedding_type", "nope", "unet: UNet2DModel of diffusers does not take these settings"),
        ("time_embedding_type", "fourier", "unet: a network of these settings makes NaN"),
        ("time_embedding_dim", -1, "unet: UNet2DModel of diffusers does not take these settings"),
        ("norm_eps", -1.0, "unet: a network of these settings makes NaN or infinite values"),
        ("num_class_embeds", 5, "unet: a network of these settings does not run on .*class_labels"),
    ],
)
def test_what_a_unet_cannot_be_is_refused_by_name(setting: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^[^\n]*{said}[^\n]*$"):
        build_unet({**BLOCKS, setting: value}, 3, 8, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"attention_head_dim": 17},
        {"attention_head_dim": None},
        {"attention_head_dim": 32},
        {
            "attention_head_dim": 64,
            "add_attention": False,
            "down_block_types": ["DownBlock2D"] * 2,
            "up_block_types": ["UpBlock2D"] * 2,
        },
        {"norm_num_groups": 16},
        {"layers_per_block": 3},
        {"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"], "downsample_type": "resnet"},
    ],
)
def test_what_a_unet_can_be_is_built_from_its_seed_and_nothing_else(settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    one, after = build_unet({**BLOCKS, **settings}, 3, 8, 0), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    other = build_unet({**BLOCKS, **settings}, 3, 8, 0)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@pytest.mark.parametrize("changes", [{"beta_end": 2.0}, {"beta_start": -1e-3}, {"trained_betas": [0.1, float("nan")]}])
def test_a_schedule_without_a_share_for_the_image_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^schedule: .* gives betas that are not all from 0 to 1$"):
        build_scheduler({"beta_schedule": "linear", **changes})


def test_a_vae_that_does_not_run_is_refused() -> None:
    with pytest.raises(UserError, match=r"^vae: "):
        build_vae(Autoencoder(block_out_channels=[16, 24]), 3, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Any, unet: Any, vae: Any, bad: float) -> None:
    for folder, network, load, setting in (
        ("unet", unet(), lambda: load_unet(str(tmp_path), 8, 3), "init"),
        ("vae", vae(), lambda: load_vae(str(tmp_path)), "vae.weights"),
    ):
        network.save_pretrained(tmp_path / folder)
        load()
        name = list(network.state_dict())[3]
        with torch.no_grad():
            network.state_dict()[name].view(-1)[0] = bad
        network.save_pretrained(tmp_path / folder)
        said = re.escape(f"{setting}: the weights in {tmp_path / folder} are NaN or infinite ({name}): give others")
        with pytest.raises(UserError, match=f"^{said}$"):
            load()


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0])
def test_a_vae_without_a_scale_for_its_latents_is_refused(tmp_path: Any, vae: Any, factor: float) -> None:
    vae(scaling_factor=factor).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^vae\.weights: the VAE in .* has a scaling_factor of"):
        load_vae(str(tmp_path))
