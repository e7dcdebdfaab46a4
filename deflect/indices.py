"""Spectral indices as tensors: spyndex's own expressions, with denominators that cannot vanish and a stated range."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deflect.bands import Band, standard_names
from satdifuser.bank import BankError

log = logging.getLogger(__name__)

# Vegetation, water, built-up land, bare soil, snow, burns, moisture: at most a few of each, over all of the spectrum.
DEFAULT = ("NDVI", "EVI", "SAVI", "NDREI", "NDWI", "MNDWI", "NDMI", "NDBI", "BI", "NBR", "NBR2", "NDTI", "PSRI")
SMALLEST = 1e-4
"""A denominator closer to zero than this counts as this, with its sign."""


class SpectralIndices(nn.Module):
    """Named indices of an image `[batch, bands, height, width]` in reflectance, as `[batch, indices, height, width]`.

    An index is named as spyndex names it. With `names=None` those of `DEFAULT` that the bands allow are computed and
    the others are left out (`omitted`, and in the log); one that is asked for by name needs its bands. Values are
    clamped to `limits`, and of finite pixels nothing that is not a number is made.

    >>> red, nir = Band("B04", "red", 664.6), Band("B08", "nir", 832.8)
    >>> round(SpectralIndices([red, nir], ["NDVI"])(torch.tensor([0.1, 0.3]).view(1, 2, 1, 1)).item(), 6)
    0.5
    """

    def __init__(
        self, bands: Sequence[Band], names: Sequence[str] | None = None, limits: tuple[float, float] = (-2.0, 2.0)
    ) -> None:
        super().__init__()
        low, high = limits
        if not low < high:
            raise BankError(f"indices are clamped to [{low}, {high}]: the second must be above the first")
        self.limits = (float(low), float(high))
        self._channels = standard_names(bands)
        missing = {name: self._missing(name) for name in (DEFAULT if names is None else names)}
        absent = {name: needs for name, needs in missing.items() if needs}
        if absent and names is not None:
            name, needs = next(iter(absent.items()))
            raise BankError(
                f"the index {name} needs {', '.join(needs)} (spyndex's names), but the bands give"
                f" {', '.join(self._channels) or 'none'} ({', '.join(band.name for band in bands)}): leave it out"
            )
        if absent:
            log.warning(
                "indices left out, for want of bands: %s", "; ".join(f"{k} ({', '.join(v)})" for k, v in absent.items())
            )
        self.omitted = tuple(absent)
        self.names = tuple(name for name, needs in missing.items() if not needs)

    def __len__(self) -> int:
        return len(self.names)

    def _missing(self, name: str) -> list[str]:
        """What an index needs and there is not; an unknown index is an error."""
        import spyndex

        if name not in spyndex.indices:
            near = difflib.get_close_matches(name, list(spyndex.indices), n=3)
            raise BankError(f"spyndex has no index {name!r}{'; it has ' + ', '.join(near) if near else ''}")
        return [need for need in spyndex.indices[name].bands if need not in self._channels and _constant(need) is None]

    def forward(self, images: Tensor) -> Tensor:
        import spyndex

        if not self.names:
            return images.new_zeros(images.shape[0], 0, *images.shape[2:])
        known: dict[str, Any] = {name: Guarded(images[:, channel]) for name, channel in self._channels.items()}
        found = []
        for name in self.names:
            needs = spyndex.indices[name].bands
            given = {need: known[need] if need in known else _constant(need) for need in needs}
            value = spyndex.computeIndex(name, given).tensor
            found.append(value.clamp(*self.limits))
        return torch.stack(found, dim=1)


class Guarded:
    """A tensor under the four operations and powers, whose quotients and roots stay finite.

    spyndex evaluates its expressions on whatever it is given; given these, every denominator is guarded where it
    stands, so that neither a value nor a gradient is ever not a number.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __add__(self, other: Any) -> Guarded:
        return Guarded(self.tensor + _plain(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Guarded:
        return Guarded(self.tensor - _plain(other))

    def __rsub__(self, other: Any) -> Guarded:
        return Guarded(_plain(other) - self.tensor)

    def __mul__(self, other: Any) -> Guarded:
        return Guarded(self.tensor * _plain(other))

    __rmul__ = __mul__

    def __neg__(self) -> Guarded:
        return Guarded(-self.tensor)

    def __truediv__(self, other: Any) -> Guarded:
        return Guarded(self.tensor / (_away_from_zero(other.tensor) if isinstance(other, Guarded) else other))

    def __rtruediv__(self, other: Any) -> Guarded:
        return Guarded(_plain(other) / _away_from_zero(self.tensor))

    def __pow__(self, power: Any) -> Guarded:
        power = _plain(power)
        whole = not isinstance(power, Tensor) and float(power).is_integer()
        base = self.tensor if whole else self.tensor.clamp_min(SMALLEST)  # a root of less is no number, or has no slope
        return Guarded((_away_from_zero(base) if whole and power < 0 else base) ** power)

    def __rpow__(self, base: Any) -> Guarded:
        return Guarded(_plain(base) ** self.tensor)


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, Guarded) else value


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.copysign(x.abs().clamp_min(SMALLEST), x)


def _constant(name: str) -> float | None:
    """spyndex's default for a constant of an expression; None for a band, and for a constant that has none."""
    import spyndex

    return spyndex.constants[name].default if name in spyndex.constants else None
