"""The files of a store, wherever they lie: pieces of them read straight into memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from satdifuser.errors import UserError
from satdifuser.store.manifest import NAME, Manifest, checked

Piece = tuple[str, int, memoryview]  # file, offset, where its bytes go


class StoreFiles(Protocol):
    """What a reader needs of a place."""

    root: str

    def exists(self, key: str) -> bool: ...

    def bytes(self, key: str) -> bytes: ...

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        """The sizes of the files that are there; in words what is wrong with one that must not be read."""
        ...

    def read_into(self, pieces: Sequence[Piece]) -> None: ...

    def group(self) -> Any: ...


def open_files(path: str) -> StoreFiles:
    """A folder, or where the path has a protocol, a place that fsspec knows."""
    return RemoteFiles(path) if "://" in path else LocalFiles(path)


def read_manifest(files: StoreFiles) -> Manifest:
    if not files.exists(NAME):
        raise UserError(
            f"{files.root} has no {NAME}: it is no feature store, or was not copied whole; copy or extract it again"
        )
    return Manifest.from_json(files.bytes(NAME).decode("utf-8", "replace"), files.root)


class LocalFiles:
    """A folder of this machine. Nothing stays open between reads, so threads and workers may share it."""

    def __init__(self, root: str) -> None:
        self.root = root

    def exists(self, key: str) -> bool:
        return checked(Path(self.root), key).is_file()

    def bytes(self, key: str) -> bytes:
        return checked(Path(self.root), key).read_bytes()

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        """One look at each folder, not one at each file."""
        found: dict[str, int | str] = {}
        for folder in {key.rpartition("/")[0] for key in keys}:
            path = Path(self.root, folder)
            if not path.is_dir():
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_file():
                        found[key] = self._size(key, entry)
        return found

    def _size(self, key: str, entry: os.DirEntry[str]) -> int | str:
        try:
            checked(Path(self.root), key)
        except UserError as error:
            return str(error).partition(f"{key} ")[2] or str(error)
        return entry.stat().st_size

    def read_into(self, pieces: Sequence[Piece]) -> None:
        with contextlib.ExitStack() as stack:
            opened: dict[str, Any] = {}
            for key, offset, target in pieces:  # ask for all of it at once: the disk then has more than one thing to do
                if key not in opened:
                    opened[key] = stack.enter_context(self._opened(key))
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(opened[key].fileno(), offset, len(target), os.POSIX_FADV_WILLNEED)
            for key, offset, target in pieces:
                opened[key].seek(offset)
                self._fill(key, opened[key], target)

    def _opened(self, key: str) -> Any:
        try:
            return (Path(self.root) / key).open("rb", buffering=0)
        except FileNotFoundError:
            raise damaged(self.root, key, "is not there") from None

    def _fill(self, key: str, file: Any, target: memoryview) -> None:
        done = 0
        while done < len(target):  # the system may give less than asked for
            count = file.readinto(target[done:])
            if not count:
                raise damaged(self.root, key, "is cut short")
            done += count

    def group(self) -> Any:
        import zarr

        return zarr.open_group(self.root, mode="r")


class RemoteFiles:
    """A place of fsspec (`s3://`, `gs://`, `memory://`, ...): many pieces are asked for at once."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._system, self._path = remote_system(self.root)

    def exists(self, key: str) -> bool:
        return bool(self._system.isfile(f"{self._path}/{key}"))

    def bytes(self, key: str) -> bytes:
        data: bytes = self._system.cat_file(f"{self._path}/{key}")
        return data

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        listed = self._system.find(self._path, detail=True)
        return {str(name)[len(self._path) :].lstrip("/"): info["size"] for name, info in listed.items()}

    def read_into(self, pieces: Sequence[Piece]) -> None:
        paths = [f"{self._path}/{key}" for key, _, _ in pieces]
        starts = [offset for _, offset, _ in pieces]
        ends = [offset + len(target) for _, offset, target in pieces]
        for (key, _, target), data in zip(pieces, self._system.cat_ranges(paths, starts, ends), strict=True):
            if isinstance(data, Exception):
                raise damaged(self.root, key, f"cannot be read ({data})")
            if len(data) != len(target):
                raise damaged(self.root, key, "is cut short")
            target[:] = data

    def group(self) -> Any:
        import zarr
        from zarr.storage import FsspecStore

        return zarr.open_group(FsspecStore.from_url(self.root), mode="r")


def remote_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is not installed ({error}): pip install 'satdifuser[cloud]'"
        ) from None
    except ValueError as error:
        raise UserError(f"{url} cannot be opened: {error}") from None
    return system, str(path)


def misfit(size: int, found: int | str | None) -> str | None:
    """What is wrong with a file that should have a size; None if nothing is."""
    if found == size:
        return None
    if found is None:
        return "is not there"
    return found if isinstance(found, str) else f"has {found} bytes instead of {size}"


def damaged(root: str, key: str, what: str) -> UserError:
    return UserError(f"{root}: {key} {what}: copy the store again, or extract it again")
