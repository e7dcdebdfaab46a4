"""Band statistics that are gathered while samples pass, against NumPy on all pixels at once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.store import statistics


def plain(images: Any) -> dict[str, Any]:
    """Over all pixels that have a number other than 0 in any band, in float64."""
    pixels = np.asarray(images, np.float64).transpose(1, 0, 2, 3).reshape(images.shape[1], -1)
    pixels = pixels[:, np.any(pixels != 0, axis=0)]
    return {
        "pixels": pixels.shape[1],
        "mean": pixels.mean(1),
        "std": pixels.std(1),
        "min": pixels.min(1),
        "max": pixels.max(1),
    }


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    assert found["pixels"] == wanted["pixels"]
    for key in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-7, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("number", range(8))
def test_they_are_those_of_all_pixels_at_once(number: int) -> None:
    noise = np.random.default_rng(number)
    bands, splits = int(noise.integers(1, 14)), int(noise.integers(1, 4))
    scale = 10.0 ** noise.uniform(-3, 3, (bands, 1, 1))
    shift = scale * noise.uniform(-50, 50, (bands, 1, 1))
    images = (noise.normal(size=(17, bands, 5, 7)) * scale + shift).astype(np.float32)
    images *= noise.random((17, 1, 5, 7)) > 0.3
    split = noise.integers(0, splits, 17)
    parts, first = [], 0
    while first < 17:
        sums = statistics.begin(splits, bands)
        for _ in range(noise.integers(1, 3)):
            stop = min(17, first + int(noise.integers(1, 6)))
            if stop > first:
                statistics.add(sums, split[first:stop], images[first:stop])
            first = stop
        parts.append(sums)
    names = [f"band {n}" for n in range(bands)]
    found = statistics.described(statistics.join(parts), [f"s{n}" for n in range(splits)], names)
    assert found.pop("names") == names
    assert set(found) == {f"s{n}" for n in set(split.tolist())}
    for name, values in found.items():
        close(values, plain(images[split == int(name[1:])]))
    json.dumps(found)


def test_a_band_of_zeros_beside_one_that_is_not_counts() -> None:
    images = np.zeros((1, 2, 1, 4))
    images[0, 1, 0, :3] = [1.0, -1.0, 3.0]
    sums = statistics.begin(1, 2)
    statistics.add(sums, np.array([0]), images)
    found = statistics.described(sums, ["train"], ["a", "b"])["train"]
    assert (found["pixels"], found["mean"], found["min"]) == (3, [0.0, 1.0], [0.0, -1.0])


def test_a_split_without_a_pixel_is_left_out() -> None:
    sums = statistics.begin(2, 1)
    statistics.add(sums, np.array([1, 1]), np.zeros((2, 1, 3, 3)))
    assert statistics.described(sums, ["train", "val"], ["a"]) == {"names": ["a"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int16])
def test_a_store_says_them_for_each_split(tmp_path: Path, made: Any, dtype: torch.dtype) -> None:
    made.images = (made.images.abs() * 50).to(dtype)
    made.write(tmp_path / "store", most=random.randint(1, 14))
    bands = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]["bands"]
    assert bands.pop("names") == ["B2", "B3", "B4", "B8"]
    assert set(bands) == set(made.counts)
    for split, values in bands.items():
        close(values, plain(made.images[made.rows(split)].double().numpy()))


def test_bands_without_names_have_numbers(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "store", made.plan(bands=()))
    bands = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]["bands"]
    assert bands["names"] == ["0", "1", "2", "3"]
