"""k nearest neighbours: the training samples themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from satdifuser.decoders.fitted.base import Fit, Fitted, Rows
from satdifuser.errors import UserError
from satdifuser.fusion.base import PyramidSpec
from satdifuser.kinds import Count, checked

if TYPE_CHECKING:
    from satdifuser.analysis.neighbours import Neighbours
    from satdifuser.tasks.base import Task

LEAST = 1e-6  # the share of a class that no neighbour has, in logits


class KNN(Fitted):
    """The k nearest training samples by the cosine of, or the distance between, features as they are.

    Its logits are such that the probabilities are the shares of the k that have a class (the first of equals is said)
    or a label (said if more than half have it); a number is their mean. `samples` and `answers` are all that it learns.
    """

    name, tasks = "knn", ("classification", "multilabel", "regression")
    samples: Tensor
    answers: Tensor

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        k: Count = 5,
        distance: Literal["cosine", "euclidean"] = "cosine",
    ) -> None:
        super().__init__(pyramid, outputs, dense)
        self.k, self.distance = k, distance
        self.register_buffer("samples", torch.zeros(0, self.features))
        self.register_buffer("answers", torch.zeros(0))
        self._near: Neighbours | None = None

    def check_samples(self, training: int) -> None:
        if self.k > training:
            raise UserError(
                f"decoder.k is {self.k}, and there are {training} training samples: ask for fewer neighbours"
            )

    def fitted(self, train: Rows, val: Rows, task: Task) -> Fit:
        device = self.samples.device
        self.samples = torch.from_numpy(train.features).to(device)
        self.answers = torch.from_numpy(np.ascontiguousarray(train.truth)).to(device)
        self._near = None
        return Fit({})

    def answer(self, rows: Tensor) -> Tensor:
        features = rows.detach().cpu().numpy()
        if not self.answers.is_floating_point():
            found = np.log(self._neighbours().shares(features).clip(LEAST))
        elif self.answers.ndim > 1:
            shares = self._neighbours().shares(features).clip(LEAST, 1 - LEAST)
            found = np.log(shares) - np.log(1 - shares)
        else:
            found = self._neighbours().mean(features)
        return torch.from_numpy(found).to(rows)

    def _neighbours(self) -> Neighbours:
        from satdifuser.analysis.neighbours import Neighbours

        if self._near is None:
            samples, answers = self.samples.cpu().numpy(), self.answers.cpu().numpy()
            device = str(self.samples.device)
            self._near = Neighbours(samples, answers, self.outputs, self.k, self.distance, device)
        return self._near

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._near = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As many samples as there are, where a module has room for no other number of them."""
        for name in ("samples", "answers"):
            if f"{prefix}{name}" in state_dict:
                device = getattr(self, name).device
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=device))
        self._near = None
        super()._load_from_state_dict(state_dict, prefix, *args)
