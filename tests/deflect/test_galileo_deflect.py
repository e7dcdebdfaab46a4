"""DEFLECT on Galileo: it sees three bands as it was trained, and all of them turn what it computes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from deflect.adapters import Deflect, parameter_counts
from deflect.attention import SplitAttention, untangled_attention
from deflect.blocks import DeflectedBlock
from deflect.galileo import GalileoEncoder
from deflect.galileo.network import Attention
from satdifuser.data.unscaled import UnscaledInput

DATA = os.environ.get("SATDIFUSER_TEST_DATA")
real = pytest.mark.skipif(DATA is None, reason="set SATDIFUSER_TEST_DATA to the folder of weights/galileo-nano")
RGB = ["red", "green", "blue"]


def build(adapter: Deflect | None = None, size: int = 16, **settings: Any) -> GalileoEncoder:
    prepare = UnscaledInput(RGB, sensor="SENTINEL2")
    return GalileoEncoder(prepare=prepare, image_size=size, adapter=adapter, **settings).eval()


def maps(encoder: GalileoEncoder, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [tensor for _, tensor in encoder(images).items()]


def turned(encoder: GalileoEncoder) -> GalileoEncoder:
    """As after some training."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if ".deflection." in name:
                parameter.normal_(0, 0.3)
    return encoder


def test_both_streams_go_through_the_principals_attention_map() -> None:
    torch.manual_seed(0)
    layer = Attention(12, 3).double()
    p, a = torch.randn(2, 5, 12).double(), torch.randn(2, 5, 12).double()
    with torch.no_grad():
        found = untangled_attention(SplitAttention(layer), p, a)
        torch.testing.assert_close(found[0], layer(p))
    w = {name: value.detach().numpy() for name, value in layer.named_parameters()}

    def project(part: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"to_{part}.weight"].T + w[f"to_{part}.bias"]

    for image in range(2):
        for gives, given in ((p, found[0]), (a, found[1])):
            q, k, v = project("q", p[image].numpy()), project("k", p[image].numpy()), project("v", gives[image].numpy())
            heads = [slice(4 * head, 4 * head + 4) for head in range(3)]
            mixed = [softmax(q[:, h] @ k[:, h].T / 2, axis=-1) @ v[:, h] for h in heads]
            slow = np.concatenate(mixed, -1) @ w["proj.weight"].T + w["proj.bias"]
            np.testing.assert_allclose(given[image].numpy(), slow, atol=1e-12)


def check_start(**settings: Any) -> None:
    images = torch.rand(2, 13, settings.get("size", 16), settings.get("size", 16)) * 0.3
    frozen, adapted = build(**settings), build(Deflect(), **settings)
    for one, other in zip(maps(frozen, images), maps(adapted, images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert adapted.spec != frozen.spec


def test_at_the_start_it_is_the_frozen_model() -> None:
    check_start(patch_size=4)


@real
def test_at_the_start_it_is_the_frozen_model_with_the_published_weights() -> None:
    check_start(weights=str(Path(DATA or ".") / "weights" / "galileo-nano"), size=32)


def test_bands_that_galileo_does_not_know_turn_its_features_and_leave_their_lengths() -> None:
    encoder = turned(build(Deflect()))
    images = torch.rand(2, 13, 16, 16) * 0.3
    before = maps(encoder, images)
    for place in (0, 9, 10):  # B01, B09 and B10 are in no group of its own
        other = images.clone()
        other[:, place] = torch.rand(2, 16, 16) * 0.5
        assert (maps(encoder, other)[-1] - before[-1]).abs().max() > 1e-3
    assert (maps(build(), images)[-1] - before[-1]).abs().max() > 1e-3
    block = encoder.backbone.blocks[0]
    assert isinstance(block, DeflectedBlock)
    p, a = torch.randn(2, 4, 128), torch.randn(2, 4, 128)
    step, _ = block.displacements(p, a)
    torch.testing.assert_close(block.deflection(step, a).norm(dim=-1), step.norm(dim=-1))


def test_only_the_adapter_trains_and_all_of_it_gets_slopes() -> None:
    encoder = turned(build(Deflect()))
    trainable, whole = parameter_counts(encoder)
    assert 0 < trainable < whole / 20
    bank = encoder(torch.rand(2, 13, 16, 16) * 0.3)
    sum(tensor.square().mean() for _, tensor in bank.items()).backward()  # type: ignore[union-attr]
    for name, parameter in encoder.named_parameters():
        is_ours = ".deflection." in name or ".upe." in name
        assert parameter.requires_grad == is_ours, name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == is_ours, name


def test_images_of_another_size_and_modules_inside_of_blocks_are_read() -> None:
    prepare = UnscaledInput(RGB, sensor="SENTINEL2", size=16)
    encoder = GalileoEncoder(prepare=prepare, image_size=16, gsd=20.0, adapter=Deflect(), modules=["qkv", "block"])
    bank = encoder.eval()(torch.rand(1, 13, 32, 32) * 0.3)
    assert {tensor.shape[1] for _, tensor in bank.items()} == {128, 384}
