"""What a store's `zarr.json` says of its arrays, looked at before anything is allocated by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.store.files import StoreFiles, damaged, misfit
from satdifuser.store.manifest import Manifest
from satdifuser.store.shards import crc32c

NAME = "zarr.json"
WHOLE = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
TYPES = {"bool", "float16", "float32", "float64", *WHOLE}
CODECS = {"bytes", "zstd"}
TEXT = "string"  # the type of the ids that are for other readers; we do not decode it
SIDES = 8  # dimensions of an array at most


@dataclass(frozen=True)
class Array:
    """One array: its shape and type, the rows in a file of it, and the rows of a chunk where a file holds several."""

    shape: tuple[int, ...]
    dtype: str
    rows: int
    chunk: int | None
    metadata: Mapping[str, Any]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        return 0 if self.dtype == TEXT else np.dtype(self.dtype).itemsize * prod(self.row_shape)


def read_description(files: StoreFiles) -> dict[str, Any]:
    """What the description says; an error where it is not even that of a group."""
    try:
        document: dict[str, Any] = json.loads(files.bytes(NAME))
        if document["node_type"] != "group" or not isinstance(document["attributes"], dict):
            raise ValueError("no group")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(files.root, NAME, f"cannot be read ({type(error).__name__})") from None
    return document


def arrays_of(document: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of a group. ValueError, KeyError and TypeError say that one is not as we write them."""
    found = document["consolidated_metadata"]["metadata"]
    return {str(name): _array(name, values) for name, values in found.items()}


def _array(name: str, values: Mapping[str, Any]) -> Array:
    shape = values["shape"]
    rows = values["chunk_grid"]["configuration"]["chunk_shape"]
    codecs, chunk = values["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        inner = codecs[0]["configuration"]
        if not _sides(inner["chunk_shape"], shape) or rows[0] % inner["chunk_shape"][0]:
            raise ValueError(f"{name} has chunks of {str(inner['chunk_shape'])[:60]}")
        chunk, codecs = inner["chunk_shape"][0], [*inner["codecs"], *codecs[1:]]
    if not isinstance(shape, list) or not 1 <= len(shape) <= SIDES or not all(_whole(side, 0) for side in shape):
        raise ValueError(f"{name} has the shape {str(shape)[:60]}")
    if not _sides(rows, shape):
        raise ValueError(f"{name} has files of {str(rows)[:60]} rows and sides")
    if values["data_type"] == TEXT:
        if len(shape) != 1 or chunk is not None or [codec["name"] for codec in codecs] != ["vlen-utf8", "zstd"]:
            raise ValueError(f"{name} is not written as texts are in stores")
        return Array(tuple(shape), TEXT, rows[0], None, values)
    if values["fill_value"] != 0:  # of what is not written
        raise ValueError(f"{name} is filled up with {str(values['fill_value'])[:60]}")
    if values["data_type"] not in TYPES or any(codec["name"] not in CODECS for codec in codecs):
        raise ValueError(f"{name} is of a type or in a code that stores do not have")
    return Array(tuple(shape), values["data_type"], rows[0], chunk, values)


def _sides(chunk: Any, shape: list[int]) -> bool:
    """Whether chunks cut nothing but the rows."""
    return isinstance(chunk, list) and chunk[1:] == shape[1:] and len(chunk) == len(shape) and _whole(chunk[0], 1)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def checked_bytes(files: StoreFiles, manifest: Manifest, key: str) -> bytes:
    """A whole file that the manifest lists, if it is as it was written."""
    size, crc = manifest.files[key]
    data = files.bytes(key, size)
    fault = misfit(size, len(data)) or same(data, crc)
    if fault is not None:
        raise damaged(files.root, key, fault)
    return data


def same(data: bytes, crc: int) -> str | None:
    """What is wrong with the bytes of a file that should have a checksum."""
    return None if crc32c(np.frombuffer(data, np.uint8)) == crc else "is damaged (its checksum differs)"


def small_array(files: StoreFiles, manifest: Manifest, name: str, array: Array) -> NDArray[Any]:
    """All rows of an array that is kept in few files. Only what the manifest lists is read, and Zarr decodes it."""
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    keep = default_buffer_prototype().buffer.from_bytes
    found = {NAME: keep(json.dumps(array.metadata).encode())}
    tail = "/0" * len(array.row_shape)
    for number in range(-(-array.shape[0] // array.rows)):
        key = f"c/{number}{tail}"
        if f"{name}/{key}" in manifest.files:  # a chunk of nothing but zeros is not written
            found[key] = keep(checked_bytes(files, manifest, f"{name}/{key}"))
    try:
        opened: Any = zarr.open_array(MemoryStore(found), mode="r", zarr_format=3)
        return np.asarray(opened[...])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise damaged(files.root, name, f"cannot be read ({type(error).__name__})") from None
