"""A store at a place of fsspec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from satdifuser.errors import UserError
from satdifuser.store.files import MOST, Piece, damaged, too_large


class RemoteFiles:
    """A place of fsspec (`s3://`, `gs://`, `memory://`, ...): many pieces are asked for at once."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._system, self._path = remote_system(self.root)
        self._system.invalidate_cache()  # of what was listed for a store that was there before

    def exists(self, key: str) -> bool:
        return bool(self._system.isfile(f"{self._path}/{key}"))

    def bytes(self, key: str, most: int = MOST) -> bytes:
        path = f"{self._path}/{key}"
        try:
            size = int(self._system.size(path) or 0)
            if size > most:
                raise too_large(self.root, key, size, most)
            data: bytes = self._system.cat_file(path)
        except OSError as error:
            raise _unread(self.root, key, error) from None
        return data

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        listed = self._system.find(self._path, detail=True)
        return {str(name)[len(self._path) :].lstrip("/"): info["size"] for name, info in listed.items()}

    def read_into(self, pieces: Sequence[Piece], arrived: Callable[[int], None] | None = None) -> None:
        paths = [f"{self._path}/{key}" for key, _, _ in pieces]
        starts = [offset for _, offset, _ in pieces]
        ends = [offset + len(target) for _, offset, target in pieces]
        found = self._system.cat_ranges(paths, starts, ends)
        for number, ((key, _, target), data) in enumerate(zip(pieces, found, strict=True)):
            if isinstance(data, Exception):
                raise _unread(self.root, key, data)
            if len(data) != len(target):
                raise damaged(self.root, key, "is cut short")
            target[:] = data
            if arrived is not None:
                arrived(number)

    def mark(self, key: str) -> object:
        path = f"{self._path}/{key}"
        self._system.invalidate_cache(path.rpartition("/")[0])
        try:
            return self._system.ukey(path)
        except OSError:
            return None

    def elsewhere(self) -> bool:
        return False


PROTOCOLS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https", "hf", "memory", "file", "local")


def _unread(root: str, key: str, error: Exception) -> UserError:
    gone = isinstance(error, FileNotFoundError)
    return damaged(root, key, "is not there" if gone else f"cannot be read ({error})")


def remote_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    A run's configuration may be somebody else's, and fsspec's chains (`a::b`) and descriptions of files (`reference://`)
    can do more than read one: only plain places are opened.
    """
    protocol = url.partition("://")[0]
    if "::" in url or protocol not in PROTOCOLS:
        raise UserError(f"{url} cannot be opened: a store lies in a folder, or at {'://, '.join(PROTOCOLS)}://")
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
