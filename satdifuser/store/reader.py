"""Reading a feature store: a data set of feature banks with the labels of their samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.data.base import LABELS, Batch, Labels
from satdifuser.errors import UserError, nearest
from satdifuser.store.layout import VERSION, bytes_per_sample
from satdifuser.store.writer import ids_from_bytes

IN_MEMORY_BYTES = 4 * 2**30


class FeatureStore:
    """A store on disk, opened for reading."""

    def __init__(self, path: str | Path) -> None:
        import zarr

        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise UserError(f"no feature store at {self.path}: make one with satdifuser extract store.path={self.path}")
        self._group: Any = zarr.open_group(self.path, mode="r")
        attributes: Any = self._group.attrs
        version = attributes.get("satdifuser_store")
        if version != VERSION:
            raise UserError(f"{self.path} is a store of version {version}, and this satdifuser reads version {VERSION}")
        self.spec = BankSpec.from_dict(attributes["spec"])
        self.labels = Labels.from_dict(attributes["labels"])
        self.splits: list[str] = list(attributes["splits"])
        self.data: dict[str, Any] = dict(attributes["data"])
        for tap in self.spec.taps:
            self._check_complete(tap)

    def column(self, name: str) -> NDArray[Any] | None:
        """A whole label array (or `id`, `split`), None where the data had no such label."""
        return np.asarray(self._group[name][...]) if name in self._group else None

    def array(self, tap: Tap) -> Any:
        """The Zarr array of a tap, `[sample, channel, y, x]`."""
        return self._group[str(tap)]

    def _check_complete(self, tap: Tap) -> None:
        """Zarr reads a file that is not there as zeros, so make sure that all of them are."""
        if str(tap) not in self._group:
            raise UserError(f"{self.path} has lost tap {tap}: extract it again")
        array = self.array(tap)
        expected = -(-array.shape[0] // array.shards[0])
        found = sum(1 for _ in (self.path / str(tap) / "c").glob("*/0/0/0"))
        if found != expected:
            raise UserError(f"{self.path} has {found} of the {expected} files of tap {tap}: extract it again")

    def split(self, name: str, spec: BankSpec | None = None) -> StoredFeatures:
        """One split as a data set, of all taps or of those of a smaller spec."""
        if name not in self.splits:
            raise UserError(
                f"{self.path} has no split {name!r}: it has {', '.join(self.splits)}{nearest(name, self.splits)}"
            )
        return StoredFeatures(self, name, spec or self.spec)

    def require(self, spec: BankSpec) -> None:
        """Raise, saying what differs, unless the store holds exactly what an encoder of that spec would give."""
        try:
            mine = self.spec.select(timesteps=spec.timesteps, names=spec.names())
        except BankError as error:
            raise UserError(f"{self.path}: {error}") from None
        different = mine.differences(spec)
        if different:
            raise UserError(
                f"{self.path} holds other features than asked for (store and asked): {'; '.join(different[:4])}"
            )


class StoredFeatures:
    """The samples of one split. `batch(indices)` reads many at once; a split that fits in memory is read once."""

    name = "store"

    def __init__(self, store: FeatureStore, split: str, spec: BankSpec) -> None:
        self.store, self.split, self.spec, self.labels = store, split, spec, store.labels
        of = store.column("split")
        assert of is not None
        self._rows = np.flatnonzero(of == store.splits.index(split))
        ids = store.column("id")
        assert ids is not None
        self._ids = ids_from_bytes(ids[self._rows])
        columns = {name: store.column(name) for name in LABELS}
        self._labels = {name: torch.from_numpy(v[self._rows]) for name, v in columns.items() if v is not None}
        self._memory: dict[Tap, Tensor] | None = None
        first = store.array(spec.taps[0])
        self._fits = bytes_per_sample(spec, first.dtype.itemsize) * len(self) <= IN_MEMORY_BYTES

    @property
    def identity(self) -> dict[str, Any]:
        return {"store": str(self.store.path), **dict(self.store.data[self.split])}

    def sample_id(self, index: int) -> str:
        return self._ids[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Banks, ids and labels of the samples asked for, in that order."""
        where = torch.as_tensor(list(indices), dtype=torch.long)
        labels = {name: _widen(name, values[where]) for name, values in self._labels.items()}
        return {"id": [self._ids[i] for i in indices], "bank": FeatureBank(self.spec, self._read(where)), **labels}

    def _read(self, where: Tensor) -> dict[Tap, Tensor]:
        if self._fits:
            if self._memory is None:
                self._memory = self._load(self._rows)
            return {tap: values[where] for tap, values in self._memory.items()}
        return self._load(self._rows[where.numpy()])

    def _load(self, rows: NDArray[Any]) -> dict[Tap, Tensor]:
        if not len(rows):
            return {tap: torch.empty(0, *self.spec.shape(tap)) for tap in self.spec.taps}
        whole = len(rows) == rows[-1] - rows[0] + 1 and bool((np.diff(rows) == 1).all())
        select: Any = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows
        maps = {}
        for tap in self.spec.taps:
            array = self.store.array(tap)
            maps[tap] = torch.from_numpy(np.asarray(array[select] if whole else array.oindex[select]))
        return maps


def _widen(name: str, values: Tensor) -> Tensor:
    return values.float() if name in ("multilabel", "target") else values.long()
