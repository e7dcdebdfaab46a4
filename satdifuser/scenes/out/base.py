"""What an output is told, and what it answers: units are written one by one, by any process, and then made one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.scenes.units import Unit

Array = np.ndarray[Any, Any]
Kind = Literal["classes", "probabilities", "logits", "values", "embedding"]


@dataclass(frozen=True)
class Form:
    """What is kept of a model's numbers `[K, h, w]`.

    `names` are those of the K channels (classes; channels of an embedding), `colours` those of classes. int8 numbers of
    an embedding are multiples of `scales`, one for each channel.
    """

    kind: Kind
    dtype: str
    names: tuple[str, ...]
    colours: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    several: bool = False
    """Whether each class is a yes or no of its own."""
    dense: bool = False
    """Whether there is an answer for each pixel rather than for a tile: then no table of tiles is made of it."""


@dataclass(frozen=True)
class Target:
    """The raster or table that is made.

    `place` is the output's grid (georeferenced if its scene is). `tags` go into the file as they are. `identity` is all
    that decides its numbers: what lies half done at the path is taken up only where it is equal.
    """

    place: Place
    form: Form
    tags: Mapping[str, str]
    identity: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)  # of a Zarr group: JSON (a bank's spec, say)


class Output(ABC):
    """A file that comes to be in `<path>.partial`, and takes its name when all units are there."""

    @abstractmethod
    def begin(self, overwrite: bool) -> None:
        """Make or take up the partial folder; refuse what is there already, or half done of something else.

        A file that is there and equals what would be made is done: nothing is then to do.
        """

    @abstractmethod
    def todo(self, units: Sequence[Unit]) -> list[Unit]:
        """Those that are not there yet."""

    @abstractmethod
    def write(self, unit: Unit, values: Array, valid: Array) -> None:
        """A unit: float32 `[K, h, w]`, and where they count. It appears whole or not at all."""

    @abstractmethod
    def finish(self) -> list[str]:
        """Make the file once all units are there, and remove the partial folder; gives what was written, or nothing.

        Of several processes that call it at once, one makes it and the others wait.
        """
