"""Every adapter, on a ViT and on the UNet: on the device the maps, and the slopes of what trains, are the CPU's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deflect.adapters import Adapter, BitFit, Deflect, Frozen, Full, Lora, NormTuning, Peft, ScaledLowRank
from satdifuser.data.inputs import RGB, ImageInput

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # peft, of timm's own LayerNorm
]
ADAPTERS: dict[str, Adapter] = {
    "frozen": Frozen(),
    "full": Full(),
    "lora": Lora(r=4),
    "slr": ScaledLowRank(rank=2),
    "norm": NormTuning(),
    "bitfit": BitFit(),
    "deflect": Deflect(),
    "deflect with all options": Deflect(
        indices=["NDVI", "NDWI"], rank=3, hidden=5, norm="bound", mlp_on_auxiliary=True
    ),
    "dora": Peft("dora", options={"r": 4}),
}
LIBRARIES = {"lora": "peft", "norm": "peft", "peft": "peft", "deflect": "spyndex"}
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}

Given = dict[str, Tensor]


@pytest.fixture
def vit(scattered: Any) -> Callable[[str], Any]:
    """`vit(name)`: a tiny ViT with that adapter, away from its start."""
    pytest.importorskip("timm")

    def make(name: str) -> nn.Module:
        from deflect.backbones import timm_vit
        from deflect.vit import ViTEncoder

        adapter = ADAPTERS[name]
        if adapter.name in LIBRARIES:
            pytest.importorskip(LIBRARIES[adapter.name])
        tiny = timm_vit("vit_tiny_patch16_224", image_size=32, options=VIT)
        return scattered(ViTEncoder(tiny, prepare=ImageInput(RGB), adapter=adapter)).train()

    return make


def forward(encoder: nn.Module, images: Tensor, **given: Any) -> Callable[[Given], Any]:
    return lambda _: encoder(images, **given)


def targets_of(encoder: Any, batch: int) -> Given:
    return {str(tap): torch.randn(batch, *encoder.spec.shape(tap)).double() for tap in encoder.spec.taps}


def trained(encoder: nn.Module) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapted_vit_has_the_maps_and_slopes_of_the_cpu(
    name: str, device: torch.device, vit: Any, some: Any, exactly: Any, slopes: Any, agree: Any
) -> None:
    encoder, (images, _, _) = vit(name), some(4)
    exact, targets = exactly(encoder), targets_of(encoder, 4)
    if name == "frozen":
        assert not trained(encoder)
        agree(encoder.to(device)(images.to(device)), exact(images.double()))
        return
    wanted, slope = slopes(exact, forward(exact, images.double()), {}, targets)
    encoder = encoder.to(device)
    got, found = slopes(encoder, forward(encoder, images.to(device)), {}, targets)
    assert found.keys() == trained(encoder)
    assert all(bool(value.any()) for value in slope.values())
    assert {value.device.type for value in [*got.values(), *found.values()]} == {device.type}
    agree(got, wanted)
    agree(found, slope)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapted_vit_under_autocast_stays_near_the_cpu(
    name: str, precision: str, device: torch.device, vit: Any, some: Any, exactly: Any, slopes: Any, agree: Any
) -> None:
    encoder, (images, _, _) = vit(name), some(4)
    exact, targets = exactly(encoder), targets_of(encoder, 4)
    low, encoder = getattr(torch, precision), encoder.to(device)

    def lowered(_: Given) -> Any:
        with torch.autocast(device.type, dtype=low):
            return encoder(images.to(device))

    if name == "frozen":
        agree(lowered({}), exact(images.double()), precision)
        return
    wanted, slope = slopes(exact, forward(exact, images.double()), {}, targets)
    got, found = slopes(encoder, lowered, {}, targets)
    agree(got, wanted, precision)
    if precision == "bfloat16":  # float16 needs a loss that is scaled, which is the trainer's work
        agree(found, slope, tolerance=2 * 3e-2)  # a slope has passed through the network twice


@pytest.mark.parametrize("adapter", [Full(), Lora(r=4), BitFit(), Peft("dora", options={"r": 4})], ids=lambda a: a.name)
@pytest.mark.parametrize("kind", ["pixels", "satellite"])
def test_an_adapted_unet_has_the_maps_and_slopes_of_the_cpu(
    kind: str,
    adapter: Adapter,
    device: torch.device,
    diffusion: Any,
    scattered: Any,
    some: Any,
    exactly: Any,
    slopes: Any,
    agree: Any,
) -> None:
    if adapter.name in LIBRARIES:
        pytest.importorskip(LIBRARIES[adapter.name])
    encoder, (images, ids, numbers) = scattered(diffusion(kind, adapter=adapter)), some()
    exact, targets = exactly(encoder), targets_of(encoder, 3)
    wanted, slope = slopes(exact, forward(exact, images, sample_ids=ids, metadata=numbers), {}, targets)
    encoder = encoder.to(device)
    given = {"sample_ids": ids, "metadata": numbers.to(device)}
    got, found = slopes(encoder, forward(encoder, images.to(device), **given), {}, targets)
    assert found.keys() == slope.keys() == trained(encoder)
    agree(got, wanted)
    agree(found, slope)


def test_an_adapter_of_a_unet_in_bfloat16_has_the_maps_and_slopes_of_the_cpu(
    device: torch.device, diffusion: Any, scattered: Any, some: Any, exactly: Any, slopes: Any, agree: Any
) -> None:
    pytest.importorskip("peft")
    encoder, (images, ids, _) = scattered(diffusion("pixels", adapter=Lora(r=4), precision="bfloat16")), some()
    exact, targets = exactly(copy.deepcopy(encoder)), targets_of(encoder, 3)  # of weights that are rounded already
    wanted, slope = slopes(exact, forward(exact, images, sample_ids=ids), {}, targets)
    encoder = encoder.to(device)
    got, found = slopes(encoder, forward(encoder, images.to(device), sample_ids=ids), {}, targets)
    agree(got, wanted, "bfloat16")
    agree(found, slope, tolerance=2 * 3e-2)  # a slope has passed through the network twice
