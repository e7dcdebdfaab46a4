"""The chance in a step of pretraining: a function of (seed, step), the same for any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Random numbers for the images of a step, of which this process has every `world`-th.

    All numbers of the step are drawn, and this process's are kept: a run with two processes sees what one alone sees.
    """

    def __init__(
        self, seed: int, step: int, total: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.generator = torch.Generator(device=device).manual_seed(seed * 1_000_003 + step)
        self.total, self.mine, self.device = total, slice(rank, None, world), torch.device(device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers of a shape, for each image."""
        return torch.randn((self.total, *shape), generator=self.generator, device=self.device)[self.mine]

    def integers(self, below: int) -> Tensor:
        """A whole number for each image, each as likely as any other."""
        return torch.randint(below, (self.total,), generator=self.generator, device=self.device)[self.mine]

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand((self.total, *shape), generator=self.generator, device=self.device)[self.mine]

    def levels(self, below: int, power: float = 1.0) -> Tensor:
        """Whole numbers that together cover the range evenly: one in each of as many equal parts as there are images.

        Each is uniform for itself, and their mean loss varies less than that of independent draws. With a `power` they
        are `below * u**power` of such a uniform u: of 2, half of them lie in the lowest quarter.
        """
        places = torch.randperm(self.total, generator=self.generator, device=self.device)
        within = torch.rand(self.total, generator=self.generator, device=self.device)
        even = (places + within) * (below / self.total)
        drawn = even if power == 1 else below * (even / below) ** power
        return drawn.long().clamp(max=below - 1)[self.mine]


def any_side_up(images: Tensor, draws: Draws) -> Tensor:
    """Each image in one of the eight ways in which a square can lie: from above no side is up."""
    ways = draws.integers(8).view(-1, 1, 1, 1)
    images = torch.where(ways % 2 == 1, torch.rot90(images, 1, (2, 3)), images)
    images = torch.where(ways % 4 >= 2, torch.rot90(images, 2, (2, 3)), images)
    return torch.where(ways >= 4, images.flip(3), images)
