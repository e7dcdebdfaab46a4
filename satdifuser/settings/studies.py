"""The settings of the commands that look into networks: `satdifuser probe` and `satdifuser cka`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Len

from satdifuser.kinds import Count, Percent, Place, Positive, Seed, Whole, Word
from satdifuser.settings.base import Settings
from satdifuser.settings.commands import Select
from satdifuser.settings.groups import Data, Encoder, Task

VIEWS = "mean, class, both (the mean and the class token), moments, quantiles, max, grid2 (or any grid<n>)"


class ProbeConfig(Settings):
    """What a probe reads of each map and how it learns."""

    group: ClassVar[str] = "probe"

    probes: Annotated[list[Literal["logistic", "knn", "ridge"]], Len(1)] | None = None
    views: Annotated[list[Annotated[str, Len(1), Word(VIEWS)]], Len(1)] = ["mean"]
    strengths: Count | Annotated[list[Positive], Len(1)] | None = None
    refit: bool = True
    neighbours: Count = 5
    distance: Literal["cosine", "euclidean"] = "cosine"
    pixels: Count = 1_000_000
    solver: Literal["torch", "sklearn"] = "torch"
    bins: Count = 15
    batch_size: Count = 64
    workers: Whole = 0


class ProbeSettings(Settings):
    """Of `satdifuser probe`."""

    encoder: Encoder
    task: Task
    data: Data
    probe: ProbeConfig = ProbeConfig()
    features: Place | None = None
    check_features: bool = True
    select: Select = Select()
    split: str = "test"
    budgets: Annotated[list[Percent], Len(1)] = [100.0]
    seeds: Annotated[list[Seed], Len(1)] = [0]
    seed: Seed = 0
    resamples: Count = 2000
    output: Place = "probes/latest"
    overwrite: bool = False


class CkaConfig(Settings):
    """What of each map is compared, and on how many samples at once."""

    group: ClassVar[str] = "cka"

    modules: Literal["taps", "all"] | Annotated[list[str], Len(1)] = "taps"
    pool: Annotated[str, Len(1), Word("flat, mean, max, moments, quantiles, grid2, grid4 (or any grid<n>)")] = "mean"
    batch: Annotated[int, Ge(4)] = 256
    samples: Count | None = 2048
    shapes: bool = True
    workers: Whole = 0


class CkaSettings(Settings):
    """Of `satdifuser cka`; a side is the folder of a run, a store, or overrides that make an encoder."""

    data: Data
    cka: CkaConfig = CkaConfig()
    first: Place | Annotated[list[str], Len(1)] = "runs/latest"
    second: Place | Annotated[list[str], Len(1)] | None = None
    split: str = "test"
    seed: Seed = 0
    output: Place = "cka/latest"
    overwrite: bool = False
