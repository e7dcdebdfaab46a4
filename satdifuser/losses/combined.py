"""Several losses at once, each with a factor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.data.base import Batch
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Positive, Word, check, checked, hints_of
from satdifuser.losses.base import Loss
from satdifuser.losses.elements import CrossEntropy, Focal
from satdifuser.losses.overlap import Dice, Jaccard, Lovasz

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

NAMED: dict[str, type[Loss]] = {kind.name: kind for kind in (CrossEntropy, Dice, Jaccard, Focal, Lovasz)}
Parts = Annotated[
    list[dict[str, Any]], Len(1), Word("a list of {name: dice, factor: 1}, each with the settings that its loss has")
]
USUAL = ({"name": "cross_entropy", "factor": 1.0}, {"name": "dice", "factor": 1.0})


class Combined(Loss):
    """The sum of its parts' means, each times its factor: as many sums and counts as there are parts."""

    name = "combined"

    @checked("loss")
    def __init__(self, task: Task, parts: Parts = list(USUAL)) -> None:  # noqa: B006 (it is not changed)
        super().__init__(task)
        made = [_part(values, place, task) for place, values in enumerate(parts)]
        self.factors, self.each = [factor for factor, _ in made], nn.ModuleList(loss for _, loss in made)

    @property
    def parts(self) -> int:  # type: ignore[override]
        return len(self.factors)

    def learn(self, batches: Iterable[Batch]) -> None:
        learners = [loss for loss in self.each if getattr(loss, "weights", None) is not None]
        seen = list(batches) if len(learners) > 1 else batches
        for loss in learners:
            loss.learn(seen)  # type: ignore[operator]

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        return torch.stack([f * loss.loss_sum(logits, batch) for f, loss in zip(self.factors, self.each, strict=True)])  # type: ignore[operator]

    def count(self, batch: Batch) -> Tensor:
        return torch.stack([loss.count(batch).float() for loss in self.each])  # type: ignore[operator]


def _part(values: Mapping[str, Any], place: int, task: Task) -> tuple[float, Loss]:
    """The factor and the loss of one part."""
    where, settings = f"loss.parts.{place}", dict(values)
    name = settings.pop("name", None)
    if name not in NAMED:
        close = nearest(str(name), NAMED)
        raise UserError(f"{where}.name is {name!r}: it can be {', '.join(NAMED)}{close}")
    factor = float(check(settings.pop("factor", 1.0), Positive, f"{where}.factor"))
    hints = {key: hint for key, hint in hints_of(NAMED[name]).items() if key != "task"}
    for key, value in settings.items():
        if key not in hints:
            raise UserError(f"{where}: {name} has no setting {key}: it has factor, {', '.join(hints)}")
        settings[key] = check(value, hints[key], f"{where}.{key}")
    return factor, NAMED[name](task, **settings)
