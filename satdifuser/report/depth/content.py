"""What a study of depth has found, as plain values: `study/` and `compare/` fill it, the rest of this room draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.report.estimate import Estimate


@dataclass(frozen=True)
class Place:
    """A place in a network: a tap at a timestep (None where the encoder has none).

    `number` counts places in the order of computation, the same for a tap's timesteps. `kind` is what sort of module
    gives the map (qkv, fc1, conv2, attn1, block, ...), `block` the part of the network that it belongs to.

    >>> str(Place("blocks.3.fc1", None, 3, 64, 8, "fc1", "blocks.3")), str(Place("mid_block", 21, 0, 64, 8))
    ('blocks.3.fc1', 'mid_block@21')
    """

    tap: str
    timestep: int | None
    number: int
    channels: int
    stride: int
    kind: str = "block"
    block: str = ""

    def __str__(self) -> str:
        return self.tap if self.timestep is None else f"{self.tap}@{self.timestep}"


@dataclass(frozen=True)
class Point:
    """What a probe of one place scores with one label budget, over its seeds.

    `view` what a probe reads of the map (mean, class, both, moments, grid2, ...; pixels where it answers each),
    `probe` its kind (logistic, knn, ridge). `training` counts the samples (or pixels) that it learned from. `strengths`
    are the penalties that validation chose, one for each seed (None of a probe without one). `p` is that of the paired
    test against the best place of the same view, probe and budget, Holm over these; None for the best itself.
    `calibration` is the expected calibration error as it is and after temperature scaling, None where a probe gives no
    probabilities.
    """

    place: Place
    view: str
    probe: str
    budget: float
    training: int
    scores: Mapping[str, Estimate]
    strengths: tuple[float | None, ...] = ()
    p: float | None = None
    calibration: tuple[float, float] | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Probed:
    """The probes of an encoder on a task. `metric` is the task's main one; `chance` what guessing would score."""

    model: str
    task: str
    metric: str
    split: str
    samples: int
    seeds: tuple[int, ...]
    points: tuple[Point, ...]
    chance: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """How many directions the vectors of a place use: TwoNN's intrinsic dimension and the effective rank."""

    intrinsic: float
    rank: float


@dataclass(frozen=True)
class Likeness:
    """Linear CKA of every place of one side (rows) with every place of the other (columns), on the same samples.

    `errors` are standard errors over the batches. `pool` is what was compared of each map. `same` says that both sides
    are one architecture, so that the diagonal tells how far each place has moved. `shapes` are of the rows and of the
    columns, empty where they were not asked for.
    """

    first: str
    second: str
    rows: tuple[Place, ...]
    columns: tuple[Place, ...]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    samples: int
    batch: int
    pool: str
    split: str
    same: bool = False
    shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]] = ((), ())
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """The score of a decoder that is fed by one depth: of a model without its decoder and depth, `family`."""

    family: str
    decoder: str
    task: str
    metric: str
    budget: float
    depth: int
    tap: str
    estimate: Estimate
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Weighed:
    """What a fusion head's learned weight of each place is, and what a probe scores there.

    `weights` are over the equal share: 1 where a head prefers nothing. `rank` is Spearman's correlation of both.
    """

    model: str
    task: str
    metric: str
    probe: str
    view: str
    budget: float
    places: tuple[Place, ...]
    weights: tuple[float, ...]
    estimates: tuple[Estimate, ...]
    rank: float


@dataclass(frozen=True)
class Depths:
    """All that a report shows of depth."""

    probes: tuple[Probed, ...] = ()
    likeness: tuple[Likeness, ...] = ()
    decoded: tuple[Decoded, ...] = ()
    weighed: tuple[Weighed, ...] = ()
