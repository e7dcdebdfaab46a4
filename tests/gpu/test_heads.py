"""Every fusion head and decoder computes on the device what it computes in float64 on the CPU, and so do its slopes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.decoders import (
    ConvDecoder,
    DPTDecoder,
    FPNDecoder,
    LightDecoder,
    LinearDecoder,
    SingleLevel,
    UNetDecoder,
    UPerNet,
)
from satdifuser.fusion import Concatenated, GlobalWeighted, Levels, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.fusion.base import FusionHead, PyramidSpec

pytestmark = pytest.mark.gpu
WIDTH, BATCH, IMAGE = 16, 4, (32, 48)
HEADS: dict[str, Callable[[BankSpec, str], FusionHead]] = {
    "gw": lambda spec, norm: GlobalWeighted(spec, WIDTH, norm),
    "lw": lambda spec, norm: LocalizedWeighted(spec, WIDTH, norm, tau=0.7),
    "moe": lambda spec, norm: MixtureOfExperts(spec, WIDTH, norm, experts=4, warmup_steps=9),
    "moe top": lambda spec, norm: MixtureOfExperts(spec, WIDTH, norm, experts=4, top_k=2, warmup_steps=0),
    "mean": lambda spec, norm: UniformMean(spec, WIDTH, norm),
    "concat": lambda spec, norm: Concatenated(spec, WIDTH, norm),
    "levels": lambda spec, norm: Levels(spec, WIDTH, norm),
}
TWO, ONE = PyramidSpec((4, 8), WIDTH, IMAGE), PyramidSpec((8,), WIDTH, IMAGE)
DECODERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: LinearDecoder(TWO, 3, dense=False),
    "linear dense": lambda: LinearDecoder(TWO, 3, dense=True),
    "upernet": lambda: UPerNet(TWO, 3, dense=True, channels=16, dropout=0.0),
    "upernet of one stride": lambda: UPerNet(ONE, 3, dense=True, channels=16, dropout=0.0),
    "conv": lambda: ConvDecoder(TWO, 3, dense=True, channels=16, dropout=0.0),
    "light": lambda: LightDecoder(TWO, 3, dense=True, channels=16, dropout=0.0),
    "single": lambda: SingleLevel(TWO, 3, dense=True, stride=8, channels=16, dropout=0.0),
    "fpn": lambda: FPNDecoder(TWO, 3, dense=True, channels=16, segmentation_channels=32, dropout=0.0),
    "dpt": lambda: DPTDecoder(TWO, 3, dense=True, channels=16, dropout=0.0),
    "unet of one stride": lambda: UNetDecoder(ONE, 3, dense=True, channels=16),
}
# An activation that rounding moves to the other side of a ReLU's kink has another slope, however near the values are.
KINKS = 1e-3

Given = dict[str, Tensor]


def fused(head: FusionHead) -> Callable[[Given], Given]:
    """A bank's maps by the names of their taps -> all that the head gives."""

    def forward(maps: Given) -> Given:
        found = head(FeatureBank(head.spec, {tap: maps[str(tap)] for tap in head.spec.taps}))
        values = {f"map {stride}": value for stride, value in found.maps.items()}
        values |= {f"weights {stride}": value for stride, value in found.weights.items()}
        for name, details in found.details.items():
            values |= {f"{name} {stride}": value for stride, value in details.items()}
        return values if found.aux_loss is None else {**values, "balance": found.aux_loss}

    return forward


def leaves(values: Given, **place: Any) -> Given:
    return {name: value.detach().to(**place).requires_grad_() for name, value in values.items()}


def near(values: Given) -> Given:
    """Targets that do not depend on who asks."""
    return {name: torch.randn(value.shape, dtype=torch.float64) for name, value in values.items()}


@pytest.fixture
def spec(toy_spec: Any) -> BankSpec:
    return toy_spec(image_size=IMAGE)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_has_the_values_and_slopes_of_the_cpu(
    kind: str, norm: str, device: torch.device, spec: BankSpec, scattered: Any, slopes: Any, agree: Any
) -> None:
    exact = scattered(HEADS[kind](spec, norm)).double().train()
    head = copy.deepcopy(exact).float().to(device)
    maps = {str(tap): torch.randn(BATCH, *spec.shape(tap)) for tap in spec.taps}
    targets = near(fused(copy.deepcopy(exact))({name: value.double() for name, value in maps.items()}))
    wanted, slope = slopes(exact, fused(exact), leaves(maps, dtype=torch.float64), targets)
    got, found = slopes(head, fused(head), leaves(maps, device=device), targets)
    assert {value.device.type for value in got.values()} == {device.type}
    agree(got, wanted)
    agree(found, slope, tolerance=KINKS)
    agree(dict(head.named_buffers()), dict(exact.named_buffers()))  # what BatchNorm has seen
    agree(fused(head.eval())(leaves(maps, device=device)), fused(exact.eval())(leaves(maps, dtype=torch.float64)))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_has_the_values_and_slopes_of_the_cpu(
    kind: str, device: torch.device, scattered: Any, slopes: Any, agree: Any
) -> None:
    exact = scattered(DECODERS[kind]()).double()
    decoder = copy.deepcopy(exact).float().to(device)
    strides = (8,) if kind.endswith("of one stride") else (4, 8)
    maps = {str(s): torch.randn(BATCH, WIDTH, IMAGE[0] // s, IMAGE[1] // s) for s in strides}

    def decoded(module: nn.Module) -> Callable[[Given], Given]:
        return lambda given: {"logits": module({int(s): value for s, value in given.items()}, IMAGE)}

    targets = near(decoded(exact)(leaves(maps, dtype=torch.float64)))
    wanted, slope = slopes(exact, decoded(exact), leaves(maps, dtype=torch.float64), targets)
    got, found = slopes(decoder, decoded(decoder), leaves(maps, device=device), targets)
    agree(got, wanted)
    agree(found, slope, tolerance=KINKS)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_and_its_decoder_under_autocast_stay_near_the_cpu(
    kind: str, precision: str, device: torch.device, spec: BankSpec, agree: Any
) -> None:
    exact = HEADS[kind](spec, "group").double()
    if isinstance(exact, MixtureOfExperts):  # in 16 bits a near tie would choose another expert
        for gate in exact.gates.values():
            gate.score.bias.data.copy_(torch.tensor([0.0, 8.0, 0.5, 7.0]))  # type: ignore[union-attr]
    exact_decoder = LinearDecoder(exact.pyramid, 3, dense=True).double()
    head, decoder = (copy.deepcopy(module).float().to(device) for module in (exact, exact_decoder))
    maps = {str(tap): torch.randn(BATCH, *spec.shape(tap)) for tap in spec.taps}
    wanted = fused(exact)({name: value.double() for name, value in maps.items()})
    low = getattr(torch, precision)
    given = leaves(maps, device=device, dtype=low)  # as the model gives them to a head under autocast
    with torch.autocast(device.type, dtype=low):
        try:
            got = fused(head)(given)
        except RuntimeError as error:
            if device.type == "cpu" and "not implemented for 'Half'" in str(error):
                pytest.skip(f"no float16 on this CPU: {error}")
            raise
        logits = decoder({stride: got[f"map {stride}"] for stride in (4, 8)}, IMAGE)
    agree(got, wanted, precision)
    agree(logits, exact_decoder({stride: wanted[f"map {stride}"] for stride in (4, 8)}, IMAGE), precision)
    logits.float().square().mean().backward()
    assert all(bool(value.grad.isfinite().all()) for value in given.values() if value.grad is not None)
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)
    assert any(bool(p.grad.any()) for p in head.parameters() if p.grad is not None)
