"""One unit of a store while it is written: a shard of every array, and the journal that says how far they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from satdifuser.errors import UserError
from satdifuser.store import statistics
from satdifuser.store.forms import Packed
from satdifuser.store.journal import Journal, compact, joined
from satdifuser.store.layout import LABEL_COLUMNS, Unit, files_key
from satdifuser.store.place import LocalPlace, RemotePlace
from satdifuser.store.plan import StorePlan
from satdifuser.store.shards import ShardWriter, shard_bytes

SAVE_SECONDS = 20.0  # of work that a kill may cost
Place = LocalPlace | RemotePlace


class UnitWriter:
    """The shards of one unit, begun or taken up where its journal says."""

    def __init__(self, place: Place, plan: StorePlan, unit: Unit) -> None:
        self.place, self.plan, self.unit = place, plan, unit
        self._path = journal_of(place, unit)
        self.journal = resumable(place, plan, unit)
        self._labels = {name: [values] for name, values in self.journal.labels.items()}
        self._checksums = [self.journal.checksums] if self.journal.rows else []
        self._saved = time.monotonic()
        self._shards: dict[str, ShardWriter] = {}
        try:
            for column in plan.columns:
                self._shards[column.name] = ShardWriter(
                    part_of(place.root / files_key(column.name, unit.number, 1 + len(column.shape))),
                    column.row_bytes,
                    plan.units.chunk(column.row_bytes),
                    plan.units.size,
                    self.journal.rows,
                    self.journal.running.get(column.name, 0),
                )
        except OSError:
            self._close()
            raise

    @property
    def left(self) -> int:
        return self.unit.count - self.journal.rows

    def append(self, packed: Packed, batch: Mapping[str, Any], which: slice) -> None:
        """Rows `which` of a batch: checked, then written, then counted."""
        first = self.unit.first + self.journal.rows
        rows = self.plan.rows[first : first + which.stop - which.start]
        labels = {name: compact(name, batch[name][which].numpy()) for name in LABEL_COLUMNS if name in batch}
        self._check(packed, batch, which, rows, labels)
        sums = []
        for tap in self.plan.spec.taps:
            columns = [column for column in self.plan.columns if column.tap == tap]
            for column, values in zip(columns, packed.of(tap), strict=True):
                data = values[which].contiguous().flatten(1).view(torch.uint8).numpy()
                sums.append(self._shards[column.name].append(data))
        bands = self._with_bands(batch, which, rows)
        running = {name: shard.crc for name, shard in self._shards.items()}
        for name, label in labels.items():
            self._labels.setdefault(name, []).append(label)
        self._checksums.append(np.array(sums, np.uint32).T)
        self.journal = replace(self.journal, rows=self.journal.rows + len(rows), running=running, bands=bands)
        if time.monotonic() - self._saved > SAVE_SECONDS and self.left:
            self.save()

    def _with_bands(
        self, batch: Mapping[str, Any], which: slice, rows: Sequence[tuple[int, str]]
    ) -> statistics.Sums | None:
        """The band statistics with those of these rows, where their images are at hand."""
        if "image" not in batch:
            return self.journal.bands
        images = batch["image"][which].numpy()
        if images.ndim == 5 and "dates" in batch:  # what is not there counts nowhere, whatever it holds
            images = np.where(batch["dates"][which].numpy()[:, :, None, None, None] >= 0, images, 0)
        sums = self.journal.bands
        sums = statistics.begin(len(self.plan.splits), images.shape[-3]) if sums is None else sums.copy()
        statistics.add(sums, np.array([split for split, _ in rows]), images)
        return sums

    def save(self) -> None:
        """Make what is there known to a later run, once it is on the disk."""
        for shard in self._shards.values():
            shard.sync()
        self._write_journal()

    def seal(self) -> None:
        """Complete the files, say so in the journal, give them their names."""
        files = {
            files_key(column.name, self.unit.number, 1 + len(column.shape)): self._shards[column.name].seal()
            for column in self.plan.columns
        }
        self._write_journal(files)
        self._close()
        for key in self.journal.files:
            part_of(self.place.root / key).replace(self.place.root / key)
        self.place.publish(self.journal.files)

    def stop(self) -> None:
        """Cut off what is not complete (the disk may be full), save the rest, and let go of the files."""
        try:
            if not self.journal.sealed:
                for name, shard in self._shards.items():
                    shard.rewind(self.journal.rows, self.journal.running.get(name, 0))
                if self.journal.rows:
                    self.save()
        finally:
            self._close()

    def _close(self) -> None:
        for shard in self._shards.values():
            shard.close()

    def _write_journal(self, files: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Save the journal; it is sealed when the files are named in it."""
        self._labels = {name: [joined(parts)[: self.journal.rows]] for name, parts in self._labels.items()}
        self._checksums = [np.concatenate(self._checksums)[: self.journal.rows]]
        labels = {name: parts[0] for name, parts in self._labels.items()}
        journal = replace(self.journal, files=dict(files or {}), labels=labels, checksums=self._checksums[0])
        journal.save(self._path)
        self.journal = journal
        self._saved = time.monotonic()

    def _check(
        self,
        packed: Packed,
        batch: Mapping[str, Any],
        which: slice,
        rows: Sequence[tuple[int, str]],
        labels: Mapping[str, NDArray[Any]],
    ) -> None:
        """The right samples, with the labels that the others have, and numbers that can be kept."""
        ids = list(batch["id"][which])
        wanted = [name for _, name in rows]
        if ids != wanted:
            got, expected = next(pair for pair in zip_longest(ids, wanted) if pair[0] != pair[1])
            raise UserError(
                f"the store expects sample {expected} next, but got {got}: give samples in the plan's order"
            )
        if packed.spec != self.plan.spec:
            different = self.plan.spec.differences(packed.spec)
            raise UserError(f"the store is of other features than this batch: {'; '.join(different[:3])}")
        for name, values in labels.items():
            if len(values) != len(rows):
                raise UserError(f"{len(values)} values of {name!r} for {len(rows)} samples cannot be stored")
        if self.journal.rows and labels.keys() != self._labels.keys():
            odd_label = sorted(labels.keys() ^ self._labels.keys())[0]
            raise UserError(
                f"only some samples have the label {odd_label!r} (see {ids[0]}): a store holds labels for all or none"
            )
        for name, parts in self._labels.items():
            if labels[name].shape[1:] != parts[0].shape[1:]:
                raise UserError(
                    f"sample {ids[0]} has {name} {labels[name].shape[1:]}, but sample"
                    f" {self.plan.rows[self.unit.first][1]} has {parts[0].shape[1:]}: samples of a data set must have"
                    " one size"
                )
        self._check_finite(packed, ids, which)

    def _check_finite(self, packed: Packed, ids: Sequence[str], which: slice) -> None:
        """What the encoder computed must be finite, and what is stored of it too."""
        if packed.finite is None or packed.kept is None:
            return
        lost = ~(packed.finite[which] & packed.kept[which])
        if not bool(lost.any()):
            return
        sample, tap = (int(x) for x in lost.nonzero()[0])
        name = self.plan.spec.taps[tap]
        if not bool(packed.finite[which][sample, tap]):
            raise UserError(
                f"sample {ids[sample]}: the encoder gave NaN or infinite values at tap {name}: check its weights"
            )
        raise UserError(
            f"sample {ids[sample]}: tap {name} has values beyond {self.plan.form.dtype}: set store.dtype=bfloat16 or"
            " float32"
        )


def resumable(place: Place, plan: StorePlan, unit: Unit) -> Journal:
    """The unit's journal, after a look at whether the files hold what it says; else an empty one."""
    journal = Journal.load(journal_of(place, unit))
    for column in plan.columns if journal.rows else ():
        key = files_key(column.name, unit.number, 1 + len(column.shape))
        file = place.root / key
        if not journal.sealed:
            good = part_of(file).is_file() and part_of(file).stat().st_size >= journal.rows * column.row_bytes
        else:  # it may have been stopped between the journal and the file's last name, or before it was published
            if part_of(file).is_file() and not file.is_file():
                part_of(file).replace(file)
            whole = shard_bytes(unit.count, column.row_bytes, plan.units.chunk(column.row_bytes), plan.units.size)
            good = file.is_file() and file.stat().st_size == whole
            if good:
                place.publish([key])
            else:
                good = place.published(key, whole)
        if not good:
            return Journal()
    return journal


def journal_of(place: Place, unit: Unit) -> Path:
    return place.partial / "progress" / f"{unit.number}.safetensors"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")
