"""The disk that a store is written to: is there room, how fast is it, who else writes, what went wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.errors import UserError
from satdifuser.store.forms import bytes_text
from satdifuser.store.plan import StorePlan


def write_aside(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def check_space(plan: StorePlan, path: Path, written: int) -> None:
    """Refuse what cannot fit, with the cheaper forms that would."""
    free = shutil.disk_usage(path.parent).free
    needed = plan.feature_bytes - written
    if needed > free:
        raise UserError(
            f"{path} needs {bytes_text(needed)}, but {path.parent} has {bytes_text(free)} free:"
            f" {plan.cheaper(free + written)}"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


@dataclass(frozen=True)
class WriteRate:
    """Bytes that were written in so many seconds, and how fast the first and the last third of them went."""

    written: int
    seconds: float
    first: float
    last: float

    @property
    def rate(self) -> float:
        return self.written / self.seconds


def sustained_write(folder: Path, most: int = 4 * 2**30, seconds: float = 10.0) -> WriteRate:
    """Write for a while to that very disk, and not to the system's cache; the file is removed again.

    A tenth of the free space at most. A drive that slows down after more than that will be slower than this says.
    """
    block = np.random.default_rng(0).integers(0, 256, 16 * 2**20, np.uint8).tobytes()  # no disk can compress it
    most = min(most, shutil.disk_usage(folder).free // 10)
    marks = [time.perf_counter()]
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".satdifuser-write-test-") as file:
        while not marks[1:] or ((len(marks) - 1) * len(block) < most and marks[-1] - marks[0] < seconds):
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            marks.append(time.perf_counter())
    count = len(marks) - 1
    third = max(1, count // 3)
    return WriteRate(
        written=count * len(block),
        seconds=marks[-1] - marks[0],
        first=third * len(block) / (marks[third] - marks[0]),
        last=third * len(block) / (marks[-1] - marks[-1 - third]),
    )


def lock(path: Path, store: str | Path) -> Any:
    """Hold a lock until this process ends; two runs that fill one store would spoil each other's work."""
    file = path.open("w")
    if not locked(file):
        file.close()
        raise UserError(f"another run is writing {store}: wait for it, or give another store.path")
    return file


def locked(file: Any, wait: bool = False) -> bool:
    """Lock an open file, now or once who has it ends; False where another has it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # a system or a disk without locks
        pass
    return True


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Errors of the disk in one line, which says that nothing is lost."""
    try:
        yield
    except OSError as error:
        again = "what is written stays beside it, and the same command goes on from there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk filled up while writing {path}: free space and start again; {again}") from error
        raise UserError(f"could not write {path}: {error}; {again}") from error
