"""What a check keeps of each sample it has read, and of each split: some numbers, no images."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.base import LABELS, LabelledDataset, Labels, Sample
from satdifuser.data.batches import looked
from satdifuser.data.check.alone import images_alone
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.data.splits.evenly import evenly
from satdifuser.data.statistics import (
    Array,
    Moments,
    RowBatches,
    Tally,
    check_bands,
    combined,
    images_of,
    moments,
    there,
)
from satdifuser.errors import UserError
from satdifuser.kinds import parameters_of

PIXELS = 64  # of each sample, evenly over it, that are compared between bands
SIDE = 12  # of the tiny picture by which images are compared


@dataclass
class InputMoments:
    """Of each band of a network's input: how many values, how many are clipped, mean and deviation."""

    count: Array
    low: Array
    high: Array
    mean: Array
    squares: Array


@dataclass
class Seen:
    """One sample, after its image is gone."""

    name: str
    shape: tuple[int, ...]
    moments: Moments
    digest: str
    bands: tuple[str, ...]  # a digest of each
    flat: bool  # one value in every band, or nothing
    small: Array  # a tiny picture, of mean 0 and length 1; empty where there is nothing to see
    level: tuple[float, float]  # brightness and contrast of the tiny picture
    pixels: Array  # [bands, n], evenly over the sample
    eighths: Array  # of each band: the share of those that are a multiple of 1/255
    fault: str | None  # why the encoder cannot take it
    input: InputMoments | None
    classes: Array | None = None  # pixels of a mask, or 1 for each class of an image
    ignored: int = 0
    outside: dict[int, int] = field(default_factory=dict)  # mask values that are no class, with their pixels
    target: Array | None = None
    label: Any = None
    mask: tuple[int, ...] | None = None
    alone: bool = False  # its label could not be read
    dates: tuple[int, ...] | None = None
    blank_dates: int = 0
    twin_dates: int = 0


@dataclass
class Look:
    """A split: how many samples it has, those that were read, and why others could not be."""

    name: str
    total: int
    sensor: Sensor
    labels: Labels
    seen: list[Seen] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    input: InputMoments | None = None
    settings: frozenset[str] = frozenset()  # that its reader has

    def __post_init__(self) -> None:
        self.tally = Tally(len(self.sensor))

    @property
    def looked(self) -> int:
        return sum(not one.alone for one in self.seen) + len(self.faults)

    @property
    def whole(self) -> bool:
        return self.looked == self.total

    def add(self, one: Seen) -> None:
        self.seen.append(one)
        self.tally.add(one.moments)
        one.moments.bins = []
        if one.input is not None:
            self.input = one.input if self.input is None else _together(self.input, one.input)

    def count(self) -> Counter[int]:
        """Class -> its pixels or images."""
        found: Counter[int] = Counter()
        for one in self.seen:
            if one.classes is not None:
                found.update({number: int(count) for number, count in enumerate(one.classes) if count})
        return found


def look_at(
    name: str,
    data: LabelledDataset,
    sensor: Sensor,
    check: SampleCheck | None = None,
    samples: int | None = None,
    workers: int = 0,
) -> Look:
    """Read evenly chosen samples of a split once; workers send numbers back, and no image."""
    found = Look(name, len(data), sensor, data.labels, settings=frozenset(parameters_of(type(data))))
    see = partial(_see, sensor=sensor, labels=data.labels, check=check)
    bad = []
    for batch in looked(data, RowBatches(evenly(range(len(data)), samples)), see, workers):
        for index, one in batch:
            if isinstance(one, UserError):
                found.faults.append((data.sample_id(index), str(one)))
                bad.append(index)
            else:
                found.add(one)
    alone = images_alone(data) if bad else None
    for batch in [] if alone is None else looked(alone, RowBatches(bad), see, workers):
        for _, one in batch:
            if not isinstance(one, UserError):
                one.alone = True
                found.add(one)
    return found


def _see(sample: Sample, sensor: Sensor, labels: Labels, check: SampleCheck | None) -> Seen:
    images = images_of(sample)
    check_bands(sample, len(images), sensor)
    values = images.reshape(len(images), -1)
    found = moments(values, sensor)
    present = there(values, sensor) & np.isfinite(values)
    small, level = _small(images)
    places = _places(present.all(0))
    pixels = values[:, places]
    one = Seen(
        name=str(sample["id"]),
        shape=tuple(sample["image"].shape),
        moments=found,
        digest=_digest(images),
        bands=tuple(_digest(band) for band in images),
        flat=bool((found.squares == 0).all()),
        small=small,
        level=level,
        pixels=pixels,
        eighths=_whole_bytes(pixels),
        fault=None if check is None else check(sample),
        input=None,
    )
    if check is not None:
        one.input = _input(values, check.prepare)
    _see_labels(one, sample, labels)
    _see_dates(one, sample, images)
    return one


def _digest(values: Array) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=12).hexdigest()


def _places(present: Any) -> Array:
    """Some pixels of those that are there, evenly."""
    where = np.flatnonzero(present)
    return where[evenly(range(len(where)), PIXELS)]


def _whole_bytes(pixels: Array) -> Array:
    scaled = pixels.astype(np.float64) * 255
    near = np.abs(scaled - np.round(scaled)) < 1e-4
    found: Array = near.mean(1) if pixels.shape[1] else np.zeros(len(pixels))
    return found


def _small(images: Array) -> tuple[Array, tuple[float, float]]:
    """`SIDE` x `SIDE` means over all bands (each at its own scale), with mean 0 and length 1."""
    first = np.nan_to_num(images[:, 0].astype(np.float32), posinf=0.0, neginf=0.0)
    deviation = first.std((1, 2), keepdims=True)
    height, width = first.shape[1:]
    if not (deviation > 0).any() or min(height, width) < SIDE:
        return np.zeros(0, np.float32), (float(first.mean()), 0.0)
    middle = (np.where(deviation > 0, first / np.maximum(deviation, 1e-12), 0)).mean(0)
    rows, columns = (np.arange(SIDE + 1) * side // SIDE for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(middle, rows[:-1], 0), columns[:-1], 1)
    cells = sums / np.outer(np.diff(rows), np.diff(columns))
    apart = cells - cells.mean()
    length = float(np.linalg.norm(apart))
    level = (float(first.mean()), float(first.std()))
    if length == 0:
        return np.zeros(0, np.float32), level
    return (apart / length).astype(np.float32).ravel(), level


def _input(values: Array, prepare: ImageInput) -> InputMoments | None:
    """Of the network's input, where there is data, before it is resized."""
    if "low" not in prepare.settings:
        return None  # it has a scale of its own
    index = list(prepare.sensor.index(prepare.bands))
    chosen = values[index]
    kept = (there(values, prepare.sensor) & np.isfinite(values))[index]
    low, high = (np.array(ends, np.float32)[:, None] for ends in (prepare.lows, prepare.highs))  # as it compares them
    unit = (np.clip(chosen, low, high).astype(np.float64) - low) / (high - low)
    inputs = (unit - np.array(prepare.mean)[:, None]) / np.array(prepare.std)[:, None]
    rows = [row[where] for row, where in zip(inputs, kept, strict=True)]
    mean = np.array([row.mean() if row.size else 0.0 for row in rows])
    return InputMoments(
        count=kept.sum(1),
        low=((chosen < low) & kept).sum(1),
        high=((chosen > high) & kept).sum(1),
        mean=mean,
        squares=np.array([np.square(row - middle).sum() for row, middle in zip(rows, mean, strict=True)]),
    )


def _together(one: InputMoments, other: InputMoments) -> InputMoments:
    mean, squares = combined((one.count, one.mean, one.squares), (other.count, other.mean, other.squares))
    return InputMoments(one.count + other.count, one.low + other.low, one.high + other.high, mean, squares)


def _see_labels(one: Seen, sample: Sample, labels: Labels) -> None:
    count = len(labels.classes)
    for kind in LABELS:
        if kind not in sample:
            continue
        value = np.asarray(sample[kind])  # type: ignore[literal-required]
        if kind == "mask":
            one.mask = value.shape
            numbers, counts = np.unique(value, return_counts=True)
            one.classes = np.zeros(count, np.int64)
            for number, pixels in zip(numbers.tolist(), counts.tolist(), strict=True):
                if number == labels.ignore_index:
                    one.ignored = pixels
                elif 0 <= number < count:
                    one.classes[int(number)] = pixels
                else:
                    one.outside[int(number)] = pixels
            one.label = _digest(value)
        elif kind == "label" and one.classes is None:
            one.classes = np.zeros(count, np.int64)
            if 0 <= int(value) < count:
                one.classes[int(value)] = 1
            elif count:
                one.outside[int(value)] = 1
            one.label = int(value)
        elif kind == "multilabel" and one.classes is None:
            one.classes = (value > 0.5).astype(np.int64)
            one.label = tuple(one.classes.tolist())
        elif kind == "target":
            known = value[np.isfinite(value)].ravel().astype(np.float64)
            one.target = known if value.ndim == 0 else known[evenly(range(len(known)), PIXELS)]
            one.label = one.label if one.label is not None else _digest(value)


def _see_dates(one: Seen, sample: Sample, images: Array) -> None:
    dates = sample.get("dates")
    if dates is not None:
        one.dates = tuple(int(day) for day in dates.tolist())
    if images.shape[1] > 1 or sample["image"].ndim == 4:
        flat = [_digest(images[:, place]) for place in range(images.shape[1])]
        one.blank_dates = sum(not images[:, place].any() for place in range(images.shape[1]))
        one.twin_dates = len(flat) - len({*flat}) - max(0, one.blank_dates - 1)


def sensor_of(data: LabelledDataset, prepare: ImageInput | None) -> Sensor | None:
    """The bands of the images, as the reader says it, or as the encoder expects them."""
    stated = getattr(data, "sensor", None)
    return stated if isinstance(stated, Sensor) else None if prepare is None else prepare.sensor
