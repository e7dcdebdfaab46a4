"""By what a split of files is known wherever it lies: what is in some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LOOKED_AT = 32  # samples of a split, by which it is known
LOOKED_AT_BYTES = 2**18  # of the middle of each of their files


def contents(files: Iterable[Path]) -> str:
    """The middle of each; one that cannot be read is for its reader to say."""
    found = hashlib.blake2b(digest_size=8)
    for path in files:
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, (path.stat().st_size - LOOKED_AT_BYTES) // 2))
            found.update(file.read(LOOKED_AT_BYTES))
    return found.hexdigest()
