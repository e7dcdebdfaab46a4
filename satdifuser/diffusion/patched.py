"""A UNet that reads an image in patches: its finest maps have half the sides, and its cost is spent on wider ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from satdifuser.diffusion.signatures import extending

UNCONDITIONAL = ("UNet2DModel", "PatchUNet2DModel")  # what a configuration may call an unconditional UNet


def unet_class(config: Mapping[str, Any]) -> type:
    """The class of an unconditional UNet's configuration, or of settings for one."""
    patched = config.get("_class_name", UNCONDITIONAL["patch_size" in config]) == UNCONDITIONAL[1]
    return PatchUNet2DModel if patched else UNet2DModel


class PatchUNet2DModel(UNet2DModel):
    """diffusers' `UNet2DModel` on patches of `patch_size` x `patch_size` pixels, which are the channels of a place.

    Images go in and images come out; `sample_size`, `in_channels` and `out_channels` are theirs. Names of modules are
    those of `UNet2DModel`, and all strides are `patch_size` times as large. `save_pretrained` and `from_pretrained`
    are diffusers' own.
    """

    config: Any
    register_to_config: Any

    @register_to_config
    @extending(UNet2DModel, "patch_size")
    def __init__(self, *, patch_size: int = 2, **unet: Any) -> None:
        size, area = unet.get("sample_size"), patch_size**2
        outside = {
            "sample_size": size,
            "in_channels": unet.get("in_channels", 3),
            "out_channels": unet.get("out_channels", 3),
        }
        inside = {"sample_size": None if size is None else size // patch_size}
        inside |= {name: outside[name] * area for name in ("in_channels", "out_channels")}
        super().__init__(**{**unet, **inside})
        self.register_to_config(**outside)  # which the line above has set to those of the inner network

    def forward(self, sample: Tensor, timestep: Any, class_labels: Any = None, return_dict: bool = True) -> Any:
        side = self.config["patch_size"]
        patches = F.pixel_unshuffle(sample, side)
        found = super().forward(patches, timestep, class_labels, return_dict=False)[0]  # type: ignore[misc]
        image = F.pixel_shuffle(found, side)
        return UNet2DOutput(sample=image) if return_dict else (image,)
