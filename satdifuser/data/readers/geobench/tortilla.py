"""A `.tortilla` file (TACO, version 1): samples one behind the other, and an index of them at the end, as Parquet.

It begins with two letters, and where its index lies and how long it is (eight bytes each). A sample can be a tortilla
itself, whose index counts from its own beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from satdifuser.data.files.fitting import BadImageError

HEAD = struct.Struct("<2sQQ")
LETTERS = (b"#y", b"WX")  # a tortilla's, and a taco's
NESTED = "TORTILLA"
ID, SPLIT, FORMAT = "tortilla:id", "tortilla:data_split", "tortilla:file_format"
OFFSET, LENGTH = "tortilla:offset", "tortilla:length"


@dataclass(frozen=True)
class Entry:
    """A sample, or a part of one: where its bytes lie, and what the index says of it."""

    file: Path
    offset: int
    length: int
    said: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.said[ID])

    @property
    def format(self) -> str:
        return str(self.said[FORMAT])

    def bytes(self, start: int = 0, most: int | None = None) -> bytes:
        """What is in it, or a piece of that."""
        with self.file.open("rb") as file:
            file.seek(self.offset + start)
            return file.read(self.length - start if most is None else min(most, self.length - start))

    def parts(self) -> list[Entry]:
        """What a sample consists of, in its order."""
        if self.format != NESTED:
            raise BadImageError(f"is a file of {self.format} and has no parts, but data.bands names parts")
        return index_of(self.file, self.offset, self.offset + self.length)


def index_of(path: Path, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None) -> list[Entry]:
    """What a tortilla at `start` of a file holds; of its index these columns and those that say where things are."""
    from pyarrow import BufferReader
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as file, _as_fault():
        table = ParquetFile(BufferReader(_footer(file, start, path.stat().st_size if end is None else end)))
        there = table.schema_arrow.names
        wanted = there if columns is None else [name for name in there if name in {*columns, *_ALWAYS}]
        lost = [name for name in (ID, FORMAT, OFFSET, LENGTH) if name not in there]
        if lost:
            raise BadImageError(f"has no {', '.join(lost)} in its index: it is no tortilla of version 1")
        rows = table.read(wanted).to_pylist()
    most = path.stat().st_size if end is None else end
    found = [Entry(path, start + int(row[OFFSET]), int(row[LENGTH]), row) for row in rows]
    for entry in found:
        if not start <= entry.offset <= entry.offset + entry.length <= most:
            raise BadImageError(f"ends before its part {entry.id!r} does")
    return found


_ALWAYS = (ID, SPLIT, FORMAT, OFFSET, LENGTH)


def _footer(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    head = file.read(HEAD.size)
    if len(head) < HEAD.size or head[:2] not in LETTERS:
        raise BadImageError("is no tortilla of version 1 (TACO): it does not begin as one")
    _, offset, length = HEAD.unpack(head)
    if start + offset + length > end:
        raise BadImageError("ends before its index does")
    file.seek(start + offset)
    return file.read(length)


@contextmanager
def _as_fault() -> Iterator[None]:
    """What pyarrow says of a damaged index, as a fault of the file."""
    try:
        yield
    except (BadImageError, ModuleNotFoundError):
        raise
    except Exception as error:  # pyarrow raises many kinds
        reason = " ".join(str(error).split())
        raise BadImageError(f"has an index that cannot be read ({reason})") from error
