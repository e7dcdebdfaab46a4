"""Photometric jitter: brightness, contrast, saturation and hue of reflectance, as torchvision has them for pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from satdifuser.augment.draws import Numbers
from satdifuser.augment.geometry import has_data, where

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as torchvision rounds it


def jittered(
    images: Tensor,
    factors: Mapping[str, Numbers],
    order: Numbers,
    rgb: Sequence[int],
    unit: float | None,
    limits: Sequence[tuple[float, float]],
) -> Tensor:
    """Change `[samples, bands, H, W]` by `factors`, in each sample's `order` of their names.

    The red, green and blue of `rgb` are one picture: it is scaled by `unit` and clipped to [0, 1], before and after
    each operation (a `unit` of None: neither). Of the other bands each has the brightness and a contrast of its own.
    Pixels without data stay so, and each band stays in its `limits`.
    """
    rest = [band for band in range(images.shape[1]) if band not in rgb]
    picture, others = images[:, list(rgb)], images[:, rest]
    picture = _clipped(picture / unit, True) if unit is not None else picture
    for place in range(order.shape[1]):
        for number, name in enumerate(factors):
            chosen = order[:, place] == number
            if not chosen.any():
                continue
            index = where(chosen, images.device)
            factor = torch.from_numpy(factors[name][chosen]).to(images)[:, None, None, None]
            if rgb:
                picture[index] = _clipped(OPERATIONS[name](picture[index], factor), unit is not None)
            if rest and name == "brightness":
                others[index] = others[index] * factor
            elif rest and name == "contrast":
                others[index] = _blended(others[index], others[index].mean((2, 3), keepdim=True), factor)
    out = torch.empty_like(images)
    out[:, list(rgb)] = picture * unit if unit is not None else picture
    out[:, rest] = others
    least, most = out.new_tensor(limits).T[..., None, None]
    return torch.where(has_data(images), out.clamp(least, most), out.new_zeros(()))


def _clipped(picture: Tensor, clips: bool) -> Tensor:
    return picture.clamp(0, 1) if clips else picture


def _blended(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * one + (1 - share) * other


def _grey(picture: Tensor) -> Tensor:
    return (picture * picture.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def _brightness(picture: Tensor, factor: Tensor) -> Tensor:
    return picture * factor


def _contrast(picture: Tensor, factor: Tensor) -> Tensor:
    return _blended(picture, _grey(picture).mean((1, 2, 3), keepdim=True), factor)


def _saturation(picture: Tensor, factor: Tensor) -> Tensor:
    return _blended(picture, _grey(picture), factor)


def _hue(picture: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the circle."""
    from kornia.enhance import adjust_hue

    return torch.as_tensor(adjust_hue(picture, turn.flatten() * (2 * math.pi)))


OPERATIONS = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}
