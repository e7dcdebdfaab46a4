"""Colour statistics, against NumPy, and as an encoder whose features a linear head learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from satdifuser.baselines.colours import ColourStatistics
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.data.inputs import ImageInput


@pytest.mark.parametrize("bands", [["red"], ["red", "green", "blue"], None])
def test_the_numbers_are_numpys(bands: list[str] | None) -> None:
    prepare = ImageInput(bands, high=1.0, mean=0.0, std=1.0)
    encoder = ColourStatistics(prepare=prepare, image_size=12)
    images = torch.rand(3, 13, 12, 12).cumsum(3) / 12  # neighbours differ less across than down
    found = encoder(images, sample_ids=["a", "b", "c"])[encoder.spec.taps[0]]
    assert found.shape == (3, encoder.spec.taps[0].channels, 1, 1)
    for image, numbers in zip(images.double().numpy(), found.flatten(1), strict=True):
        chosen = image[list(prepare.sensor.index(prepare.bands))]
        flat = chosen.reshape(len(chosen), -1)
        expected = [flat.mean(1), flat.std(1), *np.quantile(flat, np.arange(1, 10) / 10, axis=1)]
        expected += [np.abs(np.diff(chosen, axis=axis)).mean((1, 2)) for axis in (2, 1)]
        upper = np.triu_indices(len(chosen), 1)
        expected.append(np.corrcoef(flat)[upper] if len(chosen) > 1 else np.zeros(0))
        np.testing.assert_allclose(numbers.numpy(), np.concatenate(expected), atol=1e-4)


def test_an_image_of_one_colour_has_no_correlation_and_no_nan() -> None:
    encoder = ColourStatistics(prepare=ImageInput(["red", "green"]), image_size=8)
    numbers = encoder(torch.full((1, 13, 8, 8), 0.1))[encoder.spec.taps[0]].flatten()
    assert bool(numbers.isfinite().all())
    assert float(numbers[-1]) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.slow
def test_a_linear_head_learns_from_them(tmp_path: Path) -> None:
    overrides = ["encoder=colours", "fusion=concat", "fusion.norm=batch", "task=classification", "trainer=quick"]
    overrides += ["data.size=16", "data.splits.train.length=64", "data.splits.val.length=16"]
    overrides += ["data.splits.test.length=64", "trainer.epochs=12", f"run={tmp_path / 'run'}"]
    result = train.run(compose("train", overrides), quiet=True)
    assert result["test"]["accuracy"] > 0.25  # of eight classes
