"""The same or nearly the same image twice, in a split and across splits; samples over each other's ground."""

from __future__ import annotations

import io
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from satdifuser.data.bands import SENTINEL2_RGB
from satdifuser.data.check.repeats import ALIKE, overlapping
from satdifuser.data.synthetic import SyntheticScenes


def copy_of(split: str, index: int) -> torch.Tensor:
    scene: Any = SyntheticScenes(split, 24, size=32)[index]
    return scene["image"].clone()


def test_exact_copies_within_a_split_are_found_with_labels_that_differ(checked: Any, names: Any) -> None:
    def again(split: str, index: int, sample: Any) -> None:
        if split == "train" and index == 9:
            sample["image"] = copy_of("train", 2)

    found = names(checked(again))
    assert set(found) == {"repeat-within"}
    assert found["repeat-within"].what == "1 image comes more than once, 1 of them with different labels"
    assert found["repeat-within"].where == "train, train-2 = train-9"
    assert "which label is right" in found["repeat-within"].todo


def test_a_copy_across_splits_is_an_error(checked: Any, names: Any) -> None:
    def leak(split: str, index: int, sample: Any) -> None:
        if split == "test" and index < 3:
            sample["image"] = copy_of("train", index + 5)

    found = names(checked(leak))
    assert set(found) == {"repeat-across"}
    assert found["repeat-across"].verdict == "error"
    assert found["repeat-across"].samples == ["test-0", "test-1", "test-2"]
    assert "train and test, train-5 = test-0" in found["repeat-across"].where


def test_an_id_in_two_splits_is_an_error(checked: Any, names: Any) -> None:
    def same(split: str, index: int, sample: Any) -> None:
        if index == 1:
            sample["id"] = "one"

    assert names(checked(same, splits=("train", "val")))["id-across"].samples == ["one"]


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    pixels = (image[[3, 2, 1]] / 0.3).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "jpeg", quality=quality)
    return torch.from_numpy(np.array(Image.open(out))).permute(2, 0, 1).float() / 255 * 0.275


def test_a_copy_that_was_compressed_again_is_near_and_other_scenes_are_not(checked: Any, names: Any) -> None:
    def pictures(split: str, index: int, sample: Any) -> None:
        sample["image"] = jpeg(copy_of(split, index), 95)
        if (split, index) == ("test", 4):
            sample["image"] = jpeg(copy_of("train", 6), 70)

    found = names(checked(pictures, sensor=SENTINEL2_RGB))
    assert set(found) == {"near-across"}
    assert found["near-across"].what == "1 pair of nearly the same image"
    assert found["near-across"].where.startswith("train and test, train-6 and test-4 (0.99")
    assert float(found["near-across"].where.rpartition("(")[2][:-1]) >= ALIKE


def test_overlap_is_that_of_pixels_counted_one_by_one() -> None:
    generator = np.random.default_rng(5)

    def boxes(count: int, name: str) -> dict[str, Any]:
        corners = generator.integers(0, 40, (count, 2))
        sizes = generator.integers(3, 12, (count, 2))
        return {
            f"{name}{n}": ((int(x), int(y), int(x + w), int(y + h)), "EPSG:32633" if n % 4 else "EPSG:32634")
            for n, ((x, y), (w, h)) in enumerate(zip(corners, sizes, strict=True))
        }

    one, other = boxes(30, "a"), boxes(30, "b")
    wanted = {}
    for (a, (left, system)), (b, (right, other_system)) in product(one.items(), other.items()):
        cells = [set(product(range(x0, x1), range(y0, y1))) for x0, y0, x1, y1 in (left, right)]
        part = len(cells[0] & cells[1]) / min(len(cells[0]), len(cells[1]))
        if system == other_system and part > 0.01:
            wanted[a, b] = part
    found = {(a, b): part for a, b, part in overlapping(one, other)}
    assert found.keys() == wanted.keys()
    assert len(found) > 5
    assert all(abs(found[pair] - wanted[pair]) < 1e-9 for pair in found)


def test_samples_of_two_splits_over_the_same_ground_are_found(made: Any, names: Any) -> None:
    from satdifuser.data.check import check

    splits = made(splits=("train", "test"))
    for split, data in splits.items():
        start = 0.0 if split == "train" else 100 * 23.5

        def footprint(name: str, start: float = start) -> Any:
            left = start + 100 * int(name.rpartition("-")[2])
            return SimpleNamespace(x=(left, left + 100), y=(0.0, 100.0), crs="EPSG:32633")

        data.footprint = footprint
    found = names(check(splits))
    assert set(found) == {"overlap-across"}
    assert found["overlap-across"].where == "train and test, train-23 and test-0 (50 %)"
