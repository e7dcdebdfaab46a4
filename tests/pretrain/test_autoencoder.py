"""The small VAE's objective, against its formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from satdifuser.pretrain.autoencoder import Autoencoding
from satdifuser.pretrain.draws import Draws

Make = Callable[..., Any]


@pytest.mark.parametrize("kl", [0.0, 1e-6, 0.1])
def test_the_loss_is_the_absolute_error_of_a_draw_and_the_distance_from_a_standard_normal(kl: float, vae: Make) -> None:
    network = vae().double()
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64) * 2 - 1
    loss = Autoencoding(network, kl)(images, Draws(2, 6, 5)).detach()
    noise = Draws(2, 6, 5).normal((4, 4, 4)).double()
    with torch.no_grad():
        mean, log_variance = network.quant_conv(network.encoder(images)).chunk(2, 1)
        decoded = network.decoder(network.post_quant_conv(mean + noise * (log_variance / 2).exp()))
    for number in range(5):
        error = (decoded[number] - images[number]).abs().mean()
        distance = 0.5 * (mean[number] ** 2 + log_variance[number].exp() - 1 - log_variance[number]).sum()
        assert float(loss[number]) == pytest.approx(float(error + kl * distance), rel=1e-5)


def test_the_error_is_that_of_the_decoded_means_whatever_the_batch(vae: Make) -> None:
    network = vae()
    images = torch.rand(7, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = [
            float((network.decode(network.encode(image[None]).latent_dist.mean).sample - image).double().abs().mean())
            for image in images
        ]
    objective = Autoencoding(network)
    for batch in (1, 3, 64):
        assert objective.error(images, batch) == pytest.approx(sum(expected) / 7, rel=1e-5)


def test_scaled_latents_have_a_standard_deviation_of_one(vae: Make) -> None:
    network = vae()
    images = torch.rand(7, 3, 8, 8) * 2 - 1
    factor = Autoencoding(network).unit(images, batch=3)
    with torch.no_grad():
        latents = network.encode(images).latent_dist.mean.double() * factor
    assert float(latents.std()) == pytest.approx(1.0, rel=1e-5)
