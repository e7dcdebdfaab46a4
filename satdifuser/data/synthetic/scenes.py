"""Procedural Sentinel-2-like scenes: thirteen bands of reflectance and their labels, made on the fly.

A scene is a function of (seed, index, size) and of nothing else, on every machine: random numbers come from NumPy's raw
bit stream (whose stability NumPy guarantees) and everything after it is elementwise +, -, *, / and sqrt, which IEEE 754
rounds exactly. No transcendental function, no matrix product and no floating-point reduction is used, on purpose.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from satdifuser.data.bands import SENTINEL2
from satdifuser.data.synthetic.spectra import (
    BUILTUP,
    CLASSES,
    CLOUD,
    COVER,
    HAZE,
    IGNORE,
    SEASONS,
    SHADE,
    SPECTRA,
    VEGETATED,
)
from satdifuser.data.synthetic.texture import Stream, at_resolution, blur, field_grid, regions, smooth, stretch

Array = NDArray[np.float64]
MIN_SIZE = 16
SCALE = 10000  # digital numbers per unit of reflectance, as in Sentinel-2 products; 0 means no data
PRESENT = 0.05  # a class is in the multi-label vector from this share of the valid pixels on
NODATA_RATE = 0.10
CLOUD_RATE = 0.15
YEAR = 10_000_000  # what a date adds to a scene's number for the chance that is its own: beyond all scenes
NEW_YEAR_2020 = 18262  # days since 1970-01-01


@dataclass(frozen=True)
class Scene:
    """Digital numbers [13, H, W] (reflectance x 10000, 0 = no data) and every label that follows from them.

    Of a year they are [dates, 13, H, W], with the `days` since 1970-01-01 on which they were taken.
    """

    image: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    label: int
    multilabel: NDArray[np.uint8]
    vegetation: float
    days: tuple[int, ...] = ()


def render(seed: int, index: int, size: int = 64, *, nodata: float = NODATA_RATE, cloud: float = CLOUD_RATE) -> Scene:
    """Scene number `index` of the world `seed`; `nodata` and `cloud` are the chances of a margin and of clouds."""
    if size < MIN_SIZE:
        raise ValueError(f"a scene is at least {MIN_SIZE} pixels wide, not {size}")
    stream = Stream(seed, index)
    cover, region = _land_cover(stream, size)
    vegetation, ground, texture = _surface(stream, cover, region, size)
    reflectance = _reflectance(stream, cover, vegetation, ground, texture, size)
    reflectance, clouded = _clouds(stream, reflectance, size, cloud)
    reflectance = _sensor(stream, reflectance, size)
    empty = _margin(stream, size, nodata)
    numbers = _numbers(reflectance, empty)
    mask = cover.astype(np.uint8)
    mask[clouded | empty] = IGNORE
    return _labelled(numbers, mask, vegetation)


def render_year(
    seed: int, index: int, size: int = 64, dates: int = 4, *, nodata: float = NODATA_RATE, cloud: float = CLOUD_RATE
) -> Scene:
    """The land of scene `index` on so many days of 2020, in order: what grows, light, clouds and noise differ.

    `vegetation` is what grows at its height. Pixels without a label are those that no date shows.
    """
    stream = Stream(seed, index)
    cover, region = _land_cover(stream, size)
    vegetation, ground, texture = _surface(stream, cover, region, size)
    empty = _margin(Stream(seed, index + YEAR), size, nodata)
    images, days, hidden = [], [], np.ones((size, size), dtype=bool)
    for number in range(dates):
        own = Stream(seed, index + (number + 2) * YEAR)
        day = (2 * number + 1) * 366 // (2 * dates) + own.integer(366 // (2 * dates) + 1) - 366 // (4 * dates)
        growing = vegetation * _growth(day)[cover]
        reflectance = _reflectance(copy.deepcopy(stream), cover, growing, ground, texture, size)
        reflectance, clouded = _clouds(own, reflectance * (0.85 + 0.3 * own.uniform(1)[0]), size, cloud)
        images.append(_numbers(_sensor(own, reflectance, size), empty))
        days.append(NEW_YEAR_2020 + day)
        hidden &= clouded
    mask = cover.astype(np.uint8)
    mask[hidden | empty] = IGNORE
    found = _labelled(np.stack(images), mask, vegetation)
    return replace(found, days=tuple(days))


def _growth(day: int) -> Array:
    """How much of its vegetation each class has on a day of the year: from its least to all of it and back."""
    least, peak, half = np.asarray([SEASONS[name] for name in CLASSES], dtype=np.float64).T
    return np.asarray(least + (1.0 - least) * np.clip(1.0 - np.abs(day - peak) / half, 0.0, 1.0))


def _numbers(reflectance: Array, empty: NDArray[np.bool_]) -> NDArray[np.uint16]:
    numbers = np.clip(np.floor(reflectance * SCALE + 0.5), 1, 16000).astype(np.uint16)
    numbers[:, empty] = 0
    return numbers


def _land_cover(stream: Stream, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A mosaic of regions, one land cover more common than the others, at times cut by a river or a road."""
    region, count = regions(stream, size, least=7, most=16)
    leading = stream.integer(len(CLASSES))
    draws, others = stream.uniform(count), stream.integers(count, len(CLASSES))
    cover = np.where(draws < 0.45, leading, others)[region]
    course = smooth(stream, size, 3) + 0.15 * smooth(stream, size, 9)
    if stream.uniform(1)[0] < 0.2:
        cover = np.where(np.abs(course - 0.55) < 0.03, 0, cover)
    road = smooth(stream, size, 2)
    if stream.uniform(1)[0] < 0.3:
        cover = np.where(np.abs(road - 0.5) < 0.012, BUILTUP, cover)
    return cover, region


def _surface(
    stream: Stream, cover: NDArray[np.int64], region: NDArray[np.int64], size: int
) -> tuple[Array, NDArray[np.int64], Array]:
    """Per pixel: the share of vegetation, the kind of ground under it, and a brightness texture."""
    fine, clumps, broad = (smooth(stream, size, size / scale) for scale in (1.6, 3.2, 12.0))
    field, stripe, street = field_grid(stream, region, size)
    growth, tone = stream.uniform(1024), stream.uniform(1024)
    ripe = growth[field % 1024]
    vegetation = np.zeros((size, size))
    texture = np.ones((size, size))
    ground = np.zeros((size, size), dtype=np.int64)
    for number, name in enumerate(CLASSES):
        here = cover == number
        look = COVER[name]
        low, high = look.vegetation
        if name == "cropland":
            share = low + (high - low) * ripe - 0.22 * stripe * (1.0 - 0.5 * ripe)
        elif name == "built-up":
            share = np.where(street | (tone[(field * 7 + 3) % 1024] < 0.7), 0.05, low + (high - low) * clumps)
        elif name == "wetland":
            share = np.where(stretch(clumps, 0.42, 0.5) > 0.5, low + (high - low) * broad, 0.12)
        else:
            share = low + (high - low) * (0.6 * broad + 0.4 * clumps)
        pattern = look.fine * (fine - 0.5) + look.clumps * (clumps - 0.5) + look.broad * (broad - 0.5)
        pattern = pattern - look.rows * (stripe - 0.5)
        vegetation = np.where(here, np.clip(share, 0.0, 1.0), vegetation)
        texture = np.where(here, 1.0 + pattern, texture)
        kinds = np.asarray(look.ground)
        unit = field if name in ("cropland", "built-up") else region  # parcels differ in soil, wild land does not
        choice = kinds[(tone[(unit * 5 + 1) % 1024] * len(kinds)).astype(np.int64)]
        if name == "built-up":
            choice = np.where(street, SHADE["asphalt"], choice)
            texture = np.where(here & ~street, texture * (0.7 + 0.7 * tone[(field * 3 + 2) % 1024]), texture)
        ground = np.where(here, choice, ground)
    return vegetation, ground, np.clip(texture, 0.25, 2.0)


def _reflectance(
    stream: Stream,
    cover: NDArray[np.int64],
    vegetation: Array,
    ground: NDArray[np.int64],
    texture: Array,
    size: int,
) -> Array:
    """Linear mixing of plant and ground spectra, then relief, season, haze and the blur of the optics."""
    plant = np.asarray([VEGETATED[name] for name in CLASSES])[cover]
    vigour = stream.uniform(len(CLASSES)) * 0.4 + 0.8  # one season and soil moisture for the whole scene
    soil = 0.7 + 0.6 * stream.uniform(1)[0]
    relief = smooth(stream, size, 5)
    slope = relief - np.roll(relief, (1, 1), (0, 1))
    light = (0.78 + 0.4 * stream.uniform(1)[0]) * np.clip(1.0 + 1.6 * slope, 0.6, 1.4)
    thickness = 0.035 * stream.uniform(1)[0] * (0.7 + 0.6 * smooth(stream, size, 2))
    wobble = 1.0 + 0.10 * (stream.uniform(13) - 0.5)
    share = vegetation * vigour[cover]
    bands = []
    for b in range(13):
        bare = SPECTRA[:, b][ground] * np.where(ground >= SHADE["soil"], soil, 1.0)
        mixed = share * SPECTRA[:, b][plant] + np.clip(1.0 - share, 0.0, 1.0) * bare
        bands.append(blur(mixed * texture * light * wobble[b] + thickness * HAZE[b]))
    return np.stack(bands)


def _clouds(stream: Stream, image: Array, size: int, rate: float) -> tuple[Array, NDArray[np.bool_]]:
    """Bright puffs (whose pixels carry no label) and their shadows (whose pixels do)."""
    field = 0.7 * smooth(stream, size, 3) + 0.3 * smooth(stream, size, 9)
    level = 0.66 + 0.12 * stream.uniform(1)[0]
    shift = 3 + stream.integer(6)
    if stream.uniform(1)[0] >= rate:
        return image, np.zeros((size, size), dtype=bool)
    opacity = stretch(field, level, level + 0.1)
    shadow = np.zeros_like(opacity)
    shadow[shift:, shift:] = opacity[:-shift, :-shift]
    spectrum = np.asarray(CLOUD)[:, None, None]
    image = image * (1.0 - 0.55 * shadow)
    return image * (1.0 - opacity) + spectrum * opacity, opacity > 0.3


def _sensor(stream: Stream, image: Array, size: int) -> Array:
    """Each band at its own ground sampling distance, with noise that grows with the signal."""
    bands = []
    for b, band in enumerate(SENTINEL2):
        factor = int(band.gsd) // 10
        seen = at_resolution(image[b], factor)
        cells = -(-size // factor)
        noise = stream.normal((cells, cells)).repeat(factor, 0).repeat(factor, 1)[:size, :size]
        bands.append(seen + noise * (0.0025 + 0.012 * seen))
    return np.stack(bands)


def _margin(stream: Stream, size: int, rate: float) -> NDArray[np.bool_]:
    """The edge of the swath: everything beyond a slanted line is no data."""
    chance, depth, lean, side = stream.uniform(4)
    if chance >= rate:
        return np.zeros((size, size), dtype=bool)
    rows, columns = np.meshgrid(np.arange(size, dtype=np.float64), np.arange(size, dtype=np.float64), indexing="ij")
    outside = columns + 0.5 * (lean - 0.5) * rows < size * (0.06 + 0.24 * depth)
    return np.ascontiguousarray(np.rot90(outside, int(side * 4)))


def _labelled(numbers: NDArray[np.uint16], mask: NDArray[np.uint8], vegetation: Array) -> Scene:
    """Class, multi-label vector and vegetation fraction, all of the valid pixels (integer sums: no rounding)."""
    valid = mask != IGNORE
    counts = np.bincount(mask[valid], minlength=len(CLASSES))
    total = max(int(valid.sum()), 1)
    percent = np.floor(vegetation * SCALE + 0.5).astype(np.int64)
    return Scene(
        image=numbers,
        mask=mask,
        label=int(counts.argmax()),
        multilabel=(counts >= PRESENT * total).astype(np.uint8),
        vegetation=int(percent[valid].sum()) / (SCALE * total),
    )
