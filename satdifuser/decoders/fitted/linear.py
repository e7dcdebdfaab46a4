"""Linear classifiers and regression at their optimum, for a strength of the penalty that validation chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.decoders.fitted.base import Fit, Fitted, Rows, score
from satdifuser.fusion.base import PyramidSpec
from satdifuser.kinds import Count, Positive, checked

if TYPE_CHECKING:
    from satdifuser.analysis.linear import Linear
    from satdifuser.tasks.base import Task

Strengths = Count | Annotated[list[Positive], Len(1)]
Solver = Literal["torch", "sklearn"]


# Of the means of many maps side by side weaker penalties are never best, and take minutes.
UP_TO_TEN = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


class FittedLinear(Fitted):
    """Weight and bias in float64, of features as they are; `strengths` are scikit-learn's C, the weight of the losses.

    Of strengths that score alike on validation the smallest is taken, which has the strongest penalty.
    """

    def __init__(
        self, pyramid: PyramidSpec, outputs: int, dense: bool, strengths: Strengths, refit: bool, solver: Solver
    ) -> None:
        super().__init__(pyramid, outputs, dense)
        self.strengths, self.refit, self.solver = strengths, refit, solver
        self.weight = nn.Parameter(torch.zeros(outputs, self.features, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64), requires_grad=False)

    def answer(self, rows: Tensor) -> Tensor:
        return (rows.double() @ self.weight.T + self.bias).float()

    def fitted(self, train: Rows, val: Rows, task: Task) -> Fit:
        from satdifuser.analysis.strengths import strengths_of

        strengths = sorted(strengths_of(self.strengths))
        found = self.lines(train, strengths)
        scores = [score(task, torch.from_numpy(line.logits(val.features)), val.truth) for line in found]
        best = int(np.argmax(scores))
        learned = train
        if self.refit:
            learned = train + val
            (line,) = self.lines(learned, strengths[best : best + 1])
        else:
            line = found[best]
        self.weight.copy_(torch.from_numpy(line.weight))
        self.bias.copy_(torch.from_numpy(line.bias))
        deviation = torch.from_numpy(learned.features.std(0, dtype=np.float64))
        return Fit({"strength": strengths[best]}, (self.weight.cpu() * deviation).square().sum(0))

    def lines(self, rows: Rows, strengths: Sequence[float]) -> list[Linear]:
        """A fit for each strength."""
        raise NotImplementedError

    @property
    def device(self) -> str:
        return "cpu" if self.solver == "sklearn" else str(self.weight.device)


class Logistic(FittedLinear):
    """Logistic regression on standardised features: multinomial of classes, one for each label of several."""

    name, tasks = "logistic", ("classification", "multilabel")

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        strengths: Strengths = UP_TO_TEN,
        refit: bool = False,
        solver: Solver = "torch",
    ) -> None:
        super().__init__(pyramid, outputs, dense, strengths, refit, solver)

    def lines(self, rows: Rows, strengths: Sequence[float]) -> list[Linear]:
        from satdifuser.analysis.logistic import logistic

        how = {"outputs": self.outputs, "device": self.device, "solver": self.solver}
        return logistic(rows.features, rows.truth, strengths, **how)  # type: ignore[arg-type]


class Ridge(FittedLinear):
    """Ridge regression on standardised features; its penalty is 1 / strength."""

    name, tasks = "ridge", ("regression",)

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        strengths: Strengths = 40,
        refit: bool = False,
        solver: Solver = "torch",
    ) -> None:
        super().__init__(pyramid, outputs, dense, strengths, refit, solver)

    def lines(self, rows: Rows, strengths: Sequence[float]) -> list[Linear]:
        from satdifuser.analysis.ridge import ridge

        return ridge(rows.features, rows.truth, strengths, device=self.device, solver=self.solver)
