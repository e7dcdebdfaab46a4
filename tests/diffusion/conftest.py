"""A tiny UNet in diffusers' layout, written by diffusers itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on more threads, and much slower where the processors have other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
            dropout=0.3,  # off in a frozen encoder
        )
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").save_pretrained(folder / "scheduler")
    return folder
