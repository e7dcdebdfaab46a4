"""From the folders of finished runs to what the report shows: rows, tests, what the heads learned, predictions."""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.analysis.statistics import bootstrap, holm, paired_test
from satdifuser.build import build_data, build_task
from satdifuser.compare.grid import Cell
from satdifuser.compare.shared import Extraction
from satdifuser.compare.worker import result
from satdifuser.data.bands import Band, Sensor
from satdifuser.data.check.pictures import pictures
from satdifuser.data.check.seen import sensor_of
from satdifuser.data.dates import one_of
from satdifuser.engine.files import read_json
from satdifuser.engine.insight import SHOWN, load_insight
from satdifuser.engine.predictions import Predictions
from satdifuser.engine.run import START, RunFolder
from satdifuser.errors import UserError
from satdifuser.report.content import Comparison, Cost, Estimate, Insight, Panel, Row, Section
from satdifuser.tasks.base import Task

SPLIT = "test"
EQUAL = ("GlobalWeighted", "UniformMean")  # heads that begin with the same weight for every map


@dataclass(frozen=True)
class Done:
    """A finished run: its place in the grid, its folder, and what its features took."""

    cell: Cell
    folder: Path
    extraction: Extraction | None
    encoder_parameters: int

    @cached_property
    def result(self) -> dict[str, Any]:
        found = result(self.folder)
        assert found is not None
        return found

    @property
    def parts(self) -> Sequence[Done]:
        """The runs that it is of: itself, where it is not of several folds."""
        return (self,)

    def predictions(self) -> Predictions:
        return Predictions.load(RunFolder(self.folder).predictions(SPLIT))

    def insight(self) -> dict[str, dict[int, NDArray[Any]]]:
        """`usage` of experts and weights of `pixels` by stride, where the head has them."""
        return load_insight(RunFolder(self.folder).insight(SPLIT))

    def start(self) -> dict[int, NDArray[Any]] | None:
        """The head's weights before its first step, by stride; None where nobody kept them."""
        try:
            kept = [read_json(part.folder / START, dict, "") for part in self.parts]
            return {int(s): np.mean([one[s] for one in kept], axis=0) for s in kept[0]}
        except (OSError, UserError, KeyError, ValueError, TypeError):  # the run is none the worse for it
            return None

    def cost(self) -> Cost:
        """Of the whole model, whether its encoder ran in this run or before it."""
        mine, made = self.result["cost"], self.extraction
        stored = self.result["encoder_parameters"] is None  # else the encoder ran, and its cost is in the run's
        flops = mine["flops"]
        if stored:
            flops = None if made is None else flops + made.flops
        return Cost(
            trainable=self.result["trainable_parameters"],
            total=mine["parameters"] + (self.encoder_parameters if stored else 0),
            flops=flops,
            extraction_seconds=None if made is None else math.nan if made.seconds is None else made.seconds,
            training_seconds=mine["training_seconds"],
            peak_bytes=mine["peak_bytes"],
            feature_bytes=None if made is None else made.bytes,
            checkpoint_bytes=mine["checkpoint_bytes"],
        )


class Results:
    """The finished runs of a grid, by task and budget; statistics are of the predictions, not of stored scores."""

    def __init__(self, done: Sequence[Done], resamples: int = 10_000) -> None:
        self.done, self.resamples = done, resamples
        self._tasks: dict[str, Task] = {}
        self._statistics: dict[Path, NDArray[Any]] = {}
        self._samples: dict[str, tuple[tuple[str, ...], int]] = {}

    def leave_out_unreadable(self) -> list[tuple[Done, str]]:
        """Go on without the runs whose answers cannot be used; gives them with the reason."""
        bad = []
        for run in self.done:
            try:
                self._statistics_of(run)
                run.insight()
            except UserError as error:
                bad.append((run, str(error)))
        self.done = [run for run in self.done if run not in [one for one, _ in bad]]
        return bad

    def of(self, task: str, budget: float | None = None, model: str | None = None) -> list[Done]:
        wanted = [run for run in self.done if run.cell.task == task and model in (None, run.cell.model)]
        return [run for run in wanted if budget in (None, run.cell.budget)]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(run.cell.task for run in self.done))

    def budgets(self, task: str) -> list[float]:
        return list(dict.fromkeys(run.cell.budget for run in self.of(task)))

    def models(self, task: str, budget: float | None = None) -> list[str]:
        return list(dict.fromkeys(run.cell.model for run in self.of(task, budget)))

    def task(self, name: str) -> Task:
        if name not in self._tasks:
            config = self.of(name)[0].cell.config
            self._tasks[name] = build_task(config.task, build_data(config.data, SPLIT))
        return self._tasks[name]

    def statistics(self, runs: Iterable[Done]) -> NDArray[Any]:
        """`[seeds, samples, K]` of some runs of one task, which must have answered for the same samples."""
        return np.stack([self._statistics_of(run) for run in runs])

    def _statistics_of(self, run: Done) -> NDArray[Any]:
        if run.folder not in self._statistics:
            found = run.predictions()
            samples = (found.ids, zlib.crc32(found.truth.tobytes()))
            if self._samples.setdefault(run.cell.task, samples) != samples:
                raise UserError(f"{run.folder} ({run.cell}) was tested on other samples than those it is compared with")
            if run.cell.config.task != self.of(run.cell.task)[0].cell.config.task:
                raise UserError(f"{run.folder} ({run.cell}) has other settings of task= than those it is compared with")
            self._statistics[run.folder] = self.task(run.cell.task).statistics(found.prediction, found.truth)
        return self._statistics[run.folder]

    def rows(self) -> list[Row]:
        rows = []
        for task in self.tasks:
            for budget, model in itertools.product(self.budgets(task), self.models(task)):
                runs = self.of(task, budget, model)
                if runs:
                    rows.append(self._row(runs))
        return rows

    def _row(self, runs: Sequence[Done]) -> Row:
        cell, task = runs[0].cell, self.task(runs[0].cell.task)
        statistics = self.statistics(runs)
        each = task.scores(statistics.sum(1))
        scores = {}
        for name, values in each.items():
            interval = bootstrap(statistics, _score(task, name), resamples=max(1, self.resamples // 2))
            scores[name] = Estimate(interval.value, interval.low, interval.high, tuple(float(v) for v in values))
        return Row(
            model=cell.model,
            task=cell.task,
            budget=cell.budget,
            training_samples=runs[0].result["training_samples"],
            seeds=tuple(run.cell.seed for run in runs),
            scores=scores,
            cost=mean_cost([run.cost() for run in runs]),
            ended=Counter(one.result["ended"] for run in runs for one in run.parts if "ended" in one.result),
        )

    def comparisons(self) -> list[Comparison]:
        """Every pair of models, for each task and budget; pairs of models that share no seed are left out."""
        found = []
        for task in self.tasks:
            for budget in self.budgets(task):
                found += self._comparisons(task, budget)
        return found

    def _comparisons(self, task: str, budget: float) -> list[Comparison]:
        score = _score(self.task(task), self.task(task).monitor)
        tests = []
        for first, second in itertools.combinations(self.models(task, budget), 2):
            mine, theirs = ({run.cell.seed: run for run in self.of(task, budget, model)} for model in (first, second))
            seeds = [seed for seed in mine if seed in theirs]
            if seeds:
                a, b = (self.statistics([runs[seed] for seed in seeds]) for runs in (mine, theirs))
                tests.append((first, second, seeds, paired_test(a, b, score, resamples=self.resamples)))
        adjusted = holm([test.p for *_, test in tests])
        return [
            Comparison(task, budget, first, second, t.difference, t.low, t.high, t.p, p, tuple(seeds))
            for (first, second, seeds, t), p in zip(tests, adjusted, strict=True)
        ]

    def section(self, name: str, shown: int) -> Section:
        """What is drawn of a task, at its largest budget."""
        budget, task = max(self.budgets(name)), self.task(name)
        runs = {model: self.of(name, budget, model) for model in self.models(name, budget)}
        insights = [self._insight(model, name, of) for model, of in runs.items()]
        ids = next(iter(runs.values()))[0].predictions().ids
        panel = self._panel({model: of[0] for model, of in runs.items()}, shown) if shown else None
        folds = next(iter(runs.values()))[0].cell.folds
        return Section(name, task, task.monitor, len(ids), panel, insights, tiles=tiles_of(ids), folds=folds)

    def _insight(self, model: str, task: str, runs: Sequence[Done]) -> Insight:
        first, seen = runs[0].result["weights"], [run.insight() for run in runs]
        weights = {int(s): np.mean([run.result["weights"][s]["weights"] for run in runs], axis=0) for s in first}
        answers, starts = [run.predictions() for run in runs], [run.start() for run in runs]
        kept = [start for start in starts if start is not None and {*start} == {*weights}]
        head = str(runs[0].cell.config.fusion.plain()["_target_"]).rpartition(".")[2]
        return Insight(
            model=model,
            task=task,
            timesteps=tuple(next(iter(first.values()))["timesteps"]),
            taps={int(stride): tuple(part["taps"]) for stride, part in first.items()},
            weights=weights,
            usage={s: np.mean([one["usage"][s] for one in seen], axis=0) for s in seen[0]["usage"]},
            maps=seen[0]["pixels"],
            confusion=_confusion(self.task(task), answers),
            head=head,
            start={s: np.mean([one[s] for one in kept], axis=0) for s in weights}
            if len(kept) == len(runs)
            else equal_weights(weights)
            if head in EQUAL and all(run.cell.config.init is None for run in runs)
            else None,
        )

    def _panel(self, runs: Mapping[str, Done], shown: int) -> Panel:
        answers = {model: run.predictions() for model, run in runs.items()}
        first = next(iter(answers.values()))
        data = build_data(next(iter(runs.values())).cell.config.data, SPLIT)
        there = len(data) if next(iter(runs.values())).cell.folds else len(first.ids)  # of folds, the first one's
        wanted = range(min(max(shown, SHOWN), there))
        images = [one_of(data[i]) for i in wanted]
        drawn, told = pictures(images, sensor_of(data, None) or _unknown(len(images[0])))
        return Panel(
            ids=first.ids[: len(drawn)],
            pictures=np.stack(drawn),
            truth=first.truth[: len(drawn)],
            predictions={model: found.prediction[: len(drawn)] for model, found in answers.items()},
            told=told,
        )


def equal_weights(weights: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    """The same weight for every map, with the sums that these have."""
    maps, total = sum(one.size for one in weights.values()), sum(float(one.sum()) for one in weights.values())
    return {stride: np.full(one.shape, total / maps) for stride, one in weights.items()}


def tiles_of(ids: Sequence[str]) -> int:
    """How many larger images the samples are tiles of, where all are (`id#row,column`); else 0.

    >>> tiles_of(["a#0,0", "a#0,128", "b#0,0"]), tiles_of(["a", "b#1"])
    (2, 0)
    """
    found = [re.fullmatch(r"(.+)#\d+,\d+", name, re.DOTALL) for name in ids]
    return len({match[1] for match in found if match}) if all(found) else 0


def _score(task: Task, name: str) -> Any:
    return lambda sums: task.scores(sums)[name]


def mean_cost(costs: Sequence[Cost]) -> Cost:
    def mean(name: str) -> Any:
        values = [getattr(cost, name) for cost in costs]
        if any(value is None for value in values):
            return None
        middle = float(np.mean(values))
        return middle if name.endswith("seconds") else round(middle)

    return Cost(**{name: mean(name) for name in Cost.__dataclass_fields__})


def _confusion(task: Task, answers: Sequence[Predictions]) -> NDArray[Any] | None:
    """Counts [truth, said] over all samples and seeds, of tasks in which each answer is one class."""
    if task.name not in ("segmentation", "classification"):
        return None
    from sklearn.metrics import confusion_matrix

    total = np.zeros((task.outputs, task.outputs), np.int64)
    for found in answers:
        valid = found.truth < task.outputs
        if task.dense:
            valid &= ~np.isin(found.truth.astype(np.int64), task.ignored)
        total += confusion_matrix(found.truth[valid], found.prediction[valid], labels=range(task.outputs))
    return total


def _unknown(bands: int) -> Sensor:
    """Of a data set that does not say its bands."""
    return Sensor("unknown", tuple(Band(f"band {number + 1}", "", 0.0, 0.0) for number in range(bands)))
