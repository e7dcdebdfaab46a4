"""Band metadata that travels with the data: which bands an image has, in which order, and what they measure."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word


@dataclass(frozen=True)
class Band:
    """One spectral band: the sensor's name, the field's common name, centre (nm), ground sampling (m), width (nm).

    A width of 0 is one that is not known; few encoders ask for it.
    """

    name: str
    common: str
    wavelength: float
    gsd: float
    bandwidth: float = 0.0


@dataclass(frozen=True)
class Sensor:
    """The ordered bands of an image, in reflectance.

    >>> SENTINEL2.index(["B04", "B03", "B02"])
    (3, 2, 1)
    >>> SENTINEL2.index(["red"])
    (3,)
    """

    name: str
    bands: tuple[Band, ...]
    valid: tuple[float, float] = (-0.2, 7.0)
    """What reflectance can be: a little below zero after atmospheric correction, and up to a saturated detector."""

    def __len__(self) -> int:
        return len(self.bands)

    def __iter__(self) -> Iterator[Band]:
        return iter(self.bands)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    def index(self, wanted: Sequence[str]) -> tuple[int, ...]:
        """Positions of the named bands (sensor names or common names), or an error that lists what there is."""
        where = {band.common: i for i, band in enumerate(self.bands)}
        where.update({band.name: i for i, band in enumerate(self.bands)})
        missing = [name for name in wanted if name not in where]
        if missing:
            raise UserError(
                f"{self.name} has no band {', '.join(missing)}: its bands are {', '.join(self.names)}"
                f"{nearest(missing[0], where)}"
            )
        return tuple(where[name] for name in wanted)


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


SensorName = Annotated[Sensor | str, Word("the dotted path of a sensor")]


def find_sensor(sensor: Sensor | str) -> Sensor:
    """A sensor by its dotted path, so that a configuration can name one that a data set's own file defines.

    >>> find_sensor("satdifuser.data.bands.SENTINEL2") is SENTINEL2
    True
    """
    if isinstance(sensor, Sensor):
        return sensor
    module, _, name = sensor.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if not isinstance(found, Sensor):
        raise UserError(f"data.sensor is {sensor!r}: give the path of a Sensor, as satdifuser.data.bands.SENTINEL2")
    return found
