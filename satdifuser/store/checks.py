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

    def __init__(self, path: str) -> None:
        self.path = path
        self._wanted: list[tuple[Piece, list[int], Sequence[str]]] = []

    def add(self, piece: Piece, sums: list[int], ids: Sequence[str]) -> None:
        """The next piece to be read holds rows of these sums, of the samples of these ids."""
        self._wanted.append((piece, sums, ids))

    def __call__(self, number: int) -> None:
        (key, _, data), sums, ids = self._wanted[number]
        found = row_sums(np.frombuffer(data, np.uint8).reshape(len(sums), -1))
        if found == sums:
            return
        name = next(name for name, one, other in zip(ids, found, sums, strict=True) if one != other)
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
