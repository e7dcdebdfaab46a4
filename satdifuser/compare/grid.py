"""The grid: models x tasks x label budgets x seeds, each a full configuration of `satdifuser train`."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from satdifuser.compare.overrides import key_of, merged, product, short, sweep
from satdifuser.compare.rows import (
    TASK_AXIS,
    Row,
    check_own,
    goes_by,
    named,
    numbers,
    of_data,
    say_left_out,
    strings,
    whole_number,
)
from satdifuser.config import composed, settings_of, trusted_by
from satdifuser.data.splits.budgets import check_percent
from satdifuser.engine.run import PASSING
from satdifuser.errors import UserError
from satdifuser.pooling import is_pooling
from satdifuser.settings.commands import CompareSettings, TrainSettings
from satdifuser.settings.part import DataPart, Part
from satdifuser.settings.trust import trusting
from satdifuser.shipped import NO_FILES, file_of

SPLITS = ("train", "val", "test")  # that every run reads
GRID = {"budget": "budgets", "seed": "seeds", "run": "output", "features": "share_features"}  # whose place is the grid
MODEL_AXIS = ("encoder", "adapter", "temporal", "fusion", "decoder")


@dataclass(frozen=True)
class Cell:
    """One run of the grid: its place, and the resolved configuration that it is."""

    model: str
    task: str
    budget: float
    seed: int
    config: TrainSettings
    fold: int | None = None
    folds: int = 0

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold} of {self.folds}"
        return f"{self.model}, {self.task}, {self.budget:g} % of the labels, seed {self.seed}{fold}"

    def settings(self) -> dict[str, Any]:
        """What its result depends on, as plain values; but not the run that it begins with, which has a key itself."""
        return self._settings

    @cached_property
    def _settings(self) -> dict[str, Any]:
        values = self.config.plain()
        for name in (*PASSING, "init", *_places(self.config.data)):
            *path, last = name.split(".")
            node = values
            for step in path:
                node = node.get(step, {})
            node.pop(last, None)
        # runs of before there were series, chosen losses, depths and taps inside of blocks keep their keys
        for name, node in (
            ("temporal", values),
            ("loss", values),
            ("depths", values["select"]),
            ("modules", values["encoder"]),
        ):
            if node.get(name, ...) is None:
                del node[name]
        backbone = self.config.encoder.get("backbone")
        if isinstance(backbone, Part) and (file := file_of(backbone.target, backbone.get("weights"))):
            values["encoder"]["backbone"]["weights"] = file_digest(str(file))  # another version may ship others
        return dict(with_digests(values))


def expand(config: CompareSettings, passed: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> list[Cell]:
    """Every run of the grid that `config` and the overrides passed on to `satdifuser train` describe, in its order."""
    axes = _Axes(passed)
    models = named(config.models, axes.models, "model")
    tasks = named(config.tasks, axes.tasks, "task")
    models = models or {axes.name_by(MODEL_AXIS, "model"): Row("", [])}
    tasks = tasks or {axes.name_by(TASK_AXIS, "task"): Row("", [])}
    check_own(tasks.values(), [*models, *(config.models or {})])
    budgets = axes.budgets or numbers("budgets", config.budgets, float)
    seeds = axes.seeds or numbers("seeds", config.seeds, whole_number)
    say_left_out(models, {"budgets": budgets, "seeds": seeds})
    for percent in budgets:
        check_percent(percent)
    recipe = [*_as_stored(config.store.keep), *strings("recipe", config.recipe)]
    cells: list[Cell] = []
    with trusting(trusted_by(config_dirs, passed)):
        for (task, of_task), (model, of_model) in itertools.product(tasks.items(), models.items()):
            if not of_task.takes(of_model.name):
                continue
            own = [given for name, given in of_task.own.items() if goes_by(model, name)]
            overrides = merged(recipe, of_task.overrides, of_model.overrides, *own, axes.common)
            some = _some(budgets, of_model.budgets), _some(seeds, of_model.seeds)
            cells += _cells(model, task, overrides, config_dirs, *some)
    if not cells:
        raise UserError("no task is for any of the models: tasks.TASK.models says of which each is")
    return cells


def _some(whole: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Those of the grid's budgets or seeds that a model has; a grid may be called with fewer than it has."""
    return [one for one in whole if not wanted or one in wanted]


def _cells(
    model: str,
    task: str,
    overrides: Sequence[str],
    config_dirs: Sequence[str],
    budgets: Sequence[float],
    seeds: Sequence[int],
) -> list[Cell]:
    """The runs of a model on a task."""
    for key in map(key_of, overrides):
        if key in GRID:
            raise UserError(f"{model}, {task}: {key} is set, but the grid says it: give {GRID[key]}=... instead")
    try:
        base = composed("train", overrides, config_dirs, resolve=False)
        return [_cell(model, task, budget, seed, base) for budget in budgets for seed in seeds]
    except UserError as error:
        raise UserError(f"{model}, {task}: {error}") from None


def _as_stored(keep: str) -> list[str]:
    """Live features are pooled as stored ones are, so that all heads get the same, unless a model says otherwise."""
    return [f"pool={keep}"] if is_pooling(keep) else []


def _places(data: DataPart) -> list[str]:
    """The settings of a data set that say where it lies, or what is checked of it, and not what it is."""
    parts = ["data", *(f"data.splits.{split}" for split in data.splits)]
    return [f"{part}.{name}" for part in parts for name in getattr(data.target, "places", ())]


def _cell(model: str, task: str, budget: float, seed: int, base: Any) -> Cell:
    config = base.copy()
    config.budget, config.seed = budget, seed
    return Cell(model, task, budget, seed, settings_of("train", config))


class _Axes:
    """Overrides of the command line by what they vary: models, tasks, budgets, seeds, or nothing."""

    def __init__(self, passed: Sequence[str]) -> None:
        self.budgets: list[float] = []
        self.seeds: list[int] = []
        fixed: list[str] = []
        swept: dict[str, list[str]] = {}
        for override in passed:
            key, choices = sweep(override)
            values = [choice.partition("=")[2] for choice in choices]
            if key == "budget":
                self.budgets = numbers(key, values, float)
            elif key == "seed":
                self.seeds = numbers(key, values, whole_number)
            elif len(choices) > 1:
                swept[key] = choices
            else:
                fixed += choices
        self.common = fixed
        self.tasks = product({k: v for k, v in swept.items() if of_data(k)})
        self.models = product({k: v for k, v in swept.items() if not of_data(k)})

    def name_by(self, axis: Sequence[str], otherwise: str) -> str:
        """What to call the only one of an axis: by the choices that were made for all."""
        return " ".join(short(override) for override in self.common if override.partition("=")[0] in axis) or otherwise


def digest(values: Any, length: int = 16) -> str:
    """A short name for plain values: the same for equal ones, on every machine."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def with_digests(values: Any) -> Any:
    """Settings with what is in a file of weights in place of its name: another file of that name is another model."""
    if isinstance(values, list):
        return [with_digests(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {
        key: file_digest(value) if key == "weights" and _is_path(value) else with_digests(value)
        for key, value in values.items()
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value not in NO_FILES and Path(value).exists()


@lru_cache(maxsize=64)
def file_digest(path: str) -> str:
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(str(file.relative_to(root)).encode())
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
