"""Scores by the settings of a task, from a configuration: in one process and in two, and from what the run keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from satdifuser.build import build_data, build_task
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.data.synthetic.scenes import CLASSES
from satdifuser.engine.predictions import Predictions

UNET = ["encoder=unet", "encoder.width=8", "encoder.levels=2", "fusion=mean", "fusion.projection_dim=16"]
SETTINGS = ["task.absent=zero", "task.ignore=[water, conifer]"]


def rescored(run: Path, *overrides: str) -> dict[str, float]:
    settings = compose("train", list(overrides))
    task = build_task(settings.task, build_data(settings.data, "test"))
    kept = Predictions.load(run / "predictions-test.zarr")
    return {name: float(v) for name, v in task.scores(task.statistics(kept.prediction, kept.truth).sum(0)).items()}


def test_a_run_scores_by_its_task_s_settings_and_keeps_the_truth_as_it_is(tmp_path: Path, tiny: list[str]) -> None:
    found = train.run(compose("train", [*tiny, *UNET, *SETTINGS, f"run={tmp_path}"]), quiet=True)["test"]
    loss = found.pop("loss")
    assert np.isfinite(loss)
    assert rescored(tmp_path, *SETTINGS) == pytest.approx(found, abs=1e-6)
    kept = Predictions.load(tmp_path / "predictions-test.zarr")
    ignored = [CLASSES.index(name) for name in ("water", "conifer")]
    assert np.isin(ignored, kept.truth).all()
    learned = [number for number in range(len(CLASSES)) if number not in ignored]
    counts = np.isin(kept.truth, learned)
    truth, said = kept.truth[counts], kept.prediction[counts]
    by_hand = []
    for number in learned:
        union = ((truth == number) | (said == number)).sum()
        by_hand.append(((truth == number) & (said == number)).sum() / (union + 1e-6))
    assert found["miou"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert found["accuracy"] == pytest.approx((truth == said).mean(), abs=1e-6)
    assert rescored(tmp_path)["accuracy"] == pytest.approx(
        (kept.truth == kept.prediction)[kept.truth != 255].mean(), abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", [SETTINGS, ["task=classification"]])
def test_two_processes_score_as_one_does(
    tmp_path: Path, tiny: list[str], task: list[str], agrees_with_two_processes: Callable[..., None]
) -> None:
    common = [*tiny, *UNET, *task]
    one = train.run(compose("train", [*common, f"run={tmp_path / 'one'}"]), quiet=True)
    agrees_with_two_processes(common, one)
