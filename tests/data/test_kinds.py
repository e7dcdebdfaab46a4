"""Every kind of file that a folder may hold: its reflectance by hand, or one line that says what is wrong with it."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from satdifuser.data.bands import Band, Sensor
from satdifuser.data.batches import OrderedBatches, faults, loader
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
SIZE = 4


def sensor(bands: int) -> Sensor:
    return Sensor("a sensor", tuple(Band(f"B{n}", f"common{n}", 400.0 + n, 10) for n in range(bands)))


def read(root: Path, bands: int, **options: Any) -> Array:
    """The only image below the root as a network gets it: read, checked and collated."""
    data = ImageFolder(str(root), "all", sensor=sensor(bands), **{"size": SIZE, **options})
    check = SampleCheck(ImageInput(sensor=sensor(bands)), (data.size, data.size))
    (batch,) = loader(data, OrderedBatches(len(data), 1), check=check)
    return batch["image"][0].double().numpy()


def refused(root: Path, bands: int, *words: str, **options: Any) -> None:
    """One line that names the file and has the words; and who skips what is bad skips it for the same reason."""
    with pytest.raises(UserError) as caught:
        read(root, bands, **options)
    line = str(caught.value)
    name = next(path.name for path in root.rglob("a.*") if path.suffix not in (".xml", ".msk"))
    assert "\n" not in line
    for word in (name, *words):
        assert word in line, line
    data = ImageFolder(str(root), "all", sensor=sensor(bands), **{"size": SIZE, **options})
    check = SampleCheck(ImageInput(sensor=sensor(bands)), (data.size, data.size))
    assert list(faults(data, OrderedBatches(1, 1), check=check)) == [[(0, line)]]


def numbers(bands: int, low: int = 1, high: int = 5000, dtype: Any = np.uint16) -> Array:
    return np.random.default_rng().integers(low, high, (bands, SIZE, SIZE)).astype(dtype)


def tiff(root: Path, pixels: Array, after: Callable[[Any], None] | None = None, **options: Any) -> None:
    """A GeoTIFF; `after` may set what a driver has no option for."""
    bands, height, width = pixels.shape
    shape: Any = {"count": bands, "height": height, "width": width, "dtype": options.pop("dtype", pixels.dtype.name)}
    path = root / "a.tif"
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        file.write(pixels)
        if after is not None:
            after(file)


def scaled(scale: float | list[float], offset: float | list[float]) -> Callable[[Any], None]:
    def put(file: Any) -> None:
        file.scales = [scale] * file.count if isinstance(scale, float) else scale
        file.offsets = [offset] * file.count if isinstance(offset, float) else offset

    return put


def close(image: Array, wanted: Array) -> None:
    assert image.shape == wanted.shape
    np.testing.assert_allclose(image, wanted, rtol=1e-6, atol=2e-7)


# scale and offset


@pytest.mark.parametrize(
    ("scale", "offset", "low", "high"),
    [
        pytest.param(2.75e-05, -0.2, 7500, 40000, id="Landsat Collection 2 Level 2"),
        pytest.param(1e-4, -0.1, 1000, 12000, id="Sentinel-2 from baseline 04.00 on"),
        pytest.param(1e-4, 0.0, 1, 12000, id="Sentinel-2 before"),
        pytest.param(2e-5, 0.0, 1, 50000, id="MODIS-like"),
    ],
)
@pytest.mark.parametrize("digital", [10000, 1])
def test_a_scale_says_what_reflectance_is_in_place_of_digital(
    tmp_path: Path, scale: float, offset: float, low: int, high: int, digital: int
) -> None:
    pixels = numbers(3, low, high)
    tiff(tmp_path, pixels, scaled(scale, offset))
    close(read(tmp_path, 3, scaling={"numbers": "auto", "unit": digital}), pixels * scale + offset)


def test_an_offset_alone_is_in_digital_numbers(tmp_path: Path) -> None:
    pixels = numbers(3, 1001, 9000)
    tiff(tmp_path, pixels, scaled(1.0, -1000.0))
    close(read(tmp_path, 3, scaling={"numbers": "auto", "unit": 10000}), (pixels - 1000.0) / 10000)


def test_each_band_has_its_own_scale_and_offset(tmp_path: Path) -> None:
    pixels, scales, offsets = numbers(3), [1e-4, 2e-4, 3e-5], [0.0, -0.05, 0.1]
    tiff(tmp_path, pixels, scaled(scales, offsets))
    close(read(tmp_path, 3), pixels * np.reshape(scales, (3, 1, 1)) + np.reshape(offsets, (3, 1, 1)))


def test_what_a_scaled_file_says_is_no_data_is_zero_and_not_the_offset(tmp_path: Path) -> None:
    pixels = numbers(2, 7500, 40000)
    pixels[0, 1, 2] = pixels[1, 0] = 65535
    tiff(tmp_path, pixels, scaled(2.75e-05, -0.2), nodata=65535)
    close(read(tmp_path, 2), np.where(pixels == 65535, 0, pixels * 2.75e-05 - 0.2))


def test_the_zero_of_unsigned_numbers_is_no_data_under_an_offset_too(tmp_path: Path) -> None:
    pixels = numbers(2, 7500, 40000)
    pixels[:, 3] = 0
    tiff(tmp_path, pixels, scaled(2.75e-05, -0.2))  # and nothing is declared as no data
    close(read(tmp_path, 2), np.where(pixels == 0, 0, pixels * 2.75e-05 - 0.2))


def test_signed_and_floating_numbers_are_scaled_at_zero_too(tmp_path: Path) -> None:
    pixels = np.array([[[0, -100, 200, 3000]] * 4])
    for dtype in (np.int16, np.float32):
        tiff(tmp_path, pixels.astype(dtype), scaled(1e-4, 0.05))
        close(read(tmp_path, 1), pixels * 1e-4 + 0.05)


@pytest.mark.parametrize(
    ("scale", "offset", "words"),
    [
        ([1e-4, 1.0, 1e-4], 0.0, ["scale", "band 2"]),  # is band 2 reflectance, or was it forgotten?
        ([1.0, 1e-4, 1e-4], -0.1, ["scale", "band 1"]),
        (0.0, 0.0, ["scale", "0"]),
        (float("nan"), 0.0, ["scale", "nan"]),
        (float("inf"), 0.0, ["scale", "inf"]),
        (1e-4, float("nan"), ["offset", "nan"]),
        (-1e-4, 0.0, ["scale", "-0.0001"]),
        (0.01, 0.0, ["values", "reflectance"]),  # per cent
        (1.0, -0.1, ["offset", "-0.1"]),  # reflectance to subtract from digital numbers
    ],
)
def test_a_scale_that_makes_no_reflectance_is_refused(
    tmp_path: Path, scale: float | list[float], offset: float, words: list[str]
) -> None:
    tiff(tmp_path, numbers(3, 1500, 5000), scaled(scale, offset))
    refused(tmp_path, 3, *words)


# kinds of numbers


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64])
def test_whole_numbers_of_more_than_8_bits_are_digital_numbers(tmp_path: Path, dtype: Any) -> None:
    pixels = numbers(3, 1, 20000, dtype)
    if np.issubdtype(dtype, np.signedinteger):
        pixels[0, 0] = -50  # surface reflectance can be a little below zero
    tiff(tmp_path, pixels)
    close(read(tmp_path, 3), pixels / 10000)


FAR: dict[str, tuple[Array, list[str]]] = {
    "fill of int16 that is not declared": (numbers(1, dtype=np.int16) * 0 - 9999, ["-0.9999", "reflectance"]),
    "uint32 of another scale": (numbers(1, 10**6, 10**7, np.uint32), ["reflectance"]),
    "digital numbers as float": (numbers(3, 100, 5000, np.float32), ["reflectance"]),
    "per cent as float": (np.full((1, SIZE, SIZE), 23.5, np.float32), ["23.5", "reflectance"]),
    "fill of float that is not declared": (np.full((1, SIZE, SIZE), -3.4e38, np.float32), ["-3.4e+38"]),
    "beyond float32": (np.full((1, SIZE, SIZE), 1e300), ["inf"]),
    "NaN": (np.full((1, SIZE, SIZE), np.nan, np.float32), ["NaN", "16 pixels"]),
    "infinite": (np.full((1, SIZE, SIZE), np.inf, np.float32), ["infinite"]),
    "int8": (numbers(3, -5, 100, np.int8), ["int8"]),
}


@pytest.mark.parametrize("kind", FAR)
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_no_reflectance_are_refused(tmp_path: Path, kind: str) -> None:
    pixels, words = FAR[kind]
    tiff(tmp_path, pixels)
    refused(tmp_path, len(pixels), *words)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_refused_and_not_halved(tmp_path: Path, dtype: str) -> None:
    pixels = np.full((1, SIZE, SIZE), 0.2 + 0.1j, np.complex64)
    tiff(tmp_path, pixels, dtype=dtype)
    refused(tmp_path, 1, "complex", "amplitude")


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_numbers_of_few_bits_are_refused_and_not_taken_for_dark(tmp_path: Path, bits: int) -> None:
    tiff(tmp_path, numbers(3, 0, 2, np.uint8), nbits=bits)
    refused(tmp_path, 3, f"{bits} bit")


# what bands mean


def test_an_alpha_band_is_a_mask_and_no_band(tmp_path: Path) -> None:
    pixels = numbers(4, 1, 255, np.uint8)
    pixels[3] = np.random.default_rng().choice([0, 1, 128, 255], (SIZE, SIZE))
    tiff(tmp_path, pixels)  # four bands of 8 bits: the driver itself tags them as red, green, blue and alpha
    close(read(tmp_path, 3), np.where(pixels[3] == 0, 0, pixels[:3] * 0.275 / 255))


def test_an_alpha_band_of_many_bands_is_a_mask_too(tmp_path: Path) -> None:
    pixels, rest = numbers(14), [0, *range(2, 14)]
    pixels[1, :2] = 0
    tiff(tmp_path, pixels, alpha="YES")  # the first that is no colour
    close(read(tmp_path, 13), np.where(pixels[1] == 0, 0, pixels[rest] / 10000))


def test_an_alpha_band_in_the_place_of_a_fourth_is_refused_with_what_to_do(tmp_path: Path) -> None:
    pixels = numbers(4, 1, 255, np.uint8)
    tiff(tmp_path, pixels)
    refused(tmp_path, 4, "band 4", "alpha", "-colorinterp_4 undefined")
    with warnings.catch_warnings(action="ignore"), rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.undefined]
    close(read(tmp_path, 4), pixels * 0.275 / 255)


def test_a_mask_of_the_file_is_no_data(tmp_path: Path) -> None:
    pixels, mask = numbers(3), np.random.default_rng().choice([0, 255], (SIZE, SIZE)).astype(np.uint8)
    tiff(tmp_path, pixels, lambda file: file.write_mask(mask))
    close(read(tmp_path, 3), np.where(mask == 0, 0, pixels / 10000))


@pytest.mark.parametrize(("bands", "there"), [(3, 1), (3, 2), (3, 13), (13, 3), (1, 3)])
def test_another_number_of_bands_than_the_sensor_has_is_refused(tmp_path: Path, bands: int, there: int) -> None:
    tiff(tmp_path, numbers(there))
    refused(tmp_path, bands, f"{there} band", f"{bands} (B0", "data.sensor")


def test_colours_that_are_numbered_in_a_geotiff_are_refused(tmp_path: Path) -> None:
    colours = {number: (number, 2 * number, 3 * number, 255) for number in range(4)}
    tiff(tmp_path, numbers(1, 0, 4, np.uint8), lambda file: file.write_colormap(1, colours))
    refused(tmp_path, 1, "palette")
    refused(tmp_path, 3, "palette")


@pytest.mark.parametrize(("photometric", "bands"), [("CMYK", 4), ("CIELAB", 3), ("MINISWHITE", 1)])
def test_other_colour_spaces_of_a_tiff_are_refused(tmp_path: Path, photometric: str, bands: int) -> None:
    tiff(tmp_path, numbers(bands, 1, 255, np.uint8), photometric=photometric)
    for count in (1, 3, 4):
        refused(tmp_path, count, photometric.lower())


def test_a_tiff_of_jpeg_blocks_is_red_green_and_blue(tmp_path: Path) -> None:
    pixels = np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None], (3, 16, 16))
    tiff(tmp_path, pixels, photometric="YCBCR", compress="jpeg")
    assert read(tmp_path, 3, size=16, scaling={"numbers": "auto", "white": 1.0}).mean((1, 2)) * 255 == pytest.approx(
        [200, 100, 50], abs=3
    )


def test_several_pages_are_refused(tmp_path: Path) -> None:
    first, *rest = (Image.fromarray(numbers(3, 1, 255, np.uint8).transpose(1, 2, 0)) for _ in range(3))
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    refused(tmp_path, 3, "3 images")


def test_an_animation_is_refused(tmp_path: Path) -> None:
    first, *rest = (Image.fromarray(numbers(3, 1, 255, np.uint8).transpose(1, 2, 0)) for _ in range(3))
    first.save(tmp_path / "a.png", save_all=True, append_images=rest)
    refused(tmp_path, 3, "3 images")


def test_reduced_copies_within_a_file_are_not_looked_at(tmp_path: Path) -> None:
    pixels = numbers(3)
    tiff(tmp_path, pixels, lambda file: file.build_overviews([2]))
    close(read(tmp_path, 3), pixels / 10000)


def test_how_an_image_lies_on_the_ground_does_not_move_its_pixels(tmp_path: Path) -> None:
    pixels = numbers(3)
    tiff(tmp_path, pixels, transform=Affine(7, 7, 600000, 7, -7, 5200000), crs="EPSG:32632")
    close(read(tmp_path, 3), pixels / 10000)
    points = [GroundControlPoint(row, column, 10.0 + column, 50.0 - row) for row in (0, 4) for column in (0, 4)]
    tiff(tmp_path, pixels, gcps=points, crs="EPSG:4326")
    close(read(tmp_path, 3), pixels / 10000)


# pictures


def test_a_jpeg_of_printing_inks_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((SIZE, SIZE, 4), np.uint8), "CMYK").save(tmp_path / "a.jpg")
    refused(tmp_path, 3, "CMYK", "RGB")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_that_was_taken_sideways_is_turned_as_every_viewer_shows_it(
    tmp_path: Path, name: str, turn: int
) -> None:
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[:8, 16:] = (200, 100, 50), (40, 80, 160)
    put_back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's number of the transposition that undoes it
    picture = Image.fromarray(upright)
    stored = picture.transpose(Image.Transpose(put_back[turn])) if turn > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / name, exif=exif, **({"quality": 98, "subsampling": 0} if name == "a.jpg" else {}))
    image = read(tmp_path, 3, size=16, fit="crop", scaling={"numbers": "auto", "white": 1.0}) * 255
    wanted = upright[:, 4:20].transpose(2, 0, 1).astype(float)
    assert np.abs(image - wanted).mean() < 3


def test_one_bit_of_a_png_is_black_or_white(tmp_path: Path) -> None:
    pixels = np.random.default_rng().choice([False, True], (SIZE, SIZE))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    close(read(tmp_path, 1, scaling={"numbers": "auto", "white": 1.0}), pixels[None].astype(float))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_another_format_under_the_name_of_a_png_is_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(numbers(3, 1, 255, np.uint8).transpose(1, 2, 0)).save(tmp_path / "a.png", kind)
    refused(tmp_path, 3, "cannot be read as an image")


def test_a_description_of_other_files_under_the_name_of_a_geotiff_is_refused(tmp_path: Path) -> None:
    tiff(tmp_path, numbers(1))
    (tmp_path / "a.tif").rename(tmp_path / "b.dat")
    (tmp_path / "a.tif").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{tmp_path / 'b.dat'}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    refused(tmp_path, 1, "cannot be read as an image")


def test_a_jpeg_under_the_name_of_a_png_is_read_as_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE, 3), 100, np.uint8)).save(tmp_path / "a.png", "JPEG")
    close(read(tmp_path, 3, scaling={"numbers": "auto", "white": 1.0}), np.full((3, SIZE, SIZE), 100 / 255))


def png_header(path: Path, width: int, height: int, rows: bytes = b"", colour: int = 0) -> None:
    """A PNG that says to be so large, whatever it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (0, 0)])
def test_a_picture_of_no_size_is_refused(tmp_path: Path, width: int, height: int) -> None:
    png_header(tmp_path / "a.png", width, height)
    refused(tmp_path, 1, "a.png")


@pytest.mark.parametrize("fit", ["none", "crop", "resize"])
def test_a_picture_too_large_to_be_read_is_refused_without_a_look_at_its_pixels(tmp_path: Path, fit: str) -> None:
    png_header(tmp_path / "a.png", 13000, 13000)  # there are none
    refused(tmp_path, 1, "13000 x 13000 px", fit=fit)


@pytest.mark.parametrize(("fit", "words"), [("none", "data.size is 4"), ("resize", "144,000,000 numbers")])
def test_a_raster_too_large_to_be_read_is_refused(tmp_path: Path, fit: str, words: str) -> None:
    shape: Any = {"count": 1, "height": 12000, "width": 12000, "dtype": "uint8"}
    with warnings.catch_warnings(action="ignore"):
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", sparse_ok=True, **shape).close()
    refused(tmp_path, 1, "12000 x 12000 px", words, fit=fit)
    assert not read(tmp_path, 1, fit="crop").any()
