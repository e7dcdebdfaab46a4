"""The noise schedule in training timesteps: what a latent is at a level, and how a prediction moves it to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from satdifuser.errors import UserError

OFFSET = 1  # the first level of a path's grid, as Stable Diffusion's schedulers have it
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class NoiseSchedule:
    """Levels 0 (all but clean) to `total` - 1 (noise), made from a diffusers scheduler.

    x_t = signal(t) x_0 + sigma(t) eps, where signal(t)^2 = a_t is the cumulative product of 1 - beta. Coefficients are
    Python floats made once, so that a step costs no wait for the device; latents stay in the precision they come in.
    """

    def __init__(self, scheduler: Any) -> None:
        config = scheduler.config
        self.prediction = str(config.get("prediction_type", "epsilon"))
        if self.prediction not in PREDICTIONS:
            raise UserError(f"the scheduler predicts {self.prediction!r}: it can be {', '.join(PREDICTIONS)}")
        kept = scheduler.alphas_cumprod.double().cpu()
        self.total = len(kept)
        self._signal: list[float] = kept.sqrt().tolist()
        self._sigma: list[float] = (1.0 - kept).sqrt().tolist()

    def noised(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The closed form of the forward process."""
        return self._signal[timestep] * clean + self._sigma[timestep] * noise

    def split(self, noisy: Tensor, output: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """What the network's output says about x_t: its clean part x_0 and its noise eps."""
        signal, sigma = self._signal[timestep], self._sigma[timestep]
        if self.prediction == "v_prediction":
            return signal * noisy - sigma * output, signal * output + sigma * noisy
        if self.prediction == "sample":
            return output, (noisy - signal * output) / sigma
        return (noisy - sigma * output) / signal, output

    def move(self, noisy: Tensor, output: Tensor, timestep: int, target: int) -> Tensor:
        """One deterministic DDIM step from a level to another, up or down. The predicted x_0 is not clipped."""
        clean, noise = self.split(noisy, output, timestep)
        return self.noised(clean, noise, target)

    def levels(self, timesteps: Sequence[int], steps: int) -> list[int]:
        """The levels of a DDIM path through all the timesteps, ascending: the grid of `steps` steps, and they.

        The grid is that of diffusers' leading spacing (offset, offset + stride, ...), as published runs have it.
        """
        if not 1 <= steps <= self.total:
            raise UserError(f"encoder.steps is {steps}: a path can have 1 to {self.total} steps")
        low, high = min(timesteps), max(timesteps)
        grid = range(OFFSET, self.total, self.total // steps)
        return sorted({t for t in grid if low < t < high} | set(timesteps))

    def resolve(
        self, timesteps: Sequence[int], save_steps: Sequence[int] | None = None, steps: int = 50
    ) -> tuple[int, ...]:
        """The timesteps, if there are some, each once and inside the schedule; or those of the published notation."""
        if save_steps is not None:
            timesteps = training_timesteps(save_steps, steps, self.total)
        whole = [t for t in timesteps if isinstance(t, int) and not isinstance(t, bool) and 0 <= t < self.total]
        if not timesteps or len(set(whole)) != len(timesteps):
            raise UserError(
                f"encoder.timesteps is {list(timesteps)}: give distinct training timesteps, 0 (clean) to"
                f" {self.total - 1} (noise)"
            )
        return tuple(timesteps)


def training_timesteps(
    save_steps: Sequence[int], num_steps: int = 50, train_steps: int = 1000, offset: int = OFFSET
) -> list[int]:
    """The published notation in training timesteps: generation steps, counted from pure noise to the clean image.

    >>> training_timesteps([47, 45, 40])
    [21, 61, 161]
    """
    outside = [step for step in save_steps if not 0 <= step < num_steps]
    if outside:
        raise UserError(f"generation step {outside[0]} is outside 0 (noise) to {num_steps - 1} (clean)")
    stride = train_steps // num_steps
    return [max(0, (num_steps - 2 - step) * stride + offset) for step in save_steps]
