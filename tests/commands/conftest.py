"""The smallest overrides with which the commands do their whole job."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
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


# The words of a command, in a process that has imported everything: what torchrun tells each is in `environment`.
RANK = """
import gc, os, sys, traceback

code = 1
gc.freeze()
for number in (1, 2):
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
try:
    os.environ.update(environment)
    import torch
    torch.set_num_threads(1)
    from satdifuser.cli import main
    code = main(words)
except BaseException:
    traceback.print_exc()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""
IMPORTED = (
    *("accelerate", "matplotlib.pyplot", "zarr", "safetensors.torch", "torch.distributed", "torchmetrics", "timm"),
    *("satdifuser.build", "satdifuser.diffusion.encoder", "satdifuser.engine.trainer", "satdifuser.store"),
    *("satdifuser.commands.train", "satdifuser.commands.pretrain", "satdifuser.report.figures", "diffusers.models"),
)


@pytest.fixture(scope="session")
def forks() -> Any:
    """Where processes come from: a server that has imported what they need, once for all tests, and computed nothing.

    Two processes that torchrun starts import for ten seconds what they then use for one.
    """
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(list(IMPORTED))
    return made


@pytest.fixture
def in_two_processes(forks: Any, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """A command in two processes, as `torchrun --nproc_per_node 2` has them: their worst code, and log."""

    def run(*words: str) -> tuple[int, str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        log, living = tmp_path / f"log-{port}", []
        for rank in ("0", "1"):
            environment = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
            names = {"log": str(log), "environment": environment, "words": list(words)}
            living.append(forks.Process(target=exec, args=(RANK, names)))
            living[-1].start()
        ending = time.monotonic() + 300
        while any(one.is_alive() for one in living):
            wait([one.sentinel for one in living if one.is_alive()], timeout=max(0.0, ending - time.monotonic()))
            if time.monotonic() >= ending or any(one.exitcode for one in living):
                for one in living:
                    one.join(3)
                    one.kill()
        return max((one.exitcode or 0 for one in living), key=abs), log.read_text()

    return run


@pytest.fixture
def agrees_with_two_processes(tmp_path: Path, in_two_processes: Callable[..., tuple[int, str]]) -> Callable[..., None]:
    """Train again in two processes what gave the result `one` in `tmp_path / "one"`: up to rounding it is the same."""

    def check(common: Sequence[str], one: dict[str, Any], torchrun: bool = False) -> None:
        words = ["train", *common, f"run={tmp_path / 'two'}", "--debug"]
        code, said = in_torchrun(words) if torchrun else in_two_processes(*words)
        assert code == 0, said[-3000:]
        assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
        two = json.loads((tmp_path / "two" / "result.json").read_text())
        assert two["samples"] == one["samples"] == 7
        assert two["test"] == pytest.approx(one["test"], rel=1e-3, abs=1e-4)
        rows = [RunFolder(tmp_path / name).rows() for name in ("one", "two")]
        for a, b in zip(*rows, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-4)

    return check


def in_torchrun(words: Sequence[str]) -> tuple[int, str]:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "satdifuser",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stderr
