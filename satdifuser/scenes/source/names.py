"""Bands by their names: which of a scene's rasters has which of the sensor's bands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from satdifuser.data.bands import Band, Sensor
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError, nearest

ALIASES = {
    "swir1": "swir16",
    "swir2": "swir22",
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
    "nirnarrow": "nir08",
    "aerosol": "coastal",
    "panchromatic": "pan",
}
"""Common names by which others call the same."""
_BETWEEN = re.compile(r"[^A-Za-z0-9]+")
_ZEROS = re.compile(r"^([a-z]+)0+(?=\d)")


@dataclass(frozen=True)
class Pick:
    """A band of a scene: of which layer, and which of its bands."""

    layer: int
    band: int


@dataclass(frozen=True)
class Called:
    """A band of a layer, and what it is called."""

    pick: Pick
    words: tuple[str, ...]
    gsd: float | None = None


def plain(word: str) -> str:
    """A name without its case and the zeros before its number.

    >>> plain("B04"), plain("B8A"), plain("A00"), plain("B10")
    ('b4', 'b8a', 'a0', 'b10')
    """
    return _ZEROS.sub(r"\1", word.strip().lower())


def hits(words: Sequence[str], sensor: Sensor) -> tuple[int, tuple[int, ...]]:
    """How surely these words mean bands of the sensor (0 is the surest), and which.

    0: the whole word is a name or a common name; 1: a part of it is a name; 2: a part of it is a common name.

    >>> from satdifuser.data.bands import SENTINEL2
    >>> [hits([word], SENTINEL2) for word in ("B4", "B4, central wavelength 665 nm", "SR_red", "QA_PIXEL")]
    [(0, (3,)), (1, (3,)), (2, (3,)), (3, ())]
    """
    names = {plain(band.name): place for place, band in enumerate(sensor)}
    common = {plain(band.common): place for place, band in reversed(list(enumerate(sensor)))}
    whole = [plain(word) for word in words]
    parts = [plain(part) for word in words for part in _BETWEEN.split(word) if part]
    levels = (
        [names.get(word, common.get(ALIASES.get(word, word))) for word in whole],
        [names.get(part) for part in parts],
        [common.get(ALIASES.get(part, part)) for part in parts],
    )
    for level, found in enumerate(levels):
        places = tuple(sorted({place for place in found if place is not None}))
        if places:
            return level, places
    return len(levels), ()


def matched(called: Sequence[Called], sensor: Sensor, needed: Sequence[str], where: str) -> dict[str, Pick]:
    """For each needed band the one band of the scene that has its name, or an error of one line."""
    found: dict[int, list[tuple[tuple[int, float], Called]]] = {}
    for one in called:
        level, places = hits(one.words, sensor)
        if len(places) > 1 and any(sensor.names[place] in needed for place in places):
            both = " and ".join(sensor.names[place] for place in places)
            raise UserError(
                f"{where}: its band {_said(one)} could be {both}: set reading.bands to the names of its bands"
            )
        for place in places:
            found.setdefault(place, []).append(((level, one.gsd or 0.0), one))
    chosen: dict[str, Pick] = {}
    for name in needed:
        ours = sorted(found.get(sensor.names.index(name), []), key=lambda each: each[0])
        if not ours:
            raise UserError(_missing(called, sensor, needed, set(found), where))
        if len(ours) > 1 and ours[0][0] == ours[1][0]:
            raise UserError(
                f"{where}: its bands {_said(ours[0][1])} and {_said(ours[1][1])} could both be {name}: set"
                " reading.bands to the names of its bands"
            )
        chosen[name] = ours[0][1].pick
    return chosen


def given(words: Sequence[str], count: int, sensor: Sensor, needed: Sequence[str], where: str) -> dict[str, Pick]:
    """The same of one raster whose bands the user has named in order; names that the sensor lacks are skipped."""
    if len(words) != count:
        raise UserError(f"{where} has {count} band{'s' * (count != 1)}, but reading.bands names {len(words)}")
    return matched([Called(Pick(0, n), (word,)) for n, word in enumerate(words)], sensor, needed, where)


def band_of(word: str, sensor: Sensor) -> Band:
    """The sensor's band that a user has named."""
    level, places = hits([word], sensor)
    if level:
        raise UserError(
            f"reading.bands has {word}, which is no band of {sensor.name}: it has {', '.join(sensor.names)}"
            f"{nearest(word, sensor.names)}"
        )
    return sensor.bands[places[0]]


def _missing(called: Sequence[Called], sensor: Sensor, needed: Sequence[str], found: set[int], where: str) -> str:
    lost = [
        f"{band.name} ({band.common})" if band.common.lower() != band.name.lower() else band.name
        for place, band in enumerate(sensor)
        if band.name in needed and place not in found
    ]
    there = [_said(one) for one in called]
    listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
    return (
        f"{where} has no band {', '.join(lost)} of {sensor.name}: it has {listed or 'no bands'}: set reading.bands to"
        " the names of its bands, or reading.sensor to those it has"
    )


def _said(called: Called) -> str:
    return shown(called.words[0])[:40] if called.words else f"{called.pick.band + 1} (without a name)"
