"""By what a split of files is known wherever it lies: what is in some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOOKED_AT, LOOKED_AT_BYTES = 32, 2**18  # files of a split, and how much of the middle of each, by which it is known


def contents(count: int, path: Callable[[int], Path]) -> str:
    """Of some of `count` files, evenly chosen, their middle; one that cannot be read is for its reader to say."""
    found = hashlib.blake2b(digest_size=8)
    for place in sorted({number * count // LOOKED_AT for number in range(LOOKED_AT)}) if count else ():
        with suppress(OSError), path(place).open("rb") as file:
            file.seek(max(0, (path(place).stat().st_size - LOOKED_AT_BYTES) // 2))
            found.update(file.read(LOOKED_AT_BYTES))
    return found.hexdigest()
