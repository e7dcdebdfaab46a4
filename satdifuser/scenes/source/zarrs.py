"""Zarr as rasters: arrays with x and y (and bands), their place by the conventions of CF, GeoZarr and GDAL."""

from __future__ import annotations

import base64
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Array, Numbers, Own
from satdifuser.errors import UserError
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.raster import LARGEST, Raster, is_remote
from satdifuser.scenes.source.zarr_place import ACROSS, DOWN, dims_of, place_of

MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
TIME = ("time", "t", "date")
DEEP = 5


def is_zarr(words: str) -> bool:
    """Whether it is a Zarr group or array, by its files; of one elsewhere by its name."""
    if is_remote(words):
        return words.rstrip("/").lower().endswith(".zarr")
    path = Path(words).expanduser()
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def zarr_layout(words: str) -> Layout:
    """Each array that is an image; those of EOPF's `measurements` alone where there are such."""
    import zarr

    root = opened(words)
    if isinstance(root, zarr.Array):
        return Layout("Zarr", (Layer(words, inner=""),))
    arrays = [(name, array) for name, array in _arrays(root) if _is_image(array)]
    measured = [(name, array) for name, array in arrays if name.startswith("measurements/")]
    layers = []
    for name, _ in measured or arrays:
        level = re.search(r"(?:^|/)r(\d+)m/[^/]+$", name)  # EOPF has a band again in each coarser group
        gsd = None if level is None else float(level[1])
        layers.append(Layer(words, stem=name.rpartition("/")[2], inner=name, gsd=gsd))
    if not layers:
        there = ", ".join(shown(name) for name, _ in _arrays(root)) or "no arrays"
        raise UserError(f"{shown(words)} has no array with two axes of an image: it has {there[:200]}")
    return Layout("Zarr", tuple(layers))


def opened(words: str) -> Any:
    """The group or array."""
    import zarr

    warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")  # of names of bands as text
    try:
        return zarr.open(words if is_remote(words) else str(Path(words).expanduser()), mode="r")
    except ModuleNotFoundError:
        raise
    except Exception as error:  # zarr has its own kinds
        raise UserError(f"{shown(words)} cannot be opened as Zarr ({' '.join(str(error).split())[:200]})") from error


def _arrays(group: Any) -> Iterator[tuple[str, Any]]:
    import zarr

    for name, member in sorted(group.members(max_depth=DEEP)):
        if isinstance(member, zarr.Array):
            yield name, member


def _is_image(array: Any) -> bool:
    dims = dims_of(array)
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "biuf":
        return False
    return dims is None or any(name in ACROSS for name in dims)


class ZarrRaster(Raster):
    """An array `[y, x]`, `[band, y, x]` or `[y, x, band]`; a time before them must be one."""

    def __init__(self, path: str, inner: str) -> None:
        self.path = f"{path.rstrip('/')}/{inner}" if inner else path
        self.root, self.inner = path, inner
        top = opened(path)
        self.array = top[inner] if inner else top
        self.axes = self._axes()
        shape = dict(zip(self.axes, self.array.shape, strict=True))
        self.height, self.width, self.count = shape["y"], shape["x"], shape.get("b", 1)
        if not (self.height and self.width and self.count):
            raise BadImageError(f"has the shape {tuple(self.array.shape)}: an image has pixels")
        above = inner.rpartition("/")[0] if inner else ""
        self.group = None if not inner else (top[above] if above else top)
        self.attributes = dict(self.array.attrs)
        groups = self._above(top, above) if inner else []
        self.place = place_of(self.array, self.axes, groups, self.height, self.width)
        if self.place is None:
            self.said = "has no georeference, so what is made of it has none"
        elif self.place.crs is None:
            self.said = "names no reference system, so what is made of it has none"
        self.names = self._names()
        self._check_chunks()

    @staticmethod
    def _above(top: Any, path: str) -> list[Any]:
        """The groups around it, the nearest first."""
        parts = path.split("/") if path else []
        return [*(top["/".join(parts[:n])] for n in range(len(parts), 0, -1)), top]

    def _axes(self) -> str:
        """A letter for each axis: y, x, b (bands), t (a time of length 1)."""
        dims, shape = dims_of(self.array), tuple(self.array.shape)
        if dims is None:
            if len(shape) in (2, 3):
                return "byx"[3 - len(shape) :]
            raise BadImageError(f"has the shape {shape} without names of its axes: give [band, y, x]")
        letters = ["x" if d in ACROSS else "y" if d in DOWN else "t" if d in TIME else "b" for d in dims]
        if letters.count("b") == 2 and 1 in [n for n, letter in zip(shape, letters, strict=True) if letter == "b"]:
            alone = next(i for i, letter in enumerate(letters) if letter == "b" and shape[i] == 1)
            letters[alone] = "t"
        axes = "".join(letters)
        if sorted(axes.replace("t", "")) not in (["x", "y"], ["b", "x", "y"]):
            raise BadImageError(f"has the axes {', '.join(dims)}: an image has y, x and at most one of bands")
        times = [n for n, letter in zip(shape, letters, strict=True) if letter == "t"]
        if any(n != 1 for n in times):
            raise BadImageError(f"has {max(times)} times: keep one (xarray: .isel(time=0)), a scene is of one date")
        return axes

    def _check_chunks(self) -> None:
        size = int(np.prod(self.array.chunks)) * self.array.dtype.itemsize
        if size > LARGEST:
            chunk = " x ".join(map(str, self.array.chunks))
            raise BadImageError(f"has chunks of {chunk}, {size / 1e9:.1f} GB to decode at once: rechunk it to 512 px")

    def _names(self) -> list[tuple[str, ...]]:
        if "b" not in self.axes:
            words = (
                self.inner.rpartition("/")[2],
                self.attributes.get("long_name"),
                self.attributes.get("standard_name"),
            )
            return [tuple(dict.fromkeys(word for word in words if isinstance(word, str) and word))]
        dims = dims_of(self.array)
        name = dims[self.axes.index("b")] if dims is not None else "band"
        listed: Any = None
        if self.group is not None and name in self.group and self.group[name].ndim == 1:
            values = self.group[name][:]
            listed = None if values.dtype.kind in "iuf" else [str(value) for value in values.tolist()]
        for key in ("bands", "band_names", "long_name", "names", "descriptions"):
            found = self.attributes.get(key)
            if listed is None and isinstance(found, list | tuple) and len(found) == self.count:
                listed = [str(each.get("name", "")) if isinstance(each, Mapping) else str(each) for each in found]
        return [()] * self.count if listed is None else [(word,) if word else () for word in listed]

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        first, last = min(bands), max(bands) + 1
        chunks = dict(zip(self.axes, self.array.chunks, strict=True))
        if "b" in self.axes and chunks["b"] == 1 and last - first > len(bands):
            found = np.concatenate([self._part(slice(band, band + 1), rows, columns) for band in bands])
        else:
            found = self._part(slice(first, last), rows, columns)[[band - first for band in bands]]
        own, blank = self._own(bands), self._blank(found)
        if found.dtype.kind == "u" and not self._fills() and own and any(offset for _, offset in own):
            blank = found == 0  # where nothing was written, as in a GeoTIFF
        return Numbers(found, blank, own)

    def _part(self, bands: slice, rows: slice, columns: slice) -> Array:
        wanted = {"b": bands, "y": rows, "x": columns, "t": 0}
        found = np.asarray(self.array[tuple(wanted[axis] for axis in self.axes)])
        left = self.axes.replace("t", "")
        found = found.transpose([left.index(axis) for axis in "byx" if axis in left])
        return found if found.ndim == 3 else found[None]

    def _blank(self, found: Array) -> Array | None:
        blank = None
        for number in self._fills():
            gone = np.isnan(found) if number != number else found == np.asarray(number).astype(found.dtype)
            blank = gone if blank is None else blank | gone
        return blank

    def _fills(self) -> list[float]:
        given = [self.attributes.get(key) for key in ("_FillValue", "missing_value", "nodata")]
        if "_ARRAY_DIMENSIONS" in self.attributes and self.array.fill_value is not None:  # where xarray keeps it
            given.append(self.array.fill_value)
        numbers = [_number(value, self.array.dtype) for value in given if value is not None]
        return [number for number in numbers if number is not None]

    def _own(self, bands: Sequence[int]) -> tuple[Own, ...] | None:
        offset = self.attributes.get("add_offset")
        scale = self.attributes.get("scale_factor", self.attributes.get("scales"))  # scales: of our own vectors
        if scale is None and offset is None:
            return None
        scales = np.broadcast_to(np.asarray(1.0 if scale is None else scale, float), (self.count,))
        offsets = np.broadcast_to(np.asarray(0.0 if offset is None else offset, float), (self.count,))
        if not (np.isfinite(scales).all() and (scales > 0).all() and np.isfinite(offsets).all()):
            raise BadImageError(f"has the scale_factor {scale} and the add_offset {offset}: give those of its unit")
        return tuple((float(scales[band]), float(offsets[band])) for band in bands)

    def own(self, band: int) -> Own | None:
        found = self._own([band])
        return None if found is None else found[0]

    def identity(self) -> dict[str, Any]:
        about = {"shape": list(self.array.shape), "dtype": str(self.array.dtype), "inner": self.inner}
        if is_remote(self.root):
            return {"path": self.root, **about}
        folder = Path(self.root).expanduser()
        marks = [folder / self.inner / mark for mark in (*MARKS, ".zattrs")]
        marks += [
            Path(inner) for inner, _, _ in os.walk(folder / self.inner)
        ]  # a chunk that is replaced dates its folder
        times = [mark.stat().st_mtime_ns for mark in marks if mark.exists()]
        return {"name": folder.name, "time": max(times, default=0), **about}


def _number(value: Any, kind: np.dtype[Any]) -> float | None:
    """As attributes have it: a number, its name, or the bytes of one in base 64 (xarray, of version 3)."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            try:
                raw = base64.standard_b64decode(value)
                return float(np.frombuffer(raw, "<f8" if len(raw) == 8 else kind.newbyteorder("<"))[0])
            except (ValueError, IndexError):
                return None
    return float(value) if isinstance(value, int | float | np.number) else None
