"""Bands by their names: which of a scene's rasters has which of the sensor's bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from satdifuser.data.bands import Band, Sensor
from satdifuser.data.files.called import hits
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError, nearest


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
