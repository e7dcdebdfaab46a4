"""Standardised features in the directions in which they vary: the same numbers, turned, so that fits are easy.

A turn changes neither a penalty |w|^2 nor what a linear function can say. In the directions of the covariance the
features are uncorrelated: ridge regression is a division there, and logistic regression needs few steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.analysis.linear import Linear

CHUNK_BYTES = 2**25


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of every channel over the training rows; a channel that never changes has deviation 1."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Directions:
    """`basis` [C, R] turns standardised features; `variance` [R] is their mean square there, the largest first."""

    scale: Scale
    basis: Tensor
    variance: Tensor

    def turned(self, x: NDArray[Any], dtype: torch.dtype) -> Tensor:
        """Features [N, C] as [N, R + 1]: turned in float64, and a column of ones for the bias."""
        found = torch.empty(len(x), len(self.variance) + 1, dtype=dtype, device=self.basis.device)
        found[:, -1] = 1
        for part, rows in standard(x, self.scale):
            found[part, :-1] = (rows @ self.basis).to(dtype)
        return found

    def linear(self, found: Tensor) -> Linear:
        """What is found in the directions, [K, R + 1] with the bias last, as a function of features as they are."""
        weight = found[:, :-1] @ self.basis.T / self.scale.deviation
        bias = found[:, -1] - weight @ self.scale.mean
        return Linear(weight.cpu().numpy(), bias.cpu().numpy())


def directions(x: NDArray[Any], device: str | torch.device = "cpu") -> Directions:
    """The directions of the covariance of features [N, C]: no more of them than the smaller of both.

    Where there are more channels than samples, the samples are first written, without loss, in a basis of the space
    that they span.
    """
    scale = scale_of(x, device)
    samples, channels = x.shape
    if channels <= samples:
        covariance = torch.zeros(channels, channels, dtype=torch.float64, device=device)
        for _, rows in standard(x, scale):
            covariance += rows.T @ rows
        variance, basis = torch.linalg.eigh(covariance / samples)
    else:
        whole = torch.cat([rows for _, rows in standard(x, scale)])
        span, inner = torch.linalg.qr(whole.T)
        variance, basis = torch.linalg.eigh(inner @ inner.T / samples)
        basis = span @ basis
    return Directions(scale, basis.flip(1), variance.clamp(min=0).flip(0))


def scale_of(x: NDArray[Any], device: str | torch.device = "cpu") -> Scale:
    """What never changes but by rounding has deviation 1, as in scikit-learn's StandardScaler."""
    samples, channels = x.shape
    mean = torch.zeros(channels, dtype=torch.float64, device=device)
    variance = torch.zeros_like(mean)
    for _, rows in chunks(x, device):
        mean += rows.sum(0)
    mean /= samples
    for _, rows in chunks(x, device):
        variance += (rows - mean).square().sum(0)
    variance /= samples
    tiny = samples * np.finfo(np.float64).eps
    constant = variance <= tiny * variance + (tiny * mean).square()
    return Scale(mean, torch.where(constant, 1.0, variance.sqrt()))


def standard(x: NDArray[Any], scale: Scale) -> Iterator[tuple[slice, Tensor]]:
    for part, rows in chunks(x, scale.mean.device):
        yield part, (rows - scale.mean) / scale.deviation


def chunks(x: NDArray[Any], device: str | torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Rows in float64 on the device, some at a time."""
    size = max(1, CHUNK_BYTES // (8 * x.shape[1]))
    for first in range(0, len(x), size):
        part = slice(first, first + size)
        yield part, torch.from_numpy(np.ascontiguousarray(x[part])).to(device).double()
