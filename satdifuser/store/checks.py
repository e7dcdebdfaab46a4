"""Rows as they are read beside the checksums that they were written with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from satdifuser.errors import UserError
from satdifuser.store.files import Piece, StoreFiles, damaged
from satdifuser.store.manifest import Manifest
from satdifuser.store.shards import crc32c, row_sums

PIECE = 16 * 2**20
Sums = NDArray[np.uint32]


class RowCheck:
    """What the pieces of a read must be: given to `read_into`, it looks at each as it arrives, while it is at hand."""

    def __init__(self, path: str, ids: Sequence[str]) -> None:
        """The samples of these ids are read, of one array after the other."""
        self.path, self.ids = path, ids
        self.pieces: list[Piece] = []
        self._sums: list[int] = []  # flat: thousands of small lists would keep the garbage collector busy
        self._first = [0]

    def expect(self, sums: Sums) -> None:
        """The checksums of all samples in the next array."""
        self._sums += sums.tolist()

    def add(self, piece: Piece, rows: int) -> None:
        """The next piece to be read, which holds the next so many rows."""
        self.pieces.append(piece)
        self._first.append(self._first[-1] + rows)

    def __call__(self, number: int) -> None:
        key, _, data = self.pieces[number]
        first, stop = self._first[number : number + 2]
        sums = self._sums[first:stop]
        found = row_sums(np.frombuffer(data, np.uint8).reshape(stop - first, -1))
        if found == sums:
            return
        hit = first + next(row for row, pair in enumerate(zip(found, sums, strict=True)) if pair[0] != pair[1])
        name = self.ids[hit % len(self.ids)]
        what = key.rpartition("/")[0].removesuffix(".scale")
        raise UserError(
            f"{self.path}: {key} is damaged ({what} of sample {name} has another checksum): satdifuser store verify"
            f" {self.path} says what else is; copy the store again, or extract it again"
        )


def summed(files: StoreFiles, manifest: Manifest, shards: Iterable[tuple[str, int]], row_bytes: int) -> Sums:
    """The sums of all rows of an array, from its whole files: for labels whose sums an earlier version did not keep."""
    sums: list[int] = []
    for key, rows in shards:
        (size, crc), found, whole = manifest.files[key], 0, rows * row_bytes
        steps = range(0, whole, max(1, PIECE // row_bytes) * row_bytes)
        for first, stop in pairwise([*steps, whole, size]):
            piece = read(files, key, first, stop - first)
            found = crc32c(piece, found)
            if first < whole:
                sums += row_sums(piece.reshape(-1, row_bytes))
        if found != crc:
            raise damaged(files.root, key, "is damaged (its checksum differs)")
    return np.array(sums, np.uint32)


def read(files: StoreFiles, key: str, offset: int, count: int) -> NDArray[np.uint8]:
    piece = np.empty(count, np.uint8)
    files.read_into([(key, offset, piece.data)])
    return piece
