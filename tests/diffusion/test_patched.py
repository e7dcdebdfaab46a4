"""A UNet on patches: diffusers' own network between two ways of writing the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from einops import rearrange
from torch import Tensor

from satdifuser.diffusion.loading import unconditional
from satdifuser.diffusion.patched import PatchUNet2DModel, unet_class
from satdifuser.diffusion.selection import list_taps
from satdifuser.errors import UserError

BLOCKS: dict[str, Any] = {
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def patched(side: int = 2, channels: int = 3, size: int = 16) -> Any:
    torch.manual_seed(torch.seed() % 2**31)
    return PatchUNet2DModel(
        patch_size=side, sample_size=size, in_channels=channels, out_channels=channels, **BLOCKS
    ).eval()


@pytest.mark.parametrize("side", [1, 2, 4])
def test_it_is_the_plain_network_on_patches(side: int) -> None:
    model = patched(side).double()
    plain = UNet2DModel(sample_size=16 // side, in_channels=3 * side**2, out_channels=3 * side**2, **BLOCKS)
    plain.load_state_dict(model.state_dict())
    images, timesteps = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 700])
    patches = rearrange(images, "b c (h p) (w q) -> b (c p q) h w", p=side, q=side)
    found: Tensor = plain.double().eval()(patches, timesteps).sample
    expected = rearrange(found, "b (c p q) h w -> b c (h p) (w q)", p=side, q=side)
    with torch.no_grad():
        assert torch.equal(model(images, timesteps).sample, expected)
        assert torch.equal(model(images, timesteps, return_dict=False)[0], expected)


def test_its_configuration_speaks_of_images_and_comes_back_from_disk(tmp_path: Path) -> None:
    model = patched(channels=5)
    model.save_pretrained(tmp_path)
    again: Any = PatchUNet2DModel.from_pretrained(tmp_path).eval()
    for one in (model, again, PatchUNet2DModel.from_config(model.config)):
        known = {name: one.config[name] for name in ("sample_size", "in_channels", "out_channels", "patch_size")}
        assert known == {"sample_size": 16, "in_channels": 5, "out_channels": 5, "patch_size": 2}
        assert one.conv_in.in_channels == 20
    images = torch.randn(1, 5, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again(images, 3).sample, model(images, 3).sample)  # memory lies otherwise


def test_the_class_is_told_by_the_configuration() -> None:
    assert unet_class({"patch_size": 2}) is PatchUNet2DModel
    assert unet_class(patched().config) is PatchUNet2DModel
    assert unet_class({}) is UNet2DModel
    assert unet_class({"_class_name": "UNet2DModel", "patch_size": 2}) is UNet2DModel


def test_an_encoder_reads_it_at_strides_of_the_image(tmp_path: Path) -> None:
    patched().save_pretrained(tmp_path / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    backbone = unconditional(str(tmp_path))
    assert isinstance(backbone.unet, PatchUNet2DModel)
    strides = {tap.name: tap.stride for tap in list_taps(backbone, 16)}
    assert strides["conv_in"] == strides["down_blocks.0.resnets.0"] == 2
    assert strides["down_blocks.1.resnets.0"] == strides["mid_block.resnets.0"] == 4
    with pytest.raises(UserError, match=r"the largest stride of .* is 4"):
        list_taps(backbone, 18)
