"""What a number of a file is worth in the sensor's unit: one declared policy, applied once, where a file is read.

auto        floating point is in the unit already (so are heights), 8 bits are `8bit`, other whole numbers are `dn`; of
            whole numbers for dB or kelvin nothing is supposed: they are refused
as_is       in the unit already: reflectance, dB, kelvin
dn          digital numbers: (number + offset) / unit
8bit        number / 255 * white
power       radar's power, which becomes dB: 10 log10(number); `amplitude`: 20 log10
alphaearth  AlphaEarth's int8: (number / 127.5)^2 with the number's sign; its -128 is no data
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np

from satdifuser.data.bands import ALL, Band, Sensor
from satdifuser.data.files.fitting import BadImageError
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word, check, hints_of, must_be

Numbers = Literal["auto", "as_is", "dn", "8bit", "power", "amplitude", "alphaearth"]
ScalingWords = Annotated[
    str | dict[str, Any], Word(f"{', '.join(get_args(Numbers))}, or {{numbers: dn, unit: 10000, offset: -1000}}")
]
LEAST = 1e-10  # of radar's power: -100 dB
NO_VECTOR = -128  # of AlphaEarth, whether or not a file says so


@dataclass(frozen=True)
class Scaling:
    """
    >>> RED = Band("B04", "red", 664.6, 10)
    >>> float(Scaling("dn", unit=10000, offset=-1000).apply(np.array([3500], np.uint16), RED)[0])
    0.25
    >>> Scaling("8bit", white=0.275).to_dict()
    {'numbers': '8bit', 'white': 0.275}
    """

    numbers: Numbers = "auto"
    unit: float = 10000.0
    offset: float = 0.0
    white: float = 1.0
    bands: Mapping[str, Scaling] = field(default_factory=dict)
    """Bands whose numbers are others, as radar beside light."""

    def __post_init__(self) -> None:
        for name in ("unit", "white"):
            if not getattr(self, name) > 0:
                raise UserError(must_be(f"data.scaling.{name}", getattr(self, name), Annotated[float, Word("above 0")]))

    @classmethod
    def of(cls, words: Any, name: str = "data.scaling") -> Scaling:
        """As the configuration says it: a policy's name, or its settings."""
        if isinstance(words, Scaling):
            return words
        given: dict[str, Any] = {"numbers": words} if isinstance(words, str) else dict(words)
        hints = hints_of(cls)
        for key in given:
            if key not in hints:
                raise UserError(f"there is no setting {name}.{key}: it has {', '.join(hints)}{nearest(key, hints)}")
        inner = {str(band): cls.of(own, f"{name}.bands.{band}") for band, own in dict(given.pop("bands", {})).items()}
        return cls(**{key: check(value, hints[key], f"{name}.{key}") for key, value in given.items()}, bands=inner)

    def check_bands(self, sensor: Sensor) -> None:
        """Refuse a band's own policy whose name is no band's, neither of the sensor nor of any that we know."""
        ours = [one for one in vars(importlib.import_module(ALL)).values() if isinstance(one, Sensor)]
        known = {name for one in (sensor, *ours) for band in one for name in (band.name, band.common)}
        for name in self.bands:
            if name not in known:
                raise UserError(
                    f"data.scaling.bands has {name}, which is no band: {sensor.name} has {', '.join(sensor.names)}"
                    f"{nearest(name, known)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """What counts of it, for the identity of data."""
        counts = {"auto": ("unit", "offset", "white"), "dn": ("unit", "offset"), "8bit": ("white",)}
        found = {"numbers": self.numbers, **{name: getattr(self, name) for name in counts.get(self.numbers, ())}}
        return found | ({"bands": {name: own.to_dict() for name, own in self.bands.items()}} if self.bands else {})

    def words(self) -> str:
        """In words, for people."""
        offset = "" if not self.offset else f" {'+' if self.offset > 0 else '-'} {abs(self.offset):g}"
        digital = f"(number{offset}) / {self.unit:g}" if offset else f"number / {self.unit:g}"
        said = {
            "as_is": "as they are",
            "dn": digital,
            "8bit": f"number / 255 * {self.white:g}",
            "power": "10 log10(number)",
            "amplitude": "20 log10(number)",
            "alphaearth": "(number / 127.5)^2, with its sign",
            "auto": f"8 bits: number / 255 * {self.white:g}; other whole numbers: {digital}; floating point: as it is",
        }[self.numbers]
        return "; ".join([said, *(f"{name}: {own.words()}" for name, own in self.bands.items())])

    def of_band(self, band: Band) -> Scaling:
        """A band's own policy, or this one."""
        return self.bands.get(band.name, self.bands.get(band.common, self))

    def blank(self, numbers: np.ndarray[Any, Any], band: Band) -> np.ndarray[Any, Any] | bool:
        """Where the policy itself says that there is no data."""
        return numbers == NO_VECTOR if self.of_band(band).numbers == "alphaearth" else False

    def apply(
        self, numbers: np.ndarray[Any, Any], band: Band, scale: float | None = None, offset: float = 0.0
    ) -> np.ndarray[Any, Any]:
        """float32 in the band's unit.

        A file's own scale and offset count where it is `auto`: they make the unit; an offset alone is in numbers.
        """
        own = self.of_band(band)
        if own is not self:
            return own.apply(numbers, band, scale, offset)
        if self.numbers == "auto" and (scale is not None or offset):
            return self._by_file(numbers, band, scale, offset)
        policy = self.numbers if self.numbers != "auto" else _by_kind(numbers.dtype, band)
        if policy in ("power", "amplitude") and band.unit != "dB":
            raise BadImageError(f"is {policy} for {band.name}, which is {band.unit}: set data.scaling.numbers")
        if policy == "alphaearth" and band.unit != "embedding":
            raise BadImageError(f"is alphaearth for {band.name}, which is {band.unit}: set data.scaling.numbers")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused as that
            found = numbers.astype(np.float32)
            if policy == "dn":
                found = ((found + np.float32(self.offset)) if self.offset else found) / np.float32(self.unit)
            elif policy == "8bit":
                found = found / np.float32(255 / self.white)
            elif policy == "alphaearth":
                found = np.square(found / np.float32(127.5)) * np.sign(found)
            elif policy in ("power", "amplitude"):
                floor = LEAST if policy == "power" else LEAST**0.5
                found = (10.0 if policy == "power" else 20.0) * np.log10(np.maximum(found, np.float32(floor)))
        return found.astype(np.float32)

    def _by_file(
        self, numbers: np.ndarray[Any, Any], band: Band, scale: float | None, offset: float
    ) -> np.ndarray[Any, Any]:
        kind = "as_is" if scale is not None else _by_kind(numbers.dtype, band)
        unit = {"dn": self.unit, "8bit": 255 / self.white}.get(kind, 1.0)
        with np.errstate(over="ignore"):
            return ((numbers * np.float64(1 if scale is None else scale) + offset) / unit).astype(np.float32)


def _by_kind(kind: np.dtype[Any], band: Band) -> str:
    if kind.kind not in "iu" or band.unit == "metres":
        return "as_is"
    if band.unit == "embedding":
        raise BadImageError(
            f"holds whole numbers ({kind}) for vectors, and no scale: say what they are worth, as"
            " data.scaling=alphaearth, or {numbers: dn, unit: 127}"
        )
    if band.unit not in ("reflectance", "colour"):
        raise BadImageError(
            f"holds whole numbers ({kind}) for {band.name}, which is {band.unit}: say what they are worth, as"
            " data.scaling={numbers: dn, unit: 100} or as_is"
        )
    if kind == np.int8:
        raise BadImageError(
            "holds signed numbers of 8 bits (int8), which are no reflectance: save it as uint8 or int16"
        )
    return "8bit" if kind == np.uint8 else "dn"
