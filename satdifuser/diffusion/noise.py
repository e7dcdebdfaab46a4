"""Noise that is a function of (seed, sample id, timestep): the same for any batch, order, worker, process or resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

TILE = 32  # numbers along a side of what is drawn at once of a scene


class Placed(str):
    """The id of a window of a scene: its noise lies on the ground, so that windows that overlap agree about it.

    `row` and `column` are its first px in the scene, `side` is how many it has along a side.

    >>> Placed("S2", -8, 40, 64)
    'S2 at -8, 40'
    """

    row: int
    column: int
    side: int

    def __new__(cls, name: str, row: int, column: int, side: int) -> Self:
        made = super().__new__(cls, f"{name} at {row}, {column}")
        made.row, made.column, made.side = row, column, side
        return made


def sample_noise(seed: int, sample_id: str, timestep: int, shape: tuple[int, ...], draw: int = 0) -> Tensor:
    """Standard normal noise of one sample at one timestep, from a counter-based generator keyed by all of them.

    >>> a, b = sample_noise(0, "tile-7", 61, (2, 2)), sample_noise(0, "tile-7", 61, (2, 2))
    >>> bool((a == b).all()), bool((a == sample_noise(0, "tile-7", 62, (2, 2))).any())
    (True, False)
    """
    if isinstance(sample_id, Placed) and len(shape) == 3:
        return torch.from_numpy(_ground(seed, sample_id, timestep, shape, draw))
    return torch.from_numpy(_drawn(seed, sample_id, timestep, shape, draw))


def _drawn(seed: int, sample_id: str, timestep: int, shape: tuple[int, ...], draw: int) -> np.ndarray[Any, Any]:
    key = f"{seed}\x00{sample_id}\x00{timestep}" + (f"\x00{draw}" if draw else "")
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return generator.standard_normal(shape, dtype=np.float32)


_tile = lru_cache(maxsize=256)(_drawn)


def _ground(seed: int, window: Placed, timestep: int, shape: tuple[int, ...], draw: int) -> np.ndarray[Any, Any]:
    """A window's part of the noise that covers the plane, which is drawn in tiles."""
    channels, height, width = shape
    top, left = round(window.row * height / window.side), round(window.column * width / window.side)
    found = np.empty(shape, np.float32)
    for down in range(top // TILE, (top + height - 1) // TILE + 1):
        for across in range(left // TILE, (left + width - 1) // TILE + 1):
            tile = _tile(seed, f"ground {down} {across}", timestep, (channels, TILE, TILE), draw)
            y, x = down * TILE - top, across * TILE - left  # where the tile begins in the window
            rows, columns = slice(max(y, 0), min(y + TILE, height)), slice(max(x, 0), min(x + TILE, width))
            part = tile[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            found[:, rows, columns] = part
    return found


def batch_noise(seed: int, sample_ids: Sequence[str], timestep: int, like: Tensor, draw: int = 0) -> Tensor:
    """One independent draw for each sample of a batch, shaped, typed and placed like it."""
    shape = tuple(like.shape[1:])
    noise = torch.stack([sample_noise(seed, sample_id, timestep, shape, draw) for sample_id in sample_ids])
    if like.is_cuda:  # the copy then waits for nobody
        noise = noise.pin_memory()
    return noise.to(device=like.device, dtype=like.dtype, non_blocking=True)
