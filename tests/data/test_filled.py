"""What an encoder gets in place of bands that images lack."""

from __future__ import annotations

import pytest
import torch

from deflect.adapters import Full
from deflect.backbones import terramind_vit, timm_vit
from deflect.vit import ViTEncoder
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.filled import FilledInput
from satdifuser.data.inputs import ImageInput
from satdifuser.data.sensors import HLS, SENTINEL1, SENTINEL2_LAND
from satdifuser.errors import UserError

NUMBERS = {
    "low": 0.0,
    "high": 1.0,
    "mean": [0.1 + 0.01 * n for n in range(13)],
    "std": [0.2 + 0.01 * n for n in range(13)],
}


def test_bands_that_are_there_enter_as_ever_and_the_others_are_the_mean() -> None:
    whole, filled = ImageInput(sensor=SENTINEL2, **NUMBERS), FilledInput(sensor=SENTINEL2_LAND, **NUMBERS)  # type: ignore[arg-type]
    images = torch.rand(2, 13, 6, 6)
    there = SENTINEL2.index(SENTINEL2_LAND.names)
    expected = whole(images)
    for place, name in enumerate(SENTINEL2.names):
        found = filled(images[:, there])[:, place]
        if name in SENTINEL2_LAND.names:
            torch.testing.assert_close(found, expected[:, place])
        else:
            assert not found.any()
    assert [band.name for band in filled.inputs] == list(SENTINEL2.names)
    assert filled.settings["absent"] == "B01,B09,B10"
    assert whole.settings["low"] == filled.settings["low"]
    torch.testing.assert_close(filled.undo(filled(images[:, there])), images[:, there])


def test_order_is_the_networks_whatever_the_sensor_has() -> None:
    prepare = FilledInput(["swir16", "B02"], sensor=HLS, low=0, high=1, mean=0, std=1)
    images = torch.rand(1, 6, 2, 2)
    torch.testing.assert_close(prepare(images), images[:, [4, 0]])


def test_nothing_that_lacks_is_as_the_plain_input() -> None:
    images = torch.rand(1, 13, 4, 4)
    torch.testing.assert_close(
        FilledInput(["red", "B03"], high=0.3)(images), ImageInput(["B04", "B03"], high=0.3)(images)
    )


def test_images_are_resized_and_checked_as_ever() -> None:
    prepare = FilledInput(sensor=SENTINEL2_LAND, size=8)
    assert prepare(torch.rand(1, 10, 4, 4)).shape == (1, 13, 8, 8)
    with pytest.raises(UserError, match="is declared as"):
        prepare(torch.full((1, 10, 4, 4), 900.0))


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UserError, match="has none of the bands B02, B03"):
        FilledInput(["B02", "B03"], sensor=SENTINEL1)
    with pytest.raises(UserError, match="2 numbers of mean for 3 bands"):
        FilledInput(["B02", "B03", "B09"], sensor=SENTINEL2_LAND, mean=[0.1, 0.2])
    with pytest.raises(UserError, match="no band B99"):
        FilledInput(["B99"])
    with pytest.raises(UserError, match="policy"):
        FilledInput(policy="percentiles")  # type: ignore[arg-type]


def test_a_model_of_13_bands_reads_an_image_of_10_with_its_own_filters() -> None:
    backbone = timm_vit("vit_tiny_patch16_224", image_size=32, channels=13, options={"depth": 1})
    filters = backbone.model.patch_embed.proj.weight.clone()  # type: ignore[union-attr]
    encoder = ViTEncoder(backbone, prepare=FilledInput(sensor=SENTINEL2_LAND, **NUMBERS), adapter=Full())  # type: ignore[arg-type]
    assert torch.equal(encoder.backbone.model.patch_embed.proj.weight, filters)  # type: ignore[union-attr]
    assert len(encoder.backbone.bands) == 13
    assert encoder(0.3 * torch.rand(1, 10, 32, 32)).spec == encoder.spec


def test_terramind_says_nothing_of_bands_that_lack(caplog: pytest.LogCaptureFixture) -> None:
    names = [name for name in SENTINEL2.names if name != "B10"]
    shape = {"depth": 1, "embed_dim": 24, "num_heads": 3}
    ViTEncoder(terramind_vit("terramind_v1_base", image_size=32, options=shape), prepare=FilledInput(names, sensor=HLS))
    assert not caplog.records
