"""What an encoder takes from the TRAINING images is filled in before it is built; other splits are never opened.

The numbers that `prepare.policy` leaves open become the input's declared `low`, `high`, `mean` and `std`: a bank's
spec, a store and a run record them. An encoder class that takes more (`RandomFeatures` cuts filters) has `waits`,
whether its settings lack it, and `from_training`, which gives it. All training images are meant, whatever the budget.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.batches import read_sample
from satdifuser.data.inputs import ImageInput, unfilled
from satdifuser.data.statistics import SAMPLES, Tally, tally_of
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.data.bands import Sensor
    from satdifuser.data.base import LabelledDataset
    from satdifuser.settings.part import DataPart, Part

TRAIN = "train"
_known: dict[str, tuple[Tally, int]] = {}


def is_open(encoder: Part) -> bool:
    """Whether an encoder or its input waits for something from the training images."""
    return _input_is_open(encoder.get("prepare")) or _waits(encoder)


def resolved(encoder: Part, data: DataPart) -> Part:
    """The encoder's settings with what they, and its input's, take from the training images."""
    if not is_open(encoder):
        return encoder
    made = copy.copy(encoder)
    made.settings = {**encoder.settings, "prepare": resolved_input(encoder["prepare"], data)}
    if _waits(made):
        prepare, split = made["prepare"], _training(data, made.label)
        about = {"data": _of(data, split), "prepare": prepare.plain()}
        made.settings |= made.target.from_training(made.settings, TrainingImages(split, prepare.build()), about)
    return made


class TrainingImages(Sequence[Any]):
    """Images of a split as an encoder gets them, read when they are asked for; of a series the first that is there."""

    def __init__(self, split: LabelledDataset, prepare: Any) -> None:
        self.split, self.prepare = split, prepare

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Any:
        sample = read_sample(self.split, index)
        image, dates = sample["image"], sample.get("dates")
        if image.ndim == 4:
            image = image[0 if dates is None else int((dates >= 0).int().argmax())]
        return self.prepare(image[None], [sample["id"]])[0]


def _waits(encoder: Part) -> bool:
    waits = getattr(encoder.target, "waits", None)
    return waits is not None and bool(waits(encoder.settings))


def _training(data: DataPart, who: str) -> LabelledDataset:
    if TRAIN not in data.splits:
        raise UserError(f"{data.name} has no split {TRAIN}, which {who} takes what it needs from")
    split: LabelledDataset = data.split(TRAIN)
    if not len(split):
        raise UserError(f"{data.name} has no samples in its split {TRAIN}, which {who} takes what it needs from")
    return split


def _of(data: DataPart, split: LabelledDataset) -> list[Any]:
    return [data.splits[TRAIN].plain(), split.identity]


def resolved_input(prepare: Part, data: DataPart) -> Part:
    """The same of an input alone; one that is declared stays as it is."""
    if not _input_is_open(prepare):
        return prepare
    plain = prepare.but(policy="declared").build()
    tally, unread = _tally(data, plain.sensor)
    found = _numbers(prepare, plain, tally)
    _tell(str(prepare["policy"]), plain, found, tally, unread)
    return prepare.but(**found)


def _input_is_open(prepare: Any) -> bool:
    settings = getattr(prepare, "settings", None)
    if not isinstance(settings, dict) or "policy" not in settings:
        return False
    low, high, mean, std = (settings.get(name) for name in ("low", "high", "mean", "std"))
    return unfilled(settings["policy"], low, high, mean, std)


def _tally(data: DataPart, sensor: Sensor) -> tuple[Tally, int]:
    """Statistics of the training images; a process takes them once of the same data."""
    split = _training(data, "encoder.prepare.policy")
    name = json.dumps([*_of(data, split), sensor.name, list(sensor.names)], default=str)
    if name not in _known:
        tally, faults = tally_of(split, sensor, SAMPLES)
        _known[name] = tally, len(faults)
    return _known[name]


def _numbers(prepare: Part, plain: ImageInput, tally: Tally) -> dict[str, list[float]]:
    places = plain.sensor.index(plain.bands)
    flat = [name for name, place in zip(plain.bands, places, strict=True) if not tally.high[place] > tally.low[place]]
    if flat:
        raise UserError(
            f"encoder.prepare.policy={prepare['policy']}: {', '.join(flat)} of the training images"
            f" {'has' if len(flat) == 1 else 'have'} one value everywhere: leave it out (encoder.prepare.bands), or use"
            " policy=declared"
        )
    if prepare["policy"] == "percentiles":
        first, last = prepare.get("percentiles", (1.0, 99.0))
        if not last > first:
            raise UserError(f"encoder.prepare.percentiles are {first:g} and {last:g}: give the lower one first")
        low, high = ([tally.percentile(place, percent) for place in places] for percent in (first, last))
        return {"low": _short(low), "high": _short(high)}
    limits = plain.sensor.limits
    low = list(plain.lows) if prepare.get("low") is not None else [limits[place][0] for place in places]
    high = list(plain.highs) if prepare.get("high") is not None else [limits[place][1] for place in places]
    span = np.array(high) - np.array(low)
    mean = (tally.mean[list(places)] - np.array(low)) / span
    return {"low": low, "high": high, "mean": _short(mean), "std": _short(tally.std[list(places)] / span)}


def _short(numbers: Any) -> list[float]:
    """Nine digits: more than a float32 has."""
    return [float(f"{number:.9g}") for number in numbers]


def _tell(policy: str, plain: ImageInput, found: dict[str, list[float]], tally: Tally, unread: int) -> None:
    from satdifuser.engine.progress import say

    places = plain.sensor.index(plain.bands)
    if policy == "percentiles":
        each = [f"{low:.4g} to {high:.4g}" for low, high in zip(found["low"], found["high"], strict=True)]
    else:
        each = [f"{tally.mean[place]:.4g} \u00b1 {tally.std[place]:.4g}" for place in places]
    said = ", ".join(f"{name} {words}" for name, words in zip(plain.bands, each, strict=True))
    lost = f" ({unread} could not be read)" if unread else ""
    say(f"input range by {policy} of {tally.samples} training samples{lost}: {said}")
