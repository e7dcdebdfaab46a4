"""GeoTIFF as numbers `[bands, H, W]`, with what the file says of them: scale and offset, no data, alpha, place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.called import words_of
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Array, Ask, Numbers, Opened, Own, Place
from satdifuser.data.files.quiet import quiet
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

RASTERS = (".tif", ".tiff")


@contextmanager
def geotiff(path: Path, ask: Ask) -> Iterator[Opened]:
    """The file, open; only the blocks that are asked of it are decoded."""
    try:
        import rasterio
        from rasterio.errors import RasterioIOError
    except ImportError as error:
        raise UserError(f"{shown(path)} is a GeoTIFF, and rasterio is not installed: pip install rasterio") from error
    with quiet():
        try:
            with rasterio.open(path.absolute(), driver="GTiff") as file:  # no other: a VRT would read other files
                yield GeoTiff(file, ask)
        except RasterioIOError as error:
            raise OSError(str(error.__cause__ or error)) from error  # "see previous exception": the cause has the words


class GeoTiff(Opened):
    """Its bands are all that are data, but for alpha."""

    def __init__(self, file: DatasetReader, ask: Ask) -> None:
        self.file, self.ask = file, ask
        kinds = [kind.name for kind in file.colorinterp]
        self.alpha = [n for n, kind in enumerate(kinds, 1) if kind == "alpha"] if ask.alpha == "mask" else []
        _check_colours(file, kinds, self.alpha, ask)
        self.bands = [number for number in file.indexes if number not in self.alpha]
        self.table = file.colormap(1) if ask.use == "colours" and "palette" in kinds else None
        self.count = 3 if self.table else len(self.bands)
        self.height, self.width = file.height, file.width
        if not self.table:
            self.names = [words_of(file.descriptions[band - 1], file.tags(band)) for band in self.bands]
        if not file.transform.is_identity:
            self.place = Place(tuple(file.transform)[:6], file.crs, file.height, file.width)

    def decoded(self, bands: Sequence[int], rows: slice, columns: slice) -> int:
        """Of a block all is decoded, whatever is wanted of it."""
        height, width = self.file.block_shapes[0]
        block = height * width * (self.file.count if self.file.interleaving.name == "pixel" else 1)
        return max(block, super().decoded(bands, rows, columns))

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        window: Any = ((rows.start, rows.stop), (columns.start, columns.stop))
        if self.table:
            colours = np.zeros((256 if self.file.dtypes[0] == "uint8" else 65536, 3), np.uint8)
            for number, colour in self.table.items():
                colours[number] = colour[:3]
            return Numbers(colours[self.file.read(1, window=window)].transpose(2, 0, 1)[list(bands)])
        chosen = [self.bands[band] for band in bands]
        _check_meaning(self.file, chosen, self.ask)
        numbers, own = self.file.read(chosen, window=window), _own(self.file, chosen)
        blank = self._blank(chosen, window)
        if numbers.dtype.kind == "u" and own and any(offset for _, offset in own):  # zero is no data, not the offset
            blank = numbers == 0 if blank is None else blank | (numbers == 0)
        return Numbers(numbers, blank, own)

    def _blank(self, bands: list[int], window: Any) -> Array | None:
        """Where there is no data by a value, a mask or an alpha band; None if everywhere is some."""
        flags = [{flag.name for flag in flags} for flags in self.file.mask_flag_enums]
        asks = [b for b in bands if "all_valid" not in flags[b - 1] and (self.alpha or "alpha" not in flags[b - 1])]
        blank = self.file.read_masks(bands, window=window) == 0 if asks else None
        for band in self.alpha:  # of more than four bands GDAL makes no mask of alpha
            clear = self.file.read(band, window=window) == 0
            blank = np.broadcast_to(clear, (len(bands), *clear.shape)) if blank is None else blank | clear
        return blank


def _check_colours(file: DatasetReader, kinds: list[str], alpha: list[int], ask: Ask) -> None:
    if len(file.subdatasets) > 1:
        raise BadImageError(f"holds {len(file.subdatasets)} images: save each to a file of its own")
    tags = file.tags(ns="IMAGE_STRUCTURE")
    space = "miniswhite (0 is white)" if tags.get("MINISWHITE") == "YES" else None
    source = tags.get("SOURCE_COLOR_SPACE", "YCbCr")  # which becomes red, green and blue as it is read
    space = space or (None if source == "YCbCr" else source.lower())
    if space is None and "palette" in kinds and ask.use == "light":
        space = "numbers of a palette"  # no measure of light
    if space is not None:
        raise BadImageError(f"has its colours as {space}: save it as RGB or greyscale")
    if alpha and file.count == ask.bands:
        raise BadImageError(
            f"says that band {alpha[0]} is alpha (how opaque), not data; if it is data, set data.alpha=data (or run:"
            f" gdal_edit.py -colorinterp_{alpha[0]} undefined {file.name!r})"
        )


def _check_meaning(file: DatasetReader, bands: list[int], ask: Ask) -> None:
    kind = file.dtypes[0]
    if kind.startswith("complex"):
        raise BadImageError(f"holds complex numbers ({kind}): save their amplitude, or what else is to be read of them")
    bits = file.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", "8")
    if kind == "uint8" and bits != "8" and ask.use == "light":
        raise BadImageError(f"has {bits} bits in each number: save it with 8 or 16")


def _own(file: DatasetReader, bands: list[int]) -> tuple[Own, ...] | None:
    """Scales and offsets where there are any; an error where they cannot mean the unit of a band."""
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
    if not any(given) and not any(offsets):
        return None
    return tuple((scale if any(given) else None, offset) for scale, offset in zip(scales, offsets, strict=True))
