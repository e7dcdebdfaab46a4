"""Augmentation on the device: the CPU's decisions, and its pixels up to rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ["segmentation", "classification", "satdifuser"])
def test_a_batch_is_augmented_as_on_the_cpu(device: torch.device, agree: Callable[..., None], name: str) -> None:
    for library in ("hydra", "kornia"):
        pytest.importorskip(library)
    from satdifuser.config import compose
    from satdifuser.data.bands import SENTINEL2_RGB

    augment = compose("train", [f"augmentation={name}"]).augmentation.build(sensor=SENTINEL2_RGB, seed=1)
    batch = {
        "id": [f"tile-{number}" for number in range(16)],
        "image": 0.02 + 0.3 * torch.rand(16, 3, 31, 31),
        "mask": torch.randint(5, (16, 31, 31)),
    }
    wanted = augment(batch, 4)
    there = {"id": batch["id"], "image": batch["image"].to(device), "mask": batch["mask"].to(device)}
    found = augment(there, 4)
    assert found["image"].device == there["image"].device
    other = (found["mask"].cpu() != wanted["mask"])[:, None]
    assert other.double().mean() < 1e-3  # where a pixel's middle lies between two, to rounding
    agree(found["image"].cpu().masked_fill(other, 0.0), wanted["image"].masked_fill(other, 0.0))
