"""GeoTIFF as numbers `[bands, H, W]`, with what the file says of them: scale and offset, no data, alpha."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError, Fitting
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

RASTERS = (".tif", ".tiff")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Raster:
    """Numbers as they are stored, where they are no data, and the scale and offset of each band if the file has one."""

    numbers: Array
    blank: Array | None
    scales: tuple[float, ...] | None
    offsets: tuple[float, ...] | None


def read_raster(path: Path, fitting: Fitting) -> Raster:
    """As much of the file as the fitting keeps; only the blocks that it lies in are decoded."""
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    except ImportError as error:
        raise UserError(f"{shown(path)} is a GeoTIFF, and rasterio is not installed: pip install rasterio") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path.absolute(), driver="GTiff") as file:  # no other: a VRT would read other files
                return _read(file, fitting)
        except RasterioIOError as error:
            raise OSError(str(error.__cause__ or error)) from error  # "see previous exception": the cause has the words


def _read(file: DatasetReader, fitting: Fitting) -> Raster:
    bands = _bands(file, fitting)
    fitting.check(len(bands), file.height, file.width)
    _check_meaning(file, bands)
    rows, columns = fitting.part(file.height, file.width)
    _check_room(file, fitting, (rows.stop - rows.start) * (columns.stop - columns.start) * len(bands))
    window: Any = ((rows.start, rows.stop), (columns.start, columns.stop))
    numbers = file.read(bands, window=window)
    blank = _blank(file, bands, window)
    return Raster(numbers, blank, *_scales(file, bands))


def _blank(file: DatasetReader, bands: list[int], window: Any) -> Array | None:
    """Where there is no data by a value, a mask or an alpha band; None if everywhere is some."""
    flags = file.mask_flag_enums
    plain = all(flag.name == "all_valid" for band in bands for flag in flags[band - 1])
    blank = None if plain else file.read_masks(bands, window=window) == 0
    for band in set(file.indexes) - set(bands):  # of more than four bands GDAL makes no mask of alpha
        clear = file.read(band, window=window) == 0
        blank = np.broadcast_to(clear, (len(bands), *clear.shape)) if blank is None else blank | clear
    return blank


def _bands(file: DatasetReader, fitting: Fitting) -> list[int]:
    """Which bands are data: all but one that says how opaque a pixel is."""
    if len(file.subdatasets) > 1:
        raise BadImageError(f"holds {len(file.subdatasets)} images: save each to a file of its own")
    kinds = [kind.name for kind in file.colorinterp]
    alpha = [number for number, kind in enumerate(kinds, 1) if kind == "alpha"]
    space = _colours(file, kinds)
    if space is not None:
        raise BadImageError(f"has its colours as {space}: save it as RGB or greyscale")
    if alpha and file.count == len(fitting.sensor):
        raise BadImageError(
            f"says that band {alpha[0]} is alpha (how opaque), not data; if it is data, run: gdal_edit.py"
            f" -colorinterp_{alpha[0]} undefined {file.name!r}"
        )
    return [number for number in file.indexes if number not in alpha]


def _colours(file: DatasetReader, kinds: list[str]) -> str | None:
    """The name of colours that are no measure of light; None of others."""
    tags = file.tags(ns="IMAGE_STRUCTURE")
    if tags.get("MINISWHITE") == "YES":
        return "miniswhite (0 is white)"
    source = tags.get("SOURCE_COLOR_SPACE", "YCbCr")  # which becomes red, green and blue as it is read
    if source != "YCbCr":
        return source.lower()
    return "numbers of a palette" if "palette" in kinds else None


def _check_meaning(file: DatasetReader, bands: list[int]) -> None:
    kind = file.dtypes[0]
    if kind.startswith("complex"):
        raise BadImageError(f"holds complex numbers ({kind}): save their amplitude, or what else is to be read of them")
    bits = file.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", "8")
    if kind == "uint8" and bits != "8":
        raise BadImageError(f"has {bits} bits in each number: save it with 8 or 16")


def _check_room(file: DatasetReader, fitting: Fitting, wanted: int) -> None:
    """Of a block all is decoded, whatever is wanted of it."""
    height, width = file.block_shapes[0]
    block = height * width * (file.count if file.interleaving.name == "pixel" else 1)
    fitting.check_room(max(wanted, block), file.height, file.width)


def _scales(file: DatasetReader, bands: list[int]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Scales and offsets where there are any; an error where they cannot mean reflectance."""
    scales = tuple(file.scales[band - 1] for band in bands)
    offsets = tuple(file.offsets[band - 1] for band in bands)
    for band, scale, offset in zip(bands, scales, offsets, strict=True):
        if not (math.isfinite(scale) and scale > 0 and math.isfinite(offset)):
            raise BadImageError(
                f"has the scale {scale:g} and the offset {offset:g} for band {band}: give those that make reflectance"
            )
    given = [scale != 1 for scale in scales]
    if any(given) and not all(given):
        raise BadImageError(
            f"has a scale for some bands, but none for band {bands[given.index(False)]}: give it one for each, or none"
        )
    odd = [offset for offset in offsets if not offset.is_integer()]
    if odd and not any(given) and file.dtypes[0].removeprefix("u").startswith("int"):
        raise BadImageError(
            f"has the offset {odd[0]:g} and no scale: give it the scale too, or an offset in its own unit"
        )
    return scales if any(given) else None, offsets if any(offsets) else None
