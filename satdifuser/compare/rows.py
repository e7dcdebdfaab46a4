"""Models and tasks of a grid, read from its settings: names, overrides, and what of the grid each is for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from satdifuser.compare.overrides import merged, product, sweep
from satdifuser.errors import UserError, nearest

log = logging.getLogger(__name__)
TASK_AXIS = ("task", "data")  # swept on the command line, these make tasks; everything else makes models
# What a task may say of a model alone: of which images its samples are, as vectors in the place of light. That samples
# and labels are those of the others, is checked when they are compared.
IMAGES = tuple(f"data.{name}" for name in ("images", "scenes", "sensor", "bands", "scaling", "nodata", "nan", "alpha"))


@dataclass(frozen=True)
class Row:
    """A model or task in one variant: its name in the configuration, and overrides; of a task, some models' own too.

    `models` of a task: patterns of the names of those that it is for; one that begins with `!` leaves models out.
    `budgets` and `seeds` of a model: those of the grid that it has; none: all of them.
    """

    name: str
    overrides: list[str]
    own: Mapping[str, list[str]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()

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


def say_left_out(models: Mapping[str, Row], whole: Mapping[str, Sequence[Any]]) -> None:
    """Name the models that have none of the grid's budgets or seeds: a grid may be asked for fewer than it has."""
    for name, model in models.items():
        for axis, there in whole.items():
            own = getattr(model, axis)
            if own and not set(own) & set(there):
                shown = (", ".join(f"{one:g}" for one in ones) for ones in (own, there))
                log.warning("%s has the %s %s, and the grid %s: it is left out", name, axis, *shown)


def of_data(key: str) -> bool:
    """Whether a setting belongs to a task: it is what all models share."""
    return key.partition(".")[0] in TASK_AXIS


def whole_number(value: Any) -> int:
    return int(str(value))  # 0.5 is none


def strings(name: str, values: Any) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values or ()):
        raise UserError(f"{name} must be a list of overrides, as [encoder=small, fusion=gw]")
    return list(values or ())


def numbers(name: str, values: Any, kind: Any) -> list[Any]:
    """One or more different numbers."""
    try:
        found = [kind(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{name} is {values!r}: give numbers, as {name}=[1,2]") from None
    if not found or len(set(found)) != len(found):
        raise UserError(f"{name} is {found}: give one or more different ones")
    return found


def named(configured: Any, swept: Mapping[str, list[str]], what: str) -> dict[str, Row]:
    """The configured models or tasks, each in every variant that its own sweeps and those passed make of it."""
    rows: dict[str, Row] = {}
    there = {name: values for name, values in (configured or {}).items() if values is not None}
    for name, values in there.items():
        whole, own, models = _of_task(name, values) if what == "task" else (values, {}, ())
        budgets: tuple[float, ...] = ()
        seeds: tuple[int, ...] = ()
        if what == "model" and isinstance(values, Mapping):
            whole, budgets, seeds = _of_model(name, values)
        parts = [sweep(override) for override in strings(f"{what}s.{name}", whole)]
        if what == "model":
            wrong = next((key for key, _ in parts if of_data(key)), None)
            if wrong is not None:
                raise UserError(f"models.{name} sets {wrong}: models are compared on the same data, so it is for tasks")
        row = Row(name, [choices[0] for _, choices in parts if len(choices) == 1], own, models, budgets, seeds)
        variants = product({key: choices for key, choices in parts if len(choices) > 1})
        for label, chosen in (variants or {"": []}).items():
            rows[f"{name} {label}".strip()] = row.but(chosen)
    if not swept:
        return rows
    return {
        f"{name} {label}".strip(): row.but(chosen)
        for name, row in (rows or {"": Row("", [])}).items()
        for label, chosen in swept.items()
    }


def _of_model(model: str, values: Mapping[Any, Any]) -> tuple[Any, tuple[float, ...], tuple[int, ...]]:
    """A model's overrides, and the budgets and seeds of the grid that it has, where it is too dear for all of them."""
    unknown = next((key for key in values if key not in ("all", "budgets", "seeds")), None)
    if unknown is not None:
        raise UserError(f"models.{model} has {unknown}: as a mapping it has all (its overrides), budgets and seeds")
    budgets, seeds = (
        tuple(numbers(f"models.{model}.{name}", values[name], kind)) if values.get(name) is not None else ()
        for name, kind in (("budgets", float), ("seeds", whole_number))
    )
    return values.get("all", []), budgets, seeds


def _of_task(task: str, values: Any) -> tuple[Any, dict[str, list[str]], tuple[str, ...]]:
    """A task's overrides for all models, those of some, and the models that it is for.

    That is a list, or a mapping of `all`, `models` (patterns of names) and names of models; its `scene` is for the
    report alone, and its `folds` for `folds.py`.
    """
    if not isinstance(values, Mapping):
        return values, {}, ()
    own = {
        str(model): strings(f"tasks.{task}.{model}", given)
        for model, given in values.items()
        if model not in ("all", "models", "scene", "folds")
    }
    return values.get("all", []), own, tuple(strings(f"tasks.{task}.models", values.get("models")))


def goes_by(model: str, name: str) -> bool:
    """Whether a model has that name, or one that begins with its words; a name with a star is a pattern.

    >>> goes_by("DiffusionSat gw", "DiffusionSat"), goes_by("DiffusionSat", "Diff"), goes_by("DiffusionSat", "Diff*")
    (True, False, True)
    """
    return fnmatchcase(model, name) if "*" in name else f"{model} ".startswith(f"{name} ")


def check_own(tasks: Iterable[Row], models: Sequence[str]) -> None:
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
                if of_data(key) and key not in IMAGES:
                    raise UserError(f"{where} sets {key}: what all models share is for tasks.{task.name}.all")
                if len(choices) > 1:
                    raise UserError(f"{where} has {len(choices)} choices of {key}: a sweep is for models.{model}")
