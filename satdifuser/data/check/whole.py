"""The whole check of some splits: each sample is read once, and all the rest is arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from satdifuser.data.bands import Sensor
from satdifuser.data.base import LabelledDataset
from satdifuser.data.check.findings import Finding, in_order, worst
from satdifuser.data.check.inputs import inputs
from satdifuser.data.check.inputs import rows_of as input_rows
from satdifuser.data.check.labels import labels
from satdifuser.data.check.order import order
from satdifuser.data.check.reading import reading, series, sizes
from satdifuser.data.check.repeats import overlaps, repeats
from satdifuser.data.check.scale import scale
from satdifuser.data.check.seen import Look, look_at, sensor_of
from satdifuser.data.check.where import boxes_of
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.data.statistics import Tally, rows_of
from satdifuser.errors import UserError

FIRST = 64  # samples of a first look


@dataclass
class Checked:
    """What was found, and the numbers behind it."""

    findings: list[Finding]
    looks: Sequence[Look]
    sensor: Sensor
    tally: Tally
    prepare: ImageInput | None

    @property
    def verdict(self) -> str:
        return worst(self.findings)

    def lines(self) -> list[str]:
        return [found.line() for found in self.findings]

    def classes(self) -> dict[str, dict[str, int]]:
        """Split -> class -> pixels of masks, or images."""
        found = {}
        for look in self.looks:
            if any(one.classes is not None for one in look.seen):
                counts = look.count()
                found[look.name] = {name: counts[place] for place, name in enumerate(look.labels.classes)}
        return found

    def to_dict(self) -> dict[str, Any]:
        first = self.looks[0]
        return {
            "verdict": self.verdict,
            "findings": [found.to_dict() for found in self.findings],
            "sensor": self.sensor.name,
            "splits": {look.name: {"samples": look.total, "looked at": look.looked} for look in self.looks},
            "counted in": "pixels" if any(one.mask is not None for one in first.seen) else "images",
            "classes": self.classes(),
            "bands": rows_of(self.tally, self.sensor),
            "by split": {look.name: rows_of(look.tally, self.sensor) for look in self.looks if look.seen},
            "input": {
                look.name: input_rows(look.input, self.prepare)
                for look in self.looks
                if look.input is not None and self.prepare is not None
            },
        }


def check(
    splits: Mapping[str, LabelledDataset],
    encoder: SampleCheck | None = None,
    samples: int | None = None,
    workers: int = 0,
) -> Checked:
    """Look at evenly chosen samples of each split (null: all of them), and say what is wrong with them."""
    made = looks_at(splits, encoder, samples, workers)
    rest = [*series(made.looks), *repeats(made.looks), *labels(made.looks)] if made.tally.samples else []
    made.findings = [*_pixels(made), *rest]
    places = {look.name: boxes_of(splits[look.name], [one.name for one in look.seen]) for look in made.looks}
    made.findings = in_order([*made.findings, *overlaps(places)])
    return made


def first_look(splits: Mapping[str, LabelledDataset], encoder: SampleCheck | None, workers: int = 0) -> Checked:
    """A few samples of each split, for what shows in a few: that they can be read, their scale, their bands' order."""
    made = looks_at(splits, encoder, max(1, FIRST // len(splits)), workers)
    made.findings = in_order(_pixels(made))
    return made


def unread(made: Checked) -> list[Finding]:
    """Why samples cannot be read or used; errors alone, worst first."""
    return in_order(found for found in reading(made.looks) if found.verdict == "error")


def looks_at(
    splits: Mapping[str, LabelledDataset], encoder: SampleCheck | None, samples: int | None, workers: int
) -> Checked:
    first = next(iter(splits.values()))
    first = next(iter(getattr(first, "splits", {"": first}).values()))  # of several joined
    prepare = None if encoder is None else encoder.prepare
    sensor = sensor_of(first, prepare)
    if sensor is None:
        raise UserError(f"{first.name} does not say its bands: give its class a `sensor`, or choose an encoder")
    looks = [look_at(name, data, sensor, encoder, samples, workers) for name, data in splits.items()]
    tally = Tally(len(sensor))
    for look in looks:
        tally.merge(look.tally)
    return Checked([], looks, sensor, tally, prepare)


def _pixels(made: Checked) -> Iterator[Finding]:
    yield from reading(made.looks)
    if not any(look.seen for look in made.looks):
        return
    yield from sizes(made.looks)
    yield from scale(made.looks, made.tally, made.sensor)
    yield from order(made.looks, made.tally, made.sensor)
    if made.prepare is not None:
        yield from inputs(made.looks, made.prepare)
