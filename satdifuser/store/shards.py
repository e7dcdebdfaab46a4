"""Shard files in the format of Zarr's sharding codec, written row by row.

The rows lie raw, one after the other; then for each chunk its offset and length (little-endian uint64), then the
CRC-32C of that index. So memory holds a batch however large a shard is, and a reader finds row i at i times its size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = 2**64 - 1  # offset and length of a chunk that is not there


def crc32c(data: NDArray[Any], start: int = 0) -> int:
    from google_crc32c import extend

    return int(extend(start, np.ascontiguousarray(data).reshape(-1).view(np.uint8)))


def row_sums(rows: NDArray[np.uint8]) -> list[int]:
    """The CRC-32C of each row of a table of bytes."""
    from google_crc32c import extend

    return [extend(0, row) for row in rows]


def shard_bytes(rows: int, row_bytes: int, chunk: int, capacity: int) -> int:
    """Size of a finished shard.

    >>> shard_bytes(rows=5, row_bytes=10, chunk=2, capacity=8)
    128
    """
    return -(-rows // chunk) * chunk * row_bytes + capacity // chunk * 16 + 4


class ShardWriter:
    """A shard that grows aside; `seal` makes it complete, and whoever owns it then gives it its name.

    To go on with a file that holds more than is known to be good, say how many rows are and what their CRC-32C was.
    """

    def __init__(self, path: Path, row_bytes: int, chunk: int, capacity: int, rows: int = 0, crc: int = 0) -> None:
        self.path, self.row_bytes, self.chunk, self.capacity = path, row_bytes, chunk, capacity
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if rows else "wb", buffering=0)
        try:
            self.rewind(rows, crc)
        except OSError:
            self._file.close()
            raise

    def append(self, rows: NDArray[Any]) -> list[int]:
        """Write rows and give the CRC-32C of each."""
        data = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        assert data.shape[1] == self.row_bytes
        self._write(data)
        self.rows += len(rows)
        return row_sums(data)

    def rewind(self, rows: int, crc: int) -> None:
        """Forget what came after so many rows."""
        self._file.truncate(rows * self.row_bytes)
        self._file.seek(rows * self.row_bytes)
        self.rows, self.crc = rows, crc

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def seal(self) -> tuple[int, int]:
        """Fill up the last chunk, write the index, and give the file's size and CRC-32C."""
        chunks = -(-self.rows // self.chunk)
        padding = chunks * self.chunk - self.rows
        self._write(np.zeros(padding * self.row_bytes, np.uint8))
        length = self.chunk * self.row_bytes
        index = np.full((self.capacity // self.chunk, 2), MISSING, "<u8")
        index[:chunks] = [(number * length, length) for number in range(chunks)]
        self._write(index)
        self._write(np.array([crc32c(index)], "<u4"))
        self.sync()
        return self._file.tell(), self.crc

    def close(self) -> None:
        self._file.close()

    def _write(self, data: NDArray[Any]) -> None:
        view = memoryview(data.reshape(-1).view(np.uint8).data)
        written = 0
        while written < len(view):  # the system may take less than asked for
            written += self._file.write(view[written:]) or 0
        self.crc = crc32c(data, self.crc)


def sharded_metadata(
    *, samples: int, shape: Sequence[int], dtype: str, chunk: int, unit: int, dimensions: Sequence[str]
) -> dict[str, Any]:
    """Arguments of Zarr's `create_array` for an array whose shards are written here."""
    return {
        "shape": (samples, *shape),
        "dtype": dtype,
        "chunks": (chunk, *shape),
        "shards": (unit, *shape),
        "compressors": None,  # activations hardly compress, and a row can be read without its neighbours
        "chunk_key_encoding": {"name": "default", "separator": "."},
        "dimension_names": tuple(dimensions),
        "config": {"write_empty_chunks": True},
    }
