"""A store in a folder of this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError
from satdifuser.store.files import MOST, Piece, damaged, too_large
from satdifuser.store.manifest import checked

BY_FOLDER = {os.open, os.stat} <= os.supports_dir_fd and os.scandir in os.supports_fd
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class LocalFiles:
    """The folder that was at the path when it was opened, even if another takes its place.

    No file stays open between reads, only the folder, so threads and workers may share it.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder: int | None = None
        if BY_FOLDER:
            try:
                self._folder = os.open(root or ".", os.O_RDONLY | os.O_DIRECTORY)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", None) not in ABSENT:
                    raise UserError(f"{root!r} cannot be opened: {getattr(error, 'strerror', error)}") from None
            else:
                weakref.finalize(self, os.close, self._folder)

    def exists(self, key: str) -> bool:
        return checked(Path(self.root), key).is_file() and self.mark(key) is not None

    def bytes(self, key: str, most: int = MOST) -> bytes:
        checked(Path(self.root), key)
        with self._opened(key) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise too_large(self.root, key, size, most)
            data = bytearray(size)
            self._fill(key, file, memoryview(data))
            return bytes(data)

    def sizes(self, keys: Iterable[str]) -> dict[str, int | str]:
        """One look at each folder, not one at each file."""
        found: dict[str, int | str] = {}
        for folder in {key.rpartition("/")[0] for key in keys}:
            with contextlib.ExitStack() as stack:
                try:
                    entries = stack.enter_context(self._listed(folder, stack))
                except OSError:
                    continue
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_file():
                        found[key] = self._size(key, entry)
        return found

    def _listed(self, folder: str, stack: contextlib.ExitStack) -> Any:
        if self._folder is None:
            return os.scandir(Path(self.root, folder))
        opened = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._folder)
        stack.callback(os.close, opened)
        return os.scandir(opened)

    def _size(self, key: str, entry: os.DirEntry[str]) -> int | str:
        try:
            checked(Path(self.root), key)
        except UserError as error:
            return str(error).partition(f"{key} ")[2] or str(error)
        return entry.stat().st_size

    def read_into(self, pieces: Sequence[Piece], arrived: Callable[[int], None] | None = None) -> None:
        with contextlib.ExitStack() as stack:
            opened: dict[str, Any] = {}
            for key, offset, target in pieces:  # ask for all of it at once: the disk then has more than one thing to do
                if key not in opened:
                    opened[key] = stack.enter_context(self._opened(key))
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(opened[key].fileno(), offset, len(target), os.POSIX_FADV_WILLNEED)
            for number, (key, offset, target) in enumerate(pieces):
                opened[key].seek(offset)
                self._fill(key, opened[key], target)
                if arrived is not None:
                    arrived(number)

    def mark(self, key: str) -> object:
        try:
            found = os.stat(self._place(key), dir_fd=self._folder)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def elsewhere(self) -> bool:
        if self._folder is None:
            return False  # without a hold on the folder, what its manifest says must do
        try:
            there, mine = Path(self.root).stat(), os.fstat(self._folder)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def _place(self, key: str) -> str:
        return key if self._folder is not None else str(Path(self.root, key))

    def _opened(self, key: str) -> Any:
        try:
            return open(self._place(key), "rb", buffering=0, opener=self._open)
        except OSError as error:
            what = "is not there" if error.errno in ABSENT else f"cannot be read ({error.strerror})"
            raise damaged(self.root, key, what) from None

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags, dir_fd=self._folder)

    def _fill(self, key: str, file: Any, target: memoryview) -> None:
        done = 0
        while done < len(target):  # the system may give less than asked for
            count = file.readinto(target[done:])
            if not count:
                raise damaged(self.root, key, "is cut short")
            done += count
