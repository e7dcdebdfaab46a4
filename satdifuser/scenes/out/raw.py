"""Units as arrays of NumPy, for files that Python writes: read again without loading what is not asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from satdifuser.scenes.out.base import Array
from satdifuser.scenes.out.partial import Partial, Piece


class Raw(Partial):
    suffix = ".npy"

    def unit_bytes(self, array: Array, nodata: float) -> bytes:
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        return content.getvalue()


def loaded(piece: Piece) -> Array:
    found: Any = np.load(piece.path, mmap_mode="r", allow_pickle=False)
    return np.asarray(found)


def part(pieces: Sequence[Piece], rows: slice, columns: slice) -> Array:
    """A part of what the pieces make together, `[bands, h, w]`."""
    found: Array | None = None
    for piece in pieces:
        top, bottom = max(rows.start, piece.rows.start), min(rows.stop, piece.rows.stop)
        left, right = max(columns.start, piece.columns.start), min(columns.stop, piece.columns.stop)
        if top >= bottom or left >= right:
            continue
        own = loaded(piece)
        if found is None:
            found = np.empty((own.shape[0], rows.stop - rows.start, columns.stop - columns.start), own.dtype)
        found[:, top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = own[
            :,
            top - piece.rows.start : bottom - piece.rows.start,
            left - piece.columns.start : right - piece.columns.start,
        ]
    assert found is not None
    return found
