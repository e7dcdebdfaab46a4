"""Noise that is a function of (seed, sample id, timestep): the same for any batch, order, worker, process or resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sample_noise(seed: int, sample_id: str, timestep: int, shape: tuple[int, ...], draw: int = 0) -> Tensor:
    """Standard normal noise of one sample at one timestep, from a counter-based generator keyed by all of them.

    >>> a, b = sample_noise(0, "tile-7", 61, (2, 2)), sample_noise(0, "tile-7", 61, (2, 2))
    >>> bool((a == b).all()), bool((a == sample_noise(0, "tile-7", 62, (2, 2))).any())
    (True, False)
    """
    key = f"{seed}\x00{sample_id}\x00{timestep}" + (f"\x00{draw}" if draw else "")
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def batch_noise(seed: int, sample_ids: Sequence[str], timestep: int, like: Tensor, draw: int = 0) -> Tensor:
    """One independent draw for each sample of a batch, shaped, typed and placed like it."""
    shape = tuple(like.shape[1:])
    noise = torch.stack([sample_noise(seed, sample_id, timestep, shape, draw) for sample_id in sample_ids])
    if like.is_cuda:  # the copy then waits for nobody
        noise = noise.pin_memory()
    return noise.to(device=like.device, dtype=like.dtype, non_blocking=True)
