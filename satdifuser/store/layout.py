"""Where things lie in a feature store: a Zarr v3 group that other tools open without our code.

    zarr.json        spec, form, data, classes, band statistics, configuration: attributes of the group
    <tap>@<t>/       one array [sample, channel, y, x] for each tap (beside it <tap>@<t>.scale where it is int8);
                     of samples of several dates [sample, time, channel, y, x]
    sample           sample ids as strings, for xarray; id has them as UTF-8 bytes
    split, ...       number of the split, labels, dates
    left, ..., crs   bounds of each sample and their reference system, where the data has them
    checksum         [sample, column] CRC-32C of each row of features and wide labels, so that damage has a name
    manifest.json    every file with its size and CRC-32C; it is written last

Samples are cut into units. A unit has one file of every array; it is what processes share out and what is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from satdifuser.data.base import LABELS
from satdifuser.store.forms import Column

VERSION = 3
READS = (2, VERSION)  # those of version 2 have no strings and no places
SHARD_BYTES = 256 * 2**20  # about the largest file; docs/store.md has the measurement behind both
CHUNK_BYTES = 64 * 2**10  # smaller rows share a chunk, for the sake of readers that fetch chunk by chunk
LEAST_UNITS = 8  # of a small store, so that several processes find work
WIDE = 1024  # bytes; a label that takes more in each row is kept like a tap's maps and read row by row
LABEL_COLUMNS = (*LABELS, "metadata", "dates")
ID_BYTES = 4096  # of a sample's id: as long as a path can be
NAMES = "sample"  # the array of ids as strings; `id` has the same as bytes, which is what this package reads
SIDES = ("left", "bottom", "right", "top")
CRS = "crs"  # the array of numbers in the attribute of this name, -1 of a sample without a place
PLACE_COLUMNS = {**dict.fromkeys(SIDES, ("float64", 8)), CRS: ("int16", 2)}  # their types, and bytes of a row
Place = tuple[tuple[float, float, float, float], str]  # left, bottom, right and top in the units of a reference system
Places = Mapping[str, Mapping[str, Place]]  # of the samples that have one: split -> id


def files_key(name: str, unit: int, dimensions: int) -> str:
    """The file of an array that holds a unit: flat, since a folder for each dimension would only cost inodes.

    >>> files_key("mid@21", 3, 4)
    'mid@21/c.3.0.0.0'
    """
    return f"{name}/c.{unit}" + ".0" * (dimensions - 1)


@dataclass(frozen=True)
class Unit:
    """Samples `first` to `first + count`."""

    number: int
    first: int
    count: int


@dataclass(frozen=True)
class Units:
    """How samples are cut: a function of their number and size alone, not of the processes that write them."""

    samples: int
    size: int
    chunk_bytes: int = CHUNK_BYTES

    @classmethod
    def of(cls, columns: Sequence[Column], samples: int, shard_bytes: int = SHARD_BYTES) -> Units:
        size = max(1, shard_bytes // max(column.row_bytes for column in columns))
        units = cls(samples, min(size, -(-samples // LEAST_UNITS)), CHUNK_BYTES)
        whole = max(units.chunk(column.row_bytes) for column in columns)
        return replace(units, size=-(-units.size // whole) * whole)

    def chunk(self, row_bytes: int) -> int:
        """Rows of a chunk: a power of two no larger than a unit, so that the largest of several is a multiple of all.

        >>> Units(10_000, 512).chunk(2560), Units(10_000, 512).chunk(655_360)
        (16, 1)
        """
        rows = 1
        while 2 * rows * row_bytes <= self.chunk_bytes and 2 * rows <= self.size:
            rows *= 2
        return rows

    def __len__(self) -> int:
        return -(-self.samples // self.size)

    def __getitem__(self, number: int) -> Unit:
        if not 0 <= number < len(self):
            raise IndexError(number)
        first = number * self.size
        return Unit(number, first, min(self.size, self.samples - first))

    def __iter__(self) -> Iterator[Unit]:
        return (self[number] for number in range(len(self)))
