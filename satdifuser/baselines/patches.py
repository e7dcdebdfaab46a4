"""Filters cut from training images: whitened patches (MOSAIKS, Rolf et al. 2021), named by a digest of the patches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.errors import UserError

PATCHES = "patches"  # and, once they are drawn, patches-<digest>
REGULAR = 1e-3
_drawn: dict[str, Tensor] = {}
_names: dict[str, str] = {}


def cut(images: Sequence[Tensor], number: int, kernel: int, seed: int) -> NDArray[np.float64]:
    """`number` patches of prepared images `[bands, H, W]`, from places that depend on the seed alone.

    In the place of an image that cannot be read another one is drawn; that as many fail as are wanted is an error.
    """
    draw = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    lost = 0
    while len(found) < number:
        wanted = number - len(found)
        places, corners = draw.integers(0, len(images), wanted), draw.random((wanted, 2))
        for place in np.unique(places):  # an image is read once, whatever comes out of it
            of_it = corners[places == place]
            try:
                image = images[int(place)]
            except UserError:
                lost += len(of_it)
                if lost >= number:
                    raise
                continue
            found += [_patch(image, row, column, kernel) for row, column in of_it]
    return np.stack(found)


def _patch(image: Tensor, across: float, along: float, kernel: int) -> NDArray[np.float64]:
    height, width = (side - kernel + 1 for side in image.shape[-2:])
    if min(height, width) < 1:
        raise UserError(f"encoder.kernel is {kernel}: images have {min(image.shape[-2:])} px")
    row, column = int(across * height), int(along * width)
    return image[:, row : row + kernel, column : column + kernel].double().numpy()


def whitened(patches: NDArray[np.floating], regular: float = REGULAR) -> NDArray[np.float64]:
    """Patches `[number, bands, k, k]`, each without its mean and of length 1, and then without what all have in common.

    It is the square of the symmetric whitening of their covariance, as in MOSAIKS.
    """
    flat = patches.reshape(len(patches), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(length < 1e-8, 1.0, length)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    return (flat @ (vectors / (values + regular)) @ vectors.T).reshape(patches.shape)


def waiting(filters: str) -> bool:
    """Whether these filters are still to be cut: those of a run are cut again where another process goes on with it."""
    return filters == PATCHES or (filters.startswith(f"{PATCHES}-") and filters not in _drawn)


def drawn(filters: str) -> Tensor | None:
    """Filters that this process has cut, float32; None of another name."""
    return _drawn.get(filters)


def draw(filters: str, images: Sequence[Tensor], about: Mapping[str, Any], number: int, kernel: int, seed: int) -> str:
    """Cut the filters and give the name that they go by from now on; `about` says of which images they are.

    The digest is of the patches and not of what whitening makes of them: that is rounded otherwise on other machines.
    """
    key = json.dumps([about, number, kernel, seed], sort_keys=True, default=str)
    if key not in _names:
        patches = cut(images, number, kernel, seed).astype("<f4")
        told = hashlib.sha256(f"{patches.shape} {REGULAR}".encode())
        told.update(np.ascontiguousarray(patches).data)
        _names[key] = f"{PATCHES}-{told.hexdigest()[:16]}"
        _drawn[_names[key]] = torch.from_numpy(whitened(patches)).float()
    name = _names[key]
    if filters not in (PATCHES, name):
        raise UserError(
            f"encoder.filters={filters} were cut from other training images than those that are there now (these give"
            f" {name}): give the images of then, or set encoder.filters={PATCHES} and train anew"
        )
    return name
