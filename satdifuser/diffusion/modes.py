"""Three ways to the noisy latents whose features are read: closed-form noise, DDIM inversion, and generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from satdifuser.diffusion.network import Maps, TappedUNet
from satdifuser.diffusion.noise import batch_noise
from satdifuser.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Levels:
    """The timesteps whose features are wanted, the path's number of steps, and the noise that reaches them.

    `first` is the level that an inversion takes the clean latent to have: the schedule's smallest timestep, or `CLEAN`.
    """

    timesteps: tuple[int, ...]
    schedule: NoiseSchedule
    steps: int = 50
    seed: int = 0
    draws: int = 1
    first: int = 0


def noise(
    network: TappedUNet, clean: Tensor, ids: Sequence[str], levels: Levels, metadata: Tensor | None
) -> Iterator[tuple[int, Maps]]:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps: all timesteps in one batch, averaged over independent draws of eps."""
    count = len(clean)
    table = torch.cat([torch.full((count,), t, device=clean.device) for t in levels.timesteps])
    total: Maps = {}
    for draw in range(levels.draws):
        noisy = torch.cat(
            [levels.schedule.noised(clean, batch_noise(levels.seed, ids, t, clean, draw), t) for t in levels.timesteps]
        )
        repeated = None if metadata is None else metadata.repeat(len(levels.timesteps), 1)
        maps = network.read(noisy, table, repeated)
        if levels.draws > 1:
            maps = {name: value.float() + total.get(name, 0.0) for name, value in maps.items()}
        total = maps
    if levels.draws > 1:
        total = {name: (value / levels.draws).to(network.output_dtype) for name, value in total.items()}
    for row, t in enumerate(levels.timesteps):
        yield t, {name: value[row * count : (row + 1) * count] for name, value in total.items()}


def inversion(
    network: TappedUNet, clean: Tensor, ids: Sequence[str], levels: Levels, metadata: Tensor | None
) -> Iterator[tuple[int, Maps]]:
    """Deterministic DDIM steps from the clean latent up to the highest timestep, tapped on the way."""
    path = levels.schedule.levels([levels.first, *levels.timesteps], levels.steps)
    yield from walk(network, clean, path, levels, metadata)


def generation(
    network: TappedUNet, clean: Tensor, ids: Sequence[str], levels: Levels, metadata: Tensor | None
) -> Iterator[tuple[int, Maps]]:
    """Closed-form noise to the highest timestep, then deterministic DDIM steps down, tapped on the way."""
    path = levels.schedule.levels(levels.timesteps, levels.steps)[::-1]
    noisy = levels.schedule.noised(clean, batch_noise(levels.seed, ids, path[0], clean), path[0])
    yield from walk(network, noisy, path, levels, metadata)


def walk(
    network: TappedUNet, latent: Tensor, path: Sequence[int], levels: Levels, metadata: Tensor | None
) -> Iterator[tuple[int, Maps]]:
    """DDIM along a path of levels; the maps of the wanted ones. The last needs no prediction, so it ends early."""
    for level, target in zip(path, [*path[1:], None], strict=True):
        at = torch.full((len(latent),), level, device=latent.device)
        if target is None:
            yield level, network.read(latent, at, metadata)
        elif level in levels.timesteps:
            maps, output = network.read_and_predict(latent, at, metadata)
            yield level, maps
            latent = levels.schedule.move(latent, output, level, target)
        else:
            latent = levels.schedule.move(latent, network.predict(latent, at, metadata), level, target)


Mode = Literal["noise", "inversion", "generation"]
MODES = {"noise": noise, "inversion": inversion, "generation": generation}
