"""The dry run: every run with what it needs and where it stands, the time by its steps, and nothing done."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.build import build_data, build_encoder, build_task
from satdifuser.commands import train
from satdifuser.compare import estimate
from satdifuser.compare.estimate import Pace, pace, seconds_of, show
from satdifuser.compare.grid import Cell
from satdifuser.compare.launch import do
from satdifuser.compare.plan import plan, with_features
from satdifuser.compare.shared import Shared
from satdifuser.data.batches import ShuffledBatches
from satdifuser.data.splits.budgets import within_budget
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel
from satdifuser.store import Form

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]


def table(text: str) -> list[list[str]]:
    """The rows of the printed table; a cell that was too long goes on in the next line."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("│"):
            words = [word.strip() for word in line.strip("│").split("│")]
            if words[0]:
                rows.append(words)
            else:
                rows[-1] = [f"{one} {more}".strip() for one, more in zip(rows[-1], words, strict=True)]
    return rows


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.slow
def test_the_dry_run_lists_every_run_with_its_needs_and_its_state_and_does_none(
    cells: Cells,
    shared: Make,
    small_model: list[str],
    unet_model: list[str],
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimate, "CALLS", 1)
    bad = ["encoder=unconditional", "encoder.backbone.weights=/nowhere"]
    models = {
        "stored": small_model,
        "other": [*small_model, "encoder.seed=1"],
        "live": unet_model,
        "bad": bad,
        "fails": [*unet_model, "trainer.lr=0.3"],
    }
    made = shared()
    planned = plan(cells(models=models, seeds=[0, 1]), made)
    some = [run for run in planned if run.cell.model in ("stored", "fails") and run.cell.seed == 0]
    run = train.run

    def fail(config: Any, **kwargs: Any) -> Any:
        if config.trainer.lr == 0.3:
            raise UserError("the loss became nan")
        return run(config, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", fail)
        do(with_features(some, made), made.output / "jobs", threads=1)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    show(planned, shared(), threads=1)
    said = capsys.readouterr().out
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before

    found = {(row[0], row[3]): row for row in table(said)}
    assert set(found) == {(model, str(seed)) for model in models for seed in (0, 1)}
    assert {row[1] for row in found.values()} == {"task"}
    assert {row[2] for row in found.values()} == {"100 %"}
    needs = {place: row[4] for place, row in found.items()}
    states = {place: row[6] for place, row in found.items()}
    assert needs["stored", "1"] == "features 1"
    assert {needs["other", seed] for seed in "01"} == {"features 2"}
    assert {needs[model, seed] for model in ("live", "fails") for seed in "01"} == {"images"}
    assert states["stored", "0"] == "done"
    assert {states["stored", "1"], states["other", "0"], states["live", "0"], states["fails", "1"]} == {"to do"}
    assert states["fails", "0"] == "to do again, failed: the loss became nan"
    assert states["bad", "0"].startswith("cannot run: ")
    assert "/nowhere" in states["bad", "0"].replace(" ", "")
    assert [bool(found[place][5]) for place in (("stored", "0"), ("bad", "0"), ("live", "1"))] == [False, False, True]
    whole = " ".join(said.split())
    assert "10 runs" in whole
    stores = [line for line in lines(said) if re.match(r"features \d: ", line)]
    assert len(stores) == 2
    assert stores[0].endswith("is there")
    assert "to be extracted: 43 samples" in stores[1]  # 30 + 4 + 9
    assert re.search(r"7 runs to do: .*no run was made", whole)  # of 10: one is done, two cannot be


@pytest.mark.parametrize(
    "word", ["fusion=moe fusion.top_k=9 fusion.experts=2", "encoder.levels=9", "encoder.prepare.bands=[B99]"]
)
def test_a_bad_model_does_not_hide_the_others_in_the_dry_run(
    cells: Cells, shared: Make, unet_model: list[str], capsys: pytest.CaptureFixture, word: str
) -> None:
    models = {"fails": [*unet_model, *word.split()], "good": unet_model}
    show(plan(cells(models=models), shared()), shared(), threads=1)
    said = " ".join(capsys.readouterr().out.split())
    assert "fails" in said
    assert "good" in said


@pytest.mark.parametrize("word", ["fusion.projection_dim=0", "trainer.accumulate=9", "trainer.optimizer=nope"])
def test_a_setting_that_cannot_be_is_refused_before_anything_is_planned(
    cells: Cells, unet_model: list[str], word: str
) -> None:
    with pytest.raises(UserError, match=rf"^fails, task: {re.escape(word.partition('=')[0])} "):
        cells(models={"fails": [*unet_model, word], "good": unet_model})


@pytest.mark.parametrize(
    ("words", "budget", "steps", "evaluations"),
    [
        ([], 100, 3, 2),  # max_steps=3, eval_every=2: after 2 and at the end
        (["trainer.max_steps=4"], 100, 4, 2),
        (["trainer.max_steps=null", "trainer.epochs=5"], 100, 5 * 7, 18),  # 30 samples are 7 batches of 4
        (["trainer.max_steps=null", "trainer.epochs=5"], 10, 5 * 1, 3),  # 3 samples are a batch
        (["trainer.max_steps=null", "trainer.epochs=2", "trainer.batch_size=8"], 50, 2 * 1, 1),  # 15 samples
        (["trainer.max_steps=null", "trainer.epochs=1", "trainer.batch_size=1"], 50, 15, 8),
        (["trainer.max_steps=null", "trainer.epochs=5", "trainer.last_batch=keep"], 100, 5 * 8, 20),
        (["trainer.max_steps=null", "trainer.epochs=5", "trainer.eval_every=null"], 100, 5 * 7, 5),
    ],
)
def test_the_time_of_a_run_is_its_steps_its_evaluations_and_its_test(
    cells: Cells, words: list[str], budget: float, steps: int, evaluations: int
) -> None:
    (cell,) = cells(*words, budgets=[budget])
    lengths = {"train": 30, "val": 4, "test": 9}
    assert seconds_of(cell, Pace(step=1.0, sample=0.0, image=0.0), lengths) == steps
    assert seconds_of(cell, Pace(step=0.0, sample=1.0, image=0.0), lengths) == evaluations * 4 + 9
    assert (
        seconds_of(cell, Pace(step=0.0, sample=0.0, image=1.0), lengths) == 0
    )  # features count once, with their store
    both = seconds_of(cell, Pace(step=0.25, sample=0.5, image=9.0), lengths)
    assert both == pytest.approx(0.25 * steps + 0.5 * (evaluations * 4 + 9))


@pytest.mark.parametrize(("length", "budget"), [(30, 55), (30, 100), (26, 62), (30, 25), (30, 35), (25, 50)])
def test_the_steps_are_those_that_the_budget_gives(cells: Cells, length: int, budget: float) -> None:
    words = ["trainer.max_steps=null", "trainer.epochs=3", "trainer.batch_size=1"]
    (cell,) = cells(*words, f"data.splits.train.length={length}", budgets=[budget])
    data = build_data(cell.config.data, "train")
    train = within_budget(data, build_task(cell.config.task, data), cell.budget, 0)
    steps = 3 * ShuffledBatches(len(train), 1, 0).per_epoch
    assert seconds_of(cell, Pace(1.0, 0.0, 0.0), {"train": length, "val": 4, "test": 9}) == steps


def test_a_pace_is_measured_for_features_and_for_images(
    cells: Cells, small_model: list[str], unet_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "CALLS", 1)
    stored, live = cells(models={"a": small_model, "b": unet_model})
    of_head, of_all = pace(stored, Form()), pace(live, None)
    assert min(of_head.step, of_head.sample, of_head.image) > 0
    assert min(of_all.step, of_all.sample) > 0
    assert of_all.image == 0


@pytest.mark.parametrize("form", [Form("float32"), Form("float16", "moments"), Form("int8"), Form("float32", "grid2")])
def test_a_head_is_measured_on_features_in_the_form_that_is_kept_and_in_whole_batches(
    cells: Cells, small_model: list[str], monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    monkeypatch.setattr(estimate, "CALLS", 1)
    monkeypatch.setattr(estimate, "FEW", 3)
    (cell,) = cells("trainer.batch_size=7", models={"a": [*small_model, "select.timesteps=[161]"]})
    seen = []

    def forward(self: FeatureModel, batch: Any) -> Any:
        seen.append(batch["bank"])
        return run(self, batch)

    run = FeatureModel.forward
    monkeypatch.setattr(FeatureModel, "forward", forward)
    pace(cell, form)
    whole = build_encoder(cell.config.encoder).spec
    for bank in seen:
        assert bank.batch_size == 7
        assert bank.spec == form.spec(whole).select(timesteps=[161])
