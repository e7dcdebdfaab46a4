"""Pictures: samples from noise by a slow DDIM in float64, and the sheet that shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from satdifuser.diffusion.noise import sample_noise
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.samples import sample, save_grid

Make = Callable[..., Any]


@pytest.mark.parametrize(("latent", "limit"), [(False, 1.0), (False, 2.5), (True, None)])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_samples_are_those_of_a_slow_ddim(
    prediction: str, latent: bool, limit: float | None, schedule: Make, unet: Make, vae: Make
) -> None:
    """Levels 981, 961, ..., 1, 0; what is taken for the clean image is clipped to an input's bounds if it is pixels."""
    encoder = vae(scaling_factor=0.5, shift_factor=0.1).eval() if latent else None
    network = unet(4, 4) if latent else unet()
    scheduler = schedule(prediction, **({} if limit is None else {"clip_sample_range": limit}))
    objective = Denoising(network, scheduler, vae=encoder, seed=7).eval()
    found = sample(objective, 2, steps=50)
    kept = scheduler.alphas_cumprod.double()
    shape = (4, 4, 4) if latent else (3, 8, 8)
    network = network.double()
    for number, image in enumerate(found):
        x = sample_noise(7, f"sample-{number}", 0, shape).double()[None]
        for level in range(981, 0, -20):
            with torch.no_grad():
                output = network(x, torch.tensor([level])).sample
            signal, sigma = kept[level].sqrt(), (1 - kept[level]).sqrt()
            clean = {
                "epsilon": (x - sigma * output) / signal,
                "v_prediction": signal * x - sigma * output,
                "sample": output,
            }[prediction]
            noise = (x - signal * clean) / sigma
            if limit is not None:
                clean = clean.clamp(-limit, limit)
            before = kept[max(level - 20, 0)]
            x = before.sqrt() * clean + (1 - before).sqrt() * noise
        if encoder is not None:
            with torch.no_grad():
                x = encoder.decode((x / 0.5 + 0.1).float()).sample.double()
        torch.testing.assert_close(image.double(), x[0], atol=2e-3, rtol=1e-3)


def test_a_sample_depends_on_the_seed_and_its_number_alone(schedule: Make, unet: Make) -> None:
    network = unet()
    two, three = (sample(Denoising(network, schedule(), seed=1).eval(), count, steps=5) for count in (2, 3))
    torch.testing.assert_close(three[:2], two, atol=1e-4, rtol=1e-4)
    other = sample(Denoising(network, schedule(), seed=2).eval(), 2, steps=5)
    assert not torch.allclose(other, two, atol=1e-2)


@pytest.mark.parametrize("levels", [7, 50, 51, 99])
def test_a_schedule_of_few_levels_can_be_sampled_too(levels: int, schedule: Make, unet: Make) -> None:
    made = sample(Denoising(unet(), schedule(num_train_timesteps=levels)).eval(), 1)
    assert made.isfinite().all()


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (13, [0, 1, 2])])
def test_a_grid_shows_each_image_in_its_place(channels: int, shown: list[int], tmp_path: Path) -> None:
    images = torch.rand(5, channels, 4, 4) * 1.2 - 0.1  # a network may go a little beyond
    path = save_grid(images, tmp_path / "deep" / "grid.png", scale=2, gap=2)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (2 * (2 * 6 + 2), 2 * (3 * 6 + 2), 3)
    for number, image in enumerate(images.double().numpy()):
        top, left = 2 * (2 + number // 3 * 6), 2 * (2 + number % 3 * 6)
        for y in range(4):
            for x in range(4):
                expected = np.clip(image[shown, y, x] * 1.3, 0, 1) * 255
                for twice in range(2):
                    assert np.abs(pixels[top + 2 * y + twice, left + 2 * x + twice] - expected).max() <= 0.51
    assert [found.name for found in path.parent.iterdir()] == ["grid.png"]
