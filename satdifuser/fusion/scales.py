"""From one stride to another: transposed convolutions to finer ones, maxima to coarser ones."""

from __future__ import annotations

from torch import nn

from satdifuser.fusion.base import normalisation


def rescaled(width: int, stride: int, to: int, norm: str) -> nn.Module:
    """What brings maps of a stride to another one that is it times, or divided by, a power of two."""
    if to == stride:
        return nn.Identity()
    if to > stride:
        return nn.MaxPool2d(to // stride)
    doublings = (stride // to).bit_length() - 1
    return nn.Sequential(*(_double(width, norm, last=n == 1) for n in range(doublings, 0, -1)))


def _double(width: int, norm: str, last: bool) -> nn.Module:
    """Twice the size; between two of them a norm and an activation."""
    up = nn.ConvTranspose2d(width, width, 2, stride=2)
    return up if last else nn.Sequential(up, normalisation(norm)(width), nn.GELU())
