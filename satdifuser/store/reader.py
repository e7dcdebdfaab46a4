"""Reading a feature store: a data set of feature banks with the labels of their samples."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.bank import BankError, BankSpec
from satdifuser.data.base import Batch, Labels
from satdifuser.data.budgets import within
from satdifuser.errors import UserError, nearest
from satdifuser.store.files import StoreFiles, damaged, misfit, open_files, read_manifest
from satdifuser.store.forms import Column, Form, Packed, empty_stacks
from satdifuser.store.layout import VERSION, Unit, Units, files_key
from satdifuser.store.shards import shard_bytes
from satdifuser.store.unit import LABEL_COLUMNS

IN_MEMORY_BYTES = 4 * 2**30


class FeatureStore:
    """A store on disk or, as `s3://...`, `gs://...` and the like, anywhere that fsspec reads."""

    def __init__(self, path: str | Path, *, complete: bool = True) -> None:
        self.files: StoreFiles = open_files(str(path))
        self.path = self.files.root
        if not self.files.exists("zarr.json"):
            raise UserError(f"no feature store at {self.path}: make one with satdifuser extract store.path={self.path}")
        try:
            self._group = self.files.group()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, "zarr.json", f"cannot be read ({type(error).__name__})") from None
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        self._check_version(self.attributes.get("satdifuser_store"))
        self.manifest = read_manifest(self.files)
        try:
            self.spec = BankSpec.from_dict(self.attributes["spec"])
            self.form = Form(**self.attributes["form"])
            self.labels = Labels.from_dict(self.attributes["labels"])
            self.splits: list[str] = list(self.attributes["splits"])
            self.data: dict[str, Any] = dict(self.attributes["data"])
            self.columns = self.form.columns(self.spec)
            self.samples = int(self._group[self.columns[0].name].shape[0])
            unit = self.attributes["unit"]
            self.units = Units(self.samples, int(unit["samples"]), int(unit["chunk_bytes"]))
            if self.units.size < 1 or self.units.chunk_bytes < 1:
                raise ValueError(f"units of {self.units.size} samples")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} has lost a part of its description ({error}): extract it again") from None
        if complete:
            self._check_complete()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStore, (self.path,)  # opened anew in another process

    @property
    def latents(self) -> bool:
        """Whether it holds what goes into the UNet, and not what comes out."""
        return self.form.latents

    def column(self, name: str) -> NDArray[Any] | None:
        """A whole label array (or `id`, `split`, `checksum`), None where the data had no such label."""
        return np.asarray(self._group[name][...]) if name in self._group else None

    def has(self, name: str) -> bool:
        """Whether the data had such a label."""
        return name in self._group

    def ids(self) -> list[str]:
        rows = self.column("id")
        assert rows is not None
        return ids_from_bytes(rows)

    def wide(self, name: str) -> tuple[tuple[int, ...], str] | None:
        """Shape of a row and type of a label that is kept in shards; None where it is small, or not there."""
        array = self._group.get(name)
        return None if array is None or array.shards is None else (array.shape[1:], str(array.dtype))

    def split(self, name: str, spec: BankSpec | None = None, *, in_memory: bool = True) -> StoredFeatures:
        """One split as a data set, of all taps or of those of a smaller spec; kept in memory if it fits there."""
        if name not in self.splits:
            raise UserError(
                f"{self.path} has no split {name!r}: it has {', '.join(self.splits)}{nearest(name, self.splits)}"
            )
        return StoredFeatures(self, name, spec or self.spec, in_memory=in_memory)

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

    def shard(self, name: str, unit: Unit, row_bytes: int, dimensions: int) -> tuple[str, int]:
        """The file of an array's unit and the size that it must have."""
        chunk = self.units.chunk(row_bytes)
        return files_key(name, unit.number, dimensions), shard_bytes(unit.count, row_bytes, chunk, self.units.size)

    def _check_version(self, version: Any) -> None:
        if version == VERSION:
            return
        if not isinstance(version, int):
            raise UserError(f"{self.path} is no feature store of satdifuser: its zarr.json says nothing of one")
        remedy = "extract it again" if version < VERSION else "install a newer satdifuser"
        raise UserError(f"{self.path} is a store of version {version}, and this satdifuser reads {VERSION}: {remedy}")

    def _check_complete(self) -> None:
        """Zarr reads a file that is not there as zeros, so make sure that all of them are (`verify` looks inside)."""
        for column in self.columns:
            for unit in self.units:
                key, size = self.shard(column.name, unit, column.row_bytes, 1 + len(column.shape))
                if self.manifest.files.get(key, (None,))[0] != size:
                    raise UserError(f"{self.path} does not list {key} as it must be: extract it again")
        there = self.files.sizes(self.manifest.files)
        for key, (size, _) in self.manifest.files.items():
            fault = misfit(size, there.get(key))
            if fault is not None:
                raise damaged(self.path, key, fault)


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
        self._wide: dict[str, tuple[tuple[int, ...], str]] = {}
        for name in LABEL_COLUMNS:
            wide = store.wide(name)
            if wide is not None:
                self._wide[name] = wide
            elif (values := store.column(name)) is not None:
                self._labels[name] = torch.from_numpy(values[self._rows])
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
        return {**self.read_labels(indices), "bank": self._features(where, self._rows[where.numpy()], pin)}

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """As `batch`, without the bank: ids and labels, all of them or those of these names; no feature is read."""
        where = torch.as_tensor(list(indices), dtype=torch.long)
        rows = self._rows[where.numpy()]
        wanted = LABEL_COLUMNS if names is None else names
        labels = {name: _widen(name, values[where]) for name, values in self._labels.items() if name in wanted}
        for name, (shape, dtype) in self._wide.items():
            if name in wanted:
                labels[name] = _widen(name, torch.from_numpy(self._read_wide(name, shape, dtype, rows)))
        return {"id": [self._ids[i] for i in indices], **labels}

    def _features(self, where: Tensor, rows: NDArray[Any], pin: bool) -> Packed:
        form = self.store.form
        if self._fits and torch.utils.data.get_worker_info() is None:  # workers share the system's cache instead
            with self._loading:
                if self._memory is None:
                    self._memory = Packed(self.spec, form, self._read(self._rows, pin=False))
            stacks = {key: value.index_select(1, where) for key, value in self._memory.stacks.items()}
            return Packed(self.spec, form, stacks)
        return Packed(self.spec, form, self._read(rows, pin))

    def _read(self, rows: NDArray[Any], pin: bool) -> dict[tuple[str, str], Tensor]:
        """Rows of all columns, each straight into its place among the timesteps of its tap."""
        stacks = empty_stacks(self.spec, self.store.form, len(rows), pin_memory=pin)
        place = dict.fromkeys(stacks, 0)
        wanted = []
        for column in self.store.form.columns(self.spec):
            key = (column.tap.name, column.part)
            target = stacks[key][place[key]]
            place[key] += 1
            if len(rows):
                view = memoryview(target.view(torch.uint8).numpy().reshape(-1))  # type: ignore[arg-type]
                wanted += self._pieces(column.name, column.row_bytes, 1 + len(column.shape), rows, view)
        self.store.files.read_into(wanted)
        return stacks

    def _read_wide(self, name: str, shape: tuple[int, ...], dtype: str, rows: NDArray[Any]) -> NDArray[Any]:
        values = np.empty((len(rows), *shape), dtype)
        row_bytes = values.itemsize * int(np.prod(shape, dtype=int))
        if len(rows):
            view = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            self.store.files.read_into(self._pieces(name, row_bytes, 1 + len(shape), rows, view))
        return values

    def _pieces(
        self, name: str, row_bytes: int, dimensions: int, rows: NDArray[Any], target: memoryview
    ) -> list[tuple[str, int, memoryview]]:
        """Which bytes of which files go where; neighbours in one file are read at once."""
        size = self.store.units.size
        breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] // size != rows[:-1] // size)) + 1
        found = []
        for first, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            unit, offset = divmod(int(rows[first]), size)
            piece = target[first * row_bytes : stop * row_bytes]
            found.append((files_key(name, unit, dimensions), offset * row_bytes, piece))
        return found


def _widen(name: str, values: Tensor) -> Tensor:
    return values.float() if name in ("multilabel", "target", "metadata") else values.long()


def ids_from_bytes(rows: NDArray[np.uint8]) -> list[str]:
    """The inverse of how ids are written.

    >>> ids_from_bytes(np.frombuffer(b"tile-1", np.uint8).reshape(1, 6))
    ['tile-1']
    """
    return [row.tobytes().rstrip(b"\x00").decode("utf-8") for row in rows]


__all__ = ["Column", "FeatureStore", "StoredFeatures", "ids_from_bytes"]
