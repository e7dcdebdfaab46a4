"""Statistics of bands over the images of a split, in one pass: mean, deviation, extremes, percentiles, no data.

Sums are float64, sample after sample in their order, so that no number depends on workers. A percentile is that of all
values (as numpy's `linear`) to within `ERROR` of its size, since values are counted in bins of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.base import LabelledDataset, Sample
from satdifuser.data.batches import RangeBatches, looked
from satdifuser.data.splits.evenly import evenly
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
SAMPLES = 2000
PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
SHIFT = 12  # bits of a float32 that no bin tells apart, of the 23 behind the point
HALF = 2 ** (31 - SHIFT)  # bins of the positive numbers
ERROR = 2.0 ** (SHIFT - 23)
BATCH = 8


@dataclass
class Moments:
    """Of each band of one sample, over its pixels that are there and finite."""

    count: Array
    mean: Array
    squares: Array  # sum of squared distances to the mean
    low: Array
    high: Array
    invalid: Array  # NaN or infinite
    blank: Array  # no data
    bins: list[tuple[Array, Array]]


def images_of(sample: Sample) -> Array:
    """float32 `[bands, T, H, W]` of a sample, without the dates that are not there."""
    values = np.asarray(sample["image"], dtype=np.float32)
    if values.ndim == 3:
        return values[:, None]
    dates = sample.get("dates")
    if dates is not None and len(dates) == len(values):
        values = values[np.asarray(dates) >= 0]
    return np.moveaxis(values, 0, 1)


def there(values: Array, sensor: Sensor) -> Array:
    """Where `[bands, pixels]` has data: one in dB or kelvin where it is not 0, the others where any of them is not."""
    here = values != 0
    alone = np.array([band.zero_is_blank for band in sensor])
    return np.where(alone[:, None], here, here[~alone].any(0))


def moments(values: Array, sensor: Sensor) -> Moments:
    present, finite = there(values, sensor), np.isfinite(values)
    rows = [band[kept] for band, kept in zip(values, present & finite, strict=True)]
    wide = [row.astype(np.float64) for row in rows]
    mean = np.array([row.mean() if row.size else 0.0 for row in wide])
    return Moments(
        count=np.array([row.size for row in rows]),
        mean=mean,
        squares=np.array([np.square(row - centre).sum() for row, centre in zip(wide, mean, strict=True)]),
        low=np.array([row.min() if row.size else np.inf for row in wide]),
        high=np.array([row.max() if row.size else -np.inf for row in wide]),
        invalid=(~finite).sum(1),
        blank=(~present).sum(1),
        bins=[np.unique(_bin(row), return_counts=True) for row in rows],
    )


def _bin(values: Array) -> Array:
    """The bin of each float32, in the order of the numbers."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.int64) >> SHIFT
    return np.where(bits < HALF, HALF + bits, 2 * HALF - 1 - bits)


def _edges(bins: Array) -> tuple[Array, Array]:
    """Where bins begin and end."""
    positive = bins >= HALF
    size = np.where(positive, bins - HALF, HALF - 1 - bins)
    inner, outer = ((edge << SHIFT).astype(np.uint32).view(np.float32).astype(np.float64) for edge in (size, size + 1))
    return np.where(positive, inner, -outer), np.where(positive, outer, -inner)


class Tally:
    """What `Moments` of many samples come to."""

    def __init__(self, bands: int) -> None:
        self.samples = 0
        self.count, self.invalid, self.blank = (np.zeros(bands, np.int64) for _ in range(3))
        self.mean, self.squares = np.zeros(bands), np.zeros(bands)
        self.low, self.high = np.full(bands, np.inf), np.full(bands, -np.inf)
        self._rows = [np.zeros(0, np.int64) for _ in range(bands)]
        self._first = [0] * bands

    def add(self, found: Moments) -> None:
        self.samples += 1
        self.mean, self.squares = combined(
            (self.count, self.mean, self.squares), (found.count, found.mean, found.squares)
        )
        self.count = self.count + found.count
        self.invalid, self.blank = self.invalid + found.invalid, self.blank + found.blank
        self.low, self.high = np.minimum(self.low, found.low), np.maximum(self.high, found.high)
        for band, (bins, counts) in enumerate(found.bins):
            if len(bins):
                self._room(band, int(bins[0]), int(bins[-1]))
                self._rows[band][bins - self._first[band]] += counts

    def merge(self, other: Tally) -> None:
        """Add what another one has."""
        bins = [
            (np.flatnonzero(row) + first, row[row > 0]) for row, first in zip(other._rows, other._first, strict=True)
        ]
        self.samples += other.samples - 1
        self.add(
            Moments(other.count, other.mean, other.squares, other.low, other.high, other.invalid, other.blank, bins)
        )

    def _room(self, band: int, low: int, high: int) -> None:
        row, first = self._rows[band], self._first[band]
        if not len(row):
            self._rows[band], self._first[band] = np.zeros(high - low + 1, np.int64), low
        elif low < first or high >= first + len(row):
            start = min(low, first)
            self._rows[band] = np.pad(row, (first - start, max(0, high - first - len(row) + 1)))
            self._first[band] = start

    @property
    def std(self) -> Array:
        return np.sqrt(self.squares / np.maximum(self.count, 1))

    def counts(self, band: int) -> tuple[Array, Array, Array]:
        """Begin, end and count of each bin of a band that has a value."""
        places = np.flatnonzero(self._rows[band])
        low, high = _edges(places + self._first[band])
        return low, high, self._rows[band][places]

    def percentile(self, band: int, percent: float) -> float:
        """Of all values of a band, as numpy gives it; NaN where there is none."""
        total = int(self.count[band])
        if not total:
            return float("nan")
        low, high, counts = self.counts(band)
        ends = np.cumsum(counts)
        place = (total - 1) * percent / 100

        def ranked(rank: int) -> float:
            if rank in (0, total - 1):
                return float(self.low[band] if rank == 0 else self.high[band])
            at = int(np.searchsorted(ends, rank, side="right"))
            share = (rank - (ends[at] - counts[at]) + 0.5) / counts[at]
            found = low[at] + share * (high[at] - low[at])
            return float(np.clip(found, self.low[band], self.high[band]))

        below = int(np.floor(place))
        first, second = ranked(below), ranked(min(below + 1, total - 1))
        return first + (place - below) * (second - first)

    def histogram(self, band: int, edges: Array) -> Array:
        """How many values of a band are between these edges; each bin is spread evenly over its width."""
        low, high, counts = self.counts(band)
        width = np.maximum(high - low, np.finfo(np.float64).tiny)
        below = [float((counts * np.clip((edge - low) / width, 0, 1)).sum()) for edge in edges]
        return np.diff(np.array(below))


def combined(one: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Mean and sum of squared distances of two parts together (Chan's formula)."""
    (n, mean, squares), (m, mean2, squares2) = one, other
    total = np.maximum(n + m, 1)
    apart = mean2 - mean
    return mean + apart * (m / total), squares + squares2 + np.square(apart) * (n * (m / total))


def tally_of(
    data: LabelledDataset, sensor: Sensor, samples: int | None = SAMPLES, workers: int = 0
) -> tuple[Tally, list[str]]:
    """Of evenly chosen samples, and why some could not be read; an error where none could."""
    tally, faults = Tally(len(sensor)), []
    look = partial(_moments_of, sensor=sensor)
    for batch in looked(data, RowBatches(evenly(range(len(data)), samples)), look, workers):
        for _, found in batch:
            if isinstance(found, UserError):
                faults.append(str(found))
            else:
                tally.add(found)
    if not tally.samples:
        raise UserError(faults[0] if faults else f"{data.name} has no samples to take statistics of")
    return tally, faults


def _moments_of(sample: Sample, sensor: Sensor) -> Moments:
    images = images_of(sample)
    check_bands(sample, len(images), sensor)
    return moments(images.reshape(len(images), -1), sensor)


def check_bands(sample: Sample, bands: int, sensor: Sensor) -> None:
    if bands != len(sensor):
        raise UserError(
            f"sample {sample['id']} has {bands} bands, but {sensor.name} has {len(sensor)}: set data.sensor"
        )


class RowBatches(RangeBatches):
    """These rows, a few at a time."""

    def __init__(self, rows: Sequence[int], batch_size: int = BATCH) -> None:
        super().__init__([range(len(rows))], batch_size)
        self.rows = rows

    def __iter__(self) -> Any:
        for places in super().__iter__():
            yield [self.rows[place] for place in places]


def rows_of(tally: Tally, sensor: Sensor, percentiles: Sequence[float] = PERCENTILES) -> list[dict[str, Any]]:
    """A row for each band, as plain values; None where a band has no value."""
    found = []
    for place, band in enumerate(sensor):
        some = tally.count[place] > 0
        values: dict[str, float] = {"mean": tally.mean[place], "std": tally.std[place], "min": tally.low[place]}
        values |= {f"p{percent:g}": tally.percentile(place, percent) for percent in percentiles}
        values["max"] = tally.high[place]
        pixels = int(tally.count[place] + tally.blank[place])
        found.append(
            {
                "band": band.name,
                "unit": band.unit,
                "wavelength": band.wavelength,
                **{name: float(value) if some else None for name, value in values.items()},
                "values": int(tally.count[place]),
                "no data": float(tally.blank[place]) / max(pixels, 1),
                "invalid": int(tally.invalid[place]),
            }
        )
    return found
