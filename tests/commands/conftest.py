"""The smallest overrides with which the commands do their whole job."""

from __future__ import annotations

import pytest

DATA = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=5", "data.splits.test.length=7"]
HEAD = ["fusion.projection_dim=16"]
TRAINER = ["trainer=quick", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.eval_every=2"]


@pytest.fixture
def tiny() -> list[str]:
    """Overrides of satdifuser train."""
    return [*DATA, *HEAD, *TRAINER]


@pytest.fixture
def tiny_data() -> list[str]:
    """Overrides of satdifuser extract."""
    return [*DATA]
