"""Temporal heads compute on the device what they compute in float64 on the CPU, and dates are folded alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.engine.features import features
from satdifuser.temporal import Difference, TemporalAttention, TemporalHead, TemporalMax, TemporalMean

pytestmark = pytest.mark.gpu
HEADS: dict[str, tuple[int, Callable[[BankSpec], TemporalHead]]] = {
    "mean": (4, TemporalMean),
    "max": (4, TemporalMax),
    "difference": (2, Difference),
    "attention": (4, lambda spec: TemporalAttention(spec, heads=1)),
    "attention of the year": (4, lambda spec: TemporalAttention(spec, heads=1, days="year", share="tap")),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_has_the_values_and_slopes_of_the_cpu(
    kind: str, precision: str, device: torch.device, toy_spec: Any, agree: Any
) -> None:
    """Whatever precision maps come in, and under autocast too, they are summed in float32."""
    count, make = HEADS[kind]
    spec = replace(toy_spec(image_size=(32, 48)), dates=count)
    exact = make(spec).double()
    head = copy.deepcopy(exact).float().to(device)
    dates = torch.randint(0, 20000, (3, count))
    if count > 2:
        dates[0, 2:] = -1
    dtype = getattr(torch, precision)
    given = {tap: torch.randn(3, *spec.shape(tap)).to(dtype) for tap in spec.taps}

    def out(module: TemporalHead, place: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        maps = {tap: value.to(**place).requires_grad_() for tap, value in given.items()}
        found = module(FeatureBank(spec, maps), dates.to(place.get("device", "cpu")))
        sum(value.square().sum() for value in found.values()).backward()  # type: ignore[union-attr]
        slopes = {f"slope {tap}": value.grad for tap, value in maps.items()}
        slopes |= {name: value.grad for name, value in module.named_parameters()}
        return {str(tap): value for tap, value in found.items()}, slopes

    wanted, slope = out(exact, {"dtype": torch.float64})
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        got, found = out(head, {"device": device})
    assert {value.dtype for value in got.values()} == {torch.float32}
    agree(got, wanted)
    agree(found, slope, precision)


def test_series_are_read_on_the_device_as_each_date_is(
    device: torch.device, diffusion: Any, some: Any, agree: Any
) -> None:
    encoder = diffusion("satellite").to(device)
    images, ids, numbers = some(6)
    dates = torch.tensor([[18000, 18100, -1], [18000, 18200, 18300]])
    batch = {"id": ids[:2], "image": images.unflatten(0, (2, 3)), "dates": dates, "metadata": numbers[:2]}
    with torch.inference_mode():
        bank = features(encoder, batch, device)
        for date in range(3):
            single = {"id": ids[:2], "image": batch["image"][:, date], "metadata": numbers[:2]}
            alone = features(encoder, single, device)
            for tap, maps in bank.items():
                here = dates[:, date] >= 0
                agree(maps[:, date][here.to(device)], alone[tap][here.to(device)])
                assert not maps[:, date][~here.to(device)].any()
    assert {maps.device.type for maps in bank.values()} == {device.type}
