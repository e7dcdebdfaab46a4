"""Galileo's channels and groups of channels, and which bands of a sensor are which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from satdifuser.bank import BankError

CHANNELS = ("VV", "VH", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12", "NDVI")
GROUPS = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B2", "B3", "B4"),
    "S2_Red_Edge": ("B5", "B6", "B7"),
    "S2_NIR_10m": ("B8",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "NDVI": ("NDVI",),
}
"""In the order of the tokens; each is a token of its own at every place."""

COMMON = {
    "vv": "VV",
    "vh": "VH",
    "blue": "B2",
    "green": "B3",
    "red": "B4",
    "rededge1": "B5",
    "rededge2": "B6",
    "rededge3": "B7",
    "nir08": "B8A",
    "swir16": "B11",
    "swir22": "B12",
}
NARROW = 850.0  # nm: a near infrared beyond it is nearer to B8A (864.7, as Landsat-8's) than to B8 (832.8)


@dataclass(frozen=True)
class Chosen:
    """The groups that are there and what each of their channels is made of."""

    groups: tuple[str, ...]
    sources: tuple[int, ...]
    """Of each channel but NDVI, the place of its band in the input."""
    bands: tuple[str, ...]
    """The names of these bands."""
    left: tuple[str, ...]
    """Bands of the input that the model does not know, or whose group is not whole."""

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(channel for group in self.groups for channel in GROUPS[group] if channel != "NDVI")


def channel_of(band: Any) -> str | None:
    """The channel that a band is, by its common name; of near infrared by its wavelength, as in HLS; None: of none.

    >>> from deflect.bands import Band
    >>> [channel_of(Band("B5", "nir", nm)) for nm in (832.8, 864.7)], channel_of(Band("B10", "cirrus", 1373.5))
    (['B8', 'B8A'], None)
    """
    if band.common == "nir":
        return "B8A" if band.wavelength > NARROW else "B8"
    return COMMON.get(band.common)


def choose(bands: Sequence[Any], ndvi: bool, named: bool) -> Chosen:
    """The groups that these bands fill. Of bands that the user has `named`, one without a place is an error."""
    found: dict[str, int] = {}
    for place, band in enumerate(bands):
        channel = channel_of(band)
        if channel is not None:
            found.setdefault(channel, place)
    groups = [group for group, wanted in GROUPS.items() if group != "NDVI" and set(wanted) <= found.keys()]
    used = {found[channel]: channel for group in groups for channel in GROUPS[group]}
    left = tuple(band.name for place, band in enumerate(bands) if place not in used)
    if named and left:
        raise BankError(
            f"encoder.prepare.bands names {', '.join(left)}, which galileo has no use for: it takes whole groups of"
            f" {_listed()}; leave them out, or set encoder.prepare.bands=null for all that it can use"
        )
    if not groups:
        raise BankError(
            f"galileo can use none of the bands {', '.join(band.name for band in bands)}: it takes whole groups of"
            f" {_listed()}"
        )
    if ndvi:
        if not {"S2_RGB", "S2_NIR_10m"} <= set(groups):
            raise BankError("encoder.ndvi=true needs B4 (red) and B8 (near infrared) in encoder.prepare.bands")
        groups.append("NDVI")
    order = [channel for group in groups for channel in GROUPS[group] if channel != "NDVI"]
    sources = tuple(found[channel] for channel in order)
    return Chosen(tuple(groups), sources, tuple(bands[place].name for place in sources), left)


def _listed() -> str:
    return "; ".join(" ".join(channels) for group, channels in GROUPS.items() if group != "NDVI")
