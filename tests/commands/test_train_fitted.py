"""Fitted decoders as a run: live and stored, eval, resume, budgets, a grid, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.cli import main
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.predictions import Predictions
from satdifuser.engine.run import RunFolder

pytestmark = pytest.mark.slow

DATA = ["data.size=16", "data.splits.train.length=40", "data.splits.val.length=15", "data.splits.test.length=17"]
ENCODER = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]
COMMON = [*DATA, *ENCODER, "trainer=quick", "fusion=plain"]
WAYS = [
    ["task=classification", "decoder=knn", "decoder.k=3"],
    ["task=classification", "decoder=logistic", "decoder.strengths=5"],
    ["task=multilabel", "decoder=logistic", "decoder.strengths=5", "pool=moments"],
    ["task=multilabel", "decoder=knn"],
    ["task=regression", "decoder=ridge", "pool=grid2"],
]


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(name: str, *words: str) -> dict[str, Any]:
        return train.run(compose("train", [*COMMON, f"run={tmp_path / name}", *words]), quiet=True)

    return run


@pytest.fixture
def stored(tmp_path: Path) -> str:
    path = str(tmp_path / "f.zarr")
    return extract.run(compose("extract", [*DATA, *ENCODER, f"store.path={path}", "store.dtype=float32"]))


@pytest.mark.parametrize("words", WAYS)
def test_a_fit_to_stored_features_is_that_to_live_ones_and_eval_and_resume_find_it_again(
    tmp_path: Path, fitted: Callable[..., dict[str, Any]], stored: str, words: list[str]
) -> None:
    live, late = fitted("live", *words), fitted("late", *words, f"features={stored}")
    assert live["test"] == pytest.approx(late["test"], rel=1e-4, abs=1e-6)
    folder = RunFolder(tmp_path / "live")
    (row,) = folder.rows()
    assert row["step"] == 1
    assert row[f"val/{live['metric']}"] == live["validation"]
    said = Predictions.load(folder.predictions("test"))
    assert len(said.ids) == live["samples"] == 17
    weights = [np.array(each["weights"]) for each in live["weights"].values()]
    assert sum(float(each.sum()) for each in weights) == pytest.approx(1, abs=1e-4)
    for more in ([], [f"features={stored}"]):
        assert main(["eval", f"run={folder.path}", *more]) == 0
        again = json.loads((folder.path / "eval-test.json").read_text())
        assert again["test"] == pytest.approx(live["test"], rel=1e-4, abs=1e-6)
    resumed = fitted("live", *words, "resume=true")
    assert resumed["test"] == live["test"]
    assert resumed["validation"] == live["validation"]
    assert folder.rows() == [row]


def test_a_budget_is_all_that_is_learned_from_unless_a_refit_takes_validation_too(
    tmp_path: Path, fitted: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=classification", "decoder=logistic", "decoder.strengths=3", "budget=50"]
    few = fitted("few", *words)
    fitted("both", *words, "decoder.refit=true")
    assert few["training_samples"] == 20
    seen = [set(RunFolder(tmp_path / name).seen()) for name in ("few", "both")]
    assert len(seen[0]) == 20
    assert len(seen[1]) == 20 + 15
    assert main(["eval", f"run={tmp_path / 'few'}", "split=val"]) == 0
    assert main(["eval", f"run={tmp_path / 'both'}", "split=val"]) == 2
    assert "has learned from 15 of the 15 samples in val" in capsys.readouterr().err
    assert fitted("both", *words, "decoder.refit=true", "resume=true")["steps"] == 1


GRID = """# @package _global_
models:
  gw: [fusion=gw, fusion.projection_dim=16]
  knn: [fusion=plain, decoder=knn]
  deep: [fusion=plain, "decoder=knn,logistic", "select.depths=[0],[-1]", "select.timesteps=[21]"]
recipe: [task=classification, trainer=quick, trainer.max_steps=3]
shown: 0
resamples: 50
"""


def test_a_grid_has_fitted_heads_beside_trained_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(GRID)
    output = tmp_path / "comparison"
    words = ["compare", "--config-dir", str(tmp_path / "own"), "experiment=mine", *DATA, *ENCODER, f"output={output}"]
    assert main([*words, "dry_run=true"]) == 0
    assert "cannot run" not in capsys.readouterr().out
    assert main(words) == 0
    results = [json.loads(path.read_text()) for path in output.glob("runs/*/result.json")]
    assert len(results) == 6
    assert sum(result["steps"] == 1 for result in results) == 5
    assert (output / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["task=classification", "fusion=gw"], "nothing would train fusion (GlobalWeighted): set fusion=plain"),
        (["task=segmentation"], "decoder=knn gives one answer for each image, but the task wants a map"),
        (["task=classification", "augmentation=classification"], "decoder=knn is fitted once, to images as they are"),
        (["task=classification", "init=runs/other"], "decoder=knn is fitted anew"),
        (["task=classification", "loss=focal"], "decoder=knn has its own objective"),
        (["task=classification", "budget=50", "decoder.k=25"], "decoder.k is 25, and there are"),
        (
            ["task=classification", "encoder=small_vit", "adapter=lora", "data.size=64"],
            "nothing would train encoder",
        ),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    base = [word for word in COMMON if "encoder=small_vit" not in words or not word.startswith("encoder.")]
    assert main(["train", *base, "decoder=knn", *words, f"run={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(tmp_path: Path, in_two_processes: Callable[..., tuple[int, str]]) -> None:
    words = [*COMMON, "task=classification", "decoder=knn", f"run={tmp_path / 'run'}"]
    code, said = in_two_processes("train", *words)
    assert code != 0
    assert "decoder=knn is fitted by one process, and there are 2" in said
