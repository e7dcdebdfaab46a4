"""What the released SatDiFuser code does otherwise than we do, behind one word: `encoder.compat`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from satdifuser.diffusion.latents import Posterior
from satdifuser.diffusion.modes import Mode
from satdifuser.diffusion.schedule import CLEAN, NoiseSchedule, Prediction
from satdifuser.errors import UserError

Compat = Literal["ours", "released"]


@dataclass(frozen=True)
class Way:
    """What is done where no other setting says it, and what no other setting says.

    `prediction` is what the network's output is taken for (None: what its scheduler says), `first` the level that an
    inversion takes the clean latent to have, `half` what `precision=auto` is on a GPU. With `counts_on`, step n of
    `save_steps` is a step noisier in a generation than in an inversion, as the two loops of the released code count.
    """

    mode: Mode
    posterior: Posterior
    prediction: Prediction | None
    first: int
    half: Literal["bfloat16", "float16"]
    counts_on: bool

    def check(self, schedule: NoiseSchedule, mode: Mode) -> None:
        """A network that predicts the clean image says nothing of the noise of a latent that has none."""
        if mode == "inversion" and self.first == CLEAN and schedule.prediction == "sample":
            raise UserError(
                "encoder.prediction=sample cannot begin an inversion at a latent without noise, as compat=released"
                " does: set encoder.compat=ours, or another encoder.prediction"
            )


WAYS: dict[str, Way] = {
    "ours": Way("noise", "mean", None, 0, "bfloat16", counts_on=False),
    "released": Way("inversion", "sample", "epsilon", CLEAN, "float16", counts_on=True),
}
