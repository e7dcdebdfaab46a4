"""The files of a store, wherever they lie: pieces of them read straight into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from satdifuser.errors import UserError
from satdifuser.store.manifest import NAME, Manifest

Piece = tuple[str, int, memoryview]  # file, offset, where its bytes go
MOST = 64 * 2**20  # bytes of a description or a manifest: a million files take less


class StoreFiles(Protocol):
    """What a reader needs of a place."""

    root: str

    def exists(self, key: str) -> bool: ...

    def bytes(self, key: str, most: int = MOST) -> bytes:
        """A whole file, unless it is larger than `most`: what is not to be believed is not read either."""
        ...

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        """The sizes of the files that are there; in words what is wrong with one that must not be read."""
        ...

    def read_into(self, pieces: Sequence[Piece], arrived: Callable[[int], None] | None = None) -> None:
        """Read pieces to where they go; `arrived` is told the number of each that is there."""
        ...

    def mark(self, key: str) -> object:
        """What is another one when the file was written again; None where it is not there. It is cheap to ask for."""
        ...

    def elsewhere(self) -> bool:
        """Whether the path leads by now to another place than the one that was opened."""
        ...


def located(path: object) -> str:
    """A path as it is meant: `~` is the user's own folder."""
    text = str(path)
    with contextlib.suppress(RuntimeError):  # there is no such user: a folder may be called so
        return str(Path(text).expanduser()) if text.startswith("~") else text
    return text


def read_manifest(files: StoreFiles) -> Manifest:
    return parsed(manifest_text(files), files.root)


def parsed(text: str, root: str) -> Manifest:
    """A manifest that lists at least the description."""
    manifest = Manifest.from_json(text, root)
    if "zarr.json" not in manifest.files:
        count = len(manifest.files)
        raise damaged(root, NAME, f"lists {count} files, and no zarr.json" if count else "lists no file")
    return manifest


def manifest_text(files: StoreFiles) -> str:
    if not files.exists(NAME):
        raise UserError(
            f"{files.root} has no {NAME}: it is no feature store, or was not copied whole; copy or extract it again"
        )
    return files.bytes(NAME).decode("utf-8", "replace")


def misfit(size: int, found: int | str | None) -> str | None:
    """What is wrong with a file that should have a size; None if nothing is."""
    if found == size:
        return None
    if found is None:
        return "is not there"
    return found if isinstance(found, str) else f"has {found} bytes instead of {size}"


def damaged(root: str, key: str, what: str) -> UserError:
    return UserError(f"{root}: {key} {what}: copy the store again, or extract it again")


def too_large(root: str, key: str, size: Any, most: int) -> UserError:
    return damaged(root, key, f"has {size} bytes, and must not have more than {most}")
