"""Whether the numbers of the bands are those of their unit: range, NaN, no data, and scales that look wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.check.findings import Finding, counted, fine, leave_out, share, some
from satdifuser.data.check.seen import Look, Seen
from satdifuser.data.statistics import Tally

DARK = 0.01  # of reflectance or colour: no image's brightest per cent is below
BRIGHT = (0.8, 2.0)  # half of all values, and 99 %, are not above: snow and clouds are
OFFSET = (0.0995, 0.135)  # Sentinel-2's since baseline 04.00, as reflectance, at the darkest pixel of all bands
BLANK = 0.5  # share of no data that is worth a word
FEW = 8  # samples of a split, of which nothing is said
TIMES = 4.0  # what the means of a split are not of another's
CIRRUS = "cirrus"


def scale(looks: Sequence[Look], tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    seen = [one for look in looks for one in look.seen]
    if not seen:
        return
    outside = list(_range(seen, sensor))
    yield from outside or fine("range", f"all values are within what {sensor.name} can give")
    yield from _invalid(looks)
    yield from _no_data(looks, tally)
    yield from _flat(tally, sensor)
    yield from _twins(seen, tally, sensor)
    looks_wrong = [] if outside else [*_reflectance(seen, tally, sensor), *_units(tally, sensor)]
    yield from looks_wrong or (() if outside else fine("scale", "the numbers look like the units of the bands"))
    yield from _drift(looks, sensor)


def _range(seen: Sequence[Seen], sensor: Sensor) -> Iterator[Finding]:
    for place, ((least, most), band) in enumerate(zip(sensor.limits, sensor, strict=True)):
        bad = [s for s in seen if s.moments.low[place] < least - 1e-6 or s.moments.high[place] > most + 1e-6]
        bad = [s for s in bad if s.moments.count[place]]
        if not bad:
            continue
        low = min(float(s.moments.low[place]) for s in bad)
        high = max(float(s.moments.high[place]) for s in bad)
        digital = band.unit == "reflectance" and high > 50
        todo = (
            "these look like digital numbers: data.scaling.numbers=dn"
            if digital
            else "set data.scaling, data.nodata, or Sensor.valid"
        )
        yield Finding(
            "error",
            "range",
            f"{band.name} has values from {low:.4g} to {high:.4g} in {counted(len(bad), 'sample')}, and {band.unit} is"
            f" {least:g} to {most:g}",
            some([s.name for s in bad]),
            todo,
            [s.name for s in bad],
        )


def _invalid(looks: Sequence[Look]) -> Iterator[Finding]:
    bad = [s for look in looks for s in look.seen if s.moments.invalid.any()]
    if bad:
        values = sum(int(s.moments.invalid.sum()) for s in bad)
        yield Finding(
            "error",
            "nan",
            f"{counted(values, 'value')} in {counted(len(bad), 'sample')} are NaN or infinite",
            some([s.name for s in bad]),
            "read them as no data (data.nan=nodata), or leave the samples out",
            [s.name for s in bad],
        )


def _no_data(looks: Sequence[Look], tally: Tally) -> Iterator[Finding]:
    empty = [s for look in looks for s in look.seen if not s.moments.count.any()]
    leave = leave_out([s.name for s in empty], all("exclude" in look.settings for look in looks))
    if empty:
        yield Finding(
            "warning",
            "blank",
            f"{counted(len(empty), 'sample')} {'has' if len(empty) == 1 else 'have'} no data in any pixel (all 0)",
            some([s.name for s in empty]),
            f"{leave}: nothing can be learned from them, and they count in scores",
            [s.name for s in empty],
        )
    whole = tally.count + tally.blank + tally.invalid
    part = float(tally.blank.sum() / max(whole.sum(), 1))
    if part > BLANK:
        yield Finding("warning", "no-data", f"{share(part)} of all pixels have no data", "", "see whether 0 is a value")
    else:
        yield Finding("fine", "no-data", f"{share(part)} of the pixels have no data")


def _flat(tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    flat = [place for place in range(len(sensor)) if not tally.high[place] > tally.low[place]]
    if flat and len(flat) < len(sensor):
        values = [
            f"{sensor.names[place]} ({tally.low[place]:.4g})" if tally.count[place] else sensor.names[place]
            for place in flat
        ]
        yield Finding(
            "warning",
            "flat-band",
            f"{some(values)} {'has' if len(flat) == 1 else 'have'} one value everywhere",
            "",
            "leave such bands out of encoder.prepare.bands, or see whether the files have them",
        )


def _twins(seen: Sequence[Seen], tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    real = [place for place in range(len(sensor)) if tally.high[place] > tally.low[place]]
    filled = [one for one in seen if not one.flat]
    twins = [(a, b) for a, b in combinations(real, 2) if all(s.bands[a] == s.bands[b] for s in filled)]
    if twins:
        pairs = [f"{sensor.names[a]} and {sensor.names[b]}" for a, b in twins]
        yield Finding(
            "warning",
            "twin-bands",
            f"{some(pairs)} are the same in every sample",
            "",
            "one of them is read from the wrong place: see data.sensor and the order of the files' bands",
        )


def _reflectance(seen: Sequence[Seen], tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    light = [p for p, band in enumerate(sensor) if band.unit in ("reflectance", "colour") and tally.count[p]]
    places = [p for p in light if sensor.bands[p].common != CIRRUS and tally.high[p] > tally.low[p]]
    if not places:
        return
    top = max(tally.percentile(place, 99) for place in places)
    if top < DARK:
        yield Finding(
            "warning",
            "dark",
            f"99 % of all values are below {top:.2g}: it looks as if the numbers were divided once too often",
            "",
            "set data.scaling (as_is for what is in the unit already)",
        )
        return
    reflectance = [place for place in places if sensor.bands[place].unit == "reflectance"]
    if not reflectance:
        return
    eighths = [one.eighths[reflectance].mean() for one in seen if one.pixels.shape[1]]
    bytes_ = float(np.mean(eighths)) if eighths else 0.0
    middle = float(np.median([tally.percentile(place, 50) for place in reflectance]))
    if bytes_ > 0.999 and middle > 0.05:
        yield Finding(
            "warning",
            "8-bit",
            f"every value is a multiple of 1/255 and half of them are above {middle:.2g}: it looks like pictures of 8"
            " bits whose white counts as a reflectance of 1",
            "",
            "say what white is (data.scaling.white), or use a sensor of pictures (AERIAL_RGB)",
        )
    if middle > BRIGHT[0] or top > BRIGHT[1]:
        landsat = (
            " (Landsat's collection 1: {numbers: dn, unit: 50000, offset: -5000})" if "Landsat" in sensor.name else ""
        )
        yield Finding(
            "warning",
            "bright",
            f"half of the values are above {middle:.2g} and 1 % above {top:.2g}: reflectance is seldom above 1, so it"
            " looks like another scale",
            "",
            f"set data.scaling to the unit and offset of the files{landsat}",
        )
    floors = [tally.percentile(place, 0.1) for place in reflectance]
    cirrus = [p for p in light if sensor.bands[p].common == CIRRUS]
    lifted = all(OFFSET[0] <= tally.percentile(p, 50) <= OFFSET[1] for p in cirrus)
    if len(reflectance) >= 4 and OFFSET[0] <= min(floors) <= OFFSET[1] and lifted:
        yield Finding(
            "warning",
            "offset",
            f"no band has a value below {min(floors):.3g}: it looks as if Sentinel-2's offset since baseline 04.00 was"
            " left in",
            "",
            "set data.scaling={numbers: dn, unit: 10000, offset: -1000}",
        )


def _units(tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    for place, band in enumerate(sensor):
        if not tally.count[place]:
            continue
        low, mean = float(tally.low[place]), float(tally.mean[place])
        if band.unit == "dB" and low >= 0:
            yield Finding(
                "warning",
                "not-db",
                f"{band.name} has no value below 0 dB (mean {mean:.3g}): it looks like power or amplitude",
                "",
                f"set data.scaling={{bands: {{{band.name}: {{numbers: power}}}}}} (or amplitude)",
            )
        if band.unit == "kelvin" and mean < 150:
            yield Finding(
                "warning",
                "not-kelvin",
                f"{band.name} has the mean {mean:.3g}: it does not look like kelvin",
                "",
                "set data.scaling for it",
            )


def _drift(looks: Sequence[Look], sensor: Sensor) -> Iterator[Finding]:
    """Splits of one data set that have another scale each."""
    first = next((look for look in looks if look.name == "train"), looks[0])
    for look in looks:
        if look is first or min(len(look.seen), len(first.seen)) < FEW:
            continue
        known = (look.tally.count > 0) & (first.tally.count > 0)
        apart = np.where(known, np.abs(look.tally.mean - first.tally.mean) / np.maximum(first.tally.std, 1e-12), 0)
        light = known & np.array([band.unit in ("reflectance", "colour") for band in sensor])
        times = np.abs(look.tally.mean[light]) / np.maximum(np.abs(first.tally.mean[light]), 1e-12)
        place = int(apart.argmax())
        if apart[place] > 2 or (light.any() and not 1 / TIMES < np.median(times) < TIMES):
            yield Finding(
                "warning",
                "drift",
                f"{sensor.names[place]} has the mean {look.tally.mean[place]:.3g}, and in {first.name}"
                f" {first.tally.mean[place]:.3g} \u00b1 {first.tally.std[place]:.3g}",
                look.name,
                "see whether this split has another scale or other places",
            )
