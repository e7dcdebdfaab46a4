"""What a scene is to all that follows: the bands of a sensor on one grid, any part of it in the sensor's units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.files.opened import Place
from satdifuser.data.scaling import Scaling

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Found:
    """A scene that was asked for: what its outputs are called, and what opens it."""

    name: str
    words: str


@dataclass(frozen=True)
class Reading:
    """How the numbers of a scene's files become those of a sensor.

    `needed` are the bands that somebody looks at: a scene must have them, and no other is read (they are 0). `bands`
    are the names of a file's bands in its order, or of each band the file of a folder that has it.
    """

    sensor: Sensor
    needed: tuple[str, ...]
    scaling: Scaling
    bands: Sequence[str] | dict[str, str] | None = None
    nodata: tuple[float, ...] = ()
    nan: Literal["error", "nodata"] = "error"
    resampling: Literal["bilinear", "nearest"] = "bilinear"
    told: bool = False
    """Whether the user gave the scaling for this scene: then it counts against what a product says of itself."""
    unnamed: tuple[str, ...] = ()
    """What the bands of a file without names are taken for, in order; nothing: the sensor's."""


@dataclass(frozen=True)
class Pixels:
    """A part of a scene: float32 `[bands, h, w]` in the sensor's units, and where there is no data at all.

    A band without data is 0 there; `blank` is where every needed band has none.
    """

    image: Array
    blank: Array


class Scene(ABC):
    """A raster, open. It can be closed, and opened again by another thread or process from its `Found`."""

    name: str
    sensor: Sensor
    place: Place
    """Of the grid that all bands are brought to: the finest needed band's. `crs` is None where no file names one."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What is read and how, wherever it lies: sizes and times of files, bands, scaling, grid."""

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> Pixels:
        """A part that lies within the grid. The same ground gives the same numbers, whatever part it is read in."""

    @property
    def files(self) -> tuple[str, ...]:
        """What it is made of, wherever that lies: nothing may be written there."""
        return ()

    def close(self) -> None:  # noqa: B027 (most have files to let go of, one in memory has none)
        """Let go of files."""
