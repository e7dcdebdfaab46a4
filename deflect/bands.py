"""What DEFLECT knows of a band, and which of spyndex's standard bands it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from satdifuser.bank import BankError


class SpectralBand(Protocol):
    """Any record with these three says enough; a sensor is a sequence of them in the order of an image's channels."""

    @property
    def name(self) -> str: ...
    @property
    def common(self) -> str: ...
    @property
    def wavelength(self) -> float: ...


@dataclass(frozen=True)
class Band:
    """A band's name with its sensor, the field's common name (red, nir, swir16, ...), centre and width in nm."""

    name: str
    common: str
    wavelength: float
    bandwidth: float = 0.0

    @classmethod
    def of(cls, band: SpectralBand) -> Band:
        return cls(band.name, band.common, float(band.wavelength), float(getattr(band, "bandwidth", 0.0)))


def as_bands(bands: Iterable[SpectralBand]) -> tuple[Band, ...]:
    """The bands of a sensor, each name once."""
    found = tuple(Band.of(band) for band in bands)
    names = [band.name for band in found]
    if not found or len(set(names)) != len(names):
        raise BankError(f"bands {names}: give every channel of the image a name of its own")
    return found


def standard_names(bands: Sequence[Band]) -> dict[str, int]:
    """spyndex's name for a band (R, N, S1, ...) -> channel.

    By the common name where spyndex has it; else by the narrowest of its wavelength ranges that holds the centre. A
    band that spyndex does not know (cirrus) has no name there, and of two bands with one name the first counts.

    >>> standard_names([Band("B04", "red", 664.6), Band("B10", "cirrus", 1373.5), Band("B05", "rededge1", 704.1)])
    {'R': 0, 'RE1': 2}
    """
    import spyndex

    known = [spyndex.bands[key] for key in spyndex.bands]
    found: dict[str, int] = {}
    for channel, band in enumerate(bands):
        named = [b for b in known if b.common_name == band.common]
        within = [b for b in known if b.min_wavelength <= band.wavelength <= b.max_wavelength]
        within.sort(key=lambda b: b.max_wavelength - b.min_wavelength)
        for match in (named if len(named) == 1 else within)[:1]:
            found.setdefault(match.short_name, channel)
    return found
