"""Probes of an encoder that runs, and the command itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main
from satdifuser.report.depth.content import Probed
from satdifuser.study.probe import probed
from satdifuser.study.probe.source import Source
from satdifuser.study.saved import load

FEW = [f"data.splits.{split}.length={count}" for split, count in (("train", 60), ("val", 20), ("test", 30))]
VIT = ["encoder=small_vit", "encoder.blocks=[0,3]", "encoder.class_token=true", "probe.batch_size=16"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_live_and_from_a_store_a_probe_says_the_same(
    task: str, settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [*FEW, *VIT, f"task={task}", "probe.strengths=[1e-3,1e-1]", "probe.pixels=4000", "budgets=[60,100]"]
    chosen += ["probe.views=[mean,both,grid2]"] if task == "classification" else []
    passes, batches = [], Source.batches
    monkeypatch.setattr(Source, "batches", lambda self, role, taps: passes.append(role) or batches(self, role, taps))
    live = probed(settings(*chosen, output="live"))
    assert passes == ["train", "val", "test"]
    path = tmp_path / "s.zarr"
    assert main(["extract", *FEW, *VIT[:-1], f"store.path={path}", "store.dtype=float32"]) == 0
    stored = probed(settings(*chosen, f"features={path}", output="stored"))
    assert len(live.points) == len(stored.points) == (24 if task == "classification" else 4)
    for mine, theirs in zip(live.points, stored.points, strict=True):
        assert (mine.place, mine.view, mine.probe, mine.training) == (
            *(theirs.place, theirs.view, theirs.probe),
            theirs.training,
        )
        assert mine.strengths == theirs.strengths
        metric = live.metric
        assert mine.scores[metric].value == pytest.approx(theirs.scores[metric].value, abs=0.034)
    assert live.chance == stored.chance


@pytest.mark.slow
def test_the_command_prints_the_best_places_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["probe", *FEW, *VIT, "probe.strengths=[1e-2]", "resamples=50", f"output={out}"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "accuracy on test (30 samples), with 95 % intervals; guessing scores" in said.out
    assert "logistic of mean" in said.out
    assert "blocks.3.class" in said.out
    assert f"wrote {out}: probe.json, report.html" in said.err
    found = load(out)
    assert isinstance(found, Probed)
    assert {"probe.json", "points.jsonl", "report.html"} <= {path.name for path in out.iterdir()}
    assert main(words) == 0
    assert "holds these probes already" in capsys.readouterr().err


@pytest.mark.slow
def test_latents_that_are_stored_become_features_again(settings: Callable[..., Any], tmp_path: Path) -> None:
    path, chosen = tmp_path / "latents.zarr", [*FEW, "encoder.timesteps=[21]", "encoder.taps=[mid_block]"]
    assert main(["extract", *chosen, f"store.path={path}", "store.keep=latents", "store.dtype=float32"]) == 0
    few = ["probe.probes=[knn]"]
    stored = probed(settings(*chosen, *few, f"features={path}", output="stored"))
    live = probed(settings(*chosen, *few, output="live"))
    assert [str(point.place) for point in stored.points] == ["mid_block@21"]
    assert stored.points[0].scores["accuracy"].value == pytest.approx(live.points[0].scores["accuracy"].value, abs=0.04)
