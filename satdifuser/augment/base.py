"""What an augmentation is: a training batch in, the same samples changed out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from satdifuser.data.bands import Sensor
from satdifuser.data.base import Batch
from satdifuser.kinds import Seed, checked


class Augmentation(ABC):
    """Changes the images of a training batch, and their masks alike; the trainer calls it once in an optimiser step.

    A class of one's own inherits from this one, adds its settings, and implements `__call__`. What it does to a sample
    must depend on the seed, the step and the id of the sample alone (`satdifuser.augment.draws.uniforms`): then it is
    the same in any process and in a resumed run. Images of several dates are `[samples, dates, bands, H, W]`; those of
    a sample are to be changed alike. It is told the seed of the run, the value of those pixels of a mask that count in
    no loss, and the sensor of the images where the data set names one.
    """

    @checked("augmentation")
    def __init__(self, *, seed: Seed = 0, ignore_index: int = 255, sensor: Sensor | None = None) -> None:
        self.seed, self.ignore_index, self.sensor = seed, ignore_index, sensor

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return True

    @abstractmethod
    def __call__(self, batch: Batch, step: int) -> Batch:
        """The batch as the model gets it; `step` is the number of optimiser steps that were done before."""
