"""Samples as pictures: the sensor's true colours, masks in the classes' colours, what is ignored hatched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.base import Labels, Sample
from satdifuser.data.dates import NO_DATE, day_text
from satdifuser.data.statistics import Array, there

VV, VH, RATIO = (-20.0, 0.0), (-27.0, -5.0), (0.0, 15.0)  # dB, as red, green and blue
STRIPE = 4  # pixels of what is shown
SHOWN = 200  # the largest side of what is shown
ENDS = (2, 98)  # percentiles of what is shown together
GREY, PALE = (140, 140, 140), (205, 205, 205)
ALARM = (255, 0, 200)  # of mask values that are no class


@dataclass(frozen=True)
class Shot:
    """What a picture shows, before it is stretched: one layer or three `[n, H, W]`, and where there is no data."""

    layers: Array
    gone: Array


@dataclass(frozen=True)
class Stretch:
    """What is black and what is white in pictures that are shown together: of each layer; `told` says it in words."""

    spans: tuple[tuple[float, float], ...]
    told: str
    dark: bool = False  # values that the eye has to be helped with, as light from forests is

    @classmethod
    def of(cls, shots: Iterable[Shot], sensor: Sensor) -> Stretch:
        """Percentiles 2 to 98 of all the pictures; radar of two polarisations has a range in dB of its own.

        Each band has its own range: haze makes the blue of all pictures brighter.
        """
        chosen, way = _chosen(sensor)
        names = [sensor.names[place] for place in chosen]
        if way == "radar":
            return cls((VV, VH, RATIO), f"red {names[0]}, green {names[1]}, blue their ratio, in dB")
        values = [shot.layers[:, ~shot.gone] for shot in shots]
        usual = [sensor.bands[place].usual for place in chosen]
        spans = tuple(_ends([value[n] for value in values]) or usual[n] for n in range(len(chosen)))
        drawn = "as red, green and blue" if way == "light" else "in grey"
        said = ", ".join(f"{name} from {low:.3g} to {high:.3g}" for name, (low, high) in zip(names, spans, strict=True))
        return cls(
            spans,
            f"{said}, {drawn} (percentiles {ENDS[0]} to {ENDS[1]} of the pictures together, then a square root)",
            dark=True,
        )

    def paint(self, shot: Shot) -> Array:
        """uint8 `[H, W, 3]`; where there is no data it is hatched."""
        layers = shot.layers if len(shot.layers) != 2 else np.stack([*shot.layers, shot.layers[0] - shot.layers[1]])
        made = [np.clip((v - low) / (high - low), 0, 1) for v, (low, high) in zip(layers, self.spans, strict=True)]
        made = [np.sqrt(layer) for layer in made] if self.dark else made
        pixels = (255 * np.stack(made if len(made) == 3 else made * 3, -1)).round().astype(np.uint8)
        return _hatched(pixels, shot.gone)


def shot(image: Any, sensor: Sensor, side: int | None = None) -> Shot:
    """Of `[bands, H, W]`; no larger than `side`, each pixel the mean of a block."""
    values = np.asarray(image, np.float32)
    layers = np.nan_to_num(values[_chosen(sensor)[0]], posinf=0.0, neginf=0.0)
    gone: Array = np.asarray(~there(values.reshape(len(values), -1), sensor).any(0)).reshape(values.shape[1:])
    step = 1 if side is None else -(-max(gone.shape) // side)
    if step > 1:
        high, wide = (max(length // step, 1) for length in gone.shape)
        blocks = layers[:, : high * step, : wide * step].reshape(len(layers), high, step, wide, step)
        layers = blocks.mean((2, 4))
        gone = gone[: high * step, : wide * step].reshape(high, step, wide, step).mean((1, 3)) > 0.5
    return Shot(layers, gone)


def pictures(images: Iterable[Any], sensor: Sensor) -> tuple[list[Array], str]:
    """Images `[bands, H, W]` as uint8 `[H, W, 3]`, of one stretch so that they can be compared, and how in words."""
    shots = [shot(image, sensor) for image in images]
    stretch = Stretch.of(shots, sensor)
    return [stretch.paint(one) for one in shots], stretch.told


def _chosen(sensor: Sensor) -> tuple[list[int], str]:
    where = {band.common: place for place, band in reversed(list(enumerate(sensor)))}
    if all(name in where for name in ("red", "green", "blue")):
        return [where[name] for name in ("red", "green", "blue")], "light"
    if all(name in where for name in ("vv", "vh")):
        return [where["vv"], where["vh"]], "radar"
    return [0], "grey"


def _ends(values: Sequence[Array]) -> tuple[float, float] | None:
    every = np.concatenate([value.ravel() for value in values]) if values else np.zeros(0)
    if not every.size:
        return None
    low, high = (float(end) for end in np.percentile(every, ENDS))
    return (low, high) if high > low else None


def _hatched(pixels: Array, where: Array) -> Array:
    wide = STRIPE * -(-max(where.shape) // SHOWN)
    rows, columns = np.indices(where.shape)
    stripe = ((rows + columns) // wide) % 2 == 0
    pixels[where & stripe] = GREY
    pixels[where & ~stripe] = PALE
    return pixels


def mask_picture(mask: Any, labels: Labels) -> Array:
    """uint8 `[H, W, 3]`: classes in their colours, ignored pixels hatched, no class in a colour that shouts."""
    numbers = np.asarray(mask).astype(np.int64)
    table = np.array([_rgb(colour) for colour in labels.colours] or [ALARM], np.uint8)
    known = (numbers >= 0) & (numbers < len(labels.colours))
    pixels = table[np.where(known, numbers, 0)]
    ignored = numbers == labels.ignore_index
    pixels[~known & ~ignored] = ALARM
    return _hatched(pixels, ignored & ~known)


def target_picture(target: Any) -> tuple[Array, str]:
    """A map of numbers in cividis, and its range in words."""
    from satdifuser.report.pictures import shaded

    values = np.asarray(target, np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    pixels = np.array(shaded(values, low, high))
    return _hatched(pixels, ~np.isfinite(values)), f"{low:.3g} to {high:.3g}"


def _rgb(colour: str) -> tuple[int, ...]:
    from matplotlib.colors import to_rgb

    return tuple(round(255 * part) for part in to_rgb(colour))


def dates_of(sample: Sample) -> list[tuple[int, str]]:
    """Which images of a series there are, and when they were taken."""
    image, dates = sample["image"], sample.get("dates")
    if image.ndim == 3:
        return []
    days = [0] * len(image) if dates is None else [int(day) for day in dates]
    return [(n, "" if dates is None else day_text(day)) for n, day in enumerate(days) if day != NO_DATE]


def label_words(sample: Sample, labels: Labels) -> str:
    """The labels of an image in words; a mask is a picture of its own."""
    names, said = labels.classes, []
    if "label" in sample:
        number = int(sample["label"])
        said.append(names[number] if 0 <= number < len(names) else f"no class {number}")
    if "multilabel" in sample and "label" not in sample:
        said.append(
            ", ".join(name for name, on in zip(names, sample["multilabel"], strict=False) if on > 0.5) or "none"
        )
    if "target" in sample and sample["target"].ndim == 0:
        said.append(f"{float(sample['target']):.4g}")
    return "; ".join(said)
