"""The features of chosen pixels as matrices in files, from one pass over train and one over val."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.engine.files import aside, writing
from satdifuser.study.probe.pixels import PixelSet, batch_positions, kinds, sampled
from satdifuser.study.probe.rows import Floats, check_room
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.views import Column
from satdifuser.study.probe.watch import Watch

ROLES = ("train", "val")
FEWER = "lower probe.pixels, select fewer taps, or give another output="


class PixelRows:
    """For each column and set of pixels a file with its rows of train and then of val; the answers beside them."""

    def __init__(
        self, folder: Path, source: Source, columns: Sequence[Column], sets: Sequence[PixelSet], number: int
    ) -> None:
        self.folder, self.source, self.columns, self.sets = folder, source, list(columns), list(sets)
        self.number = number

    def fill(self) -> None:
        missing = [role for role in ROLES if not self._mark(role).exists()]
        if len(missing) == len(ROLES):
            pixels = sum(chosen.total for chosen in self.sets)
            check_room(self.folder, 4 * pixels * sum(column.width for column in self.columns), FEWER)
        for role in missing:
            with writing(self.folder):
                self._fill(role)
                self._mark(role).touch()

    def _fill(self, role: str) -> None:
        sets = [chosen for chosen in self.sets if chosen.count(role)]
        taps, task = [column.tap for column in self.columns], self.source.task
        files = {(c, s.name): self._file(c, s, "r+") for c in self.columns for s in sets}
        begins = {s.name: s.count("train") if role == "val" else 0 for s in sets}
        truths: dict[str, list[NDArray[Any]]] = {s.name: [] for s in sets}
        with Watch(f"reading {role}", "samples", len(self.source.splits[role])) as watch:
            for numbers, bank, labels in self.source.batches(role, taps):
                truth = task.truth(labels)
                classes = [kinds(task, one.numpy()) for one in truth]
                for chosen in sets:
                    samples, positions = batch_positions(chosen, role, numbers.start, classes)
                    begin = begins[chosen.name]
                    end = begins[chosen.name] = begin + len(positions)
                    truths[chosen.name].append(truth.flatten(1)[samples, positions].numpy())
                    where = samples.to(bank.device), positions.to(bank.device)
                    for column in self.columns if end > begin else ():
                        found = sampled(bank[column.tap], (truth.shape[-2], truth.shape[-1]), *where)
                        files[column, chosen.name][begin:end] = found.cpu().numpy()
                watch.step(len(numbers))
        for file in files.values():
            file.flush()
        for chosen in sets:
            path = self._truth(chosen, role)
            with aside(path, path.with_suffix(".partial")) as partial, partial.open("wb") as kept:
                np.save(kept, np.concatenate(truths[chosen.name]), allow_pickle=False)

    def _mark(self, role: str) -> Path:
        return self.folder / f"pixels-{self.number}-{role}.done"

    def _truth(self, chosen: PixelSet, role: str) -> Path:
        return self.folder / f"pixels-{self.number}-{chosen.name}-{role}.npy"

    def _file(self, column: Column, chosen: PixelSet, mode: Any = "c") -> Any:
        """Read (what is changed of it stays in memory) or, with `r+`, written."""
        path = self.folder / f"pixels-{self.number}-{chosen.name}-{self.columns.index(column)}.f32"
        shape = (chosen.total, column.width)
        return np.memmap(path, np.float32, mode if path.is_file() else "w+", shape=shape)

    def rows(self, column: Column, chosen: PixelSet) -> Floats:
        """Of train and then of val, as they lie on disk."""
        found: Floats = self._file(column, chosen)
        return found

    def truth(self, chosen: PixelSet) -> NDArray[Any]:
        parts = [np.load(self._truth(chosen, role), allow_pickle=False) for role in ROLES if chosen.count(role)]
        return np.concatenate(parts)

    def remove(self) -> None:
        for path in self.folder.glob(f"pixels-{self.number}-*"):
            path.unlink(missing_ok=True)
