"""Caches of a comparison that are damaged are made anew, and what killed processes leave behind goes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.commands import extract, train
from satdifuser.compare.grid import Cell
from satdifuser.compare.launch import do
from satdifuser.compare.made import environments
from satdifuser.compare.plan import Planned, plan, with_features
from satdifuser.compare.results import Done, Results
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import failure, perform, result, tidy
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.launching import claimed

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]
DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"spec": {"taps": [{"na',
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "a text": b'"x"',
    "nothing in it": b"{}",
    "other things in it": b'{"a": 1}',
    "other types": b'{"spec": 5, "parameters": "x", "trains": [], "seconds": [], "bytes": {}, "flops": "y"}',
    "another error": b'{"error": 5}',
    "not a number": b"nan",
    "binary": bytes(range(256)),
}
damaged = pytest.mark.parametrize("damage", DAMAGES)


@damaged
def test_what_is_known_of_an_encoder_is_read_from_it_again(
    cells: Cells, shared: Make, unet_model: list[str], damage: str
) -> None:
    (cell,) = cells(models={"m": unet_model})
    facts = shared().facts(cell)
    (file,) = (shared().output / "encoders").iterdir()
    whole = file.read_text()
    file.write_bytes(DAMAGES[damage])
    assert shared().facts(cell) == facts
    assert file.read_text() == whole


@pytest.fixture
def made(cells: Cells, shared: Make, small_model: list[str]) -> tuple[Shared, Cell, Path]:
    """A store with its note."""
    found = shared()
    (cell,) = cells(models={"m": small_model})
    found.extract(cell)
    (note,) = (found.output / "extractions").iterdir()
    return found, cell, note


@pytest.mark.slow
def test_a_damaged_note_of_an_extraction_is_made_anew_with_what_can_be_known(
    made: tuple[Shared, Cell, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, cell, note = made
    whole = found.extraction(cell)
    assert whole is not None
    for content in DAMAGES.values():
        note.write_bytes(content)
        assert found.extraction(cell) is None
        found.extract(cell)
        again = found.extraction(cell)
        assert again is not None
        assert (again.bytes, again.flops) == (whole.bytes, whole.flops)
        assert again.seconds is None  # nobody knows it any more, and it was not next to nothing


def test_the_cost_of_features_whose_time_is_lost_is_not_known(made: tuple[Shared, Cell, Path], tmp_path: Path) -> None:
    found, cell, note = made
    note.unlink()
    found.extract(cell)
    (run,) = plan([cell], found)
    do([run], tmp_path / "jobs", threads=1)
    assert run.folder is not None
    cost = Done(run.cell, run.folder, found.extraction(cell), 5).cost()
    assert cost.extraction_seconds is not None
    assert math.isnan(cost.extraction_seconds)
    assert cost.feature_bytes


@damaged
def test_damaged_seconds_of_an_extraction_that_was_broken_off_are_not_counted_as_none(
    cells: Cells, shared: Make, small_model: list[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    made = shared()
    (cell,) = cells(models={"m": small_model})
    path = made.features(cell)
    assert path is not None
    begun = made.output / "extractions" / f"{path.stem}.seconds"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(DAMAGES[damage])
    monkeypatch.setattr(extract, "run", lambda config: path.mkdir(parents=True))
    made.extract(cell)
    took = made.extraction(cell)
    assert took is not None
    assert took.seconds is None or damage == "a number"
    assert not begun.exists()


@pytest.fixture
def job(cells: Cells, shared: Make, unet_model: list[str], tmp_path: Path) -> Callable[..., tuple[Path, Planned, Path]]:
    """The file of a run, the run, and its folder."""

    def make(*words: str, output: str = "out") -> tuple[Path, Planned, Path]:
        (run,) = plan(cells(*words, models={"m": unet_model}), shared(output=output))
        file = tmp_path / f"{output}.yaml"
        file.write_text(run.cell.config.yaml())
        assert run.folder is not None
        return file, run, run.folder

    return make


RESULTS = {**DAMAGES, "no score": b'{"test": {"miou": null}, "metric": "miou", "cost": {"training_seconds": 1}}'}


@pytest.mark.parametrize("damage", RESULTS)
def test_a_run_with_a_damaged_result_is_not_done(job: Callable[..., tuple[Path, Planned, Path]], damage: str) -> None:
    _, run, folder = job()
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(RESULTS[damage])
    assert result(folder) is None
    assert run.missing


@damaged
def test_a_damaged_note_of_a_failure_is_none(job: Callable[..., tuple[Path, Planned, Path]], damage: str) -> None:
    file, _, folder = job()
    folder.mkdir(parents=True)
    (folder / "failed.json").write_bytes(DAMAGES[damage])
    assert failure(folder) is None
    if damage in ("cut", "another error"):  # unreadable, and of another kind: for a run all are no note
        perform(file, threads=1)
        assert result(folder) is not None
        assert not (folder / "failed.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "spec.json", "data.json", "training-samples.json", "last.safetensors"])
def test_an_unfinished_run_of_which_a_file_is_damaged_begins_anew(
    job: Callable[..., tuple[Path, Planned, Path]], name: str
) -> None:
    file, _, folder = job("task=classification")
    perform(file, threads=1)
    whole = result(folder)
    assert whole is not None
    file, _, _ = job("task=classification")
    (folder / "result.json").unlink()
    next(folder.rglob(name)).write_bytes(b"[[1], [2")
    perform(file, threads=1)
    assert failure(folder) is None
    again = result(folder)
    assert again is not None
    assert again["test"] == whole["test"]


@pytest.mark.parametrize("content", [b"", b"a: [", b"[1]", bytes(range(256)), b"run: 5", b"seed: 1"])
def test_a_damaged_job_is_left_undone_and_its_file_goes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    perform(file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_report_goes_on_without_runs_whose_files_are_damaged(
    cells: Cells, shared: Make, moe_head: list[str], small_model: list[str], tmp_path: Path
) -> None:
    made = shared()
    models = {"a": [*small_model[:3], *moe_head], "b": small_model}
    planned = with_features(plan(cells(models=models, tasks={"t": ["task=classification"]}), made), made)
    do(planned, tmp_path / "jobs", threads=1)
    done = [Done(run.cell, run.folder, made.extraction(run.cell), 5) for run in planned if run.folder is not None]
    first = RunFolder(done[0].folder)
    (first.path / "environment.json").write_bytes(b"[1")
    assert len(environments(done)) == 1
    file = first.insight("test")
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(content)
    results = Results(done, 20)
    ((bad, why),) = results.leave_out_unreadable()
    assert bad is done[0]
    assert why.startswith(f"{file} is damaged")
    assert [run.cell.model for run in results.done] == ["b"]


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks and signals")
def test_locks_and_halves_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "a.lock"
    lock.parent.mkdir()
    (tmp_path / "runs" / "a").mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    long_ago = time.time() - 60
    names = ["encoders/x.json", "jobs/x.yaml", "extractions/x.json", "runs/a/result.json", "report.html"]
    for pid in (holder.pid, os.getpid()):
        for name in names:
            part = tmp_path / f"{name}.{pid}.partial"
            part.parent.mkdir(exist_ok=True)
            part.touch()
            os.utime(part, (long_ago, long_ago))
    store = tmp_path / "features" / "x.zarr.partial"
    store.mkdir(parents=True)
    try:
        tidy(tmp_path)
        assert lock.exists()
        assert len(list(tmp_path.rglob("*.partial"))) == 2 * len(names) + 1
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lock.exists()
    tidy(tmp_path)
    assert not lock.exists()
    assert store.exists()
    left = sorted(str(part.relative_to(tmp_path)) for part in tmp_path.rglob(f"*.{os.getpid()}.partial"))
    assert left == sorted(f"{name}.{os.getpid()}.partial" for name in names)
    assert not list(tmp_path.rglob(f"*.{holder.pid}.partial"))


def test_a_lock_goes_when_what_it_was_for_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "a.lock"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_a_run_in_one_line(
    job: Callable[..., tuple[Path, Planned, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, _, folder = job()
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode and self.is_relative_to(tmp_path):
            raise OSError(28, "No space left on device")
        return opened(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(UserError, match=r"the disk filled up while writing .*\.lock: free space"):
            perform(file)
    assert file.exists()

    def fails(*args: object, **kwargs: object) -> None:
        patch.setattr(Path, "open", full)
        raise UserError("the disk filled up while writing something")

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", fails)
        with pytest.raises(UserError, match=r"the disk filled up while writing .*failed\.json"):
            perform(file)
    perform(file, threads=1)
    assert result(folder) is not None
