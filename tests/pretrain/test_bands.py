"""A UNet on other bands: what it knew stays, and what is new begins at nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.diffusion.patched import PatchUNet2DModel
from satdifuser.errors import UserError
from satdifuser.pretrain.bands import onto_bands
from satdifuser.pretrain.networks import load_unet

Make = Callable[..., Any]
RGB = ("B04", "B03", "B02")
WANTED = ("B02", "B08", "B03", "B11", "B04")


def patched() -> Any:
    return PatchUNet2DModel(
        patch_size=2,
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )


@pytest.mark.parametrize("patches", [False, True])
def test_known_bands_are_predicted_as_before_whatever_the_new_ones_show(unet: Make, patches: bool) -> None:
    old = (patched() if patches else unet()).double().eval()
    new = onto_bands(old, RGB, WANTED, "there").eval()
    assert type(new) is type(old)
    assert new.config["in_channels"] == new.config["out_channels"] == 5
    images, levels = torch.randn(2, 5, 8, 8, dtype=torch.float64), torch.tensor([3, 700])
    places = [WANTED.index(band) for band in RGB]
    with torch.no_grad():
        before: Tensor = old(images[:, places], levels).sample
        after: Tensor = new(images, levels).sample
    torch.testing.assert_close(after[:, places], before, atol=1e-12, rtol=1e-10)
    assert not after[:, [1, 3]].any()
    loss = (new(images, levels).sample - images).square().mean()  # and the new ones can be learned
    loss.backward()
    assert bool(new.conv_in.weight.grad.any())
    assert all(bool(row.any()) for row in new.conv_out.weight.grad.flatten(1))


def test_a_folder_that_says_its_bands_is_put_onto_those_of_the_images(tmp_path: Path, unet: Make) -> None:
    old = unet()
    old.save_pretrained(tmp_path / "unet")
    about = {"prepare": {"sensor": "satdifuser.data.bands.SENTINEL2_RGB", "bands": ["red", "green", "blue"]}}
    (tmp_path / "provenance.json").write_text(json.dumps(about))
    found = load_unet(str(tmp_path), 8, 5, WANTED)
    assert torch.equal(found.conv_in.weight[:, 4], old.conv_in.weight[:, 0])
    assert torch.equal(found.conv_in.weight[:, 0], old.conv_in.weight[:, 2])
    assert not found.conv_in.weight[:, 1].any()
    turned = load_unet(str(tmp_path), 8, 3, RGB[::-1])  # as many bands, and yet others
    assert torch.equal(turned.conv_in.weight, old.conv_in.weight.flip(1))
    same = load_unet(str(tmp_path), 8, 3, RGB)
    assert torch.equal(same.conv_in.weight, old.conv_in.weight)


def test_bands_that_have_nothing_in_common_or_are_not_known_are_refused(tmp_path: Path, unet: Make) -> None:
    with pytest.raises(UserError, match=r"init: the UNet in there was trained on B04, B03, B02, and none of these"):
        onto_bands(unet(), RGB, ("VV", "VH"), "there")
    unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(UserError, match="reads 3 channels, and the images give 5"):
        load_unet(str(tmp_path), 8, 5, WANTED)


def test_the_channels_of_latents_are_not_taken_for_bands(tmp_path: Path, unet: Make) -> None:
    latent = unet(4)
    latent.save_pretrained(tmp_path / "unet")
    about = {"prepare": {"sensor": "satdifuser.data.bands.SENTINEL2_RGB", "bands": ["red", "green", "blue"]}}
    (tmp_path / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="reads 4 channels, and the images give 5"):
        load_unet(str(tmp_path), 8, 5, WANTED)
