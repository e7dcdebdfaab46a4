"""The answers of a model for each sample of a split, kept so that any score can be computed later without the model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.errors import UserError


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

        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        group = zarr.open_group(str(partial), mode="w", attributes={"ids": list(self.ids)})
        for name in ("prediction", "truth", "logits"):
            values = getattr(self, name)
            if values is not None:
                group.create_array(name, data=values, chunks=(min(len(values), 256), *values.shape[1:]))
        shutil.rmtree(path, ignore_errors=True)
        return partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """What `save` wrote."""
        import zarr

        try:
            group = zarr.open_group(str(path), mode="r")
            arrays = {name: np.asarray(group[name]) for name in ("prediction", "truth")}
            logits = np.asarray(group["logits"]) if "logits" in group else None
            ids = tuple(str(name) for name in group.attrs["ids"])  # type: ignore[union-attr]
        except (OSError, KeyError, ValueError, TypeError) as error:
            fault = f"cannot be read ({type(error).__name__}: {error})"
            raise UserError(f"{path} {fault}: remove its run, and make it again") from None
        if any(len(values) != len(ids) for values in arrays.values()):
            fault = f"does not have a row for each of its {len(ids)} ids"
            raise UserError(f"{path} {fault}: remove its run, and make it again")
        return cls(ids, **arrays, logits=logits)


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
        rows = self._rows
        if processes > 1:
            from accelerate.utils import gather_object

            rows = gather_object(rows)
        order = np.argsort(np.concatenate([indices for indices, _, _ in rows]), kind="stable")
        ids = [name for _, names, _ in rows for name in names]
        arrays = {name: np.concatenate([kept[name] for _, _, kept in rows])[order] for name in rows[0][2]}
        return Predictions(tuple(ids[place] for place in order), **arrays)


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the fewest bytes that hold them, a byte at least.

    >>> compact(np.array([0, 9, 255])).dtype, compact(np.array([0, 300])).dtype, compact(np.array([0.5])).dtype
    (dtype('uint8'), dtype('uint16'), dtype('float64'))
    """
    if not np.issubdtype(values.dtype, np.integer) or not values.size:
        return values
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
