"""The range of inputs that weights were trained on, where their folder knows it, beside the one that they will get."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.bands import Band, find_sensor
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError

log = logging.getLogger(__name__)
RANGE = ("low", "high", "mean", "std")  # of ImageInput
UNIT = "reflectance"  # of a training that does not say it
PERCENTILES = "encoder.prepare.policy=percentiles brings the range of the training images"
_said: set[str] = set()


def range_overrides(trained: Mapping[str, Any], given: ImageInput | None = None) -> list[str]:
    """What to add to a command so that an encoder's input has the range in `trained` (the `prepare` of a pretraining).

    Nothing if `given`, or an input of which nothing was said, has that range.

    >>> range_overrides({"bands": ["B04"], "high": 0.3, "mean": 0.34, "std": 0.15})
    ['encoder.prepare.mean=0.34', 'encoder.prepare.std=0.15']
    """
    found, known = [], inspect.signature(ImageInput).parameters
    usual = {**{name: known[name].default for name in RANGE}, "low": 0.0, "high": 0.3}  # of reflectance
    for name in RANGE:
        wanted, has = trained.get(name, usual[name]), usual[name] if given is None else getattr(given, name)
        if not np.allclose(wanted, has, rtol=0, atol=5e-10):
            text = json.dumps(wanted, separators=(",", ":"))
            found.append(f"encoder.prepare.{name}={text}")
    return found


def other_range(given: ImageInput, folder: Path) -> list[str]:
    """What to set so that weights get the range that they were trained on, where their folder knows it; or nothing.

    Ranges are compared where the bands are of the unit of the training: 0.3 of a picture's colours is another thing.
    """
    trained = _prepare(folder)
    try:
        return range_overrides(trained, given) if trained and _units(given) == {_trained_unit(trained)} else []
    except (ValueError, TypeError, AttributeError):
        return []  # of other bands


def other_unit(given: ImageInput, folder: Path) -> str | None:
    """Why bands of another unit than that of the training may need a range of their own, which nobody has set."""
    trained, units = _prepare(folder), _units(given)
    usual = [band.usual for band in _bands(given)]
    if not trained or units == {_trained_unit(trained)} or usual != list(zip(given.lows, given.highs, strict=True)):
        return None
    spans = sorted({f"{least:g} to {most:g}" for least, most in usual})
    return (
        f"was trained on {_trained_unit(trained)}{_span(trained)}, and is given {' and '.join(sorted(units))} from"
        f" {', '.join(spans)}"
    )


def trained_bands(folder: Path) -> tuple[str, ...] | None:
    """The bands that weights were trained on, in order, by their sensor's names; None where the folder does not say."""
    trained = _prepare(folder) or {}
    asked = trained.get("bands")
    if not asked:
        return None
    try:
        sensor = find_sensor(str(trained.get("sensor", "SENTINEL2")).removeprefix("satdifuser.data.bands."))
        return tuple(sensor.names[place] for place in sensor.index(asked))
    except (UserError, TypeError):
        return tuple(map(str, asked))


def warn_of_other_range(given: ImageInput, folder: Path) -> None:
    """Say it, once, if weights were trained on another range or unit than they will be given, where it is known."""
    others, unit = other_range(given, folder), other_unit(given, folder)
    if others:
        _say_once(f"{folder} was trained on inputs of another range: give it {' '.join(others)}")
    elif unit:
        _say_once(f"{folder} {unit}: {PERCENTILES}")


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        log.warning("%s", line)


def _prepare(folder: Path) -> Mapping[str, Any] | None:
    """What a pretraining of ours has recorded of its input."""
    try:
        found = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["prepare"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, dict) and found else None


def _units(given: ImageInput) -> set[str]:
    return {band.unit for band in _bands(given)}


def _bands(given: ImageInput) -> list[Band]:
    """The bands of an input; one can be there several times."""
    known = {band.name: band for band in given.sensor}
    return [known[name] for name in given.bands]


def _trained_unit(trained: Mapping[str, Any]) -> str:
    """The unit of the bands of a training; a sensor that is not one of ours is not looked for."""
    named = str(trained.get("sensor", "")).removeprefix("satdifuser.data.bands.")
    try:
        units = {band.unit for band in find_sensor(named)} if named and "." not in named else {UNIT}
    except UserError:
        units = {UNIT}
    return " and ".join(sorted(units))


def _span(trained: Mapping[str, Any]) -> str:
    low, high = trained.get("low", 0.0), trained.get("high", 0.3 if _trained_unit(trained) == UNIT else None)
    plain = isinstance(low, int | float) and isinstance(high, int | float)
    return f" from {low:g} to {high:g}" if plain else ""
