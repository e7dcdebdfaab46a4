"""NPY and data sets of HDF5 as numbers `[bands, H, W]`: arrays that say nothing of themselves but their shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.opened import Ask, Numbers, Opened

ARRAYS, HDF5 = (".npy",), (".h5", ".hdf5", ".he5", ".hdf", ".nc", ".mat")


@contextmanager
def npy(path: Path, ask: Ask) -> Iterator[Opened]:
    """The file, mapped: only what is read of it is loaded, and nothing pickled is."""
    yield Stack(np.load(path, mmap_mode="r", allow_pickle=False), ask, "array")


@contextmanager
def hdf5(path: Path, key: str | None, ask: Ask) -> Iterator[Opened]:
    """The data set of this name in the file."""
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
        if key is None or key.strip("/") not in names:
            known = ", ".join(names[:8]) or "none"
            if key is None and names:
                raise BadImageError(f"is HDF5 with {known}: name one of them behind it, as {path.name}:{names[0]}")
            raise BadImageError(f"has no data set {key!r}: it has {known}")
        yield Stack(file[key], ask, f"data set {key!r}")


class Stack(Opened):
    """`[h, w]`, `[bands, h, w]` or `[h, w, bands]`; with samples along a first axis, one of them."""

    def __init__(self, array: Any, ask: Ask, said: str) -> None:
        self.array, self.lead = array, () if ask.item is None else (ask.item,)
        shape = tuple(array.shape[len(self.lead) :])
        if array.dtype.kind not in "biuf":
            raise BadImageError(f"has an {said} of {array.dtype}, which is no table of numbers")
        if len(shape) not in (2, 3) or not all(shape):
            raise BadImageError(f"has an {said} of the shape {array.shape}: an image has height, width and bands")
        self.axes = None if len(shape) == 2 else ask.axes or _axes(shape, ask.bands)
        self.count = 1 if self.axes is None else shape[self.axes.index("b")]
        self.height, self.width = shape if self.axes is None else (shape[self.axes.index(x)] for x in "hw")

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        if self.axes is None:
            return Numbers(np.asarray(self.array[(*self.lead, rows, columns)])[None])
        if self.axes == "bhw":
            return Numbers(np.stack([np.asarray(self.array[(*self.lead, band, rows, columns)]) for band in bands]))
        found = np.asarray(self.array[(*self.lead, rows, columns)])
        return Numbers(np.ascontiguousarray(found.transpose(2, 0, 1)[list(bands)]))


def _axes(shape: Sequence[int], bands: int | None) -> str:
    first, last = shape[0] == bands, shape[2] == bands
    if first == last:
        said = f"both ends of its shape {tuple(shape)} could be" if first else f"no end of its shape {tuple(shape)} is"
        raise BadImageError(
            f"is an array of which {said} the {bands or 'unknown number of'} bands: set data.axes to bhw or hwb"
        )
    return "bhw" if first else "hwb"
