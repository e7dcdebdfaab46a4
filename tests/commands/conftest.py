"""The smallest overrides with which the commands do their whole job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from satdifuser.engine.run import RunFolder

DATA = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=5", "data.splits.test.length=7"]
HEAD = ["fusion.projection_dim=16"]
TRAINER = ["trainer=quick", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.eval_every=2"]


@pytest.fixture
def tiny() -> list[str]:
    """Overrides of satdifuser train."""
    return [*DATA, *HEAD, *TRAINER]


@pytest.fixture
def tiny_data() -> list[str]:
    """Overrides of satdifuser extract."""
    return [*DATA]


@pytest.fixture
def agrees_with_two_processes(tmp_path: Path) -> Callable[[Sequence[str], dict[str, Any]], None]:
    """Train again in two processes what gave the result `one` in `tmp_path / "one"`: up to rounding it is the same."""

    def check(common: Sequence[str], one: dict[str, Any]) -> None:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        done = subprocess.run(
            [*launch, "-m", "satdifuser", "train", *common, f"run={tmp_path / 'two'}", "--debug"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
        two = json.loads((tmp_path / "two" / "result.json").read_text())
        assert two["samples"] == one["samples"] == 7
        assert two["test"] == pytest.approx(one["test"], rel=1e-3, abs=1e-4)
        rows = [RunFolder(tmp_path / name).rows() for name in ("one", "two")]
        for a, b in zip(*rows, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-4)

    return check
