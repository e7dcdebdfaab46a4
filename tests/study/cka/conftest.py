"""Tiny runs, stores and comparisons, and the slow float64 computation of CKA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.report.depth.content import Likeness
from satdifuser.study.cka import likeness

DATA = [
    *("data.size=16", "data.splits.train.length=24", "data.splits.val.length=4", "data.splits.test.length=21"),
    *("data.cloud=0", "data.nodata=0"),
]
VIT = [
    *("encoder=vit", "encoder.backbone.patch_size=4", "encoder.patch_embedding=repeat"),
    *(f"+encoder.backbone.options.{name}" for name in ("embed_dim=24", "depth=2", "num_heads=3")),
]
UNET = ["encoder=small", "encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]
RECIPE = [
    *("task=classification", "fusion.projection_dim=16", "fusion=mean", "trainer=quick", "trainer.max_steps=4"),
    *("trainer.batch_size=8", "trainer.eval_every=2", "trainer.lr=0.01"),
]

Compare = Callable[..., Likeness]


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., str]:
    """A run of some steps; gives its folder."""

    def run(name: str, *words: str) -> str:
        train.run(compose("train", [*DATA, *RECIPE, *words, f"run={tmp_path / name}"]), quiet=True)
        return str(tmp_path / name)

    return run


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., str]:
    """A store in float32; gives its folder."""

    def run(name: str, *words: str) -> str:
        store = [f"store.path={tmp_path / name}", "store.dtype=float32", "store.batch_size=5"]
        return extract.run(compose("extract", [*DATA, *words, *store]))

    return run


@pytest.fixture
def compared(tmp_path: Path) -> Compare:
    """`satdifuser cka` of two sides, each time in a folder of its own."""
    times = iter(range(1000))

    def run(first: Any, second: Any = None, *words: str, data: Sequence[str] = DATA, **more: Any) -> Likeness:
        given = [*data, f"output={more.pop('output', tmp_path / f'cka{next(times)}')}", *words]
        settings = compose("cka", ["first=x", *given]).but(first=first, second=second, **more)
        return likeness(settings, quiet=True)

    return run


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator of Song et al. (2012), term by term."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    n = len(k)
    ones = np.ones(n)
    first = np.trace(k @ l)
    second = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (ones @ k @ l @ ones)
    return float(first + second - third) / (n * (n - 3))


def slow_cka(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """From batches: each of the three HSICs is averaged, a batch as often as it has samples."""
    shares = np.array([len(x) for x in xs]) / sum(len(x) for x in xs)
    cross, one, other = (
        sum(share * hsic(a, b) for share, a, b in zip(shares, first, second, strict=True))
        for first, second in ((xs, ys), (xs, xs), (ys, ys))
    )
    return float(cross / np.sqrt(one * other))
