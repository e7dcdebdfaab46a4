"""Band metadata that travels with the data: which bands an image has, in which order, and what they measure."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word

UNITS = {
    "reflectance": ((-0.2, 7.0), (0.0, 0.3)),  # a little below zero after correction, and up to a saturated detector
    "colour": ((0.0, 1.0), (0.0, 1.0)),
    "dB": ((-120.0, 60.0), (-25.0, 0.0)),
    "kelvin": ((0.0, 1000.0), (220.0, 320.0)),
    "metres": ((-12_000.0, 9_000.0), (0.0, 100.0)),
    "embedding": ((-1e5, 1e5), (-1.0, 1.0)),  # numbers of a vector that an encoder has given
}
"""What a band measures: what its values can be, and between which nearly all of them are."""
ZERO_IS_BLANK = ("dB", "kelvin")  # where no band needs others to say that 0 is no data


@dataclass(frozen=True)
class Band:
    """One band: the sensor's name, the field's common name, centre (nm), ground sampling (m), width (nm), unit.

    A width of 0 is one that is not known; few encoders ask for it.
    """

    name: str
    common: str
    wavelength: float
    gsd: float
    bandwidth: float = 0.0
    unit: str = "reflectance"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"band {self.name} has the unit {self.unit!r}: it can be {', '.join(UNITS)}")

    @property
    def valid(self) -> tuple[float, float]:
        return UNITS[self.unit][0]

    @property
    def usual(self) -> tuple[float, float]:
        """Where an encoder's input begins and ends, unless it says so itself."""
        return UNITS[self.unit][1]

    @property
    def zero_is_blank(self) -> bool:
        """Whether 0 in this band alone is no data. In other units 0 can be a value: the dark, or the sea's height."""
        return self.unit in ZERO_IS_BLANK


@dataclass(frozen=True)
class Sensor:
    """The ordered bands of an image, each in its unit; `valid` says what values can be, where the unit does not.

    >>> SENTINEL2.index(["B04", "B03", "B02"])
    (3, 2, 1)
    >>> SENTINEL2.index(["red"])
    (3,)
    """

    name: str
    bands: tuple[Band, ...]
    valid: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise UserError(f"{self.name} has two bands {twice[0]}: name them apart")

    def __len__(self) -> int:
        return len(self.bands)

    def __iter__(self) -> Iterator[Band]:
        return iter(self.bands)

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the most that a value of each band can be."""
        return tuple(band.valid if self.valid is None else self.valid for band in self.bands)

    @property
    def alone(self) -> tuple[int, ...]:
        """Bands in which 0 is no data, whatever the others say; the others have none where they are 0 together.

        >>> find_sensor("SENTINEL2:B04+SENTINEL1").alone
        (1, 2)
        """
        return tuple(place for place, band in enumerate(self.bands) if band.zero_is_blank)

    def __add__(self, other: Sensor) -> Sensor:
        """The bands of both in one image, as radar beside light."""
        return Sensor(f"{self.name} + {other.name}", (*self.bands, *other.bands))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    def index(self, wanted: Sequence[str]) -> tuple[int, ...]:
        """Positions of the named bands (sensor names or common names), or an error that lists what there is."""
        where = {band.common: i for i, band in reversed(list(enumerate(self.bands)))}
        where.update({band.name: i for i, band in enumerate(self.bands)})
        missing = [name for name in wanted if name not in where]
        if missing:
            raise UserError(
                f"{self.name} has no band {', '.join(missing)}: its bands are {', '.join(self.names)}"
                f"{nearest(missing[0], where)}"
            )
        return tuple(where[name] for name in wanted)

    def of(self, wanted: Sequence[str]) -> Sensor:
        """Only these bands, in this order.

        >>> SENTINEL2.of(["red", "B03"]).name
        'Sentinel-2 MSI: B04, B03'
        """
        bands = tuple(self.bands[place] for place in self.index(wanted))
        return (
            self
            if bands == self.bands
            else Sensor(f"{self.name}: {', '.join(b.name for b in bands)}", bands, self.valid)
        )


SENTINEL2 = Sensor(
    "Sentinel-2 MSI",
    (
        Band("B01", "coastal", 442.7, 60, 21),
        Band("B02", "blue", 492.4, 10, 66),
        Band("B03", "green", 559.8, 10, 36),
        Band("B04", "red", 664.6, 10, 31),
        Band("B05", "rededge1", 704.1, 20, 15),
        Band("B06", "rededge2", 740.5, 20, 15),
        Band("B07", "rededge3", 782.8, 20, 20),
        Band("B08", "nir", 832.8, 10, 106),
        Band("B8A", "nir08", 864.7, 20, 21),
        Band("B09", "nir09", 945.1, 60, 20),
        Band("B10", "cirrus", 1373.5, 60, 31),
        Band("B11", "swir16", 1613.7, 20, 91),
        Band("B12", "swir22", 2202.4, 20, 175),
    ),
)

SENTINEL2_RGB = Sensor("Sentinel-2 RGB", tuple(SENTINEL2.bands[i] for i in SENTINEL2.index(["B04", "B03", "B02"])))
"""What pictures made of Sentinel-2 have: red, green and blue."""


SensorName = Annotated[Sensor | str, Word("a sensor")]
ALL = "satdifuser.data.sensors"
NOT_GIVEN = "not_given"  # of a data set of which nothing is known; null could not be an encoder's sensor


def find_sensor(sensor: Sensor | str) -> Sensor:
    """A sensor as a configuration names it: one of ours, or the path of one's own; some of its bands; or several.

    >>> find_sensor("SENTINEL2") is find_sensor("satdifuser.data.bands.SENTINEL2") is SENTINEL2
    True
    >>> find_sensor("SENTINEL2:B04/B03+SENTINEL1:VV").names
    ('B04', 'B03', 'VV')

    `@` gives bands another unit, where files hold pictures of them.

    >>> find_sensor("LANDSAT8:red/nir@colour").bands[0].usual
    (0.0, 1.0)

    `EMBEDDING:64` is an image of vectors of 64 numbers.
    """
    if isinstance(sensor, Sensor):
        return sensor
    found = [_one(text, sensor) for text in sensor.split("+")]
    joined = found[0]
    for other in found[1:]:
        joined = joined + other
    return joined


def _one(text: str, whole: str) -> Sensor:
    named, at, unit = text.strip().partition("@")
    path, colon, bands = named.partition(":")
    if path == "EMBEDDING" and bands.isdecimal() and int(bands):
        vectors = embedding(int(bands))
        return vectors if not at else _as_unit(vectors, unit)
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or ALL), name)
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if path == NOT_GIVEN:
        raise UserError(
            "too little is known of this data set: give data.sensor, and data.size and the like; what its first sample"
            " has, says satdifuser data check with the same words"
        )
    if not isinstance(found, Sensor):
        known = vars(importlib.import_module(ALL))
        ours = sorted(name for name, value in known.items() if isinstance(value, Sensor))
        raise UserError(
            f"data.sensor is {whole!r}: give one of {', '.join(ours)}, the path of a Sensor of your own (a.b.NAME),"
            f" some bands of one (SENTINEL2:B04/B03/B02), or several (SENTINEL2+SENTINEL1){nearest(path, ours)}"
        )
    chosen = found.of(bands.split("/")) if colon else found
    return chosen if not at else _as_unit(chosen, unit)


def _as_unit(sensor: Sensor, unit: str) -> Sensor:
    return Sensor(f"{sensor.name} as {unit}", tuple(replace(band, unit=unit) for band in sensor))


def embedding(channels: int) -> Sensor:
    """An image whose pixels are vectors, as bands A00, A01, ... (the names that AlphaEarth's have).

    >>> find_sensor("EMBEDDING:128").names[-1], find_sensor("EMBEDDING:2").names
    ('A127', ('A00', 'A01'))
    """
    digits = max(2, len(str(channels - 1)))
    names = [f"A{channel:0{digits}}" for channel in range(channels)]
    return Sensor(f"embedding of {channels}", tuple(Band(n, n.lower(), 0.0, 10, unit="embedding") for n in names))
