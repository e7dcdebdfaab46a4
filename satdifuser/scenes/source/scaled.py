"""int8 vectors with a scale for each pixel in a file of its own, as TESSERA's: `x.npy` and `x_scales.npy`, or TIFFs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.opened import Array, Numbers
from satdifuser.scenes.source.raster import GdalRaster, Raster, file_identity, is_remote

SCALES, BESIDE = "_scales", (".tif", ".tiff")


def scales_beside(path: str) -> str | None:
    """The file of scales that belongs to a raster, if there is one."""
    if is_remote(path):
        return None
    own = Path(path).expanduser()
    other = own.with_name(f"{own.stem}{SCALES}{own.suffix}")
    return str(other) if own.suffix.lower() in (".npy", *BESIDE) and other.is_file() else None


class ScaledRaster(Raster):
    """Number times the pixel's scale, as float32; where the scale is 0 or not finite, there is no vector.

    An array of NumPy has the axes rows, columns, channels; a GeoTIFF of its name beside it says where it lies.
    """

    def __init__(self, path: str, scales: str) -> None:
        self.path, self._files = path, [path, scales]
        self._inner: GdalRaster | None = None
        if path.lower().endswith(".npy"):
            self._numbers = _array(path)
            if self._numbers.ndim != 3:
                raise BadImageError(f"has the shape {self._numbers.shape}, not rows, columns and channels")
            self.height, self.width, self.count = self._numbers.shape
            self.names = [() for _ in range(self.count)]
            beside = next((p for p in (Path(path).with_suffix(end) for end in BESIDE) if p.is_file()), None)
            self._place_by(beside)
        else:
            self._inner = GdalRaster(path, named=True)
            self.height, self.width, self.count = self._inner.height, self._inner.width, self._inner.count
            self.place, self.names, self.said = self._inner.place, self._inner.names, self._inner.said
        self._scales: Any = _array(scales) if scales.lower().endswith(".npy") else _read_all(scales)
        if self._scales.ndim == 3 and self._scales.shape[-1] == 1:
            self._scales = self._scales[..., 0]
        if self._scales.shape not in ((self.height, self.width), (self.height, self.width, self.count)):
            self.close()
            raise BadImageError(
                f"has {self.height} x {self.width} px of {self.count} channels, and {Path(scales).name} the shape"
                f" {self._scales.shape}: give the scales of this file"
            )

    def _place_by(self, beside: Path | None) -> None:
        if beside is None:
            self.said = "has no GeoTIFF of its name beside it, so what is made of it has no georeference"
            return
        found = GdalRaster(str(beside), named=True)
        try:
            if (found.height, found.width) != (self.height, self.width):
                raise BadImageError(
                    f"has {self.height} x {self.width} px, and {beside.name} {found.height} x {found.width}: give it"
                    " the GeoTIFF of this very grid"
                )
            self.place, self.said = found.place, found.said
        finally:
            found.close()

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        scales = np.asarray(self._scales[rows, columns], np.float32)
        each = scales[None] if scales.ndim == 2 else np.moveaxis(scales, -1, 0)[list(bands)]
        if self._inner is None:
            numbers: Array = np.moveaxis(np.asarray(self._numbers[rows, columns])[..., list(bands)], -1, 0)
            blank = None
        else:
            found = self._inner.read(bands, rows, columns)
            numbers, blank = found.numbers, found.blank
        gone = ~np.isfinite(each) | (each == 0)
        values = numbers.astype(np.float32) * np.where(gone, np.float32(0), each)
        gone = np.broadcast_to(gone, values.shape)
        return Numbers(values, gone.copy() if blank is None else gone | blank, None)

    def identity(self) -> dict[str, Any]:
        return {"files": [file_identity(path) for path in self._files]}

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()


def _array(path: str) -> Array:
    found: Array = np.load(path, mmap_mode="r")
    return found


def _read_all(path: str) -> Array:
    """The scales of a GeoTIFF, rows first."""
    raster = GdalRaster(path, named=True)
    try:
        found = raster.read(range(raster.count), slice(0, raster.height), slice(0, raster.width)).numbers
    finally:
        raster.close()
    return np.moveaxis(found, 0, -1)
