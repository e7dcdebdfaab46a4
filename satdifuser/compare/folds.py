"""Folds of a task: `folds: 5` of a task in a grid trains each model once a fold, and what is tested is one test set.

Each run of the grid becomes as many, of `data.split_by.fold=0, 1, ...`. When all of them are done, their answers are
put one after the other, and from there on they are one run: scores, intervals and tests are of all test samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.compare.grid import Cell
from satdifuser.compare.results import Done, mean_cost
from satdifuser.compare.rows import goes_by
from satdifuser.engine.predictions import Predictions
from satdifuser.errors import UserError
from satdifuser.settings.commands import CompareSettings
from satdifuser.settings.part import Part

FEWEST = 2
FOLD = "{fold}"


def folded(cells: Sequence[Cell], config: CompareSettings) -> list[Cell]:
    """The same runs, those of a task with folds once for each."""
    found: list[Cell] = []
    for cell in cells:
        count = folds_of(config, cell.task)
        found += [cell] if count is None else [_of_fold(cell, fold, count) for fold in range(count)]
    return found


def folds_of(config: CompareSettings, task: str) -> int | None:
    """How many folds a task, in whatever variant, says that it has."""
    for name, values in (config.tasks or {}).items():
        if goes_by(task, name) and isinstance(values, Mapping) and values.get("folds") is not None:
            count = values["folds"]
            if not isinstance(count, int) or isinstance(count, bool) or count < FEWEST:
                raise UserError(f"tasks.{name}.folds is {count!r}: it must be a whole number of {FEWEST} or more")
            return count
    return None


def _of_fold(cell: Cell, fold: int, count: int) -> Cell:
    data = cell.config.data
    rule = data.get("split_by")
    if not isinstance(rule, Mapping) or rule.get("by") != "folds":
        raise UserError(
            f"tasks.{cell.task}.folds is {count}, but its data is not split in folds: give data.split_by={{by: folds}}"
            " with how its groups are told, as metres: 20000"
        )
    if rule.get("of", count) != count:  # all, too: of more groups than `count` some would never be tested
        raise UserError(
            f"tasks.{cell.task}.folds is {count}, and data.split_by.of is {rule['of']}: leave the latter out"
        )
    data = data.but(split_by={"of": count, **rule, "fold": fold})
    config = cell.config.but(data=data, encoder=_weights_of_fold(cell.config.encoder, fold))
    return replace(cell, config=config, fold=fold, folds=count)


def _weights_of_fold(encoder: Part, fold: int) -> Part:
    """`{fold}` in a backbone's weights is the fold's number: a model pretrained without what the fold tests."""
    backbone = encoder.get("backbone")
    weights = backbone.get("weights") if isinstance(backbone, Part) else None
    if not isinstance(weights, str) or FOLD not in weights:
        return encoder
    return encoder.but(backbone=backbone.but(weights=weights.replace(FOLD, str(fold))).plain())


@dataclass(frozen=True)
class Pooled(Done):
    """The runs of all folds of a model, budget and seed as one."""

    runs: tuple[Done, ...] = ()

    @property
    def parts(self) -> Sequence[Done]:
        return self.runs

    @cached_property
    def result(self) -> dict[str, Any]:
        """As of the first fold, with the means over the folds of training samples and learned weights."""
        first, every = self.runs[0].result, [run.result for run in self.runs]
        weights = {
            stride: {**part, "weights": np.mean([one["weights"][stride]["weights"] for one in every], axis=0)}
            for stride, part in first["weights"].items()
        }
        samples = round(float(np.mean([one["training_samples"] for one in every])))
        return {**first, "weights": weights, "training_samples": samples}

    def predictions(self) -> Predictions:
        """Of all folds, one after the other."""
        parts = [run.predictions() for run in self.runs]
        ids = tuple(name for part in parts for name in part.ids)
        if len(set(ids)) != len(ids):
            raise UserError(f"{self.cell}: a sample is tested in more than one of its {len(parts)} folds")
        logits = [part.logits for part in parts if part.logits is not None]
        return Predictions(
            ids,
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.truth for part in parts]),
            np.concatenate(logits) if len(logits) == len(parts) else None,
        )

    def insight(self) -> dict[str, dict[int, NDArray[Any]]]:
        """The usage of experts is a mean over the folds; weights of pixels are of the first fold's samples."""
        seen = [run.insight() for run in self.runs]
        usage = {stride: np.mean([one["usage"][stride] for one in seen], axis=0) for stride in seen[0]["usage"]}
        return {**seen[0], "usage": usage}

    def cost(self) -> Any:
        return mean_cost([run.cost() for run in self.runs])


def pooled(done: Sequence[Done], cells: Sequence[Cell]) -> tuple[list[Done], list[str]]:
    """The finished runs of `cells` with folds put together, and a line for each that lacks some of its folds."""
    there = {_place(run.cell): run for run in done}
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_place(replace(cell, fold=None)), []).append(cell)
    found, partial = list[Done](), list[str]()
    for group in groups.values():
        runs = [there[_place(cell)] for cell in group if _place(cell) in there]
        if len(runs) < len(group):
            lost = [str(cell.fold) for cell in group if _place(cell) not in there]
            whole = replace(group[0], fold=None)
            partial += [f"{whole}: of its {len(group)} folds {' and '.join(lost)} lack a result"] if runs else []
        elif group[0].fold is None:
            found += runs
        else:
            first = runs[0]
            cell = replace(first.cell, fold=None)
            found.append(Pooled(cell, first.folder, first.extraction, first.encoder_parameters, tuple(runs)))
    return found, partial


def _place(cell: Cell) -> tuple[Any, ...]:
    return cell.task, cell.model, cell.budget, cell.seed, cell.fold
