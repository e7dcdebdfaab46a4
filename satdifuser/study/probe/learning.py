"""Learning a probe: every strength from the training labels, the best on validation, and that one from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from satdifuser.analysis.calibration import temperature
from satdifuser.analysis.linear import NEVER, Linear
from satdifuser.analysis.logistic import logistic
from satdifuser.analysis.neighbours import Neighbours
from satdifuser.analysis.ridge import ridge
from satdifuser.analysis.strengths import strengths_of
from satdifuser.errors import UserError
from satdifuser.settings.studies import ProbeConfig
from satdifuser.tasks.base import Task

PROBES = {
    "classification": ("logistic", "knn"),
    "multilabel": ("logistic", "knn"),
    "regression": ("ridge", "knn"),
    "segmentation": ("logistic",),
    "pixel_regression": ("ridge",),
}
USUAL = {"classification": ("logistic", "knn"), "multilabel": ("logistic",), "regression": ("ridge",)}
STRENGTHS = [10 ** (8 * number / 39 - 6) for number in range(40)]  # weaker penalties are as good as none, mostly
PIXEL_STRENGTHS = [10.0**power for power in range(-6, 1)]
CHUNK_BYTES = 2**27  # of logits at once

Rows = NDArray[np.float32]
Array = NDArray[Any]


def probes_for(task: Task, asked: Sequence[str] | None) -> list[str]:
    """The kinds of probes of a task: those asked for, or its usual ones."""
    able = PROBES.get(task.name)
    if able is None:
        raise UserError(f"satdifuser probe has no probes of task={task.name}: it has them of {', '.join(PROBES)}")
    for probe in asked or ():
        if probe not in able:
            raise UserError(f"probe.probes names {probe}, and task={task.name} is probed by {' or '.join(able)}")
    return list(dict.fromkeys(asked or USUAL.get(task.name, able)))


def strengths_for(task: Task, setting: int | Sequence[float] | None) -> list[float]:
    """Those of the setting, ascending; of a million pixels a weaker penalty than 1 is as good as none."""
    usual = PIXEL_STRENGTHS if task.dense else STRENGTHS
    return strengths_of(usual if setting is None else setting)


@dataclass(frozen=True)
class Learned:
    """A probe that is done: what it answers with (`logits` [N, K] are what the task's `predict` takes).

    `temperature` is that of the probe which learned from the training labels alone, on validation.
    """

    model: Linear | Neighbours
    training: int
    strength: float | None = None
    temperature: float | None = None


def logits(task: Task, model: Linear | Neighbours, rows: Rows) -> Array:
    """[N, outputs]; of neighbours the shares of classes, how far those of labels are above half, or mean numbers."""
    if isinstance(model, Linear):
        return model.logits(rows)
    if task.label == "target":
        return model.mean(rows)
    return model.shares(rows) - (0.5 if task.label == "multilabel" else 0.0)


def predicted(task: Task, values: Array) -> Array:
    """What a task takes logits [N, K] for."""
    return task.predict(torch.from_numpy(values)).numpy()


@dataclass(frozen=True)
class Lesson:
    """What a probe learns from: rows and answers, first of train (`known` of them), then of validation.

    It is chosen on `chosen` and `answers`.
    """

    rows: Rows
    truth: Array
    known: int
    chosen: Rows
    answers: Array


def learn(task: Task, probe: str, lesson: Lesson, config: ProbeConfig, device: str, where: str) -> Learned:
    """A probe of one place; `where` names it in errors."""
    try:
        if probe == "knn":
            return _neighbours(task, lesson, config, device)
        return _linear(task, probe, lesson, config, "cpu" if config.solver == "sklearn" else device)
    except ValueError as error:
        raise UserError(f"the probe of {where} cannot learn: {error}") from error


def _neighbours(task: Task, lesson: Lesson, config: ProbeConfig, device: str) -> Learned:
    if config.neighbours > len(lesson.rows):
        raise ValueError(f"it has {len(lesson.rows)} samples, and probe.neighbours is {config.neighbours}")
    outputs, rows = task.outputs, np.asarray(lesson.rows)
    model = Neighbours(rows, lesson.truth, outputs, config.neighbours, config.distance, device)
    return Learned(model, len(rows))


def _linear(task: Task, probe: str, lesson: Lesson, config: ProbeConfig, device: str) -> Learned:
    strengths = strengths_for(task, config.strengths)

    def fit(rows: Rows, truth: Array, tried: Sequence[float]) -> list[Linear]:
        if probe == "ridge":
            return ridge(rows, truth, tried, device=device, solver=config.solver)
        return logistic(rows, truth, tried, outputs=task.outputs, device=device, solver=config.solver)

    models = fit(lesson.rows[: lesson.known], lesson.truth[: lesson.known], strengths)
    best = int(np.argmax(validated(task, models, lesson.chosen, lesson.answers)))  # the first: the strongest penalty
    heat = None if probe == "ridge" else warmth(models[best].logits(lesson.chosen), lesson.answers)
    model = models[best]
    if len(lesson.rows) > lesson.known:
        model = fit(lesson.rows, lesson.truth, [strengths[best]])[0]
    return Learned(model, len(lesson.rows), strengths[best], heat)


def validated(task: Task, models: Sequence[Linear], rows: Rows, truth: Array) -> list[float]:
    """The task's main metric of each model; minus infinity where it is undefined.

    Every row counts as an answer of its own, whether it is an image or a pixel.
    """
    together = Linear(np.concatenate([one.weight for one in models]), np.concatenate([one.bias for one in models]))
    outputs = len(models[0].bias)
    numbers = task.label == "target"  # few outputs, and distances from the mean of all answers
    size = len(rows) if numbers else max(1, CHUNK_BYTES // (8 * len(together.bias)))
    sums: list[Any] = [0.0] * len(models)
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        values = together.logits(rows[part])
        for number in range(len(models)):
            said = predicted(task, values[:, number * outputs : (number + 1) * outputs])
            sums[number] = sums[number] + summed(task, said, truth[part])
    scores = [float(task.scores(row)[task.monitor]) for row in sums]
    return [-np.inf if np.isnan(score) else score for score in scores]


def summed(task: Task, said: Array, truth: Array) -> Array:
    """The sums of a task's statistics; pixels that come one by one count as those of one image."""
    if task.dense:
        said, truth = said[None], truth[None]
    return task.statistics(said, truth).sum(0)


def warmth(values: Array, truth: Array) -> float | None:
    """The temperature of logits; answers that a probe cannot give, as it has never seen them, say nothing of it."""
    if truth.ndim == 1:
        known = values[np.arange(len(truth)), truth] > NEVER / 2
        values, truth = values[known], truth[known]
    else:
        known = np.abs(values) < -NEVER / 2
        values, truth = values[known], truth[known].astype(np.int64)
    found = temperature(values, truth) if len(values) else np.nan
    return None if np.isnan(found) else float(found)
