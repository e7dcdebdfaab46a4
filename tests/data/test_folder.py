"""Trees of images in real formats: reflectance against plain arithmetic, labels, sizes, and files that are no good."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import zarr
from PIL import Image
from rasterio.transform import from_origin

from satdifuser.cli import main
from satdifuser.data.bands import SENTINEL2, SENTINEL2_RGB, Sensor
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

Array = np.ndarray[Any, Any]


def bytes_of(*shape: int) -> Array:
    return np.random.default_rng().integers(0, 256, shape, dtype=np.uint8)


def digits(*shape: int) -> Array:
    return np.random.default_rng().integers(1, 12000, shape, dtype=np.uint16)


def picture(path: Path, pixels: Array | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bytes_of(8, 8, 3) if pixels is None else pixels).save(path, **options)


def raster(path: Path, pixels: Array, **options: Any) -> None:
    bands, height, width = pixels.shape
    place: Any = {"transform": from_origin(600000, 5200000, 10, 10), "crs": "EPSG:32632"}
    shape: Any = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype.name}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **options) as file:
        file.write(pixels)


def deep_png(path: Path, pixels: Array, colour: int, clear: int | None = None) -> None:
    """A PNG of 16 bits, written by hand: Pillow writes only greyscale of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    transparent = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    parts = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def opened(root: Path, split: str = "all", bands: int = 3, **options: Any) -> ImageFolder:
    """The images below a root, which have so many bands and 8 x 8 px unless a size is given."""
    sensor = Sensor("a sensor", SENTINEL2.bands[:bands])
    return ImageFolder(str(root), split, sensor=sensor, **{"size": 8, **options})


def only(root: Path, **options: Any) -> torch.Tensor:
    """The image of a folder of one."""
    data = opened(root, **options)
    assert len(data) == 1
    return data[0]["image"]


def agrees(image: torch.Tensor, wanted: Array) -> None:
    assert image.dtype == torch.float32
    assert tuple(image.shape) == wanted.shape
    np.testing.assert_allclose(image.double().numpy(), wanted, rtol=1e-6, atol=0)


def refused(root: Path, *words: str, read: bool = False, **options: Any) -> None:
    """Opening the folder (or reading its first image) ends in one line with all the words."""
    data = opened(root, **options) if read else None
    with pytest.raises(UserError) as caught:
        data[0] if data else opened(root, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# what the numbers of a file become


@pytest.mark.parametrize("white", [0.275, 1.0])
def test_eight_bits_are_shares_of_white(tmp_path: Path, white: float) -> None:
    pixels = bytes_of(8, 8, 3)
    picture(tmp_path / "a.png", pixels)
    image = only(tmp_path, scaling={"numbers": "auto", "white": white})
    agrees(image, pixels.transpose(2, 0, 1).astype(float) * white / 255)
    for x, y, band in ((0, 0, 0), (7, 5, 2), (3, 4, 1)):
        assert image[band, y, x].item() == pytest.approx(int(pixels[y, x, band]) / 255 * white, rel=1e-6)


def test_a_jpeg_is_near_what_was_saved_and_its_bands_are_red_green_blue(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", np.full((16, 16, 3), (200, 100, 50), np.uint8), quality=95)
    image = only(tmp_path, scaling={"numbers": "auto", "white": 1.0}, size=16)
    assert image.shape == (3, 16, 16)
    assert (image.mean((1, 2)) * 255).tolist() == pytest.approx([200, 100, 50], abs=3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_greyscale_has_one_band(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((8, 8), 90, np.uint8) if suffix == "jpg" else bytes_of(8, 8)
    picture(tmp_path / f"a.{suffix}", pixels)
    agrees(only(tmp_path, bands=1), pixels[None].astype(float) * 0.275 / 255)


def test_a_palette_gives_the_colours_that_it_stands_for(tmp_path: Path) -> None:
    colours, numbers = bytes_of(256, 3), bytes_of(8, 8)
    paletted = Image.fromarray(numbers)
    paletted.putpalette(colours.tobytes())
    paletted.save(tmp_path / "a.png")
    agrees(only(tmp_path), colours[numbers].transpose(2, 0, 1).astype(float) * 0.275 / 255)


def test_what_is_wholly_transparent_is_no_data(tmp_path: Path) -> None:
    pixels, numbers, colours = bytes_of(8, 8, 4), bytes_of(8, 8) % 4, bytes_of(4, 3)
    pixels[..., 3] = np.random.default_rng().choice([0, 1, 128, 255], (8, 8))
    picture(tmp_path / "rgba.png", pixels)
    paletted = Image.fromarray(numbers)
    paletted.putpalette(colours.tobytes())
    paletted.save(tmp_path / "palette.png", transparency=2)
    keyed = np.full((8, 8, 3), (9, 8, 7), np.uint8)
    keyed[3, 5] = (10, 11, 12)
    picture(tmp_path / "keyed.png", keyed, transparency=(10, 11, 12))
    wanted = {
        "rgba.png": np.where(pixels[..., 3:] == 0, 0, pixels[..., :3]),
        "palette.png": np.where(numbers[..., None] == 2, 0, colours[numbers]),
        "keyed.png": np.where(keyed == (10, 11, 12), 0, keyed),
    }
    data = opened(tmp_path)
    assert data.names == sorted(wanted)
    for sample in data:
        agrees(sample["image"], wanted[sample["id"]].transpose(2, 0, 1).astype(float) * 0.275 / 255)


def test_transparent_greyscale_has_one_band_too(tmp_path: Path) -> None:
    alpha = np.stack([bytes_of(8, 8), np.random.default_rng().choice([0, 255], (8, 8))], -1).astype(np.uint8)
    picture(tmp_path / "alpha.png", alpha)
    keyed = bytes_of(8, 8) % 4
    picture(tmp_path / "keyed.png", keyed, transparency=2)
    first, second = opened(tmp_path, scaling={"numbers": "auto", "white": 1.0}, bands=1)
    agrees(first["image"], np.where(alpha[..., 1] == 0, 0, alpha[..., 0])[None] / 255)
    agrees(second["image"], np.where(keyed == 2, 0, keyed)[None] / 255)


@pytest.mark.parametrize("digital", [10000.0, 65535.0])
def test_a_png_of_16_bits_is_in_digital_numbers(tmp_path: Path, digital: float) -> None:
    pixels = np.random.default_rng().integers(0, 65536, (8, 8), dtype=np.uint16)
    picture(tmp_path / "a.png", pixels)
    agrees(only(tmp_path, scaling={"numbers": "auto", "unit": digital}, bands=1), pixels[None].astype(float) / digital)


def test_a_transparent_number_of_16_bits_is_no_data(tmp_path: Path) -> None:
    pixels = np.array([[300, 65535], [7, 12000]], np.uint16)
    deep_png(tmp_path / "a.png", pixels, colour=0, clear=65535)
    agrees(only(tmp_path, bands=1, size=2), np.array([[[300, 0], [7, 12000]]]) / 10000)


@pytest.mark.parametrize(("bands", "colour"), [(2, 4), (3, 2), (4, 6)])
def test_a_png_of_16_bits_and_several_bands_is_refused_rather_than_read_with_8(
    tmp_path: Path, bands: int, colour: int
) -> None:
    deep_png(tmp_path / "deep.png", digits(8, 8, bands), colour)
    refused(tmp_path, "deep.png", "16 bits", "GeoTIFF", read=True)


@pytest.mark.parametrize(("dtype", "unit"), [("uint8", 255 / 0.275), ("uint16", 10000), ("int16", 10000)])
def test_whole_numbers_of_a_geotiff_are_scaled_by_their_kind(tmp_path: Path, dtype: str, unit: float) -> None:
    pixels = (digits(13, 8, 8) % 250).astype(dtype)
    raster(tmp_path / "a.tif", pixels, compress="deflate")
    agrees(only(tmp_path, bands=13), pixels.astype(float) / unit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_point_is_reflectance_already(tmp_path: Path, dtype: str) -> None:
    pixels = np.random.default_rng().normal(0.2, 0.1, (4, 8, 8)).astype(dtype)
    raster(tmp_path / "a.tif", pixels)
    agrees(only(tmp_path, scaling={"numbers": "auto", "white": 0.5, "unit": 7.0}, bands=4), pixels.astype(float))


def test_what_a_geotiff_says_is_no_data_is_zero(tmp_path: Path) -> None:
    numbers = digits(13, 8, 8)
    numbers[:, 2:4] = 65535
    numbers[5, 0, 0] = 65535
    floating, signed = numbers / np.float32(65536), (numbers % 500).astype(np.int16)
    signed[numbers == 65535] = -9999
    floating[numbers == 65535] = np.nan
    raster(tmp_path / "a.tif", numbers, nodata=65535)
    raster(tmp_path / "b.tif", signed, nodata=-9999)
    raster(tmp_path / "c.tif", floating, nodata=np.nan)
    a, b, c = opened(tmp_path, bands=13)
    agrees(a["image"], np.where(numbers == 65535, 0, numbers) / 10000)
    agrees(b["image"], np.where(numbers == 65535, 0, signed) / 10000)
    agrees(c["image"], np.where(numbers == 65535, 0, floating))


# which files, and of which class


def test_the_first_folder_is_the_class_and_the_path_is_the_id(tmp_path: Path) -> None:
    names = ["Forest/1.jpg", "Forest/deep/er/2.png", "River/north/1.jpg", "crops/1.png"]
    for name in names:
        picture(tmp_path / name)
    data = opened(tmp_path)
    assert data.labels.classes == ("Forest", "River", "crops")
    assert len(set(data.labels.colours)) == 3
    assert [data.sample_id(index) for index in range(len(data))] == [sample["id"] for sample in data] == names
    labels = [sample["label"] for sample in data]
    assert [label.item() for label in labels] == [0, 0, 1, 2]
    assert {label.dtype for label in labels} == {torch.int64}
    assert {label.shape for label in labels} == {()}


def test_named_classes_count_alone_and_in_their_order(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "c/1.png", "loose.png"):
        picture(tmp_path / name)
    data = opened(tmp_path, classes=["c", "a"])
    assert data.labels.classes == ("c", "a")
    assert [(sample["id"], sample["label"].item()) for sample in data] == [("a/1.png", 1), ("c/1.png", 0)]


def test_classes_may_be_named_by_numbers(tmp_path: Path) -> None:
    for name in ("1/x.png", "2/x.png"):
        picture(tmp_path / name)
    assert opened(tmp_path, classes=[2, 1]).labels.classes == ("2", "1")  # as data.classes=[2,1] gives them


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        picture(tmp_path / name)
    (tmp_path / "notes").mkdir()
    data = opened(tmp_path)
    assert data.labels.classes == ()
    assert [set(sample) for sample in data] == [{"id", "image"}] * 2
    assert data.names == ["a.jpg", "b.png"]


def test_hidden_files_hidden_folders_and_other_suffixes_are_no_images(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/.2.png", "a/.ipynb_checkpoints/3.png", ".cache/4.png", "a/deep/._5.jpg"):
        picture(tmp_path / name)
    for name in ("a/readme.txt", "a/png", "a/6.png.aux.xml", "b/labels.csv", "index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    (tmp_path / "a" / "folder.png").mkdir()
    data = opened(tmp_path)
    assert data.names == ["a/1.png"]
    assert data.labels.classes == ("a",)


@pytest.mark.parametrize("suffix", ["JPG", "JPEG", "PNG", "jpeg", "TIF", "TIFF", "tiff"])
def test_suffixes_count_in_either_case(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a" / f"1.{suffix}"
    if suffix.lower().startswith("tif"):
        raster(path, digits(3, 8, 8))
    else:
        picture(path)
    assert only(tmp_path).shape == (3, 8, 8)


def test_the_splits_are_those_of_the_rule_and_a_class_without_files_in_one_is_still_known(tmp_path: Path) -> None:
    for name in [f"many/{i}.png" for i in range(9)] + ["few/0.png"]:
        picture(tmp_path / name)
    splits = {split: opened(tmp_path, split, val=0.2, test=0.3) for split in ("train", "val", "test", "all")}
    assert {split: len(data) for split, data in splits.items()} == {"train": 5, "val": 2, "test": 3, "all": 10}
    parts = [name for split in ("train", "val", "test") for name in splits[split].names]
    assert sorted(parts) == splits["all"].names
    assert {data.labels.classes for data in splits.values()} == {("few", "many")}
    assert all(sample["label"] == 1 for sample in splits["val"])


def test_what_is_excluded_leaves_its_split_and_moves_nothing_else(tmp_path: Path) -> None:
    for number in range(1, 21):
        for kind in ("A", "B"):
            picture(tmp_path / kind / f"{kind}_{number}.png")
    given: dict[str, Any] = {"sensor": SENTINEL2_RGB, "size": 8, "val": 0.2, "test": 0.2}
    out = {f"{kind}/{kind}_{number}.png" for kind in ("A", "B") for number in range(1, 15)}
    for split in ("train", "val", "test", "all"):
        whole = ImageFolder(str(tmp_path), split, **given)
        part = ImageFolder(str(tmp_path), split, exclude=["*/*_[1-9].png", "*/*_1[0-4].png"], **given)
        assert part.names == [name for name in whole.names if name not in out]
        assert part.identity != whole.identity
    with pytest.raises(UserError, match=r"data\.exclude has C/\*, which fits the id of no image: ids are as A/A_1"):
        ImageFolder(str(tmp_path), exclude=["C/*"], **given)
    with pytest.raises(UserError, match=r"of each class leave none without data\.exclude"):
        ImageFolder(str(tmp_path), exclude=["*"], **given)


def test_an_index_beyond_the_length_ends_iteration(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    data = opened(tmp_path)
    for index in (1, -1):
        with pytest.raises(IndexError):
            data[index]


# sizes


@pytest.mark.parametrize(("height", "width"), [(9, 12), (8, 11), (7, 7), (7, 10)])
def test_a_crop_is_the_middle(tmp_path: Path, height: int, width: int) -> None:
    pixels = digits(2, height, width)
    raster(tmp_path / "a.tif", pixels)
    y, x = int((height - 7) / 2), int((width - 7) / 2)
    agrees(only(tmp_path, size=7, fit="crop", bands=2), pixels[:, y : y + 7, x : x + 7] / 10000)


@pytest.mark.parametrize("shape", [(9, 4), (8, 9), (7, 8), (16, 16)])
def test_without_fitting_an_image_of_another_size_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    raster(tmp_path / "a.tif", digits(3, *shape))
    size = [f"data.size={shape[0]}"] if shape[0] == shape[1] else []
    refused(tmp_path, "a.tif", f"{shape[0]} x {shape[1]} px", "data.size is 8", "data.fit=crop", *size, read=True)


def test_resizing_larger_is_bilinear_and_smaller_is_an_average(tmp_path: Path, slow: Any) -> None:
    pixels = digits(3, 5, 6)
    raster(tmp_path / "small" / "a.tif", pixels)
    wanted = slow.resize(pixels / 10000, (11, 11))
    np.testing.assert_allclose(only(tmp_path / "small", size=11, fit="resize").numpy(), wanted, atol=1e-5)
    lines = np.zeros((1, 32, 32), np.uint16)
    lines[:, ::4] = 10000  # sampling without averaging would see all of them, or none
    raster(tmp_path / "lines" / "a.tif", lines)
    assert only(tmp_path / "lines", size=8, fit="resize", bands=1)[:, 1:-1].numpy() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_an_image_of_the_right_size_is_left_alone(tmp_path: Path, fit: str) -> None:
    pixels = digits(3, 8, 8)
    raster(tmp_path / "a.tif", pixels)
    agrees(only(tmp_path, size=8, fit=fit), pixels / 10000)


@pytest.mark.parametrize("shape", [(7, 20), (20, 7), (7, 7)])
def test_an_image_too_small_to_be_cut_is_one_line_with_both_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture(tmp_path / "a.png", bytes_of(*shape, 3))
    size = f"{shape[0]} x {shape[1]} px"
    refused(tmp_path, str(tmp_path / "a.png"), size, "8 x 8", "data.fit=pad or resize", read=True, size=8, fit="crop")


# what is wrong is said in one line


def cut(path: Path, share: float = 0.5) -> None:
    """Cut the end of a file off."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", ["bad.jpg", "bad.png", "bad.tif", "packed.tif"])
def test_a_file_that_is_cut_short_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture, name: str, share: float
) -> None:
    path = tmp_path / name
    if path.suffix == ".tif":
        raster(path, digits(3, 32, 32), **({"compress": "deflate"} if name == "packed.tif" else {}))
    else:
        picture(path, bytes_of(32, 32, 3))
    cut(path, share)
    refused(tmp_path, f"{path} cannot be read as an image", "on_error=skip", read=True, size=32)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["text.png", "text.JPG", "text.tif"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>404 not found</html>")
    refused(tmp_path, name, "cannot be read as an image", "on_error=skip", read=True)


def test_the_reason_of_a_damaged_geotiff_is_said_and_not_referred_to(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", digits(13, 32, 32))
    cut(tmp_path / "a.tif")
    refused(tmp_path, "a.tif", "IReadBlock failed", read=True, bands=13, size=32)


def test_whatever_happens_to_the_bytes_of_a_file_is_an_image_or_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", bytes_of(16, 16, 3))
    picture(tmp_path / "b.png", bytes_of(16, 16, 3))
    raster(tmp_path / "c.tif", digits(3, 16, 16), compress="deflate")
    data = opened(tmp_path, size=16)
    refusals: list[tuple[str, str]] = []
    for index, name in enumerate(data.names):
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            spoiled = bytearray(whole)
            for _ in range(3):
                spoiled[random.randrange(min(300, len(whole)))] = random.randrange(256)
            (tmp_path / name).write_bytes(spoiled)
            try:
                assert data[index]["image"].shape == (3, 16, 16)
            except UserError as error:
                refusals.append((name, str(error)))
    assert len(refusals) > 10
    for name, line in refusals:
        assert line.startswith(f"{tmp_path / name} ")
        assert "on_error=skip" in line
        assert "\n" not in line


def test_a_file_that_has_gone_since_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    data = opened(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png cannot be read.*No such file"):
        data[0]


def test_a_root_that_is_missing_or_a_file_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        refused(tmp_path / name, f"data.root {tmp_path / name} is no folder", "class folders")
    refused(tmp_path / "empty", f"data.root {tmp_path / 'empty'} has no images", ".jpg", ".tiff")


def test_images_beside_class_folders_are_refused_with_one_of_each(tmp_path: Path) -> None:
    for name in ("loose.png", "forest/1.png"):
        picture(tmp_path / name)
    refused(tmp_path, str(tmp_path), "loose.png, forest", "data.classes")


def test_a_class_that_is_missing_or_without_images_is_named(tmp_path: Path) -> None:
    for name in ("forest/1.png", "water/1.png"):
        picture(tmp_path / name)
    (tmp_path / "snow").mkdir()
    refused(tmp_path, str(tmp_path), "no folder ice", "forest, snow, water", classes=["forest", "ice"])
    refused(tmp_path, str(tmp_path), "no images in snow", "data.classes", classes=["snow", "forest"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tets"}, ["no split 'tets'", "train, val, test, all", "did you mean test"]),
        ({"fit": "corp"}, ["data.fit is 'corp'", "none, crop, pad or resize", "did you mean crop"]),
        ({"scaling": {"white": 0}}, ["data.scaling.white is 0", "above 0"]),
        ({"scaling": {"white": -0.3}}, ["data.scaling.white is -0.3", "above 0"]),
        ({"scaling": {"unit": 0.0}}, ["data.scaling.unit is 0", "above 0"]),
        ({"val": 0.5, "test": 0.5}, ["data.val is 0.5", "data.test is 0.5"]),
        ({"sensor": "satdifuser.data.bands.SENTINEL3"}, ["data.sensor", "SENTINEL3"]),
    ],
)
def test_settings_that_cannot_be_are_user_errors(tmp_path: Path, options: dict[str, Any], words: list[str]) -> None:
    picture(tmp_path / "1.png")
    with pytest.raises(UserError) as caught:
        ImageFolder(str(tmp_path), **{"sensor": SENTINEL2_RGB, **options})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("split", "shares"), [("val", (0.1, 0.1)), ("test", (0.25, 0.0)), ("train", (0.49, 0.5))])
def test_a_split_that_is_left_empty_is_named_with_the_shares(
    tmp_path: Path, split: str, shares: tuple[float, float]
) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        picture(tmp_path / name)
    val, test = shares
    wanted = [str(tmp_path), f"no images for {split}", "4 images in 2 classes", f"data.val={val}", f"data.test={test}"]
    refused(tmp_path, *wanted, split=split, val=val, test=test)


def test_a_class_of_which_a_split_has_no_image_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in [f"many/{i}.png" for i in range(9)] + [f"few{i}/0.png" for i in range(7)]:
        picture(tmp_path / name)
    for split in ("train", "val", "val"):
        opened(tmp_path, split, val=0.2, test=0.2)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"data.root {tmp_path} has no images of few0, few1, few2, few3, few4 and 2 more for val")


# what a store knows it by


def test_the_identity_is_the_same_wherever_the_root_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a/1.png", "one/b/1.png"):
        picture(tmp_path / name)
    shutil.copytree(tmp_path / "one", tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path)
    identities = [opened(root).identity for root in (tmp_path / "one", tmp_path / "far" / "away", Path("one"))]
    assert identities[0] == identities[1] == identities[2]
    assert str(tmp_path) not in str(identities[0])


def test_the_identity_changes_with_files_split_classes_size_and_scale(tmp_path: Path) -> None:
    for name in [f"{letter}/{i}.png" for letter in "ab" for i in range(4)]:
        picture(tmp_path / name)
    options: list[dict[str, Any]] = [{}, {"split": "train"}, {"size": 32}, {"fit": "crop"}, {"scaling": "8bit"}]
    options += [{"scaling": "dn"}, {"alpha": "data"}, {"classes": ["a"]}, {"classes": ["b", "a"]}]
    options += [{"split": "train", "val": 0.3, "test": 0.3}]
    found = [opened(tmp_path, **option).identity for option in options]
    (tmp_path / "b" / "3.png").rename(tmp_path / "b" / "5.png")
    found.append(opened(tmp_path).identity)
    picture(tmp_path / "b" / "4.png")
    found.append(opened(tmp_path).identity)
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


# from the command line


@pytest.fixture
def tree(tmp_path: Path) -> list[str]:
    """Overrides for a folder of two classes with four images each: two to train, one to validate, one to test."""
    for name in [f"{letter}/{i}.jpg" for letter in ("forest", "water") for i in range(4)]:
        picture(tmp_path / "tree" / name, bytes_of(64, 64, 3))
    return ["data=image_folder", f"data.root={tmp_path / 'tree'}", "data.val=0.25", "data.test=0.25"]


SMALL = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]"]


def said(capsys: pytest.CaptureFixture, code: int) -> str:
    """The one line of a command that must fail."""
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err[-600:]
    assert err.startswith("satdifuser: ")
    return err


def test_features_of_a_folder_go_to_a_store_with_its_ids_labels_and_classes(tmp_path: Path, tree: list[str]) -> None:
    assert main(["extract", *tree, *SMALL, f"store.path={tmp_path / 'f.zarr'}"]) == 0
    store = FeatureStore(tmp_path / "f.zarr")
    assert {split: len(store.split(split)) for split in store.splits} == {"train": 4, "val": 2, "test": 2}
    assert store.split("train").labels.classes == ("forest", "water")
    batch = store.split("train").batch(range(4))
    assert batch["id"] == opened(tmp_path / "tree", "train", val=0.25, test=0.25).names
    assert [int(label) for label in batch["label"]] == [0, 0, 1, 1]


def test_a_bad_image_stops_an_extraction_or_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, tree: list[str]
) -> None:
    bad = opened(tmp_path / "tree", "train", val=0.25, test=0.25).names[1]
    cut(tmp_path / "tree" / bad)
    words = ["extract", *tree, *SMALL, f"store.path={tmp_path / 'f.zarr'}"]
    assert str(tmp_path / "tree" / bad) in said(capsys, main([*words, "on_error=stop"]))
    assert not (tmp_path / "f.zarr").exists()
    assert main([*words, "on_error=skip", "store.overwrite=true"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "skipped 1 samples" in told
    assert f"{bad} cannot be read as an image" in told
    skipped: Any = zarr.open_group(tmp_path / "f.zarr", mode="r").attrs["skipped"]
    assert [sample["id"] for sample in skipped] == [bad]
    assert len(FeatureStore(tmp_path / "f.zarr").split("train")) == 3


def test_a_classifier_trains_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture, tree: list[str]) -> None:
    trainer = ["trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4", "trainer.eval_every=2"]
    small = [*SMALL, "encoder.image_size=16", "encoder.prepare.size=16", "fusion.projection_dim=16"]
    assert main(["train", *tree, *small, *trainer, "task=classification", f"run={tmp_path / 'run'}"]) == 0
    assert "test (2 samples)" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_one_class_is_one_line_that_names_it_and_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture, task: str
) -> None:
    for number in range(8):
        picture(tmp_path / "tree" / "forest" / f"{number}.png")
    words = ["train", "data=image_folder", f"data.root={tmp_path / 'tree'}", "data.size=8", "encoder=unet"]
    line = said(capsys, main([*words, f"task={task}", f"run={tmp_path / 'run'}", "data.val=0.25", "data.test=0.25"]))
    for word in (f"task={task} needs 2 classes", "the data have 1 (forest)", "data.root", "data.classes"):
        assert word in line


def test_validation_without_images_is_one_line_that_names_the_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture, tree: list[str]
) -> None:
    line = said(capsys, main(["train", *tree, "data.val=0", "encoder=unet", f"run={tmp_path / 'run'}"]))
    assert "no images for val: of 8 images in 2 classes, data.val=0" in line


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_of_which_all_was_skipped_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture, tree: list[str], split: str
) -> None:
    for name in opened(tmp_path / "tree", split, val=0.25, test=0.25).names:
        cut(tmp_path / "tree" / name)
    store = tmp_path / "f.zarr"
    assert main(["extract", *tree, *SMALL, f"store.path={store}", "on_error=skip"]) == 0
    capsys.readouterr()
    words = ["train", *tree, f"features={store}", "task=classification", f"run={tmp_path / 'run'}"]
    line = said(capsys, main(words))
    assert f"{store} has no samples in its split {split}" in line
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("command", ["extract", "train"])
def test_a_folder_that_is_not_given_is_one_line_that_asks_for_it(capsys: pytest.CaptureFixture, command: str) -> None:
    line = said(capsys, main([command, "data=image_folder"]))
    assert "data.root is not set" in line
    assert "data.root=..." in line
