"""A part of a sample as numbers: the bytes of a GeoTIFF or of a file of HDF5."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.quiet import quiet

Array = np.ndarray[Any, Any]
Room = Callable[[int, int, int], None]  # refuses so many numbers of so many rows and columns


def layers(content: bytes, form: str, room: Room) -> Array:
    """`[layers, H, W]`, or `[dates, layers, H, W]`."""
    if form == "GTiff":
        return _raster(content, room)
    if form == "HDF5":
        import h5py

        with h5py.File(io.BytesIO(content), "r") as file:
            data = file.get("data")
            if data is None or data.ndim not in (2, 3, 4) or data.dtype.kind not in "biuf":
                held = ", ".join(file) or "nothing"
                raise BadImageError(f"has a part of HDF5 without a table of numbers 'data': it has {held}")
            room(data.size, *data.shape[-2:])
            found: Array = data[()]
            return found[None] if found.ndim == 2 else found
    raise BadImageError(f"has a part in the format {form}: GTiff and HDF5 are read")


def _raster(content: bytes, room: Room) -> Array:
    import rasterio
    from rasterio.errors import RasterioIOError

    with quiet():
        try:
            with rasterio.MemoryFile(content) as memory, memory.open(driver="GTiff") as file:
                room(file.count * file.height * file.width, file.height, file.width)
                return np.asarray(file.read())
        except RasterioIOError as error:
            raise OSError(str(error.__cause__ or error)) from error  # "see previous exception": the cause has the words


def polygons(content: bytes) -> Array:
    """`[1, H, W]`, 1 inside the polygons of an annotation in HDF5 (lists x, y, x, y, ...), else 0."""
    import h5py
    from PIL import Image, ImageDraw

    with h5py.File(io.BytesIO(content), "r") as file:
        text = file.attrs.get("annotation")
    said = json.loads(text) if text is not None else {}
    if "sample_annotations" not in said or "image_size" not in said:
        raise BadImageError("has annotations without polygons: boxes alone are no mask")
    height, width = said["image_size"]
    picture = Image.new("L", (int(width), int(height)), 0)
    for one in said["sample_annotations"]:
        for outline in one["mask"]:
            ImageDraw.Draw(picture).polygon(
                [(float(x), float(y)) for x, y in zip(*[iter(outline)] * 2, strict=True)], 1
            )
    return np.asarray(picture)[None]
