"""Every encoder gives on the device the bank that it gives on the CPU, and the noise of a sample is the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from satdifuser.data.inputs import RGB, ImageInput

pytestmark = pytest.mark.gpu
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def small_vit() -> nn.Module:
    pytest.importorskip("timm")
    from deflect.backbones import small_vit
    from deflect.vit import ViTEncoder

    return ViTEncoder(small_vit(image_size=32), prepare=ImageInput(RGB, mean=0.34, std=0.15), norm=True)


def timm_vit() -> nn.Module:
    pytest.importorskip("timm")
    from deflect.backbones import timm_vit
    from deflect.vit import ViTEncoder

    tiny = timm_vit("vit_tiny_patch16_224", image_size=32, options=VIT)
    return ViTEncoder(tiny, prepare=ImageInput(RGB, size=32), class_token=True)


def cnn() -> nn.Module:
    pytest.importorskip("timm")
    from satdifuser.baselines.cnn import CNNEncoder

    return CNNEncoder(prepare=ImageInput(), image_size=32)


def unet() -> nn.Module:
    from satdifuser.baselines.unet import UNetEncoder

    return UNetEncoder(prepare=ImageInput(RGB), image_size=32, width=8, levels=3)


def colours() -> nn.Module:
    from satdifuser.baselines.colours import ColourStatistics

    return ColourStatistics(prepare=ImageInput(RGB), image_size=32)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "small_vit": small_vit,
    "vit": timm_vit,
    "cnn": cnn,
    "unet": unet,
    "colours": colours,
}


@pytest.mark.parametrize("mode", ["noise", "inversion", "generation", "released"])
@pytest.mark.parametrize("kind", ["small", "pixels", "latent", "satellite"])
def test_a_diffusion_encoder_gives_the_bank_of_the_cpu_in_every_mode(
    kind: str, mode: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    taps = {"taps": ["mid_block", "up_blocks.1.resnets.1.conv2"]} if kind == "small" else {}
    way = {"compat": "released", "mode": None} if mode == "released" else {"mode": mode}
    encoder = diffusion(kind, **way, **taps)
    images, ids, numbers = some()
    with torch.no_grad():
        wanted = exactly(encoder)(images, sample_ids=ids, metadata=numbers)
        bank = encoder.to(device)(images.to(device), sample_ids=ids, metadata=numbers.to(device))
    assert bank.device.type == device.type
    assert bank.spec == wanted.spec
    assert min(float(value.std()) for value in wanted.values()) > 1e-3  # a bank with something in it
    agree(bank, wanted)


def test_a_draw_of_several_noises_and_constant_metadata_are_the_cpus(
    device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    constant = [12.5, -33.0, 0.5, 0.1, 2016.0, 7.0, 21.0]
    encoder = diffusion("satellite", noise_draws=2, metadata=constant, batch=2)
    images, ids, _ = some()
    with torch.no_grad():
        wanted = exactly(encoder)(images, sample_ids=ids)
        agree(encoder.to(device)(images.to(device), sample_ids=ids), wanted)


@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_the_latents_are_those_of_the_cpu(
    posterior: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    encoder = diffusion("latent", posterior=posterior)
    images, ids, _ = some()
    with torch.no_grad():
        wanted = exactly(encoder).encode(images, sample_ids=ids)
        agree(encoder.to(device).encode(images.to(device), sample_ids=ids), wanted)


@pytest.mark.parametrize("name", OTHERS)
def test_another_encoder_gives_the_bank_of_the_cpu(
    name: str, device: torch.device, some: Any, exactly: Any, agree: Any
) -> None:
    encoder = OTHERS[name]().eval()
    images, ids, _ = some()
    with torch.no_grad():
        wanted = exactly(encoder)(images.double(), sample_ids=ids)
        bank = encoder.to(device)(images.to(device), sample_ids=ids)
    assert bank.device.type == device.type
    agree(bank, wanted)


@pytest.mark.parametrize("name", ["cnn", "unet"])
def test_a_net_from_scratch_has_the_gradients_of_the_cpu(
    name: str, device: torch.device, some: Any, exactly: Any, slopes: Any, agree: Any
) -> None:
    encoder, (images, _, _) = OTHERS[name]().train(), some(6)
    exact = exactly(encoder)
    targets = {str(tap): torch.randn(6, *encoder.spec.shape(tap)) for tap in encoder.spec.taps}
    wanted, slope = slopes(exact, lambda _: exact(images.double()), {}, targets)
    encoder = encoder.to(device)
    got, found = slopes(encoder, lambda _: encoder(images.to(device)), {}, targets)
    agree(got, wanted)
    # thousands of activations sit near the kink of a ReLU, and one that falls on its other side is a slope of its own
    agree(found, slope, tolerance=1e-3)


def test_a_samples_noise_is_the_same_bits_on_any_device(device: torch.device, busy: Callable[[], None]) -> None:
    from satdifuser.diffusion.noise import batch_noise, sample_noise

    ids = [f"tile-{number}" for number in range(40)]
    like = torch.empty(len(ids), 4, 32, 32, device=device)
    busy()  # the copies wait, and what they are made from must too
    drawn = {(t, draw): batch_noise(7, ids, t, like, draw) for t in (0, 61, 999) for draw in (0, 1, 2)}
    assert drawn[0, 0].device.type == device.type
    for (t, draw), noise in drawn.items():
        wanted = np.stack([sample_noise(7, name, t, (4, 32, 32), draw).numpy() for name in ids])
        assert np.array_equal(noise.cpu().numpy().view(np.uint32), wanted.view(np.uint32)), (t, draw)


def test_an_encoder_may_go_to_the_device_and_come_back(device: torch.device, diffusion: Any, some: Any) -> None:
    encoder = diffusion("satellite")
    images, ids, numbers = some()
    with torch.no_grad():
        before = copy.deepcopy(encoder)(images, sample_ids=ids, metadata=numbers)
        encoder.to(device)(images.to(device), sample_ids=ids, metadata=numbers.to(device))
        after = encoder.cpu()(images, sample_ids=ids, metadata=numbers)
    assert all(torch.equal(after[tap], before[tap]) for tap in before)
