"""The grid: models x tasks x label budgets x seeds, each a full configuration of `satdifuser train`."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from satdifuser.compare.overrides import key_of, merged, product, short, sweep
from satdifuser.config import composed, settings_of, trusted_by
from satdifuser.data.splits.budgets import check_percent
from satdifuser.engine.run import PASSING
from satdifuser.errors import UserError, nearest
from satdifuser.pooling import is_pooling
from satdifuser.settings.commands import CompareSettings, TrainSettings
from satdifuser.settings.part import DataPart
from satdifuser.settings.trust import trusting

SPLITS = ("train", "val", "test")  # that every run reads
TASK_AXIS = ("task", "data")  # swept on the command line, these make tasks; everything else makes models
WEIGHTS_BY_NAME = ("small", "random", "none", "pretrained")  # no files, whatever lies in the current folder
# What a task may say of a model alone: of which images its samples are, as vectors in the place of light. That samples
# and labels are those of the others, is checked when they are compared.
IMAGES = tuple(f"data.{name}" for name in ("images", "scenes", "sensor", "bands", "scaling", "nodata", "nan", "alpha"))
GRID = {"budget": "budgets", "seed": "seeds", "run": "output", "features": "share_features"}  # whose place is the grid
MODEL_AXIS = ("encoder", "adapter", "temporal", "fusion", "decoder")


@dataclass(frozen=True)
class Row:
    """A model or task in one variant: its name in the configuration, and overrides; of a task, some models' own too.

    `models` of a task: patterns of the names of those that it is for; one that begins with `!` leaves models out.
    """

    name: str
    overrides: list[str]
    own: Mapping[str, list[str]] = field(default_factory=dict)
    models: tuple[str, ...] = ()

    def takes(self, model: str) -> bool:
        """Whether a task is for the model of that name in the configuration.

        >>> [Row("", [], models=("net-*", "!*-large")).takes(name) for name in ("net-small", "net-large", "other")]
        [True, False, False]
        """
        wanted = [pattern for pattern in self.models if not pattern.startswith("!")] or ["*"]
        left_out = [pattern[1:] for pattern in self.models if pattern.startswith("!")]
        found = any(fnmatchcase(model, pattern) for pattern in wanted)
        return found and not any(fnmatchcase(model, pattern) for pattern in left_out)

    def but(self, more: Sequence[str]) -> Row:
        return replace(self, overrides=merged(self.overrides, more))


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
        return dict(with_digests(values))


def expand(config: CompareSettings, passed: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> list[Cell]:
    """Every run of the grid that `config` and the overrides passed on to `satdifuser train` describe, in its order."""
    axes = _Axes(passed)
    models = _named(config.models, axes.models, "model")
    tasks = _named(config.tasks, axes.tasks, "task")
    models = models or {axes.name_by(MODEL_AXIS, "model"): Row("", [])}
    tasks = tasks or {axes.name_by(TASK_AXIS, "task"): Row("", [])}
    _check_own(tasks.values(), [*models, *(config.models or {})])
    budgets = axes.budgets or _numbers("budgets", config.budgets, float)
    seeds = axes.seeds or _numbers("seeds", config.seeds, _whole)
    for percent in budgets:
        check_percent(percent)
    recipe = [*_as_stored(config.store.keep), *_strings("recipe", config.recipe)]
    cells: list[Cell] = []
    with trusting(trusted_by(config_dirs, passed)):
        for (task, of_task), (model, of_model) in itertools.product(tasks.items(), models.items()):
            if not of_task.takes(of_model.name):
                continue
            own = [given for name, given in of_task.own.items() if goes_by(model, name)]
            overrides = merged(recipe, of_task.overrides, of_model.overrides, *own, axes.common)
            cells += _cells(model, task, overrides, config_dirs, budgets, seeds)
    if not cells:
        raise UserError("no task is for any of the models: tasks.TASK.models says of which each is")
    return cells


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
    """The settings of a data set that say where it lies and not what it is."""
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
                self.budgets = _numbers(key, values, float)
            elif key == "seed":
                self.seeds = _numbers(key, values, _whole)
            elif len(choices) > 1:
                swept[key] = choices
            else:
                fixed += choices
        self.common = fixed
        self.tasks = product({k: v for k, v in swept.items() if _of_data(k)})
        self.models = product({k: v for k, v in swept.items() if not _of_data(k)})

    def name_by(self, axis: Sequence[str], otherwise: str) -> str:
        """What to call the only one of an axis: by the choices that were made for all."""
        return " ".join(short(override) for override in self.common if override.partition("=")[0] in axis) or otherwise


def _of_data(key: str) -> bool:
    """Whether a setting belongs to a task: it is what all models share."""
    return key.partition(".")[0] in TASK_AXIS


def _whole(value: Any) -> int:
    return int(str(value))  # 0.5 is none


def _strings(name: str, values: Any) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values or ()):
        raise UserError(f"{name} must be a list of overrides, as [encoder=small, fusion=gw]")
    return list(values or ())


def _numbers(name: str, values: Any, kind: Any) -> list[Any]:
    """One or more different numbers."""
    try:
        numbers = [kind(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{name} is {values!r}: give numbers, as {name}=[1,2]") from None
    if not numbers or len(set(numbers)) != len(numbers):
        raise UserError(f"{name} is {numbers}: give one or more different ones")
    return numbers


def _named(configured: Any, swept: Mapping[str, list[str]], what: str) -> dict[str, Row]:
    """The configured models or tasks, each in every variant that its own sweeps and those passed make of it."""
    named: dict[str, Row] = {}
    there = {name: values for name, values in (configured or {}).items() if values is not None}
    for name, values in there.items():
        whole, own, models = _of_task(name, values) if what == "task" else (values, {}, ())
        parts = [sweep(override) for override in _strings(f"{what}s.{name}", whole)]
        if what == "model":
            wrong = next((key for key, _ in parts if _of_data(key)), None)
            if wrong is not None:
                raise UserError(f"models.{name} sets {wrong}: models are compared on the same data, so it is for tasks")
        row = Row(name, [choices[0] for _, choices in parts if len(choices) == 1], own, models)
        variants = product({key: choices for key, choices in parts if len(choices) > 1})
        for label, chosen in (variants or {"": []}).items():
            named[f"{name} {label}".strip()] = row.but(chosen)
    if not swept:
        return named
    return {
        f"{name} {label}".strip(): row.but(chosen)
        for name, row in (named or {"": Row("", [])}).items()
        for label, chosen in swept.items()
    }


def _of_task(task: str, values: Any) -> tuple[Any, dict[str, list[str]], tuple[str, ...]]:
    """A task's overrides for all models, those of some, and the models that it is for.

    That is a list, or a mapping of `all`, `models` (patterns of names) and names of models; its `scene` is for the
    report alone, and its `folds` for `folds.py`.
    """
    if not isinstance(values, Mapping):
        return values, {}, ()
    own = {
        str(model): _strings(f"tasks.{task}.{model}", given)
        for model, given in values.items()
        if model not in ("all", "models", "scene", "folds")
    }
    return values.get("all", []), own, tuple(_strings(f"tasks.{task}.models", values.get("models")))


def goes_by(model: str, name: str) -> bool:
    """Whether a model has that name, or one that begins with its words; a name with a star is a pattern.

    >>> goes_by("DiffusionSat gw", "DiffusionSat"), goes_by("DiffusionSat", "Diff"), goes_by("DiffusionSat", "Diff*")
    (True, False, True)
    """
    return fnmatchcase(model, name) if "*" in name else f"{model} ".startswith(f"{name} ")


def _check_own(tasks: Iterable[Row], models: Sequence[str]) -> None:
    """What a task says of a model alone must be of one that there is, and choose nothing that belongs to the task."""
    for task in tasks:
        for name in (pattern.removeprefix("!") for pattern in task.models):
            if "*" not in name and name not in models:
                raise UserError(f"tasks.{task.name}.models names {name}: no such model{nearest(name, models)}")
        for model, overrides in task.own.items():
            where = f"tasks.{task.name}.{model}"
            if "*" not in model and not any(goes_by(there, model) for there in models):
                raise UserError(f"{where}: no such model{nearest(model, models)}")
            for key, choices in map(sweep, overrides):
                if _of_data(key) and key not in IMAGES:
                    raise UserError(f"{where} sets {key}: what all models share is for tasks.{task.name}.all")
                if len(choices) > 1:
                    raise UserError(f"{where} has {len(choices)} choices of {key}: a sweep is for models.{model}")


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
    return isinstance(value, str) and value not in WEIGHTS_BY_NAME and Path(value).exists()


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
