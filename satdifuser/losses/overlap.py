"""Losses of the overlap of areas, in segmentation: of each image by itself, summed over images, counted in images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from satdifuser.kinds import NotNegative, checked
from satdifuser.losses.base import Loss, Weights

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

LEAST = 1e-7


class Overlap(Loss):
    """Of an image the mean over the classes that it has, with weights their weighted mean.

    An image without a pixel that counts (or whose classes all weigh nothing) is in neither sum nor count.
    """

    learns = ("mask",)

    def summed(self, logits: Tensor, targets: Tensor) -> Tensor:
        said, true = logits.softmax(1).flatten(2), self._one_hot(targets).to(logits)
        valid = (targets >= 0).flatten(1)[:, None]
        shares = self._shares(true.sum(2)).to(logits)
        return (self.of_classes(said, true, valid) * shares).sum()

    def counted(self, targets: Tensor) -> Tensor:
        return (self._shares(self._one_hot(targets).sum(2)).sum(1) > 0).sum()

    def _one_hot(self, targets: Tensor) -> Tensor:
        """[images, classes, pixels] of 0 and 1; only 0 where nothing counts."""
        return F.one_hot(targets.flatten(1) + 1, self.outputs + 1)[..., 1:].transpose(1, 2)

    def _shares(self, pixels: Tensor) -> Tensor:
        """[images, classes]: how much of its image each class is, 1 in all, or 0 in all."""
        weights = (pixels > 0).float() * (1.0 if self.weights is None else self.weights)
        total = weights.sum(1, keepdim=True)
        return weights / torch.where(total > 0, total, 1.0)

    def of_classes(self, said: Tensor, true: Tensor, valid: Tensor) -> Tensor:
        """[images, classes], of probabilities and truth, both [images, classes, pixels]."""
        raise NotImplementedError


class Areas(Overlap):
    """1 less a share of two areas, to both of which `smooth` is added."""

    @checked("loss")
    def __init__(self, task: Task, smooth: NotNegative = 0.0, weights: Weights | None = None) -> None:
        super().__init__(task, weights)
        self.smooth = smooth

    def of_classes(self, said: Tensor, true: Tensor, valid: Tensor) -> Tensor:
        part, whole = self.areas((said * true).sum(2), (said * valid).sum(2) + true.sum(2))
        return 1 - (part + self.smooth) / (whole + self.smooth).clamp_min(LEAST)

    def areas(self, both: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """The part and the whole, from |said and true| and |said| + |true|."""
        raise NotImplementedError


class Dice(Areas):
    """1 - 2 |said and true| / (|said| + |true|), of probabilities. `smooth` is added above and below."""

    name = "dice"

    def areas(self, both: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * both, sizes


class Jaccard(Areas):
    """1 - |said and true| / |said or true|, of probabilities. `smooth` is added above and below."""

    name = "jaccard"

    def areas(self, both: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        return both, sizes - both


class Lovasz(Overlap):
    """The Lovasz-softmax loss (Berman et al. 2018), which is 1 - IoU of the classes where all answers are sure.

    The errors |true - said| of a class, from the largest on, each times what it adds to 1 - IoU if those before it
    are wrong.
    """

    name = "lovasz"

    @checked("loss")
    def __init__(self, task: Task, weights: Weights | None = None) -> None:
        super().__init__(task, weights)

    def of_classes(self, said: Tensor, true: Tensor, valid: Tensor) -> Tensor:
        errors = (true - said).abs() * valid
        order = errors.detach().masked_fill(~valid, -1).argsort(2, descending=True)  # what does not count comes last
        errors, true = errors.gather(2, order), true.gather(2, order)
        size = true.sum(2, keepdim=True)
        lost = 1 - (size - true.cumsum(2)) / (size + (1 - true).cumsum(2))
        added = torch.cat([lost[..., :1], lost.diff(dim=2)], dim=2)
        return (errors * added).sum(2)
