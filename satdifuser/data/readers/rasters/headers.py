"""What the headers of files say, each read once while it is the same file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from satdifuser.data.files.called import Words
from satdifuser.data.files.images import open_image
from satdifuser.data.files.opened import Ask, Place


@dataclass(frozen=True)
class Header:
    count: int
    height: int
    width: int
    place: Place | None
    names: tuple[Words, ...]

    @property
    def grid(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def pixels(self) -> int:
        return self.height * self.width


def header(path: Path, ask: Ask, key: str | None = None) -> Header:
    """Bands, size and place of an image; an error that names the file."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # opening it says what is wrong
    return _header(path, ask, key, changed)


@functools.lru_cache(maxsize=2**16)
def _header(path: Path, ask: Ask, key: str | None, changed: int) -> Header:
    with open_image(path, ask, key) as opened:
        return Header(opened.count, opened.height, opened.width, opened.place, tuple(opened.names))
