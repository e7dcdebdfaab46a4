"""Arrays of a store for xarray, read when they are used; imported where xarray is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from satdifuser.store.reader import StoredFeatures

PIECE = 64 * 2**20  # bytes of a result that are made at once


class Rows:
    """Samples of several splits, one after the other."""

    def __init__(self, parts: Sequence[StoredFeatures]) -> None:
        self.parts = list(parts)
        self._first = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Some samples of a stored array, each beside its checksum."""
        array = self.parts[0].store.array(name)
        found = np.empty((len(rows), *array.row_shape), array.dtype)
        of = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(of):
            mine = np.flatnonzero(of == number)
            found[mine] = self.parts[number].read_array(name, rows[mine] - self._first[number])
        return found


class Lazy(BackendArray):
    """Stored arrays `names` of all rows; `made` makes of some rows of each those of the result."""

    def __init__(
        self, rows: Rows, names: Sequence[str], shape: Sequence[int], dtype: Any, made: Callable[..., NDArray[Any]]
    ) -> None:
        self.rows, self.names, self.made = rows, tuple(names), made
        self.shape, self.dtype = (len(rows), *shape), np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> NDArray[Any]:
        wanted, rest = np.arange(len(self.rows))[key[0]], key[1:]
        rows = np.atleast_1d(wanted)
        step = max(1, PIECE // max(1, self.dtype.itemsize * int(np.prod(self.shape[1:]))))
        pieces = [self._part(rows[first : first + step], rest) for first in range(0, max(1, len(rows)), step)]
        found = np.concatenate(pieces)
        return found if wanted.ndim else found[0]

    def _part(self, rows: NDArray[Any], rest: Sequence[Any]) -> NDArray[Any]:
        values = self.made(*(self.rows.read(name, rows) for name in self.names)).reshape(len(rows), *self.shape[1:])
        for axis in reversed(range(len(rest))):  # from the last: an integer takes its axis away
            values = values[(slice(None),) * (axis + 1) + (rest[axis],)]
        return values


def lazily(*given: Any) -> Any:
    """A `Lazy` as xarray keeps what it has not read."""
    return indexing.LazilyIndexedArray(Lazy(*given))


def kept(values: NDArray[Any]) -> NDArray[Any]:
    return values


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def of_bits(bits: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of bfloat16, which are the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def of_levels(levels: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of int8, which has a scale for each sample, date and channel."""
    found: NDArray[np.float32] = levels.astype(np.float32) * scales[..., None, None]
    return found
