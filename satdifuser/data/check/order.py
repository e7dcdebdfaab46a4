"""Whether the bands are in the order that the sensor says: what vegetation, clouds and neighbours in the spectrum tell.

All of it is a reason to look, never a proof: a verdict is a warning that begins with `looks as if`. Red and blue of a
picture cannot be told apart this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations

import numpy as np

from satdifuser.data.bands import Band, Sensor
from satdifuser.data.check.findings import Finding, fine, share
from satdifuser.data.check.seen import Look
from satdifuser.data.statistics import Array, Tally

ENOUGH = 500  # pixels
NEAR, FAR, EDGE = 60.0, 200.0, 715.0  # nm; vegetation's red edge sets the bands on its sides apart
SWIR = (1500.0, 2500.0)
COARSE = 3.0  # times as large are the pixels of bands that are not compared
MORE = 0.08  # of correlation, with a band that is far away in the spectrum
TODO = "compare data.sensor with the order of the bands in the files (SENTINEL2_B8A_LAST, SENTINEL2:B04/B03/B02)"


def order(looks: Sequence[Look], tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    pixels = [one.pixels for look in looks for one in look.seen if one.pixels.shape[1]]
    values = np.concatenate(pixels, 1).astype(np.float64) if pixels else np.zeros((len(sensor), 0))
    values = values[:, np.isfinite(values).all(0)]
    if values.shape[1] < ENOUGH or len(sensor) < 2:
        return
    found = [
        *_cirrus(tally, sensor),
        *_neighbours(values, sensor),
        *_vegetation(values, sensor),
        *_radar(tally, sensor),
    ]
    yield from found
    if not found and len(_optical(sensor, values)) >= 4:
        yield from fine("order", "the bands are alike as their places in the spectrum say")


def _warning(name: str, what: str) -> Finding:
    return Finding("warning", name, f"looks as if the bands were in another order: {what}", "", TODO)


def _cirrus(tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    places = [place for place, band in enumerate(sensor) if band.common == "cirrus" and tally.count[place]]
    light = [p for p, band in enumerate(sensor) if band.unit == "reflectance" and tally.count[p] and p not in places]
    if not places or not light:
        return
    mean, place = tally.mean, places[0]
    if mean[place] <= 0.02 or mean[place] <= 0.2 * np.median(mean[light]):
        return
    darkest = min(light, key=lambda p: mean[p])
    like = f", and {sensor.names[darkest]} ({mean[darkest]:.2g}) looks like it" if mean[darkest] < 0.01 else ""
    yield _warning(
        "order-cirrus",
        f"{sensor.names[place]} sees high clouds alone and is nearly 0, but its mean is {mean[place]:.2g}{like}",
    )


def _optical(sensor: Sensor, values: Array) -> list[int]:
    return [
        place
        for place, band in enumerate(sensor)
        if band.unit in ("reflectance", "colour")
        and 400 <= band.wavelength <= 2500
        and band.common not in ("cirrus", "pan")
        and values[place].std() > 0
    ]


def _neighbours(values: Array, sensor: Sensor) -> Iterator[Finding]:
    """A band that goes with one far away in the spectrum, and not with the one beside it."""
    places = _optical(sensor, values)
    if len(places) < 4:
        return
    alike = np.corrcoef(values[places])
    worst: tuple[float, int, int, int] | None = None
    for a, b in permutations(range(len(places)), 2):
        one, two = sensor.bands[places[a]], sensor.bands[places[b]]
        if not _beside(one, two):
            continue
        far = [
            c for c in range(len(places)) if abs(sensor.bands[places[c]].wavelength - one.wavelength) > FAR and c != b
        ]
        for c in far:
            if not _beside(one, sensor.bands[places[c]]) and (worst is None or alike[a, c] - alike[a, b] > worst[0]):
                worst = (float(alike[a, c] - alike[a, b]), a, b, c)
    if worst is not None and worst[0] > MORE:
        _, a, b, c = worst
        first, beside, other = (sensor.names[places[place]] for place in (a, b, c))
        yield _warning(
            "order-neighbours",
            f"{first} goes with {other} (correlation {alike[a, c]:.2f}) more than with {beside} ({alike[a, b]:.2f}),"
            " which is beside it in the spectrum",
        )


def _beside(one: Band, other: Band) -> bool:
    low, high = sorted((one.wavelength, other.wavelength))
    if max(one.gsd, other.gsd) > COARSE * min(one.gsd, other.gsd):
        return False
    if SWIR[0] <= low and high <= SWIR[1]:
        return True
    return high - low <= NEAR and not low < EDGE < high


def _vegetation(values: Array, sensor: Sensor) -> Iterator[Finding]:
    where = {band.common: place for place, band in reversed(list(enumerate(sensor))) if band.unit == "reflectance"}
    near = where.get("nir", where.get("nir08"))
    if "red" not in where or near is None:
        return
    red, nir = values[where["red"]], values[near]
    ndvi = (nir - red) / np.maximum(np.abs(nir) + np.abs(red), 1e-6)
    if np.median(ndvi) < -0.15 and red.mean() > 0.1:
        yield _warning(
            "order-vegetation",
            f"{sensor.names[where['red']]} is above {sensor.names[near]} in {share((ndvi < 0).mean())} of the pixels"
            f" (means {red.mean():.2g} and {nir.mean():.2g}), and land is brighter in near infrared",
        )
        return
    green = ndvi > 0.5
    edge = [where[name] for name in ("rededge1", "rededge2", "rededge3") if name in where]
    if green.sum() < ENOUGH or len(edge) < 2:
        return
    means = [float(values[place][green].mean()) for place in edge]
    if any(second < first for first, second in pairwise(means)):
        said = ", ".join(f"{sensor.names[place]} {mean:.3g}" for place, mean in zip(edge, means, strict=True))
        yield _warning("order-red-edge", f"over vegetation the red edge climbs, and here it does not ({said})")


def _radar(tally: Tally, sensor: Sensor) -> Iterator[Finding]:
    where = {band.common: place for place, band in enumerate(sensor) if band.unit == "dB" and tally.count[place]}
    if "vv" in where and "vh" in where:
        same, cross = (float(tally.mean[where[name]]) for name in ("vv", "vh"))
        if cross > same + 0.5:
            yield _warning(
                "order-radar", f"VH ({cross:.1f} dB) is above VV ({same:.1f} dB), which it never is over land"
            )
