"""DiffusionSat's UNet: Stable Diffusion's, with embeddings of metadata added to that of the time."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from satdifuser.diffusion.signatures import extending
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
    config: Any

    @register_to_config
    @extending(UNet2DConditionModel, "use_metadata", "num_metadata")
    def __init__(self, *, use_metadata: bool = True, num_metadata: int = 7, **unet: Any) -> None:
        super().__init__(**unet)
        channels = self.config["block_out_channels"][0]
        self.metadata_embedding = nn.ModuleList(
            TimestepEmbedding(channels, 4 * channels, act_fn=self.config["act_fn"])
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

    >>> normalise_metadata(torch.tensor([[0.0, 0.0, 0.5, 0.1, 2040.0, 6.0, 31.0]])).tolist()
    [[500.0, 500.0, 500.0, 100.0, 500.0, 500.0, 1000.0]]
    """
    columns = zip(values.unbind(-1), METADATA, strict=True)  # number by number: constants need no copy to a GPU
    return torch.stack([(column - lowest) / width * SCALE for column, (_, lowest, width) in columns], -1)
