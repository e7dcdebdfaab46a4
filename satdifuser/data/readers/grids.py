"""Bands and masks on grids of their own, brought to one: the size that samples have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from satdifuser.data.files.fitting import BadImageError, Fitting

Array = np.ndarray[Any, Any]


def on_one_grid(bands: Sequence[tuple[Array, Array]], fitting: Fitting, grid: tuple[int, int]) -> Tensor:
    """`[bands, H, W]` or `[T, bands, H, W]`: bands (with where they are blank) resized to `grid`, then fitted."""
    height, width = grid
    dates = next((len(values) for values, _ in bands if values.ndim == 3), 1)
    fitting.check(len(bands), height, width)
    fitting.check_room(dates * len(bands) * height * width, height, width)
    whole = (fitting.size, fitting.size) if fitting.fit == "resize" else grid
    image = torch.stack([_resized(values, blank, whole) for values, blank in bands], dim=-3)
    if fitting.fit == "resize":
        return image
    rows, columns = fitting.part(height, width)
    return fitting.padded(image[..., rows, columns], 0.0)


def _resized(values: Array, blank: Array, size: tuple[int, int]) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(values))
    if tuple(found.shape[-2:]) == size:
        return found
    flat = found.reshape(1, -1, *found.shape[-2:])
    resized = F.interpolate(flat, size, mode="bilinear", antialias=True)[0]
    if blank.any():  # what is made from a blank pixel is blank: it would be darker than the ground is
        gone = torch.from_numpy(np.broadcast_to(blank, values.shape).astype(np.float32)).reshape(flat.shape)
        resized[F.interpolate(gone, size, mode="bilinear", antialias=True)[0] > 1e-6] = 0.0
    return resized.reshape(*found.shape[:-2], *size)


def nearest_to(mask: Tensor, fitting: Fitting, grid: tuple[int, int] | None, outside: float) -> Tensor:
    """A map `[h, w]` of classes or targets as the image was fitted; `outside` is where there is no image."""
    if mask.ndim != 2:
        raise BadImageError(f"has a mask of the shape {tuple(mask.shape)}: it must be height x width")
    height, width = mask.shape
    if grid is not None and (height, width) != grid and not (fitting.fit == "resize" and _scaled(grid, mask.shape)):
        raise BadImageError(f"is {grid[0]} x {grid[1]} px, but its mask is {height} x {width}: cut them alike")
    if fitting.fit == "resize":
        if (height, width) == (fitting.size, fitting.size):
            return mask
        resized = F.interpolate(mask[None, None].double(), (fitting.size, fitting.size), mode="nearest-exact")[0, 0]
        return resized.to(mask.dtype)
    fitting.check_size(height, width)
    rows, columns = fitting.part(height, width)
    return fitting.padded(mask[rows, columns], outside)


def _scaled(grid: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one grid is a whole multiple of the other."""
    fine, coarse = max(tuple(grid), tuple(other)), min(tuple(grid), tuple(other))
    return all(a % b == 0 for a, b in zip(fine, coarse, strict=True)) and fine[0] * coarse[1] == fine[1] * coarse[0]
