"""Writing a feature store: into a folder beside it, renamed when it is whole, so that a store is never half there."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import LABELS, Labels
from satdifuser.errors import UserError
from satdifuser.store.layout import DTYPES, VERSION, bytes_per_sample, dimensions, samples_per_shard

TORCH_DTYPE = {"float16": torch.float16, "float32": torch.float32}


class StoreWriter:
    """Appends batches of banks with their ids, splits and labels. Use it as a context manager: an error leaves nothing.

    with StoreWriter(path, spec, samples=1000, labels=data.labels) as writer:
        writer.append(bank, batch, split="train")
    """

    def __init__(
        self,
        path: Path,
        spec: BankSpec,
        *,
        samples: int,
        labels: Labels,
        identity: Mapping[str, Any],
        dtype: str = "float16",
    ) -> None:
        import zarr

        if dtype not in DTYPES:
            raise UserError(f"store.dtype is {dtype!r}: it can be {' or '.join(DTYPES)}")
        if path.exists():
            raise UserError(f"{path} already exists: remove it or give another store.path")
        self.path, self.spec, self.samples, self.dtype = path, spec, samples, dtype
        self._partial = path.with_name(path.name + ".partial")
        self._splits = list(identity)
        self._buffers: dict[Tap, list[NDArray[Any]]] = {tap: [] for tap in spec.taps}
        self._buffered = dict.fromkeys(spec.taps, 0)
        self._written = dict.fromkeys(spec.taps, 0)
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self.skipped: list[dict[str, str]] = []
        attributes: dict[str, Any] = {
            "satdifuser_store": VERSION,
            "spec": spec.to_dict(),
            "labels": labels.to_dict(),
            "data": dict(identity),
            "splits": self._splits,
        }
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._check_space(bytes_per_sample(spec, np.dtype(dtype).itemsize) * samples)
            self._group = zarr.open_group(self._partial, mode="w", zarr_format=3)
            self._group.attrs.update(attributes)
            self._arrays = {tap: self._create(tap) for tap in spec.taps}
        except OSError as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise _disk_error(error, path) from error

    def append(self, bank: FeatureBank, batch: Mapping[str, Any], split: str) -> None:
        """Add a batch; shards are written as they fill up."""
        bank.check(self.spec, "the store")
        column = {"id": np.asarray(batch["id"]), "split": np.full(bank.batch_size, self._splits.index(split), np.uint8)}
        column.update({name: _compact(name, batch[name]) for name in LABELS if name in batch})
        self._check_columns(bank, column)
        for name, values in column.items():
            self._columns.setdefault(name, []).append(values)
        for tap in self.spec.taps:
            maps = bank[tap].detach().to(TORCH_DTYPE[self.dtype]).cpu()
            self._check_finite(tap, bank[tap], maps, batch["id"])
            self._buffers[tap].append(maps.numpy())
            self._buffered[tap] += len(maps)
            try:
                self._flush(tap)
            except OSError as error:
                raise _disk_error(error, self.path) from error

    def skip(self, samples: Sequence[Mapping[str, str]]) -> None:
        """Promise so many samples less; their ids and reasons go into the store's attributes."""
        self.skipped.extend(dict(sample) for sample in samples)

    def _check_columns(self, bank: FeatureBank, column: Mapping[str, NDArray[Any]]) -> None:
        """Every batch has the same labels, and one of each for every sample."""
        for name, values in column.items():
            if len(values) != bank.batch_size:
                raise UserError(f"{len(values)} values of {name!r} for {bank.batch_size} samples cannot be stored")
        if self._columns and column.keys() != self._columns.keys():
            odd = sorted(column.keys() ^ self._columns.keys())[0]
            raise UserError(
                f"only some batches have the label {odd!r}: a store holds labels for all samples or for none"
            )
        for name, parts in self._columns.items():
            if name not in ("id", "split") and column[name].shape[1:] != parts[0].shape[1:]:
                raise UserError(
                    f"sample {column['id'][0]} has {name} {column[name].shape[1:]}, but sample"
                    f" {self._columns['id'][0][0]} has {parts[0].shape[1:]}: samples of a data set must have one size"
                )

    def _check_finite(self, tap: Tap, computed: Tensor, stored: Tensor, ids: Sequence[str]) -> None:
        """What the encoder computed must be finite, and what is stored of it too."""
        lost = ~stored.isfinite().flatten(1).all(1)
        if not bool(lost.any()):
            return
        name = ids[int(lost.nonzero()[0])]
        if not bool(computed.isfinite().all()):
            raise UserError(f"sample {name}: the encoder gave NaN or infinite values at tap {tap}: check its weights")
        raise UserError(f"sample {name}: tap {tap} has values beyond {self.dtype}: set store.dtype=float32")

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except OSError as problem:
            error = problem
            raise _disk_error(problem, self.path) from problem
        finally:
            if error is not None or self._partial.exists():
                shutil.rmtree(self._partial, ignore_errors=True)

    def _create(self, tap: Tap) -> Any:
        shape = self.spec.shape(tap)
        shard = min(samples_per_shard(self.spec, tap, np.dtype(self.dtype).itemsize), self.samples)
        return self._group.create_array(
            str(tap),
            shape=(self.samples, *shape),
            dtype=self.dtype,
            chunks=(1, *shape),
            shards=(shard, *shape),
            config={"write_empty_chunks": True},  # a missing file is then a lost one
            compressors=None,  # network activations hardly compress, and reading is what counts
            dimension_names=dimensions(self.spec, tap),
        )

    def _flush(self, tap: Tap, everything: bool = False) -> None:
        array, shard = self._arrays[tap], self._arrays[tap].shards[0]
        while self._buffered[tap] >= shard or (everything and self._buffered[tap]):
            rows = np.concatenate(self._buffers[tap])
            count = min(shard, len(rows))
            array[self._written[tap] : self._written[tap] + count] = rows[:count]
            self._written[tap] += count
            self._buffers[tap], self._buffered[tap] = [rows[count:]], len(rows) - count

    def _finish(self) -> None:
        for tap in self.spec.taps:
            self._flush(tap, everything=True)
        samples = self.samples - len(self.skipped)
        short = [tap for tap in self.spec.taps if self._written[tap] != samples]
        if short:
            raise UserError(f"the store was promised {samples} samples, but got {self._written[short[0]]}")
        if self.skipped:
            self._drop_skipped(samples)
        for name, parts in self._columns.items():
            values = np.concatenate(parts)
            if name == "id":  # UTF-8 bytes of fixed length: every reader of Zarr v3 has them
                values = np.char.encode(values.astype(str), "utf-8")
                width = values.dtype.itemsize
                values = values.view(np.uint8).reshape(len(values), width)
            names = {
                "mask": ("sample", "mask_y", "mask_x"),
                "multilabel": ("sample", "class"),
                "id": ("sample", "byte"),
            }
            self._group.create_array(
                name,
                data=values,
                chunks=(min(len(values), 4096), *values.shape[1:]),
                dimension_names=names.get(name, ("sample",)),
            )
        self._partial.rename(self.path)

    def _drop_skipped(self, samples: int) -> None:
        """Shorten the arrays to what there is, and say what is not."""
        if not samples:
            raise UserError(f"no sample is left: all {len(self.skipped)} were skipped ({self.skipped[0]['reason']})")
        for tap, array in self._arrays.items():
            array.resize((samples, *self.spec.shape(tap)))
        self._group.attrs["skipped"] = self.skipped

    def _check_space(self, needed: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise UserError(
                f"the store needs {needed / 1e9:.1f} GB, but {self.path.parent} has {free / 1e9:.1f} GB free: use"
                " store.dtype=float16, fewer taps or timesteps, or another disk"
            )


def _compact(name: str, values: Tensor) -> NDArray[Any]:
    """Labels in the smallest type that holds them (a mask of classes and 255 in one byte, unless it does not fit)."""
    array = values.numpy()
    if name == "mask" and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    return array.astype(np.uint8) if name == "multilabel" else array


def _disk_error(error: OSError, path: Path) -> UserError:
    if error.errno == errno.ENOSPC:
        return UserError(
            f"the disk filled up while writing {path}; what was written is removed: free space or use another disk"
        )
    return UserError(f"could not write {path}: {error}")


def ids_from_bytes(rows: NDArray[np.uint8]) -> Sequence[str]:
    """The inverse of how ids are written.

    >>> ids_from_bytes(np.frombuffer(b"tile-1", np.uint8).reshape(1, 6))
    ['tile-1']
    """
    return [row.tobytes().rstrip(b"\x00").decode("utf-8") for row in rows]
