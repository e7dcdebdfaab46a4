"""Writing a feature store, by one process or several: unit by unit, each whole or not there, and resumable at any row.

While it grows it lies in `<path>.partial`: `store/` with the arrays and `progress/` with the plan and a journal for
each unit. The last step renames `store/` to its place, so that a store is never half there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError
from satdifuser.store.disk import disk_errors, lock, write_aside
from satdifuser.store.finish import finish
from satdifuser.store.forms import Packed
from satdifuser.store.layout import Unit
from satdifuser.store.place import place_of
from satdifuser.store.plan import StorePlan
from satdifuser.store.processes import Processes
from satdifuser.store.statistics import Sums
from satdifuser.store.unit import UnitWriter, resumable


class StoreWriter:
    """Fills the store of a plan; leaving it without an error waits for all processes and finishes the store.

    with StoreWriter(path, plan) as writer:
        for rows in writer.todo:                       # ranges of the plan's rows, some of them done by an earlier run
            ...
            writer.append(bank, batch)                 # the next rows, in order
    """

    def __init__(
        self,
        path: str | Path,
        plan: StorePlan,
        processes: Processes | None = None,
        *,
        overwrite: bool = False,
        bands: Sums | None = None,
    ) -> None:
        self.place = place_of(path)
        self.path, self.plan, self.processes = str(path), plan, processes or Processes()
        self.overwrite, self._bands = overwrite, bands  # statistics that are known already
        self._lock: Any = None
        self._unit: UnitWriter | None = None
        try:
            with disk_errors(self.path):
                units = self._take_up() if self.processes.main else []
            self._open: list[tuple[int, int]] = self.processes.told(units)
        except BaseException:
            self._release()
            raise
        mine = self._open[self.processes.rank :: self.processes.world]
        self._queue: Iterator[Unit] = iter([plan.units[number] for number, _ in mine])
        self.todo = [range(plan.units[n].first + done, plan.units[n].first + plan.units[n].count) for n, done in mine]

    @property
    def rows_done(self) -> int:
        """Rows that earlier runs have written, over all processes."""
        left = sum(self.plan.units[number].count - done for number, done in self._open)
        return self.plan.samples - left

    def append(self, bank: FeatureBank | Packed, batch: Mapping[str, Any]) -> None:
        """The next rows: a bank (or one packed already) with its ids, labels and, for the band statistics, images."""
        packed = self.plan.form.pack(bank) if isinstance(bank, FeatureBank) else bank
        done = 0
        while done < packed.batch_size:
            if self._unit is None:
                unit = next(self._queue, None)
                if unit is None:
                    raise UserError(f"the store was promised {self.plan.samples} samples, but more came")
                with disk_errors(self.path):
                    self._unit = UnitWriter(self.place, self.plan, unit)
            count = min(packed.batch_size - done, self._unit.left)
            with disk_errors(self.path):
                self._unit.append(packed, batch, slice(done, done + count))
                if not self._unit.left:
                    self._unit.seal()
                    self._unit = None
            done += count

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._stop()
                return
            if self._unit is not None or next(self._queue, None) is not None:
                self._stop()
                raise UserError(f"the store was promised {self.plan.samples} samples, but fewer came")
            self.processes.wait()
            if self.processes.main:
                with disk_errors(self.path):
                    finish(self.place, self.plan, overwrite=self.overwrite, bands=self._bands)
            self.processes.wait()
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _stop(self) -> None:
        """Keep what is there for the next run, as far as the disk still takes it."""
        if self._unit is not None:
            with contextlib.suppress(OSError):
                self._unit.stop()

    def _take_up(self) -> list[tuple[int, int]]:
        """Take the place, and give the units that are not complete, with the rows of them that are."""
        self._begin()
        found = []
        for unit in self.plan.units:
            journal = resumable(self.place, self.plan, unit)
            if journal.rows == unit.count and not journal.sealed:  # it was stopped at its very end
                UnitWriter(self.place, self.plan, unit).seal()
            elif journal.rows < unit.count:
                found.append((unit.number, journal.rows))
        return found

    def _begin(self) -> None:
        """Go on with what lies in the place if it is of the same plan."""
        partial, progress = self.place.partial, self.place.partial / "progress"
        if self.place.exists() and not (self.overwrite and self.place.replaceable):
            remedy = "store.overwrite=true to replace it" if self.place.replaceable else "remove it first"
            raise UserError(f"{self.path} already exists: give another store.path, or {remedy}")
        partial.mkdir(parents=True, exist_ok=True)
        self._lock = lock(partial / "lock", self.path)
        theirs = read_plan(progress / "plan.json")
        different = "its plan is lost" if theirs is None else self.plan.difference(theirs)
        if different is not None:
            if any(progress.glob("*.safetensors")) and theirs is not None and not self.overwrite:
                raise UserError(
                    f"{partial} was begun with other settings (there and now): {different}: go on with the same,"
                    " or begin anew with store.overwrite=true"
                )
            for folder in (self.place.root, progress):
                shutil.rmtree(folder, ignore_errors=True)
        self.place.check_space(self.plan)
        progress.mkdir(exist_ok=True)
        self.place.root.mkdir(exist_ok=True)
        write_aside(progress / "plan.json", self.plan.to_json())


def read_plan(path: Path) -> dict[str, Any] | None:
    """The plan of what was begun; None where there is none that can be read."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
