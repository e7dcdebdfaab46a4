"""Folds in a grid: runs for each, one test set of all, and what a missing fold does."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from satdifuser.compare import command
from satdifuser.compare.content import content_of
from satdifuser.compare.folds import folded, pooled
from satdifuser.compare.grid import expand
from satdifuser.compare.plan import plan
from satdifuser.compare.results import Done, Results
from satdifuser.compare.shared import Shared
from satdifuser.config import compose
from satdifuser.engine.predictions import Predictions
from satdifuser.errors import UserError

FOLDS, SCENES = 3, 4
pytestmark = [pytest.mark.xdist_group("folds"), pytest.mark.slow]  # all of these tests read one grid's runs


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two or three images of each scene, of two classes that a colour tells apart, badly."""
    root, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(4)
    for number in range(10):
        scene, kind = number % SCENES, number // SCENES % 2
        file = root / ("wet" if kind else "dry") / f"p{number}_of_{scene}.tif"
        file.parent.mkdir(exist_ok=True)
        with rasterio.open(file, "w", driver="GTiff", width=8, height=8, count=3, dtype="uint8") as out:
            out.write(rng.integers(1 + 20 * kind, 200, (3, 8, 8), dtype=np.uint8))
    return root


@pytest.fixture(scope="module")
def folder(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of configurations with the experiment."""
    task = [
        "data=rasters",
        f"data.root={patches}",
        "data.images='{class}/*.tif'",
        "data.sensor=SENTINEL2_RGB",
        "data.size=8",
        "data.scaling=8bit",
        "data.split_by={by: folds, group: '*/*_of_{group}', val: 0.3}",
        "task=classification",
    ]
    grid = {
        "models": {
            "gw": ["encoder=colours", "fusion=gw"],
            "mean": ["encoder=colours", "fusion=mean"],
            "after": ["encoder=colours", "fusion=gw", "init=gw"],
        },
        "tasks": {"water": {"all": task, "folds": FOLDS}},
        "recipe": ["trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4", "fusion.projection_dim=8"],
        "seeds": [0, 1],
        "resamples": 400,
        "shown": 2,
    }
    made = tmp_path_factory.mktemp("configs")
    (made / "experiment").mkdir()
    (made / "experiment" / "water.yaml").write_text("# @package _global_\n" + yaml.safe_dump(grid))
    return str(made)


class Made:
    """A grid as it lies in a folder."""

    def __init__(self, output: Path, folder: str) -> None:
        self.config = compose("compare", ["experiment=water", f"output={output}"], [folder])
        self.shared = Shared(output, self.config.store)
        self.planned = plan(folded(expand(self.config, [], [folder]), self.config), self.shared)

    @property
    def done(self) -> list[Done]:
        there = [run for run in self.planned if run.folder is not None and (run.folder / "result.json").is_file()]
        return [Done(run.cell, run.folder, None, 0) for run in there if run.folder is not None]

    def of(self, model: str, seed: int) -> list[Done]:
        """In the order of the folds."""
        runs = [run for run in self.done if (run.cell.model, run.cell.seed) == (model, seed)]
        return sorted(runs, key=lambda run: run.cell.fold or 0)

    def content(self) -> Any:
        return content_of(self.config, self.planned, self.shared, "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, folder: str) -> Made:
    output = tmp_path_factory.mktemp("folds")
    command.run(["experiment=water", f"output={output}"], [folder])
    return Made(output, folder)


def right(runs: list[Done]) -> list[float]:
    """Whether each test sample of these runs is answered rightly."""
    said = [run.predictions() for run in runs]
    return [float(p == t) for one in said for p, t in zip(one.prediction, one.truth, strict=True)]


def test_each_model_and_seed_has_a_run_for_each_fold_whose_tests_are_all_samples_once(made: Made) -> None:
    assert len(made.done) == 3 * 2 * FOLDS == len({run.folder for run in made.planned})
    for place in itertools.product(("gw", "mean", "after"), (0, 1)):
        runs = made.of(*place)
        ids = [name for run in runs for name in run.predictions().ids]
        assert len(ids) == len(set(ids)) == 10
        scenes = [{name.rpartition("_")[2] for name in run.predictions().ids} for run in runs]
        assert sum(map(len, scenes)) == SCENES  # no scene is in two folds


def test_a_run_begins_with_that_of_its_own_fold(made: Made) -> None:
    begun = [run for run in made.planned if run.cell.model == "after"]
    assert len(begun) == 2 * FOLDS
    for run in begun:
        (first,) = [other for other in made.planned if str(other.folder) == run.cell.config.init]
        assert (first.cell.model, first.cell.fold, first.cell.seed) == ("gw", run.cell.fold, run.cell.seed)


def test_a_score_is_that_of_all_test_samples_together(made: Made) -> None:
    content = made.content()
    assert (content.missing, list(content.partial), list(content.failures)) == (0, [], [])
    (section,) = content.sections
    assert (section.folds, section.test_samples) == (FOLDS, 10)
    by_model = {}
    for row in content.rows:
        assert row.seeds == (0, 1)
        each = np.array([right(made.of(row.model, seed)) for seed in row.seeds])
        assert each.shape == (2, 10)
        assert row.scores["accuracy"].seeds == pytest.approx(each.mean(1))
        assert row.scores["accuracy"].value == pytest.approx(each.mean())
        learned = [run.result["training_samples"] for seed in row.seeds for run in made.of(row.model, seed)]
        assert row.training_samples == round(np.mean(learned))
        assert len(set(learned)) > 1
        by_model[row.model] = each
    sizes = [len(run.predictions().ids) for run in made.of("gw", 0)]
    assert len(set(sizes)) > 1  # so a mean of the folds' scores would be another number
    one = next(c for c in content.comparisons if (c.first, c.second) == ("gw", "mean"))
    a, b = by_model["gw"], by_model["mean"]
    assert one.difference == pytest.approx(a.mean() - b.mean())
    hits = 0
    for swapped in itertools.product((False, True), repeat=10):
        swap = np.array(swapped)
        hits += abs(np.where(swap, b, a).mean() - np.where(swap, a, b).mean()) >= abs(a.mean() - b.mean()) - 1e-9
    assert one.p == pytest.approx(hits / 1024, abs=0.08)  # of 400 swaps that were drawn


def test_the_report_says_how_many_folds_and_test_samples_there_are(made: Made) -> None:
    output = made.shared.output
    assert "water with 10 test samples in all, of 3 folds" in (output / "report.html").read_text()
    assert "3 folds, 10 test samples in all" in (output / "tables.md").read_text()


def test_a_second_call_does_nothing_again(made: Made, folder: str) -> None:
    times = {run.folder: (run.folder / "result.json").stat().st_mtime_ns for run in made.done}
    command.run(["experiment=water", f"output={made.shared.output}"], [folder])
    assert times == {run.folder: (run.folder / "result.json").stat().st_mtime_ns for run in made.done}


def test_a_missing_fold_is_named_and_its_seed_is_not_shown(made: Made, folder: str, tmp_path: Path) -> None:
    shutil.copytree(made.shared.output, tmp_path / "copy")
    mine = Made(tmp_path / "copy", folder)
    lost = next(r for r in mine.planned if (r.cell.model, r.cell.seed, r.cell.fold) == ("mean", 1, 2))
    assert lost.folder is not None
    (lost.folder / "result.json").unlink()
    content = mine.content()
    assert content.missing == 1
    assert content.partial == ["mean, water, 100 % of the labels, seed 1: of its 3 folds 2 lack a result"]
    assert {row.model: row.seeds for row in content.rows} == {"gw": (0, 1), "mean": (0,), "after": (0, 1)}
    (lost.folder / "failed.json").write_text('{"error": "no room"}')
    content = mine.content()
    assert (content.missing, len(content.partial)) == (0, 1)
    assert [f.error for f in content.failures] == ["fold 2 of 3: no room"]


def test_a_sample_that_two_folds_test_is_refused(made: Made, tmp_path: Path) -> None:
    first, second, third = made.of("gw", 0)
    cells = [run.cell for run in (first, second, third)]
    (whole,), partial = pooled([third, first, second], cells)
    assert partial == []
    assert right([whole]) == right([first, second, third])
    assert list(whole.parts) == [first, second, third]  # each says for itself why its training ended
    found = first.predictions()
    folder = tmp_path / "run"
    shutil.copytree(second.folder, folder)
    Predictions(found.ids, found.prediction, found.truth, found.logits).save(folder / "predictions-test.zarr")
    (bad,), _ = pooled([first, replace(second, folder=folder), third], cells)
    ((_, error),) = Results([bad], 10).leave_out_unreadable()
    assert "a sample is tested in more than one of its 3 folds" in error


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"folds": 1}, r"tasks\.water\.folds is 1: it must be a whole number of 2 or more"),
        ({"folds": 4, "all": ["data=synthetic"]}, "its data is not split in folds: give data.split_by={by: folds}"),
        ({"folds": 4, "all": ["{by: hash}"]}, "its data is not split in folds"),
        ({"folds": 4, "all": ["{by: folds, of: 5}"]}, r"folds is 4, and data\.split_by\.of is 5: leave the latter out"),
        ({"folds": 4, "all": ["{by: folds, of: all}"]}, r"data\.split_by\.of is all: leave the latter out"),
    ],
)
def test_what_does_not_go_together_is_refused(task: dict[str, Any], said: str) -> None:
    data = ["data=rasters", "data.root=x", "data.images=x", "data.sensor=SENTINEL2_RGB", "data.size=8"]
    words = [f"data.split_by={one}" if one.startswith("{") else one for one in task.get("all", [])]
    given = {**task, "all": ["task=classification", *([] if "data=synthetic" in words else data), *words]}
    config = compose("compare", []).but(tasks={"water": given}, models={"a": ["encoder=colours"]})
    with pytest.raises(UserError, match=said):
        folded(expand(config), config)


def test_a_dry_run_counts_folds(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(["experiment=water", f"output={tmp_path}", "dry_run=true"], [folder])
    said = capsys.readouterr().out
    assert "18 runs" in said
    assert "2 of 3" in said
