"""What is asked before a scene is read: whether its numbers mean what the run knows, and whether its pixels do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from satdifuser.data.bands import Band, Sensor
from satdifuser.data.files.called import hits
from satdifuser.data.files.opened import Own, Place
from satdifuser.engine.progress import say
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Reading
from satdifuser.scenes.source.layer import Layout
from satdifuser.scenes.source.names import Pick

OFF = 1.5  # how many times larger or smaller than the sensor's a pixel may be before that is said
CLOSE = 20.0  # nm, by which the same band of two satellites may be off
_told: set[str] = set()
EARTH = 6_371_008.8  # m, mean radius


def tell(line: str) -> None:
    """A line for the user, once in a process: a scene is opened again for each part of it."""
    if line not in _told:
        _told.add(line)
        say(line)


def check_light(layout: Layout, picks: Mapping[str, Pick], sensor: Sensor, where: str) -> None:
    """Refuse a band that only has the name of what is needed: B8 is near infrared or panchromatic, by satellite."""
    if layout.sensor is None:
        return
    for name, pick in picks.items():
        needed = sensor.bands[sensor.names.index(name)]
        words = (layout.layers[pick.layer].names or ((),))[pick.band]
        there = [layout.sensor.bands[place] for word in words for place in hits([word], layout.sensor)[1]]
        for band in there:
            wide = max(band.bandwidth, needed.bandwidth) / 2
            if needed.wavelength and abs(band.wavelength - needed.wavelength) > max(wide, CLOSE):
                raise UserError(
                    f"{where}: its band {words[0]} is {band.common} of {layout.sensor.name} ({band.wavelength:g} nm),"
                    f" not {needed.common} of {sensor.name} ({needed.wavelength:g} nm): say which file has which band,"
                    f" as reading.bands={{{name}: FILE, ...}}, with reading.scaling"
                )


def check_scale(layout: Layout, own: Mapping[str, Own | None], reading: Reading, sensor: Sensor, where: str) -> None:
    """The product's own scale is used, said, or refused where the run has another: it is never lost in silence."""
    if layout.doubt is not None and not reading.told:
        raise UserError(f"{where} {layout.doubt}: set reading.scaling, as {{numbers: dn, unit: 10000, offset: -1000}}")
    if reading.told:
        return
    for name, product in own.items():
        mine = None if product is None else _by_policy(reading, sensor.bands[sensor.names.index(name)])
        if mine is None or product is None:
            continue
        scale, offset = product if product[0] is not None else (mine[0], product[1] * mine[0])
        if not (math.isclose(mine[0], scale or 0, rel_tol=1e-5) and math.isclose(mine[1], offset, abs_tol=1e-6)):
            raise UserError(
                f"{where}: {layout.product or 'the file'} says that {name} is number {_line(*product)}, but the run"
                f" reads {reading.scaling.words()}: set reading.scaling=auto for that, or give the scaling"
            )
    used = {one for name, one in own.items() if one is not None and _auto(reading, sensor, name)}
    if used:
        line = f"number {_line(*next(iter(used)))}" if len(used) == 1 else "numbers by a scale for each band"
        tell(f"{where}: read as {line}, as {layout.product or 'the file'} says")


def _auto(reading: Reading, sensor: Sensor, name: str) -> bool:
    return reading.scaling.of_band(sensor.bands[sensor.names.index(name)]).numbers == "auto"


def _by_policy(reading: Reading, band: Band) -> tuple[float, float] | None:
    """What the run's policy makes of a number as scale and offset; None where the file's own counts."""
    policy = reading.scaling.of_band(band)
    if policy.numbers == "as_is":
        return 1.0, 0.0
    if policy.numbers == "dn":
        return 1 / policy.unit, policy.offset / policy.unit
    if policy.numbers == "8bit":
        return policy.white / 255, 0.0
    return None


def _line(scale: float | None, offset: float) -> str:
    sign = "" if not offset else f" {'+' if offset > 0 else '-'} {abs(offset):g}"
    return f"* {1 if scale is None else scale:g}{sign}"


def tell_ground(place: Place, bands: Sequence[Band], where: str) -> None:
    """One line where the pixels are much larger or smaller than those of the sensor."""
    seen = [band.gsd for band in bands if band.unit != "embedding"]  # of vectors the pixels are anybody's
    size, usual = metres(place), min(seen, default=0.0)
    if size is None or usual <= 0:
        return
    ratio = size / usual
    if ratio > OFF or ratio < 1 / OFF:
        tell(
            f"{where} has pixels of {size:.3g} m, but the finest needed band has {usual:g} m: the model may never have"
            " seen such (gdalwarp -tr brings it to them)"
        )


def metres(place: Place) -> float | None:
    """The side of a pixel on the ground, in the middle of the scene; None where that is not known.

    >>> metres(Place((10.0, 0.0, 0.0, 0.0, -10.0, 0.0), None, 4, 4)) is None
    True
    """
    if place.crs is None:
        return None
    a, b, _, d, e, f = place.transform
    side = math.sqrt(abs(a * e - b * d))
    if place.crs.is_geographic:
        latitude = d * place.width / 2 + e * place.height / 2 + f
        return side * math.radians(1) * EARTH * math.sqrt(max(0.0, math.cos(math.radians(latitude))))
    try:
        return float(side * place.crs.linear_units_factor[1])
    except Exception:  # of a system that names no unit
        return None
