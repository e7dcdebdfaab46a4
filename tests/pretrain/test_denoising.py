"""The objective against diffusers' own noise, targets and signal-to-noise ratios, and against a slow loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from satdifuser.diffusion.noise import sample_noise
from satdifuser.errors import UserError
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.draws import Draws
from satdifuser.settings.pretraining import Schedule

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
Make = Callable[..., Any]


class Spy(nn.Module):
    """In a UNet's place: remembers what it gets, and answers with a function of it."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.zeros(()))

    def forward(self, noisy: Tensor, levels: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        self.noisy, self.levels = noisy.detach().clone(), levels.clone()
        return (self.answer(noisy, levels) + 0 * self.weight,)


def amounts(scheduler: Any, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Of signal and noise, in float64."""
    kept = scheduler.alphas_cumprod.double()[levels].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def expected_weight(scheduler: Any, levels: Tensor, gamma: float | None) -> Tensor:
    """As diffusers' training scripts have it; of the clean image, min(SNR, gamma)."""
    snr = compute_snr(scheduler, levels).double()
    if gamma is None:
        return torch.ones_like(snr)
    over = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return snr.clamp(max=gamma) / over[scheduler.config.prediction_type]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noisy_images_and_targets_are_those_of_diffusers(prediction: str, schedule: Make) -> None:
    scheduler = schedule(prediction)
    clean, noise, found = torch.rand(9, 3, 4, 4) * 2 - 1, torch.randn(9, 3, 4, 4), torch.randn(9, 3, 4, 4)
    levels = torch.tensor([0, 1, 21, 61, 301, 500, 801, 998, 999])
    objective = Denoising(Spy(lambda *_: found), scheduler)
    error = objective.error(clean, noise, levels)
    torch.testing.assert_close(objective.unet.noisy, scheduler.add_noise(clean, noise, levels), atol=2e-6, rtol=1e-5)
    assert torch.equal(objective.unet.levels, levels)
    velocity = scheduler.get_velocity(clean, noise, levels)
    target = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction]
    expected = torch.tensor([float((f - t).double().square().mean()) for f, t in zip(found, target, strict=True)])
    torch.testing.assert_close(error, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gamma", [5.0, 1.0, 20.0, None])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_each_level_counts_as_min_snr_says(prediction: str, gamma: float | None, schedule: Make) -> None:
    scheduler = schedule(prediction)
    objective = Denoising(Spy(lambda x, _: x), scheduler, gamma=gamma)
    expected = expected_weight(scheduler, torch.arange(1000), gamma)
    torch.testing.assert_close(objective.weight.double(), expected, atol=0, rtol=2e-4)


@pytest.mark.parametrize("gamma", [5.0, None])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_of_an_image_is_its_error_at_a_random_level_times_what_the_level_counts(
    prediction: str, gamma: float | None, schedule: Make
) -> None:
    scheduler = schedule(prediction)
    objective = Denoising(Spy(lambda x, _: torch.zeros_like(x)), scheduler, gamma=gamma)
    clean = torch.rand(12, 3, 16, 16) * 2 - 1
    loss = objective(clean, Draws(5, 2, 12))
    noisy, levels = objective.unet.noisy.double(), objective.unet.levels
    assert len(set((levels // (1000 / 12)).int().tolist())) == 12  # even over the range
    signal, sigma = amounts(scheduler, levels)
    noise = (noisy - signal * clean) / sigma
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
    assert abs(float(noise.var()) - 1) < 5 * (2 / noise.numel()) ** 0.5
    target = {"epsilon": noise, "v_prediction": signal * noise - sigma * clean, "sample": clean.double()}[prediction]
    expected = target.square().mean((1, 2, 3)) * expected_weight(scheduler, levels, gamma)
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-3)


def test_one_error_of_the_clean_image_weighs_the_same_whatever_is_predicted(schedule: Make) -> None:
    """min(SNR, gamma) times the squared error of the image that the prediction implies."""
    clean, guess = torch.rand(10, 3, 4, 4) * 2 - 1, torch.rand(10, 3, 4, 4) * 2 - 1
    losses = {}
    for prediction in PREDICTIONS:
        scheduler = schedule(prediction)

        def implied(noisy: Tensor, levels: Tensor, prediction: str = prediction, scheduler: Any = scheduler) -> Tensor:
            signal, sigma = amounts(scheduler, levels)
            noise = (noisy.double() - signal * guess) / sigma
            return {"epsilon": noise, "v_prediction": signal * noise - sigma * guess, "sample": guess}[prediction]

        objective = Denoising(Spy(implied), scheduler)
        losses[prediction] = objective(clean, Draws(1, 1, 10))
        snr = compute_snr(scheduler, objective.unet.levels)
        expected = snr.clamp(max=5.0) * (clean - guess).square().mean((1, 2, 3))
        torch.testing.assert_close(losses[prediction], expected, atol=1e-5, rtol=2e-3)


def test_two_processes_have_the_losses_of_one(schedule: Make, unet: Make) -> None:
    objective = Denoising(unet(), schedule()).eval()
    clean = torch.rand(6, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        alone = objective(clean, Draws(0, 4, 6))
        for rank in range(2):
            mine = objective(clean[rank::2], Draws(0, 4, 6, rank=rank, world=2))
            torch.testing.assert_close(mine, alone[rank::2], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_error_by_level_is_that_of_a_slow_loop_in_any_order_and_any_batches(
    prediction: str, schedule: Make, unet: Make
) -> None:
    scheduler = schedule(prediction)
    objective = Denoising(unet(), scheduler, seed=9).eval()
    images, ids = torch.rand(7, 3, 8, 8) * 2 - 1, [f"tile-{number}" for number in range(7)]
    found = objective.by_level(images, ids, [0, 21, 801], batch=3)
    assert list(found) == ["0", "21", "801"]
    order = torch.randperm(7)
    assert objective.by_level(images, ids, [0, 21, 801], batch=7) == pytest.approx(found, rel=1e-5)
    shuffled = objective.by_level(images[order], [ids[i] for i in order], [801, 0, 21], batch=2)
    assert shuffled == pytest.approx(found, rel=1e-5)
    assert objective.by_level(images, ids[::-1], [801], batch=3)["801"] != pytest.approx(found["801"], rel=1e-3)
    for level in (0, 21, 801):
        total, at = 0.0, torch.tensor([level])
        for image, name in zip(images, ids, strict=True):
            noise = sample_noise(9, name, level, (3, 8, 8))[None]
            target = {
                "epsilon": noise,
                "v_prediction": scheduler.get_velocity(image[None], noise, at),
                "sample": image[None],
            }[prediction]
            with torch.no_grad():
                output = objective.unet(scheduler.add_noise(image[None], noise, at), at).sample
            total += float((output - target).double().square().mean())
        assert found[str(level)] == pytest.approx(total / 7, rel=1e-4)


@pytest.mark.parametrize("shift", [None, 0.3])
def test_latents_are_the_mean_of_the_posterior_shifted_and_scaled(
    shift: float | None, schedule: Make, unet: Make, vae: Make
) -> None:
    frozen = vae(scaling_factor=0.7, shift_factor=shift)
    objective = Denoising(unet(4, 4), schedule(), vae=frozen)
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        mean = frozen.quant_conv(frozen.encoder(images)).chunk(2, 1)[0]
    expected = (mean.double() - (shift or 0.0)) * 0.7
    torch.testing.assert_close(objective.latents(images).double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(objective.latents(images), objective.latents(images))


def test_the_vae_is_frozen_and_stays_in_eval_mode(schedule: Make, unet: Make, vae: Make) -> None:
    objective = Denoising(unet(4, 4), schedule(), vae=vae()).train()
    assert objective.unet.training
    assert not any(module.training for module in objective.vae.modules())
    objective(torch.rand(2, 3, 8, 8), Draws(0, 0, 2)).mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.vae.parameters())
    assert all(p.grad is not None for p in objective.unet.parameters())
    assert not objective.eval().unet.training


def test_tables_of_the_schedule_are_no_weights(schedule: Make, unet: Make) -> None:
    network = unet()
    names = {f"unet.{name}" for name in network.state_dict()}
    assert Denoising(network, schedule()).state_dict().keys() == names


def test_an_unknown_kind_of_prediction_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^schedule\.prediction_type is 'flow'[^\n]*epsilon, v_prediction or sample$"):
        Schedule(prediction_type="flow")
