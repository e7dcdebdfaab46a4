"""What is in a sample of torchgeo's: its channels by name, its classes, and in words what a first sample has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.readers.torchgeo.lists import each, held
from satdifuser.errors import UserError, nearest

Array = np.ndarray[Any, Any]
LISTS = ("bands", "all_bands", "all_band_names", "band_names")  # where classes keep the names of their channels


class Channels:
    """Where each band of a sensor is: under which key of a sample, in which channel."""

    def __init__(
        self,
        made: Any,
        sensor: Sensor,
        channels: Mapping[str, Any] | None,
        bands: Mapping[str, str] | None,
        series: Sequence[str | int] | None,
    ) -> None:
        self.series = list(series or ())
        self.names = {key: _names(made, key, words) for key, words in (channels or _guessed(made, sensor)).items()}
        where = {name: (key, place) for key, names in self.names.items() for place, name in enumerate(names)}
        theirs = {band.name: (bands or {}).get(band.name, band.name) for band in sensor}
        lost = [f"{band} ({name})" if band != name else band for band, name in theirs.items() if name not in where]
        if lost:
            raise UserError(
                f"torchgeo's {type(made).__name__} has no band {', '.join(lost)}: its bands are {', '.join(where)}; set"
                f" data.sensor to some of these, or name them in data.bands{nearest(theirs[next(iter(theirs))], where)}"
            )
        self.places = [where[name] for name in theirs.values()]
        self.said = {band: f"{where[name][0]}.{name}" for band, name in theirs.items()}

    def images(self, sample: Mapping[str, Any]) -> list[Array]:
        """Of each band `[h, w]`, or `[T, h, w]`."""
        stacked = {key: self._whole(sample, key) for key in {key for key, _ in self.places}}
        return [stacked[key][..., place, :, :] for key, place in self.places]

    def _whole(self, sample: Mapping[str, Any], key: str) -> Array:
        """`[channels, h, w]` or `[T, channels, h, w]`."""
        count, words = len(self.names[key]), [one for one in self.series if isinstance(one, str)]
        if words:
            found = np.stack([self._one(sample, one) for one in words])
        else:
            found = self._one(sample, key)
            if self.series and found.ndim == 3 and len(found) == count * len(self.series):
                found = found.reshape(len(self.series), count, *found.shape[1:])[[int(one) for one in self.series]]
        if found.shape[-3] != count:
            raise BadImageError(
                f"has {found.shape[-3]} channels in {key!r}, but data.channels names {count}"
                f" ({', '.join(self.names[key])}): another order of bands would be read, so name those that are there"
            )
        return found

    @staticmethod
    def _one(sample: Mapping[str, Any], key: str) -> Array:
        if key not in sample:
            raise BadImageError(f"has no {key!r}: it has {', '.join(sample)}; set data.channels")
        found = np.asarray(sample[key])
        if found.ndim not in (3, 4):
            raise BadImageError(f"has {key!r} with the shape {found.shape}, which is no image: set data.channels")
        return found


def _names(made: Any, key: str, words: Any) -> list[str]:
    if not isinstance(words, str):
        return [str(name) for name in words]
    try:
        return [str(name) for name in held(made, words)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"data.channels.{key} is {words!r}, which torchgeo's {type(made).__name__} does not have: give the names"
            " of its channels in their order, as [red, green, blue]"
        ) from error


def _guessed(made: Any, sensor: Sensor) -> dict[str, Any]:
    """The channels of a set of which nothing is said: by their names in the class, or in the order of the sensor."""
    first = _first(made)
    image = first.get("image")
    count = None if image is None or not hasattr(image, "shape") or image.ndim < 3 else image.shape[-3]
    for path in LISTS:
        names = getattr(made, path, None)
        if isinstance(names, list | tuple) and len(names) == count and {*sensor.names} <= {*map(str, names)}:
            return {"image": list(names)}
    if count == len(sensor):
        return {"image": list(sensor.names)}
    raise UserError(
        f"data.sensor has {len(sensor)} bands ({', '.join(sensor.names)}), and {described(made)}: name its channels in"
        " their order, as data.channels={image: [red, green, blue]}"
    )


def class_names(made: Any, classes: Any, label: str | None) -> Any:
    """Names of the classes; of a word, those that the class keeps there."""
    if not isinstance(classes, str):
        return classes if label not in (None, "target") else None
    try:
        found = held(made, classes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"data.classes is {classes!r}, which torchgeo's {type(made).__name__} does not have: give their names"
        ) from error
    return dict(found) if isinstance(found, Mapping) else [str(name) for name in found]


def listed_times(made: Any, path: str, index: int, sample: Mapping[str, Any]) -> list[Any] | None:
    """Dates of a sample: `sample.time`, `files.dates` of each, or `dates` that all have."""
    first, _, key = path.partition(".")
    if first == "sample":
        found = np.asarray(sample[key]).reshape(-1)
        return [float(value) for value in found]
    of_each = each(made, path, len(made)) if key else None
    return list(held(made, path) if of_each is None else of_each[index])


def lacking(dataset: str, missing: Sequence[str], made: Any) -> str:
    """The line about a set of which too little is known."""
    words = {
        "sensor": "sensor (SENTINEL2:B04/B03/B02)",
        "size": "size (px)",
        "scaling": "scaling (8bit, dn, as_is, power)",
        "label": "label (label, multilabel, mask or target)",
        "classes": "classes ([water, wood])",
    }
    return (
        f"too little is known of torchgeo's {dataset}: give data.{', data.'.join(words[one] for one in missing)};"
        f" {described(made)}"
    )


def described(made: Any) -> str:
    """What a first sample has, in words."""
    parts = []
    for key, value in _first(made).items():
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            numbers = np.asarray(value)
            low_high = f", {numbers.min():.6g} to {numbers.max():.6g}" if numbers.size else ""
            shape = " x ".join(map(str, numbers.shape)) or "a number"
            parts.append(f"{key} ({numbers.dtype}, {shape}{low_high})")
        else:
            parts.append(f"{key} ({type(value).__name__})")
    told = [
        f"{path}: {', '.join(map(str, names))}"
        for path in (*LISTS, "classes")
        if isinstance(names := getattr(made, path, None), list | tuple) and 0 < len(names) <= 60
    ]
    return f"its first sample has {', '.join(parts)}" + (f"; its class has {'; '.join(told)}" if told else "")


def _first(made: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = made[0]
    return found
