"""Band statistics of the images that a store's features came from, gathered while they pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]  # [count, sum, sum of squares, least, most] x splits x bands


def begin(splits: int, bands: int) -> Sums:
    sums = np.zeros((5, splits, bands))
    sums[3], sums[4] = np.inf, -np.inf
    return sums


def add(sums: Sums, split: NDArray[Any], images: NDArray[Any]) -> None:
    """Add images `[batch, bands, height, width]`; a pixel that is 0 in every band is no data and not counted.

    Of several dates they are `[batch, dates, bands, height, width]`, and all dates are counted alike.

    In NumPy, whose sums do not depend on the number of threads: the same images give the same bytes.
    """
    if images.ndim == 5:
        split, images = np.repeat(split, images.shape[1]), images.reshape(-1, *images.shape[2:])
    for number in np.unique(split):
        chosen = images[split == number].astype(np.float64)
        pixels = chosen.transpose(1, 0, 2, 3).reshape(chosen.shape[1], -1)
        pixels = pixels[:, (pixels != 0).any(0)]
        if not pixels.shape[1]:
            continue
        sums[0, number] += pixels.shape[1]
        sums[1, number] += pixels.sum(1)
        sums[2, number] += (pixels**2).sum(1)
        sums[3, number] = np.minimum(sums[3, number], pixels.min(1))
        sums[4, number] = np.maximum(sums[4, number], pixels.max(1))


def join(parts: Sequence[Sums]) -> Sums:
    stacked = np.stack(parts)
    return np.concatenate([stacked[:, :3].sum(0), stacked[:, 3:4].min(0), stacked[:, 4:].max(0)])


def restored(values: Mapping[str, Any], splits: Sequence[str]) -> Sums:
    """The sums that a description was made of, for these splits.

    >>> sums = begin(1, 1)
    >>> add(sums, np.array([0]), np.array([[[[1.0, 3.0, 0.0]]]]))
    >>> bool((restored(described(sums, ["train"], ["B04"]), ["train"]) == sums).all())
    True
    """
    sums = begin(len(splits), len(values["names"]))
    for number, split in enumerate(splits):
        found = values.get(split)
        if found is None:
            continue
        count, mean = found["pixels"], np.array(found["mean"])
        squares = np.array(found["std"]) ** 2 + mean**2
        sums[:, number] = [np.full_like(mean, count), count * mean, count * squares, found["min"], found["max"]]
    return sums


def described(sums: Sums, splits: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Attributes: for each split that has pixels, lists over the bands.

    >>> sums = begin(1, 1)
    >>> add(sums, np.array([0]), np.array([[[[1.0, 3.0, 0.0]]]]))
    >>> described(sums, ["train"], ["B04"])["train"]
    {'pixels': 2, 'mean': [2.0], 'std': [1.0], 'min': [1.0], 'max': [3.0]}
    """
    found: dict[str, Any] = {"names": list(names)}
    for number, split in enumerate(splits):
        count = sums[0, number]
        if not count.any():
            continue
        mean = sums[1, number] / count
        spread = np.sqrt(np.maximum(sums[2, number] / count - mean**2, 0.0))
        values = {"mean": mean, "std": spread, "min": sums[3, number], "max": sums[4, number]}
        found[split] = {"pixels": int(count[0]), **{key: _short(value) for key, value in values.items()}}
    return found


def _short(values: Any) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
