"""A feature store that is open: what it says of itself, made sure of."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.bank import BankSpec
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store.checks import Sums, summed
from satdifuser.store.describe import NAME, Array, arrays_of, checked_bytes, read_description, small_array
from satdifuser.store.files import StoreFiles, damaged, located, manifest_text, misfit, parsed
from satdifuser.store.forms import Form
from satdifuser.store.layout import (
    ID_BYTES,
    LABEL_COLUMNS,
    NAMES,
    PLACE_COLUMNS,
    READS,
    VERSION,
    WIDE,
    Unit,
    Units,
    files_key,
)
from satdifuser.store.local import LocalFiles
from satdifuser.store.manifest import NAME as MANIFEST
from satdifuser.store.remote import RemoteFiles
from satdifuser.store.shards import shard_bytes


class OpenStore:
    """A store on disk or, as `s3://...`, `gs://...` and the like, anywhere that fsspec reads.

    It is the same store as long as it is open: what lies at its path later is never taken for it. With `check`, rows
    are compared with their checksums as they are read; labels, ids and descriptions always are.
    """

    def __init__(self, path: str | Path, *, complete: bool = True, check: bool = True) -> None:
        self.files: StoreFiles = open_files(path)
        self.path, self.check = self.files.root, check
        if not self.files.exists(NAME):
            if self.files.exists("config.yaml"):
                raise UserError(
                    f"{self.path} is the folder of a run, not a feature store: give one that satdifuser extract has"
                    " written"
                )
            raise UserError(f"no feature store at {self.path}: make one with satdifuser extract store.path={self.path}")
        document = read_description(self.files)
        self.attributes: dict[str, Any] = dict(document["attributes"])
        self._check_version(self.attributes.get("satdifuser_store"))
        self._mark = self.files.mark(MANIFEST)
        text = manifest_text(self.files)
        self.manifest = parsed(text, self.path)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        checked_bytes(self.files, self.manifest, NAME)
        try:
            self.spec = BankSpec.from_dict(self.attributes["spec"])
            self.form = Form(**self.attributes["form"])
            self.labels = Labels.from_dict(self.attributes["labels"])
            self.splits: list[str] = list(self.attributes["splits"])
            self.data: dict[str, Any] = dict(self.attributes["data"])
            self.columns = self.form.columns(self.spec)
            self._arrays = arrays_of(document)
            self.samples = self._arrays["id"].shape[0]
            unit = self.attributes["unit"]
            self.units = Units(self.samples, int(unit["samples"]), int(unit["chunk_bytes"]))
            self._check_arrays()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = str(error)[:120]
            raise UserError(f"{self.path} has lost a part of its description ({what}): extract it again") from None
        if complete:
            self._check_complete()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (type(self), self.path, self.check, self.fingerprint)  # opened anew in another process

    @property
    def latents(self) -> bool:
        """Whether it holds what goes into the UNet, and not what comes out."""
        return self.form.latents

    def column(self, name: str) -> NDArray[Any] | None:
        """A whole small array (`id`, `split`, a label), None where the data had no such label."""
        with self.reading():
            array = self._arrays.get(name)
            return None if array is None else small_array(self.files, self.manifest, name, array)

    def array(self, name: str) -> Array:
        return self._arrays[name]

    def has(self, name: str) -> bool:
        """Whether the data had such a label."""
        return name in self._arrays

    def ids(self) -> list[str]:
        rows = self.column("id")
        assert rows is not None
        return ids_from_bytes(rows)

    def wide(self, name: str) -> Array | None:
        """A label that is kept in shards; None where it is small, or not there."""
        array = self._arrays.get(name)
        return None if array is None or array.chunk is None else array

    @cached_property
    def _sums(self) -> NDArray[np.uint32]:
        sums = self.column("checksum")
        assert sums is not None
        return sums

    def sums(self, name: str) -> Sums:
        """The checksum of every row of an array that is read row by row."""
        if name in self.attributes["columns"]:
            return self._sums[:, self.attributes["columns"].index(name)]
        array = self.array(name)
        shards = [(self.shard(name, unit, array)[0], unit.count) for unit in self.units]
        with self.reading():
            return summed(self.files, self.manifest, shards, array.row_bytes)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What cannot be read of a store that is gone is no damage: say what happened instead."""
        try:
            yield
        except UserError:
            if self.files.elsewhere() or not self.same():
                raise self.replaced() from None
            raise

    def same(self) -> bool:
        """Whether the manifest is the one that was read when the store was opened."""
        mark = self.files.mark(MANIFEST)
        if mark == self._mark:
            return True
        with contextlib.suppress(UserError):
            if hashlib.sha256(manifest_text(self.files).encode()).hexdigest() == self.fingerprint:
                self._mark = mark
                return True
        return False

    def replaced(self) -> UserError:
        return UserError(
            f"{self.path} was replaced or removed while it was read: start again, and leave it in place until the end"
        )

    def shard(self, name: str, unit: Unit, array: Array | None = None) -> tuple[str, int]:
        """The file of an array's unit and the size that it must have."""
        array = array or self.array(name)
        assert array.chunk is not None
        key = files_key(name, unit.number, len(array.shape))
        return key, shard_bytes(unit.count, array.row_bytes, array.chunk, self.units.size)

    def _check_version(self, version: Any) -> None:
        if version in READS:
            return
        if not isinstance(version, int):
            raise UserError(f"{self.path} is no feature store of satdifuser: its zarr.json says nothing of one")
        remedy = "extract it again" if version < VERSION else "install a newer satdifuser"
        known = " and ".join(map(str, READS))
        raise UserError(f"{self.path} is a store of version {version}, and this satdifuser reads {known}: {remedy}")

    def _check_arrays(self) -> None:
        """Every array is of these samples and, in its rows, what the spec says or what a label may be."""
        if self.units.size < 1 or self.units.chunk_bytes < 1:
            raise ValueError(f"units of {self.units.size} samples")
        if not self.columns or not self.splits or not all(isinstance(name, str) for name in self.splits):
            raise ValueError("no taps or no splits")
        listed = self.attributes["columns"]
        names = [column.name for column in self.columns]
        wide = [name for name in LABEL_COLUMNS if self.wide(name) is not None]
        more = listed[len(names) :]
        if listed[: len(names)] != names or not set(more) <= set(wide) or len(set(more)) < len(more):
            raise ValueError(f"columns {listed}")
        small = {"id": ("uint8", ID_BYTES), "split": ("uint8", 1), "checksum": ("uint32", 4 * len(listed))}
        kept = {column.name: (column.dtype, column.shape) for column in self.columns}
        if any(self.has(name) for name in PLACE_COLUMNS):
            small.update(PLACE_COLUMNS)
        if self.has(NAMES) or self.attributes["satdifuser_store"] == VERSION:
            small[NAMES] = ("string", 0)
        for name in (*small, *kept, *(label for label in LABEL_COLUMNS if self.has(label))):
            array = self._arrays[name]
            if array.shape[0] != self.samples:
                raise ValueError(f"{name} has {array.shape[0]} samples instead of {self.samples}")
            dtype, most = small.get(name, (array.dtype, WIDE))
            if array.chunk is None and (array.dtype != dtype or array.row_bytes > most or array.rows > self.samples):
                raise ValueError(f"{name} has rows of {array.row_bytes} bytes of {array.dtype}")
            if (name in kept or name in wide) and (array.chunk is None or array.rows != self.units.size):
                raise ValueError(f"{name} has files of {array.rows} samples instead of {self.units.size}")
            if kept.get(name, (array.dtype, array.row_shape)) != (array.dtype, array.row_shape):
                raise ValueError(f"{name} is {array.dtype} {list(array.row_shape)}")

    def _check_complete(self) -> None:
        """Zarr reads a file that is not there as zeros, so make sure that all of them are (`verify` looks inside)."""
        for name, array in self._arrays.items():
            if f"{name}/{NAME}" not in self.manifest.files:
                raise UserError(f"{self.path} does not list {name}/{NAME}: extract it again")
            for unit in self.units if array.chunk is not None else ():
                key, size = self.shard(name, unit, array)
                if self.manifest.files.get(key, (None,))[0] != size:
                    raise UserError(f"{self.path} does not list {key} as it must be: extract it again")
        there = self.files.sizes(self.manifest.files)
        for key, (size, _) in self.manifest.files.items():
            fault = misfit(size, there.get(key))
            if fault is not None:
                raise damaged(self.path, key, fault)


def reopened(kind: type[OpenStore], path: str, check: bool, fingerprint: str) -> OpenStore:
    """The store that another process has open; an error if another lies in its place by now."""
    store = kind(path, complete=False, check=check)
    if store.fingerprint != fingerprint:
        raise store.replaced()
    return store


def open_files(path: object) -> StoreFiles:
    """A folder, or where the path has a protocol, a place that fsspec knows."""
    text = located(path)
    return RemoteFiles(text) if "://" in text else LocalFiles(text)


def ids_from_bytes(rows: NDArray[np.uint8]) -> list[str]:
    """The inverse of how ids are written.

    >>> ids_from_bytes(np.frombuffer(b"tile-1", np.uint8).reshape(1, 6))
    ['tile-1']
    """
    return [row.tobytes().rstrip(b"\x00").decode("utf-8") for row in rows]
