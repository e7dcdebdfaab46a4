"""Images that are larger than they look: refused by their headers, or read in part, in memory that has a bound."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

pytestmark = pytest.mark.slow

READ = """
import json, os, sys
from pathlib import Path
import torch
import PIL.Image, PIL.JpegImagePlugin, PIL.PngImagePlugin, rasterio
from satdifuser.data.bands import Band, Sensor
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.errors import UserError

def memory():
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024

def read(root, bands, size, fit):
    sensor = Sensor("a sensor", tuple(Band(f"B{n}", f"c{n}", 400.0, 10) for n in range(bands)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory()
    try:
        image = ImageFolder(root, "all", sensor=sensor, size=size, fit=fit)[0]["image"]
        said = [*image.shape, float(image.max())]
    except UserError as error:
        said = str(error)
    return said, memory() - before

for task in json.loads(sys.argv[1]):
    if os.fork() == 0:  # each in a process of its own
        print(json.dumps(read(*task)), flush=True)
        os._exit(0)
    os.wait()
"""
Seen = dict[tuple[str, str], tuple[Any, float]]


def read(tasks: list[tuple[str, int, int, str]]) -> list[tuple[Any, float]]:
    """Of each folder, bands, size and fit: the image (its shape and its maximum) or why not, and the memory (MB)."""
    words = [sys.executable, "-W", "error", "-c", READ, json.dumps(tasks)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    return [(said, mb) for said, mb in map(json.loads, done.stdout.splitlines())]


def tiff(root: Path, side: int, bands: int = 1, dtype: str = "uint8", **options: Any) -> Path:
    """A GeoTIFF of zeros with one bright pixel in its middle."""
    shape: Any = {"count": bands, "height": side, "width": side, "dtype": dtype}
    place: Any = {"transform": from_origin(600000, 5200000, 10, 10), "crs": "EPSG:32632"}
    root.mkdir(exist_ok=True)
    with rasterio.open(root / "a.tif", "w", driver="GTiff", compress="deflate", **shape, **place, **options) as file:
        middle: Any = ((side // 2, side // 2 + 1), (side // 2, side // 2 + 1))
        file.write(np.full((bands, 1, 1), 200, dtype), window=middle)
    return root


def picture(path: Path, side: int) -> None:
    path.parent.mkdir()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(path)


def one_strip(path: Path, side: int) -> None:
    """A TIFF of bytes in a single compressed strip, which must be decoded from its beginning; drivers write many."""
    packer = zlib.compressobj(1)
    strip = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: side, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.parent.mkdir()
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory)


def huge_png(path: Path, side: int) -> None:
    """A PNG that says to be so large, with no pixels: Pillow goes no further than its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.parent.mkdir()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


TILES: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
LARGE = {"strips": 12000, "strip": 12000, "tiles": 12000, "png": 13000, "jpg": 9000, "huge png": 100000}
BANDS = {"tiles": 3, "bands": 3}
FITS = ("none", "crop", "resize")


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of large images, each in a folder of its own."""
    root = tmp_path_factory.mktemp("bombs")
    tiff(root / "strips", 12000, sparse_ok=True)
    tiff(root / "tiles", 12000, bands=3, sparse_ok=True, **TILES)
    tiff(root / "one tile", 64, tiled=True, blockxsize=16384, blockysize=16384)
    tiff(root / "bands", 64, bands=10000, sparse_ok=True, interleave="pixel")
    one_strip(root / "strip" / "a.tif", 12000)
    picture(root / "png" / "a.png", 13000)
    picture(root / "jpg" / "a.jpg", 9000)
    huge_png(root / "huge png" / "a.png", 100000)
    assert max(path.stat().st_size for path in root.glob("*/a.*")) < 3e6
    return root


@pytest.fixture(scope="module")
def seen(bombs: Path) -> Seen:
    asked = [(name, fit) for name in [*LARGE, "one tile", "bands"] for fit in FITS]
    tasks = [(str(bombs / name), BANDS.get(name, 1), 64, fit) for name, fit in asked]
    return dict(zip(asked, read(tasks), strict=True))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", [*LARGE, "one tile", "bands"])
def test_a_small_file_of_a_large_image_is_refused_by_name_in_little_memory(seen: Seen, name: str, fit: str) -> None:
    said, mb = seen[name, fit]
    if name in ("strips", "strip", "tiles") and fit == "crop":
        bright = 0 if name == "strip" else 200 / 255 * 0.275  # in the middle
        assert said == [BANDS.get(name, 1), 64, 64, pytest.approx(bright)]
    else:
        assert f"/{name}/a." in said
        assert "on_error=skip" in said
    assert mb < 60, f"{said}: {mb:.0f} MB"


@pytest.mark.parametrize("name", LARGE)
def test_the_size_of_a_large_image_is_said_and_what_to_do(seen: Seen, name: str) -> None:
    whole, resized = (seen[name, fit][0] for fit in ("none", "resize"))
    if name == "huge png":  # of which Pillow says no more than the product
        assert "10000000000 pixels" in whole
        return
    assert f"{LARGE[name]} x {LARGE[name]} px, but data.size is 64" in whole
    assert f"{LARGE[name]} x {LARGE[name]} px" in resized
    assert f"{LARGE[name] ** 2 * BANDS.get(name, 1):,} numbers" in resized
    assert "data.fit=crop" in resized


def test_too_many_bands_are_said_with_those_of_the_sensor(seen: Seen) -> None:
    assert "has 10000 bands, but a sensor has 3 (B0, B1, B2): set data.sensor" in seen["bands", "none"][0]


def test_an_image_at_the_limit_is_read_in_the_memory_that_its_numbers_take(tmp_path: Path) -> None:
    """A float32 of each number, the numbers themselves, and no more than as much again."""
    tiff(tmp_path / "raster", 8192, dtype="uint16", sparse_ok=True, **TILES)
    picture(tmp_path / "picture" / "a.png", 8192)
    found = read([(str(tmp_path / name), 1, 64, "resize") for name in ("raster", "picture")])
    for said, mb in found:
        assert said[:3] == [1, 64, 64], said
        assert mb < 2 * 6 * 8192**2 / 2**20, f"{mb:.0f} MB"
