"""Launchers: one after the other or several at once, the runs are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.commands import train
from satdifuser.compare.grid import Cell
from satdifuser.compare.launch import do
from satdifuser.compare.plan import Planned, plan
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import failure, perform, result
from satdifuser.errors import UserError

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]


def scores_of(planned: list[Planned]) -> list[dict[str, float]]:
    found = []
    for run in planned:
        assert run.folder is not None
        done = result(run.folder)
        assert done is not None
        found.append(done["test"])
    return found


@pytest.mark.slow
def test_only_what_is_missing_is_done_and_one_failure_does_not_stop_the_rest(
    cells: Cells,
    shared: Make,
    unet_model: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    made = shared()
    planned = plan(cells(models={"m": unet_model}, seeds=[0, 1, 2]), made)
    run, seeds = train.run, list[int]()

    def sometimes(config: Any, **kwargs: Any) -> Any:
        seeds.append(config.seed)
        if config.seed == 1 and seeds.count(1) == 1:
            raise UserError("no luck")
        return run(config, **kwargs)

    monkeypatch.setattr(train, "run", sometimes)
    do(planned, made.output / "jobs", threads=1)
    assert seeds == [0, 1, 2]
    assert [run.missing for run in planned] == [False, True, False]
    assert [failure(run.folder) for run in planned if run.folder is not None] == [None, "no luck", None]
    said = capsys.readouterr().err
    assert "m, task, 100 % of the labels, seed 1: FAILED: no luck" in said
    first = scores_of([planned[0]])[0]["miou"]
    assert f"m, task, 100 % of the labels, seed 0: miou {first:.3f}" in said

    do(planned, made.output / "jobs", threads=1)
    assert seeds == [0, 1, 2, 1]
    assert not any(run.missing for run in planned)
    do(planned, made.output / "jobs", threads=1)
    assert seeds == [0, 1, 2, 1]
    assert not list((made.output / "jobs").glob("*.yaml"))


def test_two_models_that_are_the_same_are_done_once(
    cells: Cells, shared: Make, unet_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()
    planned = plan(cells(models={"one": unet_model, "other": unet_model}), made)
    calls = list[Any]()
    monkeypatch.setattr(train, "run", lambda config, **kwargs: calls.append(config))
    do(planned, made.output / "jobs", threads=1)
    assert planned[0].folder == planned[1].folder
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["a b, c=[1] {x}", "it's here"])
def test_folders_with_strange_names_are_no_obstacle(
    cells: Cells, shared: Make, unet_model: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared(output=name)
    calls = list[str]()
    monkeypatch.setattr(train, "run", lambda config, **kwargs: calls.append(config.run))
    planned = plan(cells(models={"m": unet_model}), made)
    do(planned, made.output / "jobs", threads=1)
    assert calls == [str(run.folder) for run in planned]


def test_an_unknown_launcher_is_one_line(cells: Cells, shared: Make, unet_model: list[str]) -> None:
    made = shared()
    with pytest.raises(UserError, match="launcher") as refused:
        do(plan(cells(models={"m": unet_model}), made), made.output / "jobs", ["hydra/launcher=rocket"])
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_two_workers_do_what_one_does(cells: Cells, shared: Make, unet_model: list[str], tmp_path: Path) -> None:
    models = {"m": unet_model, "bad": [*unet_model, "fusion=moe", "fusion.experts=2", "fusion.top_k=9"]}
    plans = []
    for name, launcher in (("one", []), ("two", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])):
        made = shared(output=name)
        plans.append(plan(cells(models=models, seeds=[0, 1, 2]), made))
        do(plans[-1], made.output / "jobs", launcher, threads=1)
    assert scores_of(plans[0][:3]) == scores_of(plans[1][:3])
    for run in (*plans[0][3:], *plans[1][3:]):
        assert run.folder is not None
        assert "fusion.top_k is 9: it must lie between 1 and" in str(failure(run.folder))
    threads = [
        json.loads((run.folder / "environment.json").read_text())["threads"] for run in plans[1][:3] if run.folder
    ]
    assert threads == [1, 1, 1]
    assert not list((tmp_path / "two" / "jobs").glob("*.yaml"))


def test_a_launcher_that_dies_is_an_answer_and_what_was_done_before_stays(
    cells: Cells, shared: Make, unet_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()
    planned = plan(cells(models={"unet": unet_model}, seeds=[0, 1]), made)

    def killed(files: list[Path], *rest: object) -> None:
        perform(files[0])
        raise RuntimeError("a worker was killed\nand said nothing")

    monkeypatch.setattr("satdifuser.compare.launch.launch", killed)
    assert do(planned, made.output / "jobs") == "RuntimeError: a worker was killed"
    assert [run.missing for run in planned] == [False, True]


def test_an_error_that_a_run_cannot_note_is_not_lost(
    cells: Cells, shared: Make, unet_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()
    planned = plan(cells(models={"unet": unet_model}), made)
    monkeypatch.setattr("satdifuser.compare.worker._train", lambda *_: 1 / 0)

    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("satdifuser.compare.worker._note_failure", full)
    assert do(planned, made.output / "jobs") == "OSError: full"
