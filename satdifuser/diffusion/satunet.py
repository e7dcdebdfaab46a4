"""DiffusionSat's UNet: Stable Diffusion's, with embeddings of metadata added to that of the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from satdifuser.errors import UserError

# name, lowest value, width of the range
METADATA = (
    ("longitude", -180.0, 360.0),
    ("latitude", -90.0, 180.0),
    ("ground sampling distance (m)", 0.0, 1.0),
    ("cloud cover (0 to 1)", 0.0, 1.0),
    ("year", 1980.0, 120.0),
    ("month", 0.0, 12.0),
    ("day", 0.0, 31.0),
)
SCALE = 1000.0


class SatUNet(UNet2DConditionModel):
    """`UNet2DConditionModel` with `metadata_embedding.{0..6}`: each number goes through the timestep's sinusoids.

    Call it with `added_cond_kwargs={"metadata": numbers}` (normalised, `[batch, num_metadata]`), or without, to leave
    the metadata out as SatDiFuser does. `save_pretrained` and `from_pretrained` are diffusers' own.
    """

    time_proj: Any

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type: str | None = "UNetMidBlock2DCrossAttn",
        up_block_types: Sequence[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        only_cross_attention: bool | Sequence[bool] = False,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int | Sequence[int] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        dropout: float = 0.0,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int | Sequence[int] = 1280,
        attention_head_dim: int | Sequence[int] = 8,
        num_attention_heads: int | Sequence[int] | None = None,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        conv_in_kernel: int = 3,
        conv_out_kernel: int = 3,
        use_metadata: bool = True,
        num_metadata: int = 7,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            center_input_sample=center_input_sample,
            flip_sin_to_cos=flip_sin_to_cos,
            freq_shift=freq_shift,
            down_block_types=tuple(down_block_types),
            mid_block_type=mid_block_type,
            up_block_types=tuple(up_block_types),
            only_cross_attention=only_cross_attention,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            dropout=dropout,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            dual_cross_attention=dual_cross_attention,
            use_linear_projection=use_linear_projection,
            upcast_attention=upcast_attention,
            resnet_time_scale_shift=resnet_time_scale_shift,
            conv_in_kernel=conv_in_kernel,
            conv_out_kernel=conv_out_kernel,
        )
        width = block_out_channels[0] * 4
        self.metadata_embedding = nn.ModuleList(
            TimestepEmbedding(block_out_channels[0], width, act_fn=act_fn)
            for _ in range(num_metadata if use_metadata else 0)
        )

    def get_aug_embed(
        self, emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: dict[str, Any]
    ) -> Tensor | None:
        """diffusers' hook for what is added to the time embedding."""
        added: Tensor | None = super().get_aug_embed(  # type: ignore[misc]
            emb, encoder_hidden_states, added_cond_kwargs
        )
        metadata = (added_cond_kwargs or {}).get("metadata")
        if metadata is None:
            return added
        if metadata.ndim != 2 or metadata.shape[1] != len(self.metadata_embedding):
            raise UserError(
                f"metadata has the shape {tuple(metadata.shape)}, but the UNet reads {len(self.metadata_embedding)}"
                " numbers for each sample"
            )
        waves = self.time_proj(metadata.flatten()).to(emb.dtype).unflatten(0, tuple(metadata.shape))
        for number, embed in enumerate(self.metadata_embedding):
            part = embed(waves[:, number])
            added = part if added is None else added + part
        return added


def normalise_metadata(values: Tensor) -> Tensor:
    """Longitude, latitude, ground sampling distance, cloud cover, year, month and day, as the UNet reads them.

    Each becomes 1000 (value - lowest) / width, so that the timestep's sinusoids serve it. This is our reading of the
    published training code.

    >>> import torch
    >>> normalise_metadata(torch.tensor([[0.0, 0.0, 0.5, 0.1, 2040.0, 6.0, 31.0]])).tolist()
    [[500.0, 500.0, 500.0, 100.0, 500.0, 500.0, 1000.0]]
    """
    lowest = values.new_tensor([low for _, low, _ in METADATA])
    width = values.new_tensor([width for _, _, width in METADATA])
    return (values - lowest) / width * SCALE
