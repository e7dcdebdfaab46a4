"""Samples as pictures: the sensor's true colours, masks in the classes' colours, what is ignored hatched."""

from __future__ import annotations

from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.base import Labels, Sample
from satdifuser.data.dates import NO_DATE, day_text
from satdifuser.data.statistics import Array, there

VV, VH, RATIO = (-20.0, 0.0), (-27.0, -5.0), (0.0, 15.0)  # dB, as red, green and blue
STRIPE = 4  # pixels of what is shown
SHOWN = 160  # the largest side of what is shown
GREY, PALE = (140, 140, 140), (205, 205, 205)
ALARM = (255, 0, 200)  # of mask values that are no class


def how_drawn(sensor: Sensor) -> str:
    """Which bands a picture shows, in words."""
    chosen, way = _chosen(sensor)
    names = [sensor.names[place] for place in chosen]
    if way == "radar":
        return f"red {names[0]}, green {names[1]}, blue their ratio, in dB"
    if way == "light":
        low, high = sensor.bands[chosen[0]].usual
        return f"{', '.join(names)} as red, green and blue, from {low:g} to {high:g}"
    return f"{names[0]} in grey, from its least to its most in each picture"


def picture(image: Any, sensor: Sensor) -> Array:
    """uint8 `[H, W, 3]` of `[bands, H, W]`; where there is no data it is hatched."""
    values = np.asarray(image, np.float32)
    chosen, way = _chosen(sensor)
    layers = np.nan_to_num(values[chosen], posinf=0.0, neginf=0.0)
    if way == "radar":
        ratio = layers[0] - layers[1]
        made = [_stretch(layer, *span) for layer, span in zip((*layers, ratio), (VV, VH, RATIO), strict=True)]
    elif way == "light":
        made = [_stretch(v, *sensor.bands[p].usual) for v, p in zip(layers, chosen, strict=True)]
    else:
        made = [_stretch(layers[0], float(layers[0].min()), float(layers[0].max()))] * 3
    pixels = (255 * np.stack(made, -1)).round().astype(np.uint8)
    present = there(values.reshape(len(values), -1), sensor).any(0)
    gone = np.asarray(~present).reshape(values.shape[1:])
    return _hatched(pixels, gone)


def _chosen(sensor: Sensor) -> tuple[list[int], str]:
    where = {band.common: place for place, band in reversed(list(enumerate(sensor)))}
    if all(name in where for name in ("red", "green", "blue")):
        return [where[name] for name in ("red", "green", "blue")], "light"
    if all(name in where for name in ("vv", "vh")):
        return [where["vv"], where["vh"]], "radar"
    return [0], "grey"


def _stretch(values: Array, low: float, high: float) -> Array:
    found: Array = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    return found


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
