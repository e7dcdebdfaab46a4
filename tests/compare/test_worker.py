"""One run of a grid: done once, by one process, to the end; its errors are notes and a kill is a pause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.commands import train
from satdifuser.compare.grid import Cell
from satdifuser.compare.plan import Planned, plan
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import failure, perform, result
from satdifuser.engine.predictions import Predictions
from satdifuser.engine.trainer import Trainer
from satdifuser.errors import UserError
from satdifuser.launching import claimed

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]


@pytest.fixture
def job(cells: Cells, shared: Make, unet_model: list[str], tmp_path: Path) -> Callable[..., tuple[Path, Planned]]:
    """The file of a run and the run, as the launcher hands it out."""

    def make(*words: str, output: str = "out") -> tuple[Path, Planned]:
        (run,) = plan(cells(*words, models={"m": unet_model}), shared(output=output))
        file = tmp_path / f"{output}.yaml"
        file.write_text(run.cell.config.yaml())
        return file, run

    return make


def folder_of(run: Planned) -> Path:
    assert run.folder is not None
    return run.folder


def scores(folder: Path) -> dict[str, Any]:
    """What a run has found, but for how long it took and where it lies."""
    found = result(folder)
    assert found is not None
    return {name: value for name, value in found.items() if name not in ("run", "cost")}


def same_predictions(one: Path, other: Path) -> None:
    a, b = (Predictions.load(folder / "predictions-test.zarr") for folder in (one, other))
    assert a.ids == b.ids
    np.testing.assert_array_equal(a.prediction, b.prediction)
    np.testing.assert_array_equal(a.truth, b.truth)
    assert (a.logits is None) == (b.logits is None)
    if a.logits is not None:
        np.testing.assert_array_equal(a.logits, b.logits)


def test_a_run_is_done_when_it_has_a_result_and_is_done_once(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = job()
    folder = folder_of(run)
    assert run.missing
    assert result(folder) is None
    perform(file, threads=1)
    found = result(folder)
    assert found is not None
    assert found["steps"] == 3
    assert not run.missing
    assert failure(folder) is None
    assert not file.exists()
    assert not folder.with_suffix(".lock").exists()

    monkeypatch.setattr(train, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    perform(file)  # its file is gone
    file, _ = job()
    before = (folder / "result.json").read_bytes()
    perform(file)
    assert failure(folder) is None
    assert (folder / "result.json").read_bytes() == before


def test_a_folder_with_a_broken_result_is_not_done(job: Callable[..., tuple[Path, Planned]]) -> None:
    _, run = job()
    folder = folder_of(run)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"test": {"mi')
    assert result(folder) is None
    assert run.missing


def test_a_run_with_a_broken_result_is_done_again(job: Callable[..., tuple[Path, Planned]]) -> None:
    file, run = job()
    folder = folder_of(run)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"test": {"mi')
    perform(file, threads=1)
    assert result(folder) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("the disk is full:\n   make room"), "the disk is full: make room"),
        (RuntimeError("shapes differ\nand more"), "RuntimeError: shapes differ"),
    ],
)
def test_a_run_that_fails_notes_its_error_in_one_line_and_is_tried_again(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    file, run = job()
    folder = folder_of(run)

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", fail)
        perform(file)
    assert failure(folder) == said
    note = json.loads((folder / "failed.json").read_text())
    assert note["traceback"].startswith("Traceback")
    assert "in fail" in note["traceback"]
    assert run.missing
    assert not folder.with_suffix(".lock").exists()

    file, _ = job()
    perform(file, threads=1)
    assert failure(folder) is None
    assert result(folder) is not None


def test_an_error_of_real_settings_is_noted(job: Callable[..., tuple[Path, Planned]]) -> None:
    file, run = job("budget=1")
    perform(file)
    error = failure(folder_of(run))
    assert error is not None
    assert error.startswith("budget: 1.0 % of 30 training samples are 1, too few to show") or error.startswith(
        "budget: 1 % of 30 training samples are 1, too few to show"
    )
    assert "\n" not in error


def test_an_interrupt_is_not_noted_as_a_failure(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = job()

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            perform(file)
    assert failure(folder_of(run)) is None
    assert file.exists()
    perform(file, threads=1)
    assert result(folder_of(run)) is not None


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_that_another_process_holds_is_left_to_it_until_that_process_is_gone(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = job()
    folder = folder_of(run)
    lock = folder.with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    calls: list[object] = []
    monkeypatch.setattr(train, "run", lambda *args, **kwargs: calls.append(args))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        perform(file)
        assert calls == []
        assert file.exists()
        assert lock.exists()
        assert not folder.exists()
    finally:
        holder.kill()
        holder.wait()
    perform(file)
    assert len(calls) == 1


def test_a_claim_is_for_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with claimed(path) as first:
        with claimed(path) as second:
            assert (first, second) == (True, False)
        with claimed(path) as third:
            assert not third
    with claimed(path) as after:
        assert after


@pytest.mark.slow
def test_a_run_that_was_broken_off_goes_on_to_the_scores_and_predictions_of_an_unbroken_one(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, whole = job("task=classification", output="whole")
    perform(file, threads=1)
    file, broken = job("task=classification", output="broken")
    step, seen = Trainer._step, list[int]()

    def die_in_the_last_step(self: Trainer, *args: Any) -> dict[str, Any]:
        if self.state.step == 2:
            raise KeyboardInterrupt
        return step(self, *args)

    def note(self: Trainer, *args: Any) -> dict[str, Any]:
        seen.append(self.state.step)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", die_in_the_last_step)
        with pytest.raises(KeyboardInterrupt):
            perform(file, threads=1)
    assert result(folder_of(broken)) is None
    monkeypatch.setattr(Trainer, "_step", note)
    perform(file, threads=1)
    assert seen == [2]
    assert scores(folder_of(broken)) == scores(folder_of(whole))
    same_predictions(folder_of(broken), folder_of(whole))


def test_a_run_begun_with_features_in_another_place_begins_anew(
    job: Callable[..., tuple[Path, Planned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = job()
    folder = folder_of(run)
    folder.mkdir(parents=True)
    other = run.cell.config.but(features="/elsewhere.zarr")
    (folder / "config.yaml").write_text(other.yaml())
    (folder / "old").touch()
    perform(file, threads=1)
    assert not (folder / "old").exists()
    assert result(folder) is not None


PERFORM = """
import sys
from pathlib import Path
from satdifuser.compare.worker import perform
from satdifuser.engine.trainer import Trainer

save = Trainer._save

def slow(self):
    save(self)
    print("checkpoint", self.state.step, flush=True)
    import time; time.sleep(600)

Trainer._save = slow
perform(Path(sys.argv[1]), threads=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_run_that_was_killed_after_its_first_checkpoint_goes_on(job: Callable[..., tuple[Path, Planned]]) -> None:
    file, whole = job(output="whole")
    perform(file, threads=1)
    file, killed = job(output="killed")
    folder = folder_of(killed)
    process = subprocess.Popen(
        [sys.executable, "-c", PERFORM, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "checkpoint 2\n"
        perform(file)  # it is still at it
        assert result(folder) is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.1)
    assert (folder / "checkpoints" / "last.safetensors").is_file()
    assert result(folder) is None
    perform(file, threads=1)
    assert scores(folder) == scores(folder_of(whole))
    same_predictions(folder, folder_of(whole))
    assert not folder.with_suffix(".lock").exists()
