"""Networks of a few thousand parameters, images in memory, and an objective that a convolution can learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.data.bands import SENTINEL2_RGB
from satdifuser.data.base import Labels
from satdifuser.data.inputs import ImageInput
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import make_accelerator
from satdifuser.pretrain.draws import Draws
from satdifuser.pretrain.images import Images, Source
from satdifuser.pretrain.trainer import Pretrainer
from satdifuser.settings.pretraining import Recipe


class ToyImages:
    """Random reflectances; pixel (0, 0) of band 0 tells which image it is, and `mark` which data set."""

    name = "toy"
    labels = Labels((), ())

    def __init__(self, length: int, mark: float = 0.0, size: int = 8) -> None:
        self.images = torch.rand(length, 3, size, size, generator=torch.Generator().manual_seed(length)) * 0.3
        self.images[:, 0, 0, 0] = torch.arange(length) / 1000
        self.images[:, 1, 0, 0] = mark

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "length": len(self)}

    def sample_id(self, index: int) -> str:
        return f"toy-{index}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": self.sample_id(index), "image": self.images[index], "label": torch.tensor(1)}


class Smoothing(nn.Module):
    """Absolute error of a convolution that takes noise away."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 3, 1))
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        noise = draws.normal(tuple(images.shape[1:]))
        return (self.net(images + 0.1 * noise) - images).abs().mean((1, 2, 3))


@pytest.fixture
def source() -> Callable[..., Source]:
    """So many images in memory, as a source."""

    def make(length: int = 24, share: float = 1.0, mark: float = 0.0, size: int = 8, expect: int = 8) -> Source:
        prepare = ImageInput(["B04", "B03", "B02"], sensor=SENTINEL2_RGB)
        return Source(ToyImages(length, mark, size), prepare, expect, share)

    return make


@pytest.fixture
def toy_pretrainer(tmp_path: Path, source: Callable[..., Source]) -> Callable[..., Pretrainer]:
    """Make a pretrainer of a toy; the same arguments make the same one."""

    def make(run: str = "run", *, width: int = 3, seed: int = 0, **settings: Any) -> Pretrainer:
        torch.manual_seed(seed)
        objective = Smoothing(width)
        recipe = Recipe(
            **{"steps": 9, "batch_size": 8, "lr": 1e-2, "warmup": 2, "eval_every": 3, "tensorboard": False, **settings}
        )
        images = Images([source(24)], recipe.batch_size, seed=seed)
        folder = RunFolder(tmp_path / run).open(resume=True, overwrite=False)
        return Pretrainer(objective, images, recipe, folder, make_accelerator("no"), seed=seed, quiet=True)

    return make


@pytest.fixture
def unet() -> Callable[..., Any]:
    """A UNet of two scales for images of 8 px."""
    from diffusers import UNet2DModel

    def make(channels: int = 3, size: int = 8) -> Any:
        return UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
        )

    return make


@pytest.fixture
def vae() -> Callable[..., Any]:
    """A VAE with one latent for 2 x 2 pixels."""
    from diffusers import AutoencoderKL

    def make(**settings: Any) -> Any:
        return AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            **settings,
        )

    return make


@pytest.fixture
def schedule() -> Callable[..., Any]:
    """The schedule of Stable Diffusion, with a kind of prediction."""
    from diffusers import DDPMScheduler

    def make(prediction: str = "v_prediction", **settings: Any) -> Any:
        betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        return DDPMScheduler(
            **{**betas, "prediction_type": prediction, **settings}
        )  # by name: from_config forgets others

    return make
