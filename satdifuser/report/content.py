"""What a comparison's report shows, as plain values: `compare/results.py` fills it, the rest of this room draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from satdifuser.report.depth.content import Depths
from satdifuser.report.estimate import Estimate as Estimate
from satdifuser.tasks.base import Task


@dataclass(frozen=True)
class Cost:
    """What a model costs, each a mean over its runs; None where it was not measured.

    `flops` are of a forward pass of one image, encoder and head together. `extraction_seconds` and `feature_bytes` are
    of the whole store that the model shares with others, None for a model that runs on images. `peak_bytes` is what
    training added to the process's memory (or took on the GPU).
    """

    trainable: int
    total: int
    flops: int | None
    extraction_seconds: float | None
    training_seconds: float
    peak_bytes: int | None
    feature_bytes: int | None
    checkpoint_bytes: int


@dataclass(frozen=True)
class Row:
    """One model on one task with one label budget (in per cent of the training samples), over its seeds.

    `ended`: how many runs ended by `patience`, at `max_steps`, or were `fitted`; of earlier versions' nothing is known.
    """

    model: str
    task: str
    budget: float
    training_samples: int
    seeds: tuple[int, ...]
    scores: Mapping[str, Estimate]
    cost: Cost
    ended: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two models on one task and budget, paired on the same test samples: `first` minus `second` in the main metric.

    `p` is of the permutation test, `adjusted` by Holm over all pairs of that task and budget; `seeds` are those that
    both models have.
    """

    task: str
    budget: float
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Insight:
    """What a model's head learned for a task at its largest budget, and where it is wrong.

    `weights`: stride -> [timesteps, taps], the mean over the seeds. `usage` (moe): stride -> [timesteps, experts].
    `maps` (lw, of the first seed): stride -> [panel samples, timesteps, taps, height, width]. `confusion`: [truth,
    prediction] counts summed over the seeds (pixels or images), None where there are no classes to confuse. `head` is
    the head's name (gw, lw, ...); `start`: its weights before the first step, None where nobody kept them.
    """

    model: str
    task: str
    timesteps: tuple[int | None, ...]
    taps: Mapping[int, tuple[str, ...]]
    weights: Mapping[int, NDArray[Any]]
    usage: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    maps: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    confusion: NDArray[Any] | None = None
    head: str = ""
    start: Mapping[int, NDArray[Any]] | None = None


@dataclass(frozen=True)
class Chance:
    """What the answer scores that is the same for every test sample, by metric; `told` says which answer that is."""

    scores: Mapping[str, float]
    told: str


@dataclass(frozen=True)
class Curve:
    """How a run trained: (step, mean loss of the steps up to there), and (step, main metric on validation)."""

    model: str
    task: str
    budget: float
    seed: int
    losses: Sequence[tuple[int, float]]
    scores: Sequence[tuple[int, float]]
    ended: str = ""
    fold: int | None = None


@dataclass(frozen=True)
class Made:
    """When the runs were begun, the first and the last of them, and the commits of this project that made them."""

    first: str = ""
    last: str = ""
    commits: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Some test samples of a task: pictures (uint8 [n, H, W, 3]), truth and what each model says (first seed)."""

    ids: tuple[str, ...]
    pictures: NDArray[Any]
    truth: NDArray[Any]
    predictions: Mapping[str, NDArray[Any]]
    told: str = ""
    """How the pictures are drawn."""


@dataclass(frozen=True)
class SceneMaps:
    """A scene (uint8 [H, W, 3]) and what each model makes of it; or why it makes nothing.

    `legend` are colours and names of classes; `span` the ends of the scale of colours of values.
    """

    name: str
    picture: NDArray[Any]
    told: str
    maps: Mapping[str, NDArray[Any]]
    errors: Mapping[str, str] = field(default_factory=dict)
    legend: Sequence[tuple[str, str]] = ()
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Section:
    """A task of the comparison: `task` knows classes and colours and draws a prediction."""

    name: str
    task: Task
    metric: str
    test_samples: int
    panel: Panel | None = None
    insights: Sequence[Insight] = ()
    tiles: int = 0
    """Of how many larger images the test samples are tiles; 0 where they are not."""
    scene: SceneMaps | None = None
    folds: int = 0
    """Of how many folds the test samples are, in each of which each model was trained once; 0 where there are none."""
    chance: Chance | None = None


@dataclass(frozen=True)
class Failure:
    """A run that ended in an error."""

    model: str
    task: str
    budget: float
    seed: int
    error: str


@dataclass(frozen=True)
class Content:
    """Everything that a report shows. Rows come in the order of the grid; `settings` is what repeats it.

    `environments`: the distinct environments that the runs were made in. `configurations`: (model, task) -> the
    resolved configuration of its first run, as YAML. `command`: how the grid was started. `depths`: what was found of
    the networks that it compares, by depth.
    """

    title: str
    command: str
    sections: Sequence[Section]
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    failures: Sequence[Failure]
    missing: int
    environments: Sequence[Mapping[str, Any]]
    configurations: Mapping[tuple[str, str], str]
    settings: Mapping[str, Any]
    depths: Depths = field(default_factory=Depths)
    partial: Sequence[str] = ()
    """What is not shown, because some of its folds have no result, a line each."""
    floor: Sequence[str] = ()
    """The models that have learned nothing of images of the Earth."""
    curves: Sequence[Curve] = ()
    made: Made = field(default_factory=Made)
