"""Masks in every form that people have them: numbers, palettes, colours, no data, and numbers to regress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.enums import ColorInterp

from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng()
COLOURS = np.array([(255, 255, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0)], np.uint8)


def tiff(path: Path, pixels: Array, **said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    shape: Any = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name, **said}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(pixels)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image, without a mask yet."""
    tiff(tmp_path / "images" / "a.tif", RNG.integers(1, 9000, (1, 8, 8)).astype(np.uint16))
    (tmp_path / "masks").mkdir()
    return tmp_path


def opened(root: Path, **words: Any) -> Rasters:
    given = {"images": "images/{id}.tif", "masks": "masks/{id}.*", "sensor": "SENTINEL2:B04", "size": 8, **words}
    return Rasters(str(root), "all", **given)


def mask_of(root: Path, **words: Any) -> Any:
    data = opened(root, **words)
    kind = data.label or ""
    found = data[0][kind]
    assert torch.equal(found.nan_to_num(-7), data.read_labels([0])[kind][0].nan_to_num(-7))
    return found.numpy()


def refused(root: Path, *said: str, **words: Any) -> None:
    with pytest.raises(UserError) as caught:
        mask_of(root, **words)
    assert "\n" not in str(caught.value)
    for word in said:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("kind", ["png", "tif", "npy"])
def test_values_names_merged_and_ignored_are_as_the_table_says(root: Path, kind: str) -> None:
    numbers = RNG.choice(np.array([0, 7, 255, 9], np.uint8), (8, 8))
    if kind == "png":
        Image.fromarray(numbers).save(root / "masks" / "a.png")
    elif kind == "tif":
        tiff(root / "masks" / "a.tif", numbers[None])
    else:
        np.save(root / "masks" / "a.npy", numbers)
    wanted = np.vectorize({0: 0, 7: 1, 255: 1, 9: 255}.get)(numbers)
    classes = {0: "clear", 7: "cloud", 255: "cloud"}
    assert (mask_of(root, classes=classes, ignore=9) == wanted).all()
    assert (mask_of(root, classes={**classes, 9: None}) == wanted).all()
    refused(root, f"masks/a.{kind} has a mask with 9", "0, 7, 255", "data.classes", classes=classes)


def test_the_numbers_of_a_palette_are_the_classes_and_its_transparent_one_too(root: Path) -> None:
    numbers = RNG.integers(0, 3, (8, 8)).astype(np.uint8)
    paletted = Image.fromarray(numbers)
    paletted.putpalette(COLOURS.tobytes())
    paletted.save(root / "masks" / "a.png", transparency=0)
    assert (mask_of(root, classes=["a", "b", "c"]) == numbers).all()
    colours = {"#ffffff": "road", "#0000ff": "roof", "#ff0000": None}
    assert (mask_of(root, classes=colours) == np.vectorize({0: 0, 1: 1, 2: 255}.get)(numbers)).all()
    tiff(root / "masks" / "a.tif", numbers[None])
    (root / "masks" / "a.png").unlink()
    with rasterio.open(root / "masks" / "a.tif", "r+") as file:
        file.colorinterp = [ColorInterp.palette]
        file.write_colormap(1, {n: (*map(int, colour), 255) for n, colour in enumerate(COLOURS)})
    assert (mask_of(root, classes=["a", "b", "c"]) == numbers).all()
    assert (mask_of(root, classes=colours) == np.vectorize({0: 0, 1: 1, 2: 255}.get)(numbers)).all()


@pytest.mark.parametrize("kind", ["png", "tif", "rgba"])
def test_colours_are_classes_where_the_table_names_them(root: Path, kind: str) -> None:
    numbers = RNG.integers(0, 4, (8, 8))
    colours = COLOURS[numbers]
    if kind == "tif":
        tiff(root / "masks" / "a.tif", colours.transpose(2, 0, 1))
    else:
        alpha = np.full((8, 8, 1), 255, np.uint8)
        Image.fromarray(colours if kind == "png" else np.concatenate([colours, alpha], -1)).save(
            root / "masks" / "a.png"
        )
    classes = {"#FFFFFF": "road", "#0000ff": "roof", "#ff0000": "roof", "#000000": None}
    data = opened(root, classes=classes)
    assert (data.labels.classes, data.labels.colours) == (("road", "roof"), ("#FFFFFF", "#0000ff"))
    assert (mask_of(root, classes=classes) == np.vectorize({0: 0, 1: 1, 2: 1, 3: 255}.get)(numbers)).all()
    refused(root, "a mask with the colour #000000", "'#000000': null", classes=dict(list(classes.items())[:3]))
    refused(root, "3 bands" if kind != "rgba" else "bands", "'#ff0000': roof", classes=["a", "b"])
    refused(root, "'#fff'", "#rrggbb", classes={"#fff": "a"})
    refused(root, "colours and numbers", classes={"#ffffff": "a", 1: "b"})


def test_one_bit_masks_are_zeros_and_ones(root: Path) -> None:
    numbers = RNG.integers(0, 2, (8, 8)).astype(bool)
    Image.fromarray(numbers).save(root / "masks" / "a.png")
    assert (mask_of(root, classes=["no", "yes"]) == numbers).all()
    (root / "masks" / "a.png").unlink()
    tiff(root / "masks" / "a.tif", numbers[None].astype(np.uint8), nbits=1)
    assert (mask_of(root, classes=["no", "yes"]) == numbers).all()


def test_what_a_mask_says_is_no_data_counts_nowhere_unless_it_is_a_class(root: Path) -> None:
    numbers = RNG.integers(0, 3, (1, 8, 8)).astype(np.uint8)
    tiff(root / "masks" / "a.tif", numbers, nodata=2)
    assert (mask_of(root, classes=["a", "b"]) == np.where(numbers[0] == 2, 255, numbers[0])).all()
    assert (mask_of(root, classes=["a", "b", "c"]) == numbers[0]).all()


def test_a_mask_of_numbers_is_regressed_with_what_does_not_count_as_nan(root: Path) -> None:
    numbers = RNG.integers(0, 500, (1, 8, 8)).astype(np.int16)
    numbers[0, 0, :3], numbers[0, 1] = -9999, -1
    path = root / "masks" / "a.tif"
    tiff(path, numbers, nodata=-9999)
    plain = np.where(np.isin(numbers[0], (-9999, -1)), np.nan, numbers[0]).astype(float)
    np.testing.assert_array_equal(mask_of(root, label="target", ignore=-1), plain)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.01,), (5.0,)
    found = mask_of(root, label="target", ignore=-1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain * 0.01 + 5.0, rtol=1e-6)
    assert opened(root, label="target").labels.classes == ()


def test_a_mask_needs_its_classes(root: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "masks" / "a.png")
    refused(root, "data.classes is not set", "data.label=mask")
