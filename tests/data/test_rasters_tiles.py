"""Tiles of large images: what is cut, against slices of the whole; what is read for it; and how they are split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.data.readers.rasters.tiles import Tiling
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng()


def tiff(path: Path, pixels: Array, gsd: float = 10, **said: Any) -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    place = {"transform": from_origin(600000, 5200000, gsd, gsd), "crs": "EPSG:32632"}
    shape: Any = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name, **place, **said}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(pixels)
    return pixels


def opened(root: Path, tile: Any, split: str = "all", **words: Any) -> Rasters:
    size = tile if isinstance(tile, int) else tile.get("size")
    given = {"images": "images/{id}.tif", "sensor": "SENTINEL2:B04/B03", "size": size, "tile": tile, **words}
    return Rasters(str(root), split, **given)


def refused(act: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("edge", ["drop", "shift", "pad"])
@pytest.mark.parametrize(("size", "stride"), [(8, 8), (8, 5), (6, 9), (21, 21), (30, 7)])
def test_starts_cover_a_side_as_the_edge_says(edge: Any, size: int, stride: int) -> None:
    for side in range(1, 60):
        starts = Tiling(size, stride, edge).starts(side)
        assert starts == sorted(set(starts))
        covered = {pixel for start in starts for pixel in range(start, start + size)}
        assert edge == "pad" or all(pixel < side for pixel in covered)
        assert all(start < side for start in starts)
        whole = [start for start in range(0, side, stride) if start + size <= side]
        assert starts[: len(whole)] == whole
        if edge == "pad" and stride <= size:
            assert covered >= set(range(side))
        if edge == "shift" and side >= size:
            assert side - 1 in covered
        if edge == "drop":
            assert starts == whole


@pytest.mark.parametrize("edge", ["drop", "shift", "pad"])
@pytest.mark.parametrize("kind", ["strips", "tiles", "npy"])
def test_a_tile_is_a_slice_of_the_image_and_of_its_mask(tmp_path: Path, edge: str, kind: str) -> None:
    pixels, mask = (
        RNG.integers(1, 9000, (2, 37, 45)).astype(np.uint16),
        RNG.integers(0, 3, (1, 37, 45)).astype(np.uint8),
    )
    said = {"tiled": True, "blockxsize": 16, "blockysize": 16} if kind == "tiles" else {}
    tiff(tmp_path / "images" / "a.tif", pixels, **said)
    tiff(tmp_path / "masks" / "a.tif", mask, **said)
    words: dict[str, Any] = {"masks": "masks/{id}.tif", "classes": ["x", "y", "z"]}
    if kind == "npy":
        np.save(tmp_path / "images" / "a.npy", pixels)
        words["images"] = "images/{id}.npy"
    data = opened(tmp_path, {"size": 16, "overlap": 5, "edge": edge}, **words)
    assert data.names == [f"a#{r},{c}" for r, c in Tiling(16, 11, edge).of_image(37, 45)]  # type: ignore[arg-type]
    labels = data.read_labels(range(len(data)))["mask"]
    for sample, name, label in zip(data, data.names, labels, strict=True):
        row, column = map(int, name.partition("#")[2].split(","))
        image, own = np.zeros((2, 16, 16)), np.full((16, 16), 255)
        cut = pixels[:, row : row + 16, column : column + 16]
        image[:, : cut.shape[1], : cut.shape[2]] = cut / 1e4
        own[: cut.shape[1], : cut.shape[2]] = mask[0, row : row + 16, column : column + 16]
        np.testing.assert_allclose(sample["image"].double().numpy(), image, rtol=1e-6)
        assert sample["mask"].tolist() == own.tolist() == label.tolist()
        if kind != "npy":
            with rasterio.open(tmp_path / "images" / "a.tif") as file:
                window: Any = ((row, row + cut.shape[1]), (column, column + cut.shape[2]))
                assert data.bounds(name) == pytest.approx(
                    rasterio.windows.bounds(rasterio.windows.Window.from_slices(*window), file.transform)
                )


def test_a_tile_of_another_size_than_the_samples_is_fitted_only_where_it_is_said(tmp_path: Path) -> None:
    tiff(tmp_path / "images" / "a.tif", RNG.integers(1, 9000, (2, 32, 32)).astype(np.uint16))
    refused(lambda: opened(tmp_path, 16, size=8), "data.tile.size is 16, and data.size is 8", "data.fit")
    assert opened(tmp_path, 16, size=8, fit="resize")[3]["image"].shape == (2, 8, 8)
    small = opened(tmp_path, 16, size=8, fit="crop")[3]
    assert torch.equal(small["image"], opened(tmp_path, 16)[3]["image"][:, 4:12, 4:12])


def test_coarser_files_are_cut_alike_or_refused(tmp_path: Path) -> None:
    red = tiff(tmp_path / "fine" / "a.tif", RNG.integers(1, 9000, (1, 24, 24)).astype(np.uint16))
    swir = tiff(tmp_path / "coarse" / "a.tif", RNG.integers(1, 9000, (1, 12, 12)).astype(np.uint16), gsd=20)
    words = {"images": {"B04": "fine/{id}.tif", "B11": "coarse/{id}.tif"}, "sensor": "SENTINEL2:B04/B11"}
    data = opened(tmp_path, {"size": 8, "stride": 4}, **words)
    for name, sample in zip(data.names, data, strict=True):
        row, column = map(int, name.partition("#")[2].split(","))
        np.testing.assert_allclose(sample["image"][0], red[0, row : row + 8, column : column + 8] / 1e4, rtol=1e-6)
        cut = torch.tensor(swir[:, row // 2 : row // 2 + 4, column // 2 : column // 2 + 4] / 1e4)
        wanted = torch.nn.functional.interpolate(cut[None], (8, 8), mode="bilinear")[0, 0]
        np.testing.assert_allclose(sample["image"][1], wanted, rtol=1e-5)
    odd = opened(tmp_path, {"size": 8, "stride": 5}, **words)
    refused(lambda: odd[1], "coarse/a.tif", "do not begin and end with its pixels", "data.tile.size")


def test_tiles_are_of_the_finest_file_that_the_sensor_has(tmp_path: Path) -> None:
    """Whatever finer files there are: bands, masks, bounds and footprints of a tile are of the same ground."""
    tiff(tmp_path / "fine" / "a.tif", RNG.integers(1, 9000, (1, 32, 32)).astype(np.uint16))
    swir = tiff(tmp_path / "coarse" / "a.tif", RNG.integers(1, 9000, (1, 16, 16)).astype(np.uint16), gsd=20)
    mask = tiff(tmp_path / "masks" / "a.tif", RNG.integers(0, 3, (1, 16, 16)).astype(np.uint8), gsd=20)
    twice = tiff(tmp_path / "finer" / "a.tif", mask.repeat(2, 1).repeat(2, 2))
    patterns = {"B04": "fine/{id}.tif", "B11": "coarse/{id}.tif"}
    words: dict[str, Any] = {"sensor": "SENTINEL2:B11", "masks": "masks/{id}.tif", "classes": ["x", "y", "z"]}
    named = opened(tmp_path, 8, images=patterns, **words)
    listed = opened(tmp_path, 8, images=list(patterns.values()), bands=list(patterns), **words)
    for data in (named, listed):
        assert data.names == ["a#0,0", "a#0,8", "a#8,0", "a#8,8"]
        for name, sample in zip(data.names, data, strict=True):
            row, column = map(int, name.partition("#")[2].split(","))
            cut = slice(row, row + 8), slice(column, column + 8)
            np.testing.assert_allclose(sample["image"][0], swir[0][cut] / 1e4, rtol=1e-6)
            assert sample["mask"].tolist() == mask[0][cut].tolist()
            left, top = 600000 + 20 * column, 5200000 - 20 * row
            assert data.bounds(name) == (left, top - 160, left + 160, top)
            place = data.footprint(name)
            assert place is not None
            assert (min(place.x), min(place.y), max(place.x), max(place.y)) == data.bounds(name)
    words |= {"masks": "finer/{id}.tif", "images": patterns}
    refused(lambda: opened(tmp_path, 8, **words)[0], "mask of 32 x 32 px", "coarse/a.tif is 16 x 16 px", "fine/a.tif")
    whole = Rasters(str(tmp_path), "all", size=32, fit="resize", **words)[0]
    assert whole["mask"].tolist() == twice[0].tolist()
    both = opened(tmp_path, 8, **{**words, "sensor": "SENTINEL2:B04/B11"})
    assert both[5]["mask"].tolist() == twice[0, 8:16, 8:16].tolist()


def test_bounds_are_of_the_finest_file_whichever_is_first(tmp_path: Path) -> None:
    tiff(tmp_path / "fine" / "a.tif", RNG.integers(1, 9000, (1, 24, 24)).astype(np.uint16))
    tiff(tmp_path / "coarse" / "a.tif", RNG.integers(1, 9000, (1, 12, 12)).astype(np.uint16), gsd=20)
    images = {"B11": "coarse/{id}.tif", "B04": "fine/{id}.tif"}
    data = opened(tmp_path, 8, images=images, sensor="SENTINEL2:B04/B11")
    assert data.bounds("a#8,16") == (600160, 5199840, 600240, 5199920)
    (tmp_path / "fine" / "a.tif").unlink()
    np.save(tmp_path / "fine" / "a.npy", RNG.integers(1, 9000, (24, 24)).astype(np.uint16))  # which says no place
    images["B04"] = "fine/{id}.npy"
    data = opened(tmp_path, 8, images=images, sensor="SENTINEL2:B04/B11")
    assert data.bounds("a#8,16") == (600160, 5199840, 600240, 5199920)
    place = data.footprint("a#8,16")
    assert place is not None
    assert (min(place.x), min(place.y), max(place.x), max(place.y)) == data.bounds("a#8,16")


def test_only_the_blocks_of_a_tile_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "images" / "a.tif"
    pixels = RNG.integers(1, 9000, (2, 256, 256)).astype(np.uint16)
    tiff(path, pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    data = opened(tmp_path, 64)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])  # the last blocks are gone
    damaged = []
    for place, name in enumerate(data.names):
        row, column = map(int, name.partition("#")[2].split(","))
        try:
            with rasterio.open(path) as file:
                wanted = file.read(window=((row, row + 64), (column, column + 64)))
        except rasterio.errors.RasterioIOError:
            damaged.append(name)
            refused(lambda place=place: data[place], "a.tif cannot be read")
            continue
        assert (wanted == pixels[:, row : row + 64, column : column + 64]).all()
        np.testing.assert_allclose(data[place]["image"].numpy(), wanted / 1e4, rtol=1e-6)
    assert 1 <= len(damaged) <= 8


def test_blank_tiles_are_left_out_where_it_is_asked(tmp_path: Path) -> None:
    pixels = RNG.integers(1, 9000, (2, 32, 32)).astype(np.uint16)
    pixels[:, :16, :16] = 0
    pixels[:, 16:, 16:24] = 0
    pixels[0, :16, 16:] = 0  # of one band only
    tiff(tmp_path / "images" / "a.tif", pixels, nodata=0)
    assert len(opened(tmp_path, 16)) == 4
    assert opened(tmp_path, 16, skip_blank=1.0).names == ["a#0,16", "a#16,0", "a#16,16"]
    assert opened(tmp_path, 16, skip_blank=0.5).names == ["a#0,16", "a#16,0"]
    assert opened(tmp_path, 16, skip_blank=0.51, limit=1).names == ["a#0,16"]
    tiff(tmp_path / "images" / "a.tif", np.zeros_like(pixels), nodata=0)
    refused(lambda: opened(tmp_path, 16, skip_blank=1.0), "skip_blank=1 leaves no sample of all: give all other")
    refused(lambda: opened(tmp_path, 16, skip_blank=0.5), "skip_blank=0.5 leaves no sample of all: set it higher")


def test_tiles_of_an_image_are_in_one_split_and_those_of_blocks_apart(tmp_path: Path) -> None:
    for name in "abcdef":
        tiff(tmp_path / "images" / f"{name}.tif", RNG.integers(1, 9000, (2, 32, 32)).astype(np.uint16))
    rule = {"by": "hash", "val": 0.2, "test": 0.2}
    images = [
        {name[0] for name in opened(tmp_path, 16, split, split_by=rule).names} for split in ("train", "val", "test")
    ]
    assert sorted(map(len, images)) == [1, 1, 4]
    assert len(set.union(*images)) == 6
    tiff(tmp_path / "scene" / "s.tif", RNG.integers(1, 9000, (2, 512, 512)).astype(np.uint16))
    blocks = {"by": "blocks", "metres": 640, "apart": 150, "val": 0.2, "test": 0.2}
    words = {"images": "scene/{id}.tif", "split_by": blocks}
    boxes = {
        split: [data.bounds(name) for name in data.names]
        for split in ("train", "val", "test")
        for data in [opened(tmp_path, 16, split, **words)]
    }
    assert all(len(found) > 20 for found in boxes.values())
    for train in boxes["train"]:
        for other in boxes["val"] + boxes["test"]:
            assert train is not None
            assert other is not None
            gaps = max(other[0] - train[2], train[0] - other[2], 0), max(other[1] - train[3], train[1] - other[3], 0)
            assert np.hypot(*gaps) >= 150


def test_images_smaller_than_a_tile_and_settings_that_cannot_be_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiff(tmp_path / "images" / "a.tif", RNG.integers(1, 9000, (2, 32, 32)).astype(np.uint16))
    tiff(tmp_path / "images" / "b.tif", RNG.integers(1, 9000, (2, 8, 40)).astype(np.uint16))
    assert {name[0] for name in opened(tmp_path, 16).names} == {"a"}
    assert "1 of 2 images are smaller than data.tile.size=16 and give no tile (b first)" in caplog.text
    assert {name[0] for name in opened(tmp_path, {"size": 16, "edge": "pad"}).names} == {"a", "b"}
    refused(lambda: opened(tmp_path, {"size": 16, "strid": 3}), "no setting data.tile.strid", "did you mean stride")
    refused(lambda: opened(tmp_path, {"size": 16, "stride": 3, "overlap": 2}), "an overlap and a stride")
    refused(lambda: opened(tmp_path, {"size": 16, "overlap": 16}), "data.tile.overlap is 16", "below data.tile.size")
    refused(lambda: opened(tmp_path, {"size": 16, "edge": "wrap"}), "data.tile.edge is 'wrap'", "drop, shift or pad")
    refused(lambda: opened(tmp_path, {"size": 16, "stride": 0}), "data.tile.stride is 0")
    refused(
        lambda: Rasters(str(tmp_path), images="*.tif", sensor="SENTINEL2:B04", size=8, tile={"stride": 3}), "no size"
    )
