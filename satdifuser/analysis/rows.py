"""Rows of features, `[samples, channels]`, as float64 without their mean, in blocks that do not grow with either.

A channel whose deviation over the samples is no more than twice the rounding of its mean, in the precision that the
rows have, is constant: what remains of it after the mean is taken away is noise of the computation, and is set to 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**22  # numbers that are float64 at a time
STRIPS = 4  # of a symmetric product
ROUNDINGS = 2  # so many times a number's precision is noise


def checked(rows: object, what: str = "features") -> Tensor:
    """Rows as a tensor of floating point numbers, where they lie."""
    found = torch.as_tensor(rows)
    if found.ndim != 2 or not found.shape[1]:
        raise ValueError(f"{what} must be [samples, channels], not {list(found.shape)}")
    return found.detach() if found.is_floating_point() else found.double()


def channel_blocks(rows: Tensor) -> Iterator[Tensor]:
    """All samples of some channels at a time, centred; constant channels are 0."""
    step = max(1, BLOCK // max(1, len(rows)))
    for first in range(0, rows.shape[1], step):
        part = rows[:, first : first + step].to(torch.float64, copy=True)
        mean = part.mean(0)
        part -= mean
        yield part.masked_fill_(_constant(mean, torch.linalg.vector_norm(part, dim=0), rows), 0)


def sample_blocks(rows: Tensor, step: int) -> Iterator[Tensor]:
    """Some samples with all their channels at a time, centred; constant channels are 0."""
    mean, varies = moments(rows)
    for first in range(0, len(rows), step):
        yield (rows[first : first + step].double() - mean).masked_fill_(~varies, 0)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each channel, and whether the channel varies."""
    mean = torch.empty(rows.shape[1], dtype=torch.float64, device=rows.device)
    varies = torch.empty(rows.shape[1], dtype=torch.bool, device=rows.device)
    step = max(1, BLOCK // max(1, len(rows)))
    for first in range(0, rows.shape[1], step):
        part, where = rows[:, first : first + step].double(), slice(first, first + step)
        mean[where] = part.mean(0)
        varies[where] = ~_constant(mean[where], torch.linalg.vector_norm(part - mean[where], dim=0), rows)
    return mean, varies


def gram(rows: Tensor) -> Tensor:
    """The centred samples' inner products with each other, `[samples, samples]`.

    On a CPU strips leave out most of what lies below the diagonal, which is the same as above it.
    """
    count = len(rows)
    found = torch.zeros(count, count, dtype=torch.float64, device=rows.device)
    step = max(1, -(-count // (STRIPS if rows.device.type == "cpu" else 1)))
    for part in channel_blocks(rows):
        for first in range(0, count, step):
            found[first : first + step, first:].addmm_(part[first : first + step], part[first:].T)
    return found.triu() + found.triu(1).T


def scatter(rows: Tensor) -> Tensor:
    """The centred channels' inner products with each other, `[channels, channels]`."""
    found = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in sample_blocks(rows, max(1, BLOCK // rows.shape[1])):
        found.addmm_(part.T, part)
    return found


def _constant(mean: Tensor, norm: Tensor, rows: Tensor) -> Tensor:
    return norm <= ROUNDINGS * torch.finfo(rows.dtype).eps * len(rows) ** 0.5 * mean.abs()
