"""The features of whole images as matrices in files: as many as there are samples, and never all in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from satdifuser.engine.files import aside, writing
from satdifuser.errors import UserError
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.views import Column
from satdifuser.study.probe.watch import Watch

ROLES = ("train", "val", "test")
GROUP_BYTES = 4 * 2**30  # of matrices at once, where each tap can be read by itself
SPARE = 2**28  # bytes of the disk that are left

Floats = NDArray[np.float32]
Thing = TypeVar("Thing")


def groups(things: Iterable[tuple[Thing, int]], limit: int) -> Iterator[list[Thing]]:
    """Things in order, as many at once as take `limit` bytes, and one at least.

    >>> list(groups([("a", 2), ("b", 2), ("c", 9), ("d", 1)], 4))
    [['a', 'b'], ['c'], ['d']]
    """
    some: list[Thing] = []
    taken = 0
    for thing, size in things:
        if some and taken + size > limit:
            yield some
            some, taken = [], 0
        some.append(thing)
        taken += size
    if some:
        yield some


def check_room(folder: Path, size: int, remedy: str) -> None:
    """Before a pass, whether the disk has room for what comes of it."""
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise UserError(f"the features need {size / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f}: {remedy}")


class Matrices:
    """A file for each column, with the rows of train, of val and of test one after the other; filled split by split.

    A split that is there to its end stays there for a process that goes on. The answers are kept beside it.
    """

    def __init__(self, folder: Path, source: Source, columns: Sequence[Column], number: int) -> None:
        self.folder, self.source, self.columns, self.number = folder, source, list(columns), number
        counts = [len(source.splits[role]) for role in ROLES]
        self.starts = dict(zip(ROLES, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        self.counts = dict(zip(ROLES, counts, strict=True))

    def fill(self) -> None:
        missing = [role for role in ROLES if not self._mark(role).exists()]
        size = 4 * sum(self.counts.values()) * sum(column.width for column in self.columns)
        if len(missing) == len(ROLES):
            check_room(self.folder, size, "give another output=, or select fewer taps")
        for role in missing:
            with writing(self.folder):
                self._fill(role)
                self._mark(role).touch()

    def _fill(self, role: str) -> None:
        taps = list(dict.fromkeys(tap for column in self.columns for tap in column.taps))
        files = [self._file(column, "r+") for column in self.columns]
        truths, start, task = [], self.starts[role], self.source.task
        with Watch(f"reading {role}", "samples", self.counts[role]) as watch:
            for numbers, bank, labels in self.source.batches(role, taps):
                for column, file in zip(self.columns, files, strict=True):
                    file[start + numbers.start : start + numbers.stop] = column.rows(bank).cpu().numpy()
                truths.append(task.truth(labels).numpy())
                watch.step(len(numbers))
        for file in files:
            file.flush()
        path = truth_file(self.folder, role)
        with aside(path, path.with_suffix(".partial")) as partial, partial.open("wb") as kept:
            np.save(kept, np.concatenate(truths), allow_pickle=False)

    def _mark(self, role: str) -> Path:
        return self.folder / f"rows-{self.number}-{role}.done"

    def _file(self, column: Column, mode: Any = "c") -> Any:
        """Read (what is changed of it stays in memory) or, with `r+`, written."""
        path = self.folder / f"rows-{self.number}-{self.columns.index(column)}.f32"
        shape = (sum(self.counts.values()), column.width)
        return np.memmap(path, np.float32, mode if path.is_file() else "w+", shape=shape)

    def rows(self, column: Column, *roles: str) -> Floats:
        """Of some splits that follow each other, as they lie on disk."""
        stop = self.starts[roles[-1]] + self.counts[roles[-1]]
        found: Floats = self._file(column)[self.starts[roles[0]] : stop]
        return found

    def remove(self) -> None:
        for path in self.folder.glob(f"rows-{self.number}-*"):
            path.unlink(missing_ok=True)


def truth_file(folder: Path, role: str) -> Path:
    return folder / f"truth-{role}.npy"


def truth(folder: Path, role: str) -> NDArray[Any]:
    """The answers of a split, once its features have been read."""
    return np.asarray(np.load(truth_file(folder, role), allow_pickle=False))
