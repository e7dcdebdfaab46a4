"""A run that is trained once, the store that its features are in, and images as its data set gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from satdifuser.build import build_data
from satdifuser.commands import extract, train
from satdifuser.config import compose

DATA = ["data.size=16", "data.splits.train.length=10", "data.splits.val.length=3", "data.splits.test.length=5"]
WORDS = [*DATA, "fusion=mean", "task=classification", "trainer=quick", "trainer.min_steps=3", "trainer.max_steps=3"]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on colours for tiles."""
    folder = tmp_path_factory.mktemp("api") / "tiles"
    train.run(compose("train", [*WORDS, "encoder=colours", f"run={folder}"]), quiet=True, draw=False)
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "features.zarr"
    extract.run(compose("extract", [*DATA, "encoder=colours", f"store.path={folder}"]))
    return folder


@pytest.fixture(scope="session")
def test_images() -> tuple[list[str], torch.Tensor]:
    """Ids and images of the test split that the run was scored on."""
    split = build_data(compose("train", WORDS).data, "test")
    samples = [split[index] for index in range(len(split))]
    return [sample["id"] for sample in samples], torch.stack([sample["image"] for sample in samples])
