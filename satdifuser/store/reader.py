"""Reading a split of a feature store: a data set of feature banks with the labels of their samples."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.bank import BankError, BankSpec
from satdifuser.data.base import Batch
from satdifuser.data.splits.budgets import within
from satdifuser.errors import UserError, nearest
from satdifuser.store.checks import RowCheck, Sums
from satdifuser.store.describe import Array
from satdifuser.store.files import Piece
from satdifuser.store.forms import Packed, empty_stacks
from satdifuser.store.layout import LABEL_COLUMNS, files_key
from satdifuser.store.loading import StoreLoader
from satdifuser.store.opened import OpenStore, ids_from_bytes

IN_MEMORY_BYTES = 4 * 2**30


class StoredFeatures:
    """The samples of one split. `batch(indices)` reads many at once; a split that fits in memory is read once.

    It may be used from several threads and, as any map-style data set, from the workers of a `DataLoader`.
    """

    name = "store"

    def __init__(
        self,
        store: FeatureStore,
        split: str,
        spec: BankSpec,
        in_memory: bool = True,
        only: NDArray[np.int64] | None = None,
    ) -> None:
        self.store, self.split, self.spec, self.labels = store, split, spec, store.labels
        self._in_memory, self._only = in_memory, only
        of, ids = store.column("split"), store.column("id")
        assert of is not None
        assert ids is not None
        self._rows = np.flatnonzero(of == store.splits.index(split))
        if only is not None:
            self._rows = self._rows[only]
        self._ids = ids_from_bytes(ids[self._rows])
        self._labels: dict[str, Tensor] = {}
        self._wide = {name: wide for name in LABEL_COLUMNS if (wide := store.wide(name)) is not None}
        for name in LABEL_COLUMNS:
            if name not in self._wide and (values := store.column(name)) is not None:
                self._labels[name] = torch.from_numpy(values[self._rows])
        self._sums: dict[str, Sums] = {}
        for name in (*(column.name for column in store.form.columns(spec)), *self._wide) if store.check else ():
            self._sums[name] = store.sums(name)[self._rows]
        self._memory: Packed | None = None
        self._loading = threading.Lock()  # several threads may ask at once
        self._fits = in_memory and store.form.bytes_per_sample(spec) * len(self) <= IN_MEMORY_BYTES

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredFeatures, (self.store, self.split, self.spec, self._in_memory, self._only)

    def subset(self, indices: Sequence[int]) -> StoredFeatures:
        """Some of the samples, in that order; the others are not read into memory."""
        chosen = np.asarray(list(indices), np.int64)
        only = chosen if self._only is None else self._only[chosen]
        return StoredFeatures(self.store, self.split, self.spec, self._in_memory, only)

    @property
    def identity(self) -> dict[str, Any]:
        whole = {"store": self.store.path, **dict(self.store.data[self.split])}
        return whole if self._only is None else within(whole, self._ids)

    @property
    def ids(self) -> list[str]:
        return self._ids

    def sample_id(self, index: int) -> str:
        return self._ids[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Banks, ids and labels of the samples asked for, in that order (latents are a bank of one tap, `latent`)."""
        batch = self.packed(indices)
        return {**batch, "bank": batch["bank"].unpack()}

    def packed(self, indices: Sequence[int], pin: bool = False) -> Batch:
        """As `batch`, with the bank as it lies on disk: to be unpacked where it is used."""
        where = torch.as_tensor(list(indices), dtype=torch.long)
        return {**self.read_labels(indices), "bank": self._features(where, pin)}

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """As `batch`, without the bank: ids and labels, all of them or those of these names; no feature is read."""
        where = torch.as_tensor(list(indices), dtype=torch.long)
        wanted = LABEL_COLUMNS if names is None else names
        labels = {name: _widen(name, values[where]) for name, values in self._labels.items() if name in wanted}
        for name in self._wide:
            if name in wanted:
                labels[name] = _widen(name, torch.from_numpy(self.read_array(name, where.numpy())))
        return {"id": [self._ids[i] for i in indices], **labels}

    def _features(self, where: Tensor, pin: bool) -> Packed:
        form = self.store.form
        if self._fits and torch.utils.data.get_worker_info() is None:  # workers share the system's cache instead
            with self._loading:
                if self._memory is None:
                    self._memory = Packed(self.spec, form, self._read(np.arange(len(self)), pin=False))
            stacks = {key: value.index_select(1, where) for key, value in self._memory.stacks.items()}
            return Packed(self.spec, form, stacks)
        return Packed(self.spec, form, self._read(where.numpy(), pin))

    def _read(self, where: NDArray[Any], pin: bool) -> dict[tuple[str, str], Tensor]:
        """Samples of all columns, each straight into its place among the timesteps of its tap."""
        stacks = empty_stacks(self.spec, self.store.form, len(where), pin_memory=pin)
        place = dict.fromkeys(stacks, 0)
        wanted = []
        for column in self.store.form.columns(self.spec):
            key = (column.tap.name, column.part)
            wanted.append((column.name, stacks[key][place[key]].view(torch.uint8).numpy()))
            place[key] += 1
        self._fill(wanted, where)
        return stacks

    def small_label(self, name: str) -> NDArray[Any]:
        """A label that is kept in few files, of all samples."""
        values: NDArray[Any] = self._labels[name].numpy()
        return values

    def read_array(self, name: str, where: NDArray[Any]) -> NDArray[Any]:
        """Samples of an array that is kept in shards, in the numbers that lie on the disk."""
        array = self.store.array(name)
        values = np.empty((len(where), *array.row_shape), array.dtype)
        self._fill([(name, values)], where)
        return values

    def _fill(self, arrays: Iterable[tuple[str, NDArray[Any]]], where: NDArray[Any]) -> None:
        """Read these samples of stored arrays into arrays in memory, all at once, and make sure of every row."""
        if not len(where):
            return
        rows, check = self._rows[where], RowCheck(self.store.path, [self._ids[i] for i in where])
        for name, values in arrays:
            target = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            for piece, count in self._pieces(name, self.store.array(name), rows, target):
                check.add(piece, count)
            if self.store.check:
                check.expect(self._sums[name][where])
        with self.store.reading():
            self.store.files.read_into(check.pieces, check if self.store.check else None)
        if not self.store.check and not self.store.same():
            raise self.store.replaced()

    def _pieces(self, name: str, array: Array, rows: NDArray[Any], target: memoryview) -> Iterator[tuple[Piece, int]]:
        """Which bytes of which files go where, and how many rows they are; neighbours in one file are read at once."""
        size, row_bytes = self.store.units.size, array.row_bytes
        breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] // size != rows[:-1] // size)) + 1
        for first, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            unit, offset = divmod(int(rows[first]), size)
            piece = target[first * row_bytes : stop * row_bytes]
            yield (files_key(name, unit, len(array.shape)), offset * row_bytes, piece), stop - first


def _widen(name: str, values: Tensor) -> Tensor:
    return values.float() if name in ("multilabel", "target", "metadata") else values.long()


class FeatureStore(OpenStore):
    """A store that is open, and its splits."""

    def split(self, name: str, spec: BankSpec | None = None, *, in_memory: bool = True) -> StoredFeatures:
        """One split as a data set, of all taps or of those of a smaller spec; kept in memory if it fits there."""
        if name not in self.splits:
            raise UserError(
                f"{self.path} has no split {name!r}: it has {', '.join(self.splits)}{nearest(name, self.splits)}"
            )
        return StoredFeatures(self, name, spec or self.spec, in_memory=in_memory)

    def loader(
        self,
        split: str,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        num_workers: int = 1,
        drop_last: bool = False,
        seed: int = 0,
        device: str | torch.device | None = None,
        spec: BankSpec | None = None,
    ) -> StoreLoader:
        """Batches of a split for a plain loop, each pass an epoch; of all taps or of those of a smaller spec."""
        chosen: Any = {"shuffle": shuffle, "num_workers": num_workers, "drop_last": drop_last, "seed": seed}
        return StoreLoader(self.split(split, spec), batch_size, device=device, **chosen)

    def require(self, spec: BankSpec) -> None:
        """Raise, saying what differs, unless the store holds what an encoder of that spec would give.

        (Of a store of latents, the spec is that of the encoder's latents.)
        """
        asked = self.form.spec(spec)
        try:
            mine = self.spec.select(timesteps=asked.timesteps, names=asked.names())
        except BankError as error:
            raise UserError(f"{self.path}: {error}") from None
        different = mine.differences(asked)
        if different:
            raise UserError(
                f"{self.path} holds other features than asked for (store and asked): {'; '.join(different[:4])}"
            )
