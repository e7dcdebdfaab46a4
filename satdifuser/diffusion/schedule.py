"""The noise schedule in training timesteps: what a latent is at a level, and how a prediction moves it to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from satdifuser.errors import UserError

OFFSET = 1  # the first level of a path's grid, as Stable Diffusion's schedulers have it
CLEAN = -1  # a level without any noise, below the schedule's smallest timestep
Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


class NoiseSchedule:
    """Levels 0 (all but clean) to `total` - 1 (noise), made from a diffusers scheduler.

    x_t = signal(t) x_0 + sigma(t) eps, where signal(t)^2 = a_t is the cumulative product of 1 - beta. Coefficients are
    Python floats made once, so that a step costs no wait for the device; latents stay in the precision they come in.
    `prediction` is what the network's output is taken for: what the scheduler says, unless another one is given.
    """

    def __init__(self, scheduler: Any, prediction: Prediction | None = None) -> None:
        config = scheduler.config
        self.trained = str(config.get("prediction_type", "epsilon"))
        self.prediction = prediction or self.trained
        if self.prediction not in PREDICTIONS:
            raise UserError(
                f"the scheduler predicts {self.prediction!r}: it can be {', '.join(PREDICTIONS)}, or set"
                " encoder.prediction to what it is"
            )
        kept = scheduler.alphas_cumprod.double().cpu()
        self.total = len(kept)
        self._signal: list[float] = kept.sqrt().tolist()
        self._sigma: list[float] = (1.0 - kept).sqrt().tolist()

    def noised(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The closed form of the forward process."""
        signal, sigma = self._at(timestep)
        return signal * clean + sigma * noise

    def split(self, noisy: Tensor, output: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """What the network's output says about x_t: its clean part x_0 and its noise eps."""
        signal, sigma = self._at(timestep)
        if self.prediction == "v_prediction":
            return signal * noisy - sigma * output, signal * output + sigma * noisy
        if self.prediction == "sample":
            return output, (noisy - signal * output) / sigma
        return (noisy - sigma * output) / signal, output

    def _at(self, timestep: int) -> tuple[float, float]:
        return (1.0, 0.0) if timestep == CLEAN else (self._signal[timestep], self._sigma[timestep])

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
        self,
        timesteps: Sequence[int],
        save_steps: Sequence[int] | None = None,
        steps: int = 50,
        *,
        generation: bool = False,
    ) -> tuple[int, ...]:
        """The timesteps, if there are some, each once and inside the schedule; or those of the published notation."""
        if save_steps is not None:
            timesteps = training_timesteps(save_steps, steps, self.total, generation=generation)
        whole = [t for t in timesteps if isinstance(t, int) and not isinstance(t, bool) and 0 <= t < self.total]
        if not timesteps or len(set(whole)) != len(timesteps):
            raise UserError(
                f"encoder.timesteps is {list(timesteps)}: give distinct training timesteps, 0 (clean) to"
                f" {self.total - 1} (noise)"
            )
        return tuple(timesteps)


def training_timesteps(
    save_steps: Sequence[int],
    num_steps: int = 50,
    train_steps: int = 1000,
    offset: int = OFFSET,
    *,
    generation: bool = False,
) -> list[int]:
    """The published notation in training timesteps: generation steps, counted from pure noise to the clean image.

    It is the level that is reached after so many steps, where the released code reads an inversion; with `generation`
    the one that the step begins at, where it reads a generation.

    >>> training_timesteps([47, 45, 40]), training_timesteps([47, 45, 40], generation=True)
    ([21, 61, 161], [41, 81, 181])
    """
    outside = [step for step in save_steps if not 0 <= step < num_steps]
    if outside:
        raise UserError(f"generation step {outside[0]} is outside 0 (noise) to {num_steps - 1} (clean)")
    stride = train_steps // num_steps
    last = num_steps - (1 if generation else 2)
    return [max(0, (last - step) * stride + offset) for step in save_steps]
