"""Small data sets with a fault each, made of the built-in scenes, which have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from satdifuser.data.bands import SENTINEL2, Sensor
from satdifuser.data.base import Labels
from satdifuser.data.check import Checked, check
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.errors import UserError

COUNT, SIDE = 24, 32
SCENES = {split: SyntheticScenes(split, COUNT, size=SIDE) for split in ("train", "val", "test")}


class Made:
    """The scenes of a split, changed; a change that gives a text makes the sample one that cannot be read."""

    name, identity = "made", {"name": "made"}

    def __init__(self, split: str, change: Callable[[str, int, Any], Any], sensor: Sensor, labels: Labels) -> None:
        self.split, self.change, self.sensor, self.labels = split, change, sensor, labels

    def sample_id(self, index: int) -> str:
        return f"{self.split}-{index}"

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        scene: Any = SCENES[self.split][index]
        sample = {**scene, "id": self.sample_id(index), "image": scene["image"].clone(), "mask": scene["mask"].clone()}
        found = self.change(self.split, index, sample)
        if isinstance(found, str):
            raise UserError(f"{self.sample_id(index)} {found}")
        return sample if found is None else found


def nothing(split: str, index: int, sample: Any) -> None:
    pass


@pytest.fixture
def made() -> Callable[..., dict[str, Any]]:
    """Splits of which each sample is changed."""

    def make(
        change: Callable[[str, int, Any], Any] = nothing,
        sensor: Sensor = SENTINEL2,
        labels: Labels = SyntheticScenes.labels,
        splits: tuple[str, ...] = ("train", "val", "test"),
    ) -> dict[str, Any]:
        return {split: Made(split, change, sensor, labels) for split in splits}

    return make


@pytest.fixture
def checked(made: Any) -> Callable[..., Checked]:
    def run(change: Any = nothing, encoder: Any = None, samples: Any = None, **given: Any) -> Checked:
        torch.manual_seed(0)
        return check(made(change, **given), encoder, samples)

    return run


@pytest.fixture
def names() -> Callable[[Checked], dict[str, Any]]:
    """What is not fine, by its name."""

    def found(one: Checked) -> dict[str, Any]:
        return {f.name: f for f in one.findings if f.verdict != "fine"}

    return found
