"""Two views of an image should give one vector: the part of VICReg (Bardes et al. 2022) that pretraining can add."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.pretrain.draws import Draws, any_side_up

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # as published
LEVELS = 300  # the second view has this noise at most, and mostly far less


class Views(nn.Module):
    """Three layers on the mean of a map, which are thrown away, and the loss of two views' vectors.

    A view is a square part of the image of at least `smallest` of its area, in any of the eight positions, lighter or
    darker and of a little more or less contrast. The loss is of all images that go through the network at once (of a
    process, and of a micro-batch): the vectors of two views of an image are alike, each number varies over the images,
    and no two numbers say the same.
    """

    def __init__(self, channels: int, *, width: int = 1024, out: int = 512, smallest: float = 0.35) -> None:
        super().__init__()
        self.smallest = smallest
        self.head = nn.Sequential(
            *(nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()),
            nn.Linear(width, out, bias=False),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        one, other = (self.head(found.float().mean((2, 3))).float() for found in (first, second))
        return vicreg(one, other)

    def cut(self, images: Tensor, draws: Draws) -> Tensor:
        """Another view of each image, of the same size."""
        images = any_side_up(images, draws)
        count = len(images)
        side = (self.smallest + (1 - self.smallest) * draws.uniform((1,))[:, 0]).sqrt()
        places = (2 * draws.uniform((2,)) - 1) * (1 - side)[:, None]
        part = torch.zeros(count, 2, 3, device=images.device)
        part[:, 0, 0] = part[:, 1, 1] = side
        part[:, :, 2] = places
        grid = F.affine_grid(part, list(images.shape), align_corners=False)
        found = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
        light, contrast = (0.15 * draws.normal((1, 1, 1)) for _ in range(2))
        mean = found.mean((2, 3), keepdim=True)
        return (found - mean) * (1 + contrast) + mean + light + 0.05 * draws.normal((images.shape[1], 1, 1))

    def levels(self, draws: Draws) -> Tensor:
        """A level of noise for each second view: little, so that something is left to agree on."""
        return (LEVELS * draws.uniform((1,))[:, 0].square()).long()


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """Invariance, variance and covariance of two batches of vectors `[batch, numbers]`."""
    loss = INVARIANCE * F.mse_loss(one, other)
    for found in (one, other):
        loss = loss + VARIANCE / 2 * F.relu(1 - (found.var(0) + 1e-4).sqrt()).mean()
        centred = found - found.mean(0)
        covariance = centred.T @ centred / (len(found) - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + COVARIANCE * off / found.shape[1]
    return loss
