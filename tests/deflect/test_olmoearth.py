"""OlmoEarth by its own package: our maps are what its encoder gives, for whatever bands there are."""

from __future__ import annotations

import datetime
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deflect.olmoearth import OlmoEarthEncoder, _year
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.unscaled import UnscaledInput

THERE = importlib.util.find_spec("olmoearth_pretrain_minimal") is not None
needs = pytest.mark.skipif(not THERE, reason="pip install olmoearth-pretrain-minimal to test encoder=olmoearth")


def build(sensor: str = "SENTINEL2", bands: Any = None, size: int = 16, **settings: Any) -> OlmoEarthEncoder:
    return OlmoEarthEncoder(prepare=UnscaledInput(bands, sensor=sensor), image_size=size, **settings).eval()


def published(version: str) -> Any:
    """A model as the package makes it, with every modality that a checkpoint has."""
    from olmoearth_pretrain_minimal import OlmoEarthPretrain_v1

    torch.manual_seed(5)
    return OlmoEarthPretrain_v1("nano", version).model.eval()


def saved(folder: Path, model: Any) -> Path:
    encoder = model.encoder
    torch.save(model.state_dict(), folder / "weights.pth")
    says = {"embedding_size": 128, "depth": 4, "num_heads": 8, "position_encoding": str(encoder.position_encoding)}
    (folder / "config.json").write_text(json.dumps({"model": {"encoder_config": says}}))
    return folder


@needs
@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v1.1", "v1.2"])
def test_features_are_those_of_the_package_for_weights_in_its_own_layout(version: str, tmp_path: Path) -> None:
    from olmoearth_pretrain_minimal import Normalizer
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

    model = published(version)
    folder = saved(tmp_path, model)
    encoder = build("SENTINEL2+SENTINEL1", weights=str(folder), version=version, month=4)
    images = torch.cat([torch.rand(2, 13, 16, 16) * 0.4, -20 * torch.rand(2, 2, 16, 16) - 1], dim=1)
    order = [SENTINEL2.names.index(name) for name in Modality.SENTINEL2_L2A.band_order]
    light = (images[:, order] * 10000).permute(0, 2, 3, 1)[:, :, :, None].double().numpy()
    radar = images[:, 13:].permute(0, 2, 3, 1)[:, :, :, None].double().numpy()
    normalizer = Normalizer(std_multiplier=2.0)
    sets = 3 if version == "v1" else 1
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[[15, 3, 2020]]] * 2),
        sentinel2_l2a=torch.from_numpy(normalizer.normalize(Modality.SENTINEL2_L2A, light)).float(),
        sentinel2_l2a_mask=torch.zeros(2, 16, 16, 1, sets),
        sentinel1=torch.from_numpy(normalizer.normalize(Modality.SENTINEL1, radar)).float(),
        sentinel1_mask=torch.zeros(2, 16, 16, 1, 1),
    )
    with torch.no_grad():
        tokens = model.encoder(sample, patch_size=8, input_res=10, fast_pass=True)["tokens_and_masks"]
        expected = torch.cat([tokens.sentinel2_l2a[:, :, :, 0], tokens.sentinel1[:, :, :, 0]], dim=3).mean(3)
        bank = encoder(images)
    torch.testing.assert_close(bank[encoder.spec.taps[-1]], expected.permute(0, 3, 1, 2), atol=2e-5, rtol=1e-4)
    assert [tap.name for tap in encoder.spec.taps] == [f"blocks.{number}" for number in range(4)]
    assert not any(p.requires_grad for p in encoder.parameters())
    assert dict(encoder.spec.settings)["inputs"] == "sentinel2_l2a,sentinel1"
    assert encoder.spec.weights != build(version=version).spec.weights


@needs
@pytest.mark.slow
def test_bands_that_are_missing_are_filled_as_the_package_fills_them() -> None:
    from olmoearth_pretrain_minimal import NormalizerV1, NormalizerV1_1
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality

    images = torch.rand(1, 3, 8, 8) * 0.4
    order = Modality.SENTINEL2_L2A.band_order
    data = np.full((1, 8, 8, 1, 12), np.nan)
    for place, name in enumerate(("B04", "B03", "B02")):
        data[0, :, :, 0, order.index(name)] = 10000 * images[0, place].double().numpy()
    for version, normalizer in (("v1", NormalizerV1()), ("v1.2", NormalizerV1_1())):
        encoder = build("SENTINEL2_RGB", size=8, version=version)
        with pytest.warns(UserWarning, match="bands"):
            expected = normalizer.normalize(Modality.SENTINEL2_L2A, data)[:, :, :, 0]
        found = encoder.inputs["sentinel2_l2a"].normalised(images).permute(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert dict(encoder.spec.settings)["filled"] == "B08,B05,B06,B07,B8A,B11,B12,B01,B09"


@needs
@pytest.mark.slow
def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path, published("v1.1"))
    for settings, words in (
        ({"weights": str(folder)}, "describes another model"),
        ({"weights": str(tmp_path / "none")}, "no file"),
        ({"patch_size": 9, "size": 18}, "patches of up to 8 px"),
        ({"sensor": "LANDSAT8:B9"}, "can use none of the bands B9"),
        ({"sensor": "SENTINEL1:VV/VH@colour"}, "takes VV in dB, and the sensor gives it in colour"),
    ):
        with pytest.raises(BankError, match=words) as error:
            build(**settings)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    (folder / "config.json").unlink()
    with pytest.raises(BankError, match=r"weights.pth does not match the model"):
        build(weights=str(folder))
    images = torch.rand(1, 3, 16, 16) * 0.3
    encoder = build("SENTINEL2_RGB", blocks="last")
    tap, march = encoder.spec.taps[0], (datetime.date(2021, 3, 9) - datetime.date(1970, 1, 1)).days
    found = encoder(images, dates=torch.tensor([march]))[tap]
    torch.testing.assert_close(found, build("SENTINEL2_RGB", blocks="last", month=3)(images)[tap], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, encoder(images, dates=torch.tensor([-1]))[tap], atol=1e-3)


def test_without_its_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BankError, match="pip install olmoearth-pretrain-minimal"):
        build()


def test_days_are_those_of_the_calendar() -> None:
    first = datetime.date(1970, 1, 1)
    days = torch.randint(-20000, 40000, (400,))
    year, day = _year(days)
    for number, count in enumerate(days.tolist()):
        date = first + datetime.timedelta(days=count)
        assert (int(year[number]), int(day[number])) == (date.year, date.day)
