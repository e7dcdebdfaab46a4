"""One raster of a scene, open: through GDAL, by its own driver, from a disk or a cloud, within bounded memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.geotiff import GeoTiff
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Ask, Numbers, Own, Place
from satdifuser.data.files.quiet import quiet
from satdifuser.errors import UserError

DRIVERS: dict[str, str | None] = {
    ".tif": "GTiff",  # no other: a VRT would read other files
    ".tiff": "GTiff",
    ".jp2": "JP2OpenJPEG",
    ".vrt": "VRT",
    ".img": None,  # of ENVI, ERDAS and others
    ".bsq": "ENVI",
    ".bil": None,
    ".dat": "ENVI",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}
"""What opens a file whose name ends like this."""
CACHE = 2**27, 3 * 2**27
"""Bytes of decoded blocks that GDAL may keep, at least and at most; its own default is 5 % of the machine."""
ROWS = 256  # of windows that are read beside each other
LARGEST = 2**29  # bytes of one block
DOORS = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/", "http": "/vsicurl/http://", "https": "/vsicurl/https://"}
_URL = re.compile(r"^([a-z][a-z0-9+.-]+)://(.*)$", re.IGNORECASE)


def is_remote(words: str) -> bool:
    """Whether it is a URL, or a path of GDAL's own.

    >>> is_remote("s3://bucket/a.tif"), is_remote("/vsis3/bucket/a.tif"), is_remote("a.tif"), is_remote("file:///a.tif")
    (True, True, False, False)
    """
    found = _URL.match(words)
    return words.startswith("/vsi") or (found is not None and found[1].lower() != "file")


def gdal_path(words: str) -> str:
    """A path or URL as GDAL takes it.

    >>> gdal_path("s3://bucket/a.tif"), gdal_path("https://host/a.tif?key=1")
    ('/vsis3/bucket/a.tif', '/vsicurl/https://host/a.tif?key=1')
    """
    found = _URL.match(words)
    if found is None:
        return words if words.startswith("/vsi") else str(Path(words).expanduser().absolute())
    kind = found[1].lower()
    if kind == "file":
        return "/" + found[2].lstrip("/")
    if kind not in DOORS:
        raise UserError(f"{shown(words)}: {kind}:// is not read: it can be {', '.join(f'{k}://' for k in DOORS)}")
    return DOORS[kind] + found[2]


def suffix_of(words: str) -> str:
    """What the name ends with, of a URL too.

    >>> suffix_of("https://host/a.TIF?key=1.x")
    '.tif'
    """
    return Path(words.partition("?")[0] if is_remote(words) else words).suffix.lower()


class Raster:
    """A file that GDAL reads, or a Zarr array: bands with what they are called, a place, and any part as numbers."""

    path: str
    names: list[tuple[str, ...]]
    """What each band is called, in the words of the file; none where it says nothing."""
    count: int
    height: int
    width: int
    place: Place | None = None
    said: str | None = None
    """What a user ought to know of its georeference."""

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        raise NotImplementedError

    cache: int = CACHE[0]
    """How much the whole scene may keep of what was decoded."""

    def row_bytes(self, bands: int) -> int:
        """What is decoded for a row of windows across it, which the next row of them needs again."""
        return 0

    def own(self, band: int) -> Own | None:
        """The scale and the offset that it says of a band; None where it says none."""
        return None

    def identity(self) -> dict[str, Any]:
        """By what it is known."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""


class GdalRaster(Raster):
    """Any file that GDAL reads."""

    def __init__(self, path: str, named: bool = False) -> None:
        import rasterio
        from rasterio.errors import RasterioIOError

        self.path = path
        suffix = suffix_of(path)
        driver = DRIVERS.get(suffix)
        if suffix == ".vrt" and not named:
            raise BadImageError("is a VRT, which refers to other files: name it as the scene itself")
        if suffix not in DRIVERS and not named:
            raise BadImageError(f"is of a kind that is not read here: it can be {', '.join(DRIVERS)}")
        where = gdal_path(path)
        if not where.startswith("/vsi") and not Path(where).exists():
            raise UserError(f"{shown(path)} is not there: give the path of a scene")
        with quiet(), rasterio.Env(**_options(where, self.cache)):
            try:
                self.file = rasterio.open(where, sharing=False, **({} if driver is None else {"driver": driver}))
                self.inner = GeoTiff(self.file, Ask())
            except RasterioIOError as error:
                raise OSError(str(error.__cause__ or error)) from error
        self.count, self.height, self.width = self.inner.count, self.inner.height, self.inner.width
        self.place, self.alpha = self.inner.place, self.inner.alpha
        self.names = list(self.inner.names)
        self._check_blocks()
        if self.place is None:
            self.said = self._without_place()

    def _without_place(self) -> str:
        if self.file.gcps[0]:
            return "has ground control points, but no grid: what is made of it has no georeference (gdalwarp gives one)"
        if self.file.rpcs is not None:
            return "has RPCs, but no grid: what is made of it has no georeference (gdalwarp -rpc gives one)"
        return "has no georeference, so what is made of it has none"

    def _check_blocks(self) -> None:
        height, width = self.file.block_shapes[0]
        size = height * width * self._together() * np.dtype(_numpy(self.file.dtypes[0])).itemsize
        if size > LARGEST and self.file.driver != "VRT":
            raise BadImageError(
                f"is saved in blocks of {height} x {width} px, {size / 1e9:.1f} GB to decode at once: save it in tiles"
                f" (gdal_translate -of COG {shown(Path(self.path).name)} tiled.tif)"
            )

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        import rasterio
        from rasterio.errors import RasterioError

        with rasterio.Env(**_options(gdal_path(self.path), self.cache)):
            try:
                return self.inner.read(bands, rows, columns)
            except RasterioError as error:
                raise OSError(str(error.__cause__ or error)) from error

    def row_bytes(self, bands: int) -> int:
        height = max(ROWS, self.file.block_shapes[0][0])
        read = self.file.count if self._together() > 1 else bands
        return int(height * self.width * read * np.dtype(_numpy(self.file.dtypes[0])).itemsize)

    def _together(self) -> int:
        """How many bands are decoded at once."""
        kind = self.file.interleaving
        return int(self.file.count) if kind is not None and kind.name == "pixel" else 1

    def own(self, band: int) -> Own | None:
        place = self.inner.bands[band] - 1 if band < len(self.inner.bands) else 0
        scale, offset = self.file.scales[place], self.file.offsets[place]
        return None if (scale, offset) == (1, 0) else (scale if scale != 1 else None, offset)

    def identity(self) -> dict[str, Any]:
        own = file_identity(self.path)
        if self.file.driver != "VRT":
            return own
        others = [path for path in self.file.files if path != gdal_path(self.path)]
        return {**own, "of": [file_identity(path) for path in others if is_remote(path) or Path(path).exists()]}

    def close(self) -> None:
        self.file.close()


def file_identity(path: str) -> dict[str, Any]:
    """Name, size and time of a file; of what lies elsewhere the address (without what signs it)."""
    if is_remote(path):
        return {"path": path.partition("?")[0]}
    found = Path(gdal_path(path)).stat()
    return {"name": Path(path).name, "bytes": found.st_size, "time": found.st_mtime_ns}


def _options(where: str, cache: int) -> dict[str, Any]:
    options: dict[str, Any] = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": cache}
    if where.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz")):  # a listing of the bucket helps nobody
        options |= {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": 3, "GDAL_HTTP_RETRY_DELAY": 1}
    return options


def _numpy(kind: str) -> str:
    return {"complex_int16": "complex64"}.get(kind, kind)
