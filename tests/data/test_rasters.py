"""Images, masks and tables as people have them: every number against rasterio, Pillow, NumPy and h5py themselves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from satdifuser.data.bands import SENTINEL2
from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
RGB = "SENTINEL2:B04/B03/B02"


def digits(*shape: int, dtype: Any = np.uint16) -> Array:
    return np.random.default_rng().integers(1, 250 if dtype == np.uint8 else 9000, shape).astype(dtype)


def tiff(
    path: Path, pixels: Array, east: float | None = 600000, north: float = 5200000, gsd: float = 10, **said: Any
) -> Array:
    """A GeoTIFF of `[bands, h, w]`; `east=None` is one without a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    place = {} if east is None else {"transform": from_origin(east, north, gsd, gsd), "crs": "EPSG:32632"}
    shape: Any = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name, **place, **said}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(pixels)
    return pixels


def png(path: Path, pixels: Array) -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def opened(root: Path, split: str = "all", **words: Any) -> Rasters:
    return Rasters(str(root), split, **{"images": "images/*.tif", "sensor": RGB, "size": 8, **words})


def refused(act: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def agrees(image: torch.Tensor, wanted: Array) -> None:
    assert (image.dtype, tuple(image.shape)) == (torch.float32, wanted.shape)
    np.testing.assert_allclose(image.double().numpy(), wanted, rtol=1e-6, atol=1e-9)


# which files belong together


def test_masks_beside_images_are_tied_by_their_stars_or_by_id(tmp_path: Path) -> None:
    images = {n: tiff(tmp_path / "images" / f"{n}.tif", digits(3, 8, 8)) for n in ("a", "b.x", "c")}
    masks = {n: png(tmp_path / "masks" / f"{n}_gt.png", digits(8, 8) % 3).astype(int) for n in images}
    words = {"classes": ["x", "y", "z"]}
    for n in masks:
        png(tmp_path / "masks" / f"{n}_gt.png", masks[n].astype(np.uint8))
    by_star = opened(tmp_path, masks="masks/*_gt.png", **words)
    by_id = opened(tmp_path, images="images/{id}.tif", masks="masks/{id}_gt.png", **words)
    assert by_star.names == ["images/a.tif", "images/b.x.tif", "images/c.tif"]
    assert by_id.names == ["a", "b.x", "c"]
    for one, other, name in zip(by_star, by_id, images, strict=True):
        agrees(one["image"], images[name] / 10000)
        assert torch.equal(one["image"], other["image"])
        assert one["mask"].tolist() == other["mask"].tolist() == masks[name].tolist()
    assert torch.equal(by_id.read_labels([2, 0])["mask"], torch.tensor(np.stack([masks["c"], masks["a"]])))


def test_bands_are_found_by_name_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    pixels = tiff(tmp_path / "images" / "a.tif", digits(13, 8, 8))
    order = [*SENTINEL2.names[:8], "B09", "B10", "B11", "B12", "B8A"]  # as EuroSAT's files have them
    agrees(opened(tmp_path, bands=order, sensor="SENTINEL2")[0]["image"], pixels[[*range(8), 12, 8, 9, 10, 11]] / 1e4)
    agrees(opened(tmp_path, bands=order, sensor="SENTINEL2:B8A/red")[0]["image"], pixels[[12, 3]] / 1e4)
    other = opened(tmp_path, bands=[*SENTINEL2.names], sensor="SENTINEL2")
    assert other.identity != opened(tmp_path, bands=order, sensor="SENTINEL2").identity
    refused(lambda: opened(tmp_path, bands=order[:5])[0], "a.tif has 13 bands, but 5 are named", "data.bands")
    refused(lambda: opened(tmp_path)[0], "a.tif has 13 bands, but", "(B04, B03, B02)", "data.sensor")
    refused(lambda: opened(tmp_path, bands=["B02", "B03"]), "no file has B04 (red)", "data.sensor")
    refused(lambda: opened(tmp_path, bands=["B02", "B02", "B03", "B04"]), "B02 twice")


def test_one_file_a_band_and_several_files_at_several_resolutions_are_one_image(tmp_path: Path) -> None:
    red, green = (tiff(tmp_path / f"train_{b}" / f"{b}_p1.TIF", digits(1, 8, 8)) for b in ("red", "green"))
    swir = tiff(tmp_path / "coarse" / "p1_20m.tif", digits(2, 4, 4), gsd=20)
    images = {"green": "train_green/green_{id}.TIF", "red": "train_red/red_{id}.TIF", "B11/B12": "coarse/{id}_20m.tif"}
    data = opened(tmp_path, images=images, sensor="SENTINEL2:B04/B03/B12")
    image = data[0]["image"]
    agrees(image[:2], np.concatenate([red, green]) / 1e4)
    wanted = torch.nn.functional.interpolate(torch.tensor(swir[None, 1:] / 1e4), (8, 8), mode="bilinear")[0]
    agrees(image[2:], wanted.numpy())
    assert [path.name for path in data.files("p1")] == ["green_p1.TIF", "red_p1.TIF", "p1_20m.tif"]
    listed = opened(
        tmp_path, images=list(images.values()), bands=["B03", "B04", "B11", "B12"], sensor="SENTINEL2:B04/B12"
    )
    agrees(listed[0]["image"][0], red[0] / 1e4)
    agrees(listed[0]["image"][1], wanted[0].numpy())
    refused(lambda: opened(tmp_path, images=list(images.values()))[0], "has 1 + 1 + 2 bands, but", "data.bands")
    refused(lambda: opened(tmp_path, images=images, bands=["B04"]), "data.bands and the names in data.images")
    refused(lambda: opened(tmp_path, images={**images, "blue": "no/{id}.tif"}), "there is no folder no")


@pytest.mark.parametrize("shape", ["bhw", "hwb"])
@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_arrays_are_read_by_the_axis_that_has_their_bands_or_by_what_is_said(
    tmp_path: Path, kind: str, shape: str
) -> None:
    pixels = digits(3, 8, 8)
    stored = pixels if shape == "bhw" else pixels.transpose(1, 2, 0)
    (tmp_path / "images").mkdir()

    def keep(array: Array) -> str:
        if kind == "npy":
            np.save(tmp_path / "images" / "a.npy", array)
            return "images/*.npy"
        with h5py.File(tmp_path / "images" / "a.h5", "w") as file:
            file["deep/image"] = array
        return "images/*.h5:deep/image"

    images = keep(stored)
    agrees(opened(tmp_path, images=images)[0]["image"], pixels / 1e4)
    agrees(opened(tmp_path, images=images, size=4, fit="crop")[0]["image"], pixels[:, 2:6, 2:6] / 1e4)
    agrees(opened(tmp_path, images=keep(pixels[0]), sensor="SENTINEL2:B04")[0]["image"], pixels[:1] / 1e4)
    cube = digits(3, 3, 3)
    images = keep(cube)
    refused(lambda: opened(tmp_path, images=images, size=3)[0], "both ends of its shape", "data.axes to bhw or hwb")
    wanted = cube if shape == "bhw" else cube.transpose(2, 0, 1)
    agrees(opened(tmp_path, images=images, size=3, axes=shape)[0]["image"], wanted / 1e4)
    images = keep(digits(5, 8, 8))
    refused(lambda: opened(tmp_path, images=images)[0], "no end of its shape (5, 8, 8) is the 3 bands", "data.axes")
    if kind == "h5":
        refused(
            lambda: opened(tmp_path, images="images/*.h5")[0], "a.h5", "name one of them behind it", "a.h5:deep/image"
        )
        refused(lambda: opened(tmp_path, images="images/*.h5:other")[0], "no data set 'other': it has deep/image")


class Gadget:
    """What a hostile file would make a reader run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    marker = tmp_path / "ran"
    np.save(tmp_path / "images" / "a.npy", np.array([Gadget(marker)], dtype=object), allow_pickle=True)
    (tmp_path / "images" / "b.npy").write_bytes(pickle.dumps(Gadget(marker)))
    for place in (0, 1):
        refused(lambda place=place: opened(tmp_path, images="images/*.npy")[place], ".npy cannot be read as an image")
    assert not marker.exists()


def test_files_of_many_samples_give_one_for_each(tmp_path: Path) -> None:
    pixels, masks = digits(5, 3, 8, 8), digits(5, 8, 8) % 2
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["images"], file["masks"] = pixels, masks
    data = opened(tmp_path, images="{id}.h5:images", masks="{id}.h5:masks", stacked=True, classes=["a", "b"])
    assert data.names == [f"train#{n}" for n in range(5)]
    for sample, image, mask in zip(data, pixels, masks, strict=True):
        agrees(sample["image"], image / 1e4)
        assert sample["mask"].tolist() == mask.tolist()
    rule = {"by": "hash", "val": 0.2, "test": 0.2}
    parts = [
        opened(tmp_path, split, images="{id}.h5:images", stacked=True, split_by=rule)
        for split in ("train", "val", "test")
    ]
    assert [len(part) for part in parts] == [3, 1, 1]
    refused(lambda: opened(tmp_path, images="{id}.h5:images", stacked=True, tile=8), "data.stacked and data.tile")


def test_files_of_many_samples_hold_as_many(tmp_path: Path) -> None:
    np.save(tmp_path / "x_i.npy", digits(5, 3, 8, 8))
    np.save(tmp_path / "x_m.npy", digits(6, 8, 8) % 2)
    mask: dict[str, Any] = {"masks": "{id}_m.npy", "classes": ["a", "b"], "stacked": True}
    refused(lambda: opened(tmp_path, images="{id}_i.npy", **mask), "x_m.npy holds 6", "x_i.npy holds 5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["red"], file["green"], file["masks"] = digits(5, 8, 8), digits(4, 8, 8), digits(5, 8, 8) % 2
    images = {"B04": "{id}.h5:red", "B03": "{id}.h5:green"}
    words: dict[str, Any] = {"images": images, "sensor": "SENTINEL2:B04/B03", "stacked": True}
    refused(lambda: opened(tmp_path, **words), "y.h5:green holds 4", "y.h5:red holds 5")
    refused(lambda: opened(tmp_path, **words, masks="{id}.h5:masks"), "y.h5:green holds 4", "y.h5:red holds 5")
    only = {
        "images": {"B04": images["B04"]},
        "sensor": "SENTINEL2:B04",
        "masks": "{id}.h5:masks",
        "classes": ["a", "b"],
    }
    assert len(opened(tmp_path, **only, stacked=True)) == 5


# numbers


def test_what_the_file_says_of_its_numbers_counts_where_scaling_is_auto(tmp_path: Path) -> None:
    pixels = digits(3, 8, 8)
    pixels[:, 0, 0], pixels[1, 2, 2] = 0, 65535
    path = tmp_path / "images" / "a.tif"
    tiff(path, pixels, nodata=65535)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (2.75e-5,) * 3, (-0.2,) * 3
    with rasterio.open(path) as file:
        masked = file.read(masked=True)
        wanted = masked.astype(float) * np.array(file.scales)[:, None, None] + np.array(file.offsets)[:, None, None]
    wanted = np.where(masked.mask | (pixels == 0), 0, wanted.data)
    agrees(opened(tmp_path)[0]["image"], wanted)
    said = opened(tmp_path, scaling={"numbers": "dn", "unit": 5000})[0]["image"]
    agrees(said, np.where(masked.mask | (pixels == 0), 0, pixels / 5000))
    assert opened(tmp_path, scaling={"bands": {"B03": "as_is"}})[0]["image"][1, 5, 5] == float(pixels[1, 5, 5])


def test_a_fourth_band_that_is_tagged_alpha_is_data_where_it_is_said_so(tmp_path: Path) -> None:
    pixels = digits(4, 8, 8, dtype=np.uint8)
    pixels[3, 4:] = 0
    path = tmp_path / "images" / "a.tif"
    tiff(path, pixels)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    words: dict[str, Any] = {"scaling": {"numbers": "8bit", "white": 1.0}}
    agrees(opened(tmp_path, alpha="data", sensor="NAIP", **words)[0]["image"], pixels / 255)
    refused(lambda: opened(tmp_path, sensor="NAIP", **words)[0], "band 4 is alpha", "data.alpha=data")
    agrees(opened(tmp_path, **words)[0]["image"], np.where(pixels[3] == 0, 0, pixels[:3]) / 255)


def test_no_data_of_settings_and_of_files_are_both_zero(tmp_path: Path) -> None:
    pixels = np.random.default_rng().normal(0.2, 0.05, (3, 8, 8)).astype(np.float32)
    pixels[:, 0] = -9999
    pixels[2, 1] = np.nan
    pixels[:, 2] = -1
    tiff(tmp_path / "images" / "a.tif", pixels, nodata=-1)
    image = opened(tmp_path, nodata=-9999, nan="nodata")[0]["image"]
    agrees(image, np.where((pixels == -9999) | np.isnan(pixels) | (pixels == -1), 0, pixels))


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_images_of_several_sizes_become_one_and_masks_with_them(tmp_path: Path, fit: str) -> None:
    for number, shape in enumerate([(8, 8), (12, 9), *([] if fit == "crop" else [(6, 11)])]):
        tiff(tmp_path / "images" / f"{number}.tif", digits(3, *shape))
        png(tmp_path / "masks" / f"{number}.png", digits(*shape, dtype=np.uint8) % 2)
    data = opened(tmp_path, masks="masks/*.png", classes=["a", "b"], fit=fit)
    for number, sample in enumerate(data):
        with rasterio.open(tmp_path / "images" / f"{number}.tif") as file:
            image = file.read() / 1e4
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{number}.png"))
        assert (tuple(sample["image"].shape), tuple(sample["mask"].shape)) == ((3, 8, 8), (8, 8))
        if fit == "resize":
            rows, columns = (((np.arange(8) + 0.5) * side / 8).astype(int) for side in mask.shape)
            assert sample["mask"].tolist() == mask[rows][:, columns].tolist()
            continue
        top, left = (max(0, (side - 8) // 2) for side in mask.shape)
        cut, own = image[:, top : top + 8, left : left + 8], mask[top : top + 8, left : left + 8]
        height, width = own.shape
        agrees(sample["image"][:, :height, :width], cut)
        assert sample["mask"][:height, :width].tolist() == own.tolist()
        assert (sample["image"][:, height:] == 0).all()
        assert (sample["image"][:, :, width:] == 0).all()
        assert (sample["mask"][height:] == 255).all()
        assert (sample["mask"][:, width:] == 255).all()


# where they lie


def test_bounds_are_rasterios_and_what_does_not_lie_on_its_image_is_refused(tmp_path: Path) -> None:
    tiff(tmp_path / "images" / "a.tif", digits(3, 8, 8))
    data = opened(tmp_path)
    with rasterio.open(tmp_path / "images" / "a.tif") as file:
        assert data.bounds("images/a.tif") == tuple(file.bounds)
        assert data.crs("images/a.tif") == file.crs
    mask = {"masks": "masks/*.tif", "classes": ["a", "b"]}
    for east, word in ((600004, None), (600010, "it covers 600010"), (None, None)):
        tiff(tmp_path / "masks" / "a.tif", digits(1, 8, 8, dtype=np.uint8) % 2, east=east)
        if word is None:
            assert opened(tmp_path, **mask)[0]["mask"].shape == (8, 8)
        else:
            refused(lambda: opened(tmp_path, **mask)[0], "masks/a.tif does not lie on its image", word, "data.exclude")
            refused(lambda: opened(tmp_path, **mask).read_labels([0]), "does not lie on its image")
    tiff(tmp_path / "masks" / "a.tif", digits(1, 8, 8, dtype=np.uint8) % 2, crs="EPSG:32633")
    refused(lambda: opened(tmp_path, **mask)[0], "reference system is EPSG:32633, not EPSG:32632")
    assert opened(tmp_path, **mask, georeference="ignore")[0]["mask"].shape == (8, 8)
    png(tmp_path / "images" / "b.png", digits(8, 8, 3, dtype=np.uint8))
    assert opened(tmp_path, images="images/*.png").bounds("images/b.png") is None


@pytest.mark.parametrize("way", [(10, 0, 0, 0, 10, -80), (-10, 0, 80, 0, -10, 0), (0, 10, 0, -10, 0, 0)])
def test_a_mask_or_a_band_that_is_flipped_or_turned_does_not_lie_on_its_image(
    tmp_path: Path, way: tuple[float, ...]
) -> None:
    a, b, c, d, e, f = way
    other = {"transform": rasterio.Affine(a, b, 600000 + c, d, e, 5200000 + f)}
    tiff(tmp_path / "images" / "a.tif", digits(1, 8, 8))
    tiff(tmp_path / "masks" / "a.tif", digits(1, 8, 8, dtype=np.uint8) % 2, **other)
    tiff(tmp_path / "green" / "a.tif", digits(1, 8, 8), **other)
    with rasterio.open(tmp_path / "images" / "a.tif") as one, rasterio.open(tmp_path / "masks" / "a.tif") as two:
        corners = [two.transform @ corner for corner in ((0, 0), (8, 8))]
        assert tuple(one.bounds) == (*map(min, *corners), *map(max, *corners))  # of the same ground
    words: dict[str, Any] = {"sensor": "SENTINEL2:B04", "images": "images/{id}.tif"}
    masked = opened(tmp_path, **words, masks="masks/{id}.tif", classes=["a", "b"])
    refused(lambda: masked[0], "masks/a.tif does not lie on its image", "flipped or turned")
    words = {"sensor": "SENTINEL2:B04/B03", "images": {"B04": "images/{id}.tif", "B03": "green/{id}.tif"}}
    refused(lambda: opened(tmp_path, **words)[0], "green/a.tif does not lie on its image", "flipped or turned")
    both = {**words, "images": {"B04": "masks/{id}.tif", "B03": "green/{id}.tif"}, "size": 8}
    assert opened(tmp_path, **both)[0]["image"].shape == (2, 8, 8)


@pytest.mark.parametrize("order", [("B01", "B04"), ("B04", "B01")])
def test_a_mask_lies_on_the_finest_file_whichever_is_first(tmp_path: Path, order: tuple[str, str]) -> None:
    tiff(tmp_path / "B01" / "a.tif", digits(1, 4, 4), gsd=60)
    tiff(tmp_path / "B04" / "a.tif", digits(1, 24, 24))
    words: dict[str, Any] = {"images": {band: f"{band}/{{id}}.tif" for band in order}, "size": 24}
    words |= {"sensor": "SENTINEL2:B04/B01", "masks": "masks/{id}.tif", "classes": ["a", "b"]}
    for east, north in ((30, 0), (5, 0), (0, -5), (5, -5), (4, 4), (0, 0)):
        mask = digits(1, 24, 24, dtype=np.uint8) % 2
        tiff(tmp_path / "masks" / "a.tif", mask, east=600000 + east, north=5200000 + north)
        if east < 5 and north > -5:
            assert opened(tmp_path, **words)[0]["mask"].tolist() == mask[0].tolist()
        else:
            refused(lambda: opened(tmp_path, **words)[0], "masks/a.tif does not lie on its image", "B04/a.tif")
    tiff(tmp_path / "B01" / "a.tif", digits(1, 4, 4), gsd=60, east=600020)  # a third of its own pixel
    assert opened(tmp_path, **words)[0]["image"].shape == (2, 24, 24)
    assert opened(tmp_path, **words).bounds("a") == (600000, 5199760, 600240, 5200000)
    tiff(tmp_path / "B01" / "a.tif", digits(1, 4, 4), gsd=60, east=600040)
    refused(lambda: opened(tmp_path, **words)[0], "does not lie on its image", "B01/a.tif", "B04/a.tif")


# what is wrong is said in one line


def test_patterns_that_match_nothing_or_too_much_are_one_line(tmp_path: Path) -> None:
    tiff(tmp_path / "train" / "images" / "a.tif", digits(3, 8, 8))
    tiff(tmp_path / "val" / "images" / "a.tif", digits(3, 8, 8))
    refused(lambda: opened(tmp_path), "data.images=images/*.tif matches no file", "no folder images")
    refused(lambda: opened(tmp_path, images="train/images/*.png"), "matches no file", "has a.tif")
    refused(lambda: opened(tmp_path, images="*/images/{id}.tif"), "gives the id a to", "train/images/a.tif", "write *")
    assert opened(tmp_path, images="*/images/*.tif").names == ["train/images/a.tif", "val/images/a.tif"]
    refused(lambda: opened(tmp_path, images="/x/*.tif"), "below data.root")
    refused(lambda: opened(tmp_path, images="{red: red/{id}.tif}"), "is one pattern", "quote those in it")
    refused(lambda: opened(tmp_path, images="../*.tif"), "below data.root")
    png(tmp_path / "masks" / "a.png", digits(8, 8, dtype=np.uint8))
    refused(lambda: opened(tmp_path, images="train/images/*.tif", masks="masks/{id}.png"), "no field in common", "{id}")
    words = {"images": "train/images/{id}.tif", "masks": "masks/{id}_*.png", "classes": ["a"]}
    png(tmp_path / "masks" / "a_1.png", digits(8, 8, dtype=np.uint8))
    png(tmp_path / "masks" / "a_2.png", digits(8, 8, dtype=np.uint8))
    refused(lambda: opened(tmp_path, **words), "matches masks/a_1.png and masks/a_2.png for the same id=a", "narrower")


def test_an_image_without_its_mask_is_named_and_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        tiff(tmp_path / "images" / f"{name}.tif", digits(3, 8, 8))
    for name in "bcx":
        png(tmp_path / "masks" / f"{name}.png", digits(8, 8, dtype=np.uint8) % 2)
    words = {"images": "images/{id}.tif", "masks": "masks/{id}.png", "classes": ["u", "v"]}
    refused(
        lambda: opened(tmp_path, **words), "1 of 3 images have no mask", "images/a.tif first", "data.exclude", "is a)"
    )
    assert opened(tmp_path, **words, exclude=["a"]).names == ["b", "c"]
    assert opened(tmp_path, **words, exclude=["images/a.tif"]).names == ["b", "c"]
    assert "matches 1 masks that belong to no image" in caplog.text
    refused(lambda: opened(tmp_path, **words, exclude=["a", "bb"]), "data.exclude has bb", "did you mean b")
    png(tmp_path / "masks" / "b.png", digits(9, 8, dtype=np.uint8) % 2)
    line = ["masks/b.png is a mask of 9 x 8 px", "images/b.tif is 8 x 8 px", "data.exclude: [b]", "on_error=skip"]
    refused(lambda: opened(tmp_path, **words, exclude=["a"])[0], *line)
    refused(lambda: opened(tmp_path, **words, exclude=["a"]).read_labels([0]), *line)


def test_the_file_that_is_damaged_is_the_one_that_is_named(tmp_path: Path) -> None:
    for band in ("red", "green"):
        tiff(tmp_path / band / "a.tif", digits(1, 8, 8))
    (tmp_path / "green" / "a.tif").write_bytes(b"II*\0 no tiff")
    images = {"red": "red/{id}.tif", "green": "green/{id}.tif"}
    refused(lambda: opened(tmp_path, images=images, sensor="SENTINEL2:B04/B03")[0], "green/a.tif cannot be read")
    assert len(opened(tmp_path, images=images, sensor="SENTINEL2:B04")) == 1


def test_labels_that_nothing_gives_and_splits_that_are_empty_are_one_line(tmp_path: Path) -> None:
    tiff(tmp_path / "images" / "a.tif", digits(3, 8, 8))
    assert opened(tmp_path).label is None
    assert set(opened(tmp_path)[0]) == {"id", "image"}
    refused(lambda: opened(tmp_path, label="mask"), "data.label is mask, and nothing says it", "data.masks")
    refused(lambda: opened(tmp_path, "val"), "no samples for val: of 1", "train: 1, val: 0, test: 0")
    refused(lambda: opened(tmp_path, "dev"), "data.split is 'dev'", "train, val, test, all")
    refused(lambda: opened(tmp_path)[0] and opened(tmp_path, size=9)[0], "a.tif is 8 x 8 px", "data.fit=crop")


# labels and splits of whole images


def test_a_class_in_the_pattern_is_the_label(tmp_path: Path) -> None:
    for name in ("wood/1", "wood/2", "lake/1"):
        tiff(tmp_path / f"{name}.tif", digits(3, 8, 8))
    data = opened(tmp_path, images="{class}/*.tif")
    assert data.labels.classes == ("lake", "wood")
    assert [(sample["id"], int(sample["label"])) for sample in data] == [
        ("lake/1.tif", 0),
        ("wood/1.tif", 1),
        ("wood/2.tif", 1),
    ]
    assert data.read_labels([0, 2])["label"].tolist() == [0, 1]
    merged = opened(tmp_path, images="{class}/*.tif", classes=["wood", "lake"])
    assert merged.read_labels([0, 1])["label"].tolist() == [1, 0]


@pytest.mark.parametrize("images", ["*/images/*.tif", "{split}/images/{id}.tif"])
def test_folders_are_splits_even_where_ids_have_none(tmp_path: Path, images: str) -> None:
    for part, names in {"training": "abc", "validation": "de", "test": "f"}.items():
        for name in names:
            tiff(tmp_path / part / "images" / f"{name}.tif", digits(3, 8, 8))
    found = {split: opened(tmp_path, split, images=images, split_by="folder") for split in ("train", "val", "test")}
    assert {split: [Path(name).stem for name in data.names] for split, data in found.items()} == {
        "train": ["a", "b", "c"],
        "val": ["d", "e"],
        "test": ["f"],
    }


def test_a_table_gives_labels_numbers_metadata_and_splits(tmp_path: Path) -> None:
    rows = ["id,kind,tags,height,part,lon,lat,gsd,cloud_cover,date"]
    for n, name in enumerate("abcd"):
        tiff(tmp_path / "images" / f"{name}.tif", digits(3, 8, 8))
        words = [["wood", "lake"][n % 2], ["x;y", "y", "x", "x"][n], f"{n}.5", ["train", "train", "val", "test"][n]]
        rows.append(",".join([f"{name}.tif", *words, f"{n},50,10,0.2,2020-02-0{n + 1}"]))
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    path = str(tmp_path / "labels.csv")

    def table(**words: Any) -> dict[str, Any]:
        return {"images": "images/{id}.tif", "table": {"path": path, "key": "id", **words}}

    data = opened(tmp_path, **table(label="kind"))
    assert (data.labels.classes, [int(s["label"]) for s in data]) == (("lake", "wood"), [1, 0, 1, 0])
    many = opened(tmp_path, **table(multilabel="tags"))
    assert (many.labels.classes, [s["multilabel"].tolist() for s in many]) == (
        ("x", "y"),
        [[1, 1], [0, 1], [1, 0], [1, 0]],
    )
    assert [float(s["target"]) for s in opened(tmp_path, **table(target="height"))] == [0.5, 1.5, 2.5, 3.5]
    seven = opened(tmp_path, **table(metadata=True))[2]["metadata"].tolist()
    assert seven == pytest.approx([2, 50, 10, 0.2, 2020, 2, 3])
    by_column = opened(tmp_path, "val", **table(label="kind"), split_by={"by": "column", "column": "part"})
    assert by_column.names == ["c"]
    assert data.identity != many.identity
    refused(lambda: opened(tmp_path, **table(label="kind", target="height")), "data.table has label and target")
    refused(lambda: opened(tmp_path, **table(label="kind"), label="target"), "data.label is target, but data.table")
    refused(lambda: opened(tmp_path, **table(lable="kind")), "no setting data.table.lable", "did you mean label")
    refused(lambda: opened(tmp_path, images="images/{id}.tif", table={"label": "kind"}), "data.table has no path")


def test_the_identity_is_of_samples_and_not_of_where_they_lie(tmp_path: Path) -> None:
    for root in ("one", "other"):
        rng = np.random.default_rng(3)
        for name in "ab":
            tiff(tmp_path / root / "images" / f"{name}.tif", rng.integers(1, 9000, (3, 8, 8)).astype(np.uint16))
            png(tmp_path / root / "masks" / f"{name}.png", rng.integers(0, 2, (8, 8)).astype(np.uint8))
    words: dict[str, Any] = {"masks": "masks/*.png", "classes": ["a", "b"]}
    one, other = (opened(tmp_path / root, **words).identity for root in ("one", "other"))
    assert one == other
    changed = [
        {"exclude": ["images/a.tif"]},
        {"tile": {"size": 4}, "size": 4},
        {"tile": {"size": 4, "stride": 2}, "size": 4},
    ]
    changed += [
        {"alpha": "data"},
        {"classes": ["b", "a"]},
        {"ignore": 7},
        {"nodata": 3},
        {"scaling": "dn"},
        {"limit": 1},
    ]
    found = [one, *(opened(tmp_path / "one", **{**words, **own}).identity for own in changed)]
    png(tmp_path / "one" / "masks" / "b.png", digits(8, 8, dtype=np.uint8) % 2)
    found.append(opened(tmp_path / "one", **words).identity)
    assert all(first != second for i, first in enumerate(found) for second in found[:i])
