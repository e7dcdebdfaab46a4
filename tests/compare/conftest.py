"""Small grids: their configurations, and one that is done once and read by many tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pytest

from satdifuser.compare.grid import Cell, expand
from satdifuser.compare.launch import do
from satdifuser.compare.plan import Planned, plan, with_features
from satdifuser.compare.results import Done, Results
from satdifuser.compare.shared import Shared
from satdifuser.config import compose
from satdifuser.report.content import Comparison, Row

RECIPE = [
    "data.size=16",
    "data.splits.train.length=30",
    "data.splits.val.length=4",
    "data.splits.test.length=9",
    "trainer=quick",
    "trainer.max_steps=3",
    "trainer.batch_size=4",
    "trainer.eval_every=2",
    "fusion.projection_dim=16",
]
TAPS = "encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]"
SMALL = ["encoder=small", TAPS, "encoder.timesteps=[21, 161]"]
UNET = ["encoder=unet", "encoder.width=8", "encoder.levels=2", "fusion=mean", "fusion.projection_dim=16"]
MOE = ["fusion=moe", "fusion.projection_dim=16", "fusion.experts=3", "fusion.warmup_steps=1"]


@lru_cache
def _compare_config() -> Any:
    return compose("compare", ["store.dtype=float32"])


def grid_config(**values: Any) -> Any:
    """The settings of satdifuser compare, with some of them given."""
    return _compare_config().but(**values)


@pytest.fixture
def cells() -> Callable[..., list[Cell]]:
    """Expand a grid of tiny runs; what is passed on comes as positional words."""

    def make(*passed: str, config_dirs: Sequence[str] = (), **values: Any) -> list[Cell]:
        return expand(grid_config(**{"recipe": RECIPE, **values}), passed, config_dirs)

    return make


@pytest.fixture
def shared(tmp_path: Path) -> Callable[..., Shared]:
    """The shared part of a comparison in `tmp_path`."""

    def make(share_features: bool = True, output: str = "out", dtype: str = "float32") -> Shared:
        return Shared(tmp_path / output, grid_config().store.but(dtype=dtype), share_features)

    return make


@dataclass
class Grid:
    """A grid that was done, and how."""

    config: Any
    shared: Shared
    planned: list[Planned]

    @property
    def done(self) -> list[Done]:
        return [
            Done(run.cell, run.folder, self.shared.extraction(run.cell), self.shared.facts(run.cell).parameters)
            for run in self.planned
            if run.folder is not None
        ]

    @cached_property
    def results(self) -> Results:
        return Results(self.done, 600)

    @cached_property
    def rows(self) -> list[Row]:
        return self.results.rows()

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return self.results.comparisons()


@pytest.fixture(scope="session")
def done_grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Three models (two read features), two tasks, two budgets of one of them, two seeds: done in this process."""
    config = grid_config(
        models={
            "lw": [*SMALL, "fusion=lw", "fusion.projection_dim=16"],
            "moe": [*SMALL, *MOE],
            "unet": UNET,
        },
        tasks={"pixels": ["task=segmentation"], "images": ["task=classification"]},
        recipe=RECIPE,
        budgets=[50, 100],
        seeds=[0, 1],
    )
    output = tmp_path_factory.mktemp("grid")
    shared = Shared(output, config.store)
    cells = [cell for cell in expand(config) if (cell.task, cell.budget) != ("pixels", 50)]
    planned = with_features(plan(cells, shared), shared)
    do(planned, output / "jobs", threads=1)
    return Grid(config, shared, planned)


@pytest.fixture(scope="session")
def small_model() -> list[str]:
    """Overrides of a model whose encoder is frozen."""
    return [*SMALL, "fusion=gw", "fusion.projection_dim=16"]


@pytest.fixture(scope="session")
def unet_model() -> list[str]:
    """Overrides of a model whose encoder trains."""
    return list(UNET)


@pytest.fixture(scope="session")
def moe_head() -> list[str]:
    """Overrides of a small mixture of experts."""
    return list(MOE)
