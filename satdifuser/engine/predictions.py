"""The answers of a model for each sample of a split, kept so that any score can be computed later without the model."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.engine.files import DamagedError, writing

ARRAYS = ("prediction", "truth", "logits")


@dataclass(frozen=True)
class Predictions:
    """Ids, what was said and what is true, in the order of the split; `logits` only of answers for whole images."""

    ids: tuple[str, ...]
    prediction: NDArray[Any]
    truth: NDArray[Any]
    logits: NDArray[Any] | None = None

    def save(self, path: Path) -> Path:
        """A Zarr group of compressed arrays, with the ids as an attribute; it appears whole."""
        import zarr

        partial, old = (path.with_name(path.name + end) for end in (".partial", ".old"))
        arrays = {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        checksums = {name: _checksum(values) for name, values in arrays.items()}
        about: dict[str, Any] = {"ids": list(self.ids), "ids_crc32": _checksum_of_ids(self.ids), "crc32": checksums}
        with writing(path):
            try:
                shutil.rmtree(partial, ignore_errors=True)
                group = zarr.open_group(partial, mode="w", attributes=about)
                for name, values in arrays.items():
                    group.create_array(name, data=values, chunks=(min(len(values), 256), *values.shape[1:]))
                shutil.rmtree(old, ignore_errors=True)
                if path.is_dir():  # removing it takes longer than a kill needs
                    path.rename(old)
                partial.rename(path)
                shutil.rmtree(old, ignore_errors=True)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return path

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """What `save` wrote."""
        import zarr

        try:
            group = zarr.open_group(path, mode="r")
            checksums: Any = group.attrs["crc32"]
            arrays = {name: np.asarray(group[name]) for name in checksums}
            ids = tuple(str(name) for name in group.attrs["ids"])  # type: ignore[union-attr]
            if group.attrs.get("ids_crc32", _checksum_of_ids(ids)) != _checksum_of_ids(ids):  # earlier ones have none
                raise ValueError("its ids are not those that were written")
            spoilt = [name for name, values in arrays.items() if _checksum(values) != checksums[name]]
            if spoilt:  # Zarr reads a chunk that is lost as zeros
                raise ValueError(f"the numbers of {spoilt[0]} are not those that were written")
        except Exception as error:  # a damaged array fails in Zarr in many ways
            fault = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"
            raise DamagedError(f"{path} {fault}: remove its run, and make it again") from None
        if any(len(values) != len(ids) for values in arrays.values()):
            fault = f"does not have a row for each of its {len(ids)} ids"
            raise DamagedError(f"{path} {fault}: remove its run, and make it again")
        return cls(ids, **arrays)


def _checksum_of_ids(ids: Sequence[str]) -> int:
    return zlib.crc32("\n".join(ids).encode())


def _checksum(values: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


class PredictionLog:
    """Collects the batches of one process, and joins those of all."""

    def __init__(self) -> None:
        self._rows: list[tuple[list[int], list[str], dict[str, NDArray[Any]]]] = []

    def add(
        self, indices: Sequence[int], ids: Sequence[str], prediction: Tensor, truth: Tensor, logits: Tensor
    ) -> None:
        said, true = prediction.cpu().numpy(), truth.cpu().numpy()
        kept = {"prediction": compact(said), "truth": compact(true)}
        if prediction.ndim < 3:  # not of maps: they would be many times the size of the images
            kept["logits"] = logits.detach().float().cpu().numpy()
        self._rows.append((list(indices), list(ids), kept))

    def joined(self, processes: int = 1) -> Predictions:
        """Every sample once, in the order of the split."""
        rows = gathered(self._rows, processes)
        order = np.argsort(np.concatenate([indices for indices, _, _ in rows]), kind="stable")
        ids = [name for _, names, _ in rows for name in names]
        arrays = {name: np.concatenate([kept[name] for _, _, kept in rows])[order] for name in rows[0][2]}
        return Predictions(tuple(ids[place] for place in order), **arrays)


def gathered(rows: list[Any], processes: int) -> list[Any]:
    """The rows of all processes, one after the other."""
    if processes == 1:
        return rows
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(rows)
    return found


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the fewest bytes that hold them, a byte at least.

    >>> compact(np.array([0, 9, 255])).dtype, compact(np.array([0, 300])).dtype, compact(np.array([0.5])).dtype
    (dtype('uint8'), dtype('uint16'), dtype('float64'))
    """
    if not np.issubdtype(values.dtype, np.integer) or not values.size:
        return values
    low, high = values.min(), values.max()
    kinds = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
    return values.astype(next((k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max), values.dtype))
