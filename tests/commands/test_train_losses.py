"""Chosen losses from one end to the other: cut batches, checkpoints with weights, eval, resume, init, processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.cli import main
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder

pytestmark = pytest.mark.slow

ENCODER = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]", "fusion=mean"]
BOTH = "loss.parts=[{name: cross_entropy, weights: inverse}, {name: lovasz, factor: 0.5}]"
CHOICES = [["loss=dice", "loss.weights=inverse_sqrt"], ["loss=combined", BOTH]]


@pytest.fixture
def trained(tmp_path: Path, tiny: list[str]) -> Callable[..., dict[str, Any]]:
    def run(name: str, *words: str) -> dict[str, Any]:
        return train.run(compose("train", [*tiny, *ENCODER, f"run={tmp_path / name}", *words]), quiet=True)

    return run


@pytest.mark.parametrize("words", CHOICES)
def test_micro_batches_give_the_run_of_the_whole_batch_and_eval_its_loss(
    tmp_path: Path, trained: Callable[..., dict[str, Any]], words: list[str]
) -> None:
    whole, cut = trained("whole", *words), trained("cut", *words, "trainer.accumulate=3")
    assert cut["test"] == pytest.approx(whole["test"], rel=1e-3, abs=1e-5)
    own = trained("own")
    assert own["test"]["loss"] != pytest.approx(whole["test"]["loss"], rel=1e-3)
    rows = [RunFolder(tmp_path / name).rows() for name in ("whole", "cut")]
    for a, b in zip(*rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    weights = {n: v for n, v in load_checkpoint(RunFolder(tmp_path / "whole").best)[1].items() if n.startswith("loss.")}
    assert len(weights) == 1
    assert len(next(iter(weights.values())).unique()) > 1
    assert main(["eval", f"run={tmp_path / 'whole'}"]) == 0
    again = json.loads((tmp_path / "whole" / "eval-test.json").read_text())["test"]
    assert again == pytest.approx(whole["test"], rel=1e-5)


def test_a_run_is_resumed_with_its_weights_and_begins_with_one_of_another_loss(
    tmp_path: Path, trained: Callable[..., dict[str, Any]]
) -> None:
    words = ["loss=focal", "loss.weights=inverse"]
    first = trained("run", *words)
    assert trained("run", *words, "resume=true")["test"] == first["test"]
    second = trained("second", "loss=jaccard", f"init={tmp_path / 'run'}")
    trained("third", *words, f"init={tmp_path / 'second'}")
    assert set(second["test"]) == set(first["test"])
    states = [load_checkpoint(RunFolder(tmp_path / name).best)[1] for name in ("run", "second", "third")]
    assert [("loss.weights" in state) for state in states] == [True, False, True]
    assert torch.equal(states[0]["loss.weights"], states[2]["loss.weights"])


def test_weights_are_of_the_budgets_labels(tmp_path: Path, trained: Callable[..., dict[str, Any]]) -> None:
    words = ["loss=focal", "loss.weights=inverse", "task.ignore=[water]"]
    for name, budget in (("all", 100), ("half", 50)):
        trained(name, *words, f"budget={budget}")
    found = [load_checkpoint(RunFolder(tmp_path / name).best)[1]["loss.weights"] for name in ("all", "half")]
    assert not torch.equal(*found)
    settings = compose("train", ["data=synthetic"])
    water = settings.data.split("test").labels.classes.index("water")
    assert [float(weights[water]) for weights in found] == [0.0, 0.0]


def test_two_processes_give_the_run_of_one(
    tmp_path: Path,
    tiny: list[str],
    trained: Callable[..., dict[str, Any]],
    agrees_with_two_processes: Callable[[Sequence[str], dict[str, Any]], None],
) -> None:
    words = ["loss=combined", BOTH]
    agrees_with_two_processes([*tiny, *ENCODER, *words], trained("one", *words))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["loss=dice", "task=classification"], "loss=dice is for task=segmentation"),
        (["loss=focal", "loss.weights=[1, 2]"], "loss.weights has 2 numbers"),
        (["loss=diec"], "no loss=diec: there is combined, cross_entropy, dice"),
        (["loss=focal", "loss.gama=1"], "loss.gama"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_written(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["train", *tiny, *ENCODER, *words, f"run={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
