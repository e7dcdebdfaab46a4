"""From the answers of probes to scores with intervals, tests between places, and errors of calibration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from satdifuser.analysis.calibration import calibration_error
from satdifuser.analysis.statistics import bootstraps, holm, paired_test
from satdifuser.report.content import Estimate
from satdifuser.report.depth.content import Point
from satdifuser.study.places import place_of
from satdifuser.study.probe.learning import Array, Learned, Rows, logits, predicted
from satdifuser.study.probe.ledger import Ledger
from satdifuser.study.probe.questions import Plan, Question
from satdifuser.study.probe.views import Column
from satdifuser.tasks.base import Task


def answered(task: Task, learned: Learned, rows: Rows, truth: Array, bins: int) -> tuple[dict[str, Any], Array]:
    """What is kept of a probe of whole images: its values, and the task's statistics of each test sample."""
    values = logits(task, learned.model, rows)
    found = calibrated(task, values, truth, learned.temperature, bins)
    return kept(learned, found), task.statistics(predicted(task, values), truth)


def kept(learned: Learned, calibration: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "training": learned.training,
        "strength": learned.strength,
        "temperature": learned.temperature,
        "calibration": None if calibration is None else list(calibration),
    }


def calibrated(task: Task, values: Array, truth: Array, heat: float | None, bins: int) -> tuple[float, float] | None:
    """The expected calibration error as it is and after temperature scaling; None where there is no temperature."""
    if heat is None:
        return None
    shares: Callable[[Array], Array] = expit if task.label == "multilabel" else lambda x: softmax(x, axis=1)
    before, after = (calibration_error(shares(each), truth, bins) for each in (values, values / heat))
    return before, after


def guessed(task: Task, known: NDArray[Any], size: int) -> NDArray[Any]:
    """What one says who knows how often each class occurs, `known` [classes], among so many training samples."""
    if task.label == "multilabel":
        return (2 * known > size).astype(np.int64)
    return np.asarray(int(np.argmax(known)))


def chance(task: Task, known: Array, truth: Array) -> float:
    """What the most frequent training class (of labels: those that most samples have) scores; 0 of numbers."""
    if task.label == "target":
        return 0.0
    counts = known.sum(0) if known.ndim == 2 else np.bincount(known, minlength=task.outputs)
    said = np.broadcast_to(guessed(task, counts, len(known)), truth.shape)
    return float(task.scores(task.statistics(said, truth).sum(0))[task.monitor])


def points(task: Task, ledger: Ledger, columns: Sequence[Column], plan: Plan, resamples: int) -> list[Point]:
    """A point for each place, view, probe and budget, over its seeds, tested against the best of its kind."""
    found: dict[tuple[Column, str, float], Point] = {}
    views = dict.fromkeys(column.view for column in columns)
    for view, probe, budget in itertools.product(views, plan.probes, plan.budgets):
        same = [column for column in columns if column.view == view]
        for column, point in zip(same, _tested(task, ledger, same, plan, probe, budget, resamples), strict=True):
            found[column, probe, budget] = point
    return [found[key] for key in itertools.product(columns, plan.probes, plan.budgets)]


def _tested(
    task: Task, ledger: Ledger, columns: Sequence[Column], plan: Plan, probe: str, budget: float, resamples: int
) -> list[Point]:
    names = {
        column: [Question(column, probe, budget, plan.drawn(budget, seed)).name for seed in plan.seeds]
        for column in columns
    }
    scores = {column: _scores(task, _statistics(ledger, each), resamples) for column, each in names.items()}
    means = {column: found[task.monitor].value for column, found in scores.items()}
    best = max(means, key=lambda column: -math.inf if math.isnan(means[column]) else means[column])
    theirs = _statistics(ledger, names[best])

    def score(sums: Array) -> Array:
        return task.scores(sums)[task.monitor]

    tests = {
        column: paired_test(_statistics(ledger, each), theirs, score, resamples=resamples).p
        for column, each in names.items()
        if column != best
    }
    adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [
        _point(column, probe, budget, scores[column], [ledger.values[name] for name in each], adjusted.get(column))
        for column, each in names.items()
    ]


def _point(
    column: Column,
    probe: str,
    budget: float,
    scores: Mapping[str, Estimate],
    values: Sequence[Mapping[str, Any]],
    p: float | None,
) -> Point:
    errors = [each["calibration"] for each in values if each["calibration"] is not None]
    warm = [each["temperature"] for each in values if each["temperature"] is not None]
    whole = len(errors) == len(values)
    return Point(
        place=place_of(column.tap),
        view=column.view,
        probe=probe,
        budget=float(budget),
        training=int(values[0]["training"]),
        scores=scores,
        strengths=tuple(each["strength"] for each in values),
        p=p,
        calibration=tuple(np.mean(errors, axis=0).tolist()) if whole else None,
        temperature=float(np.mean(warm)) if len(warm) == len(values) else None,
    )


def _statistics(ledger: Ledger, names: Sequence[str]) -> Array:
    known = {name: ledger.statistics(name) for name in dict.fromkeys(names)}
    return np.stack([known[name] for name in names])


def _scores(task: Task, statistics: Array, resamples: int) -> dict[str, Estimate]:
    each = task.scores(statistics.sum(1))
    intervals = bootstraps(statistics, task.scores, resamples=resamples)
    return {
        name: Estimate(found.value, found.low, found.high, tuple(float(value) for value in each[name]))
        for name, found in intervals.items()
    }
