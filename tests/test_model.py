"""The path from a batch to logits: which features reach the head, in which precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Labels
from satdifuser.decoders import LinearDecoder
from satdifuser.fusion import FusionHead, GlobalWeighted, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.model import FeatureModel
from satdifuser.tasks import Classification

LABELS = Labels(("a", "b", "c"), ("#000000",) * 3)


def model_of(head: type[FusionHead], spec: BankSpec) -> FeatureModel:
    task, fusion = Classification(LABELS), head(spec, 16)
    return FeatureModel(None, fusion, LinearDecoder(fusion.pyramid, task.outputs, dense=False), task)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_stored_features_reach_the_head_in_float32(
    toy_spec: Callable[..., BankSpec], toy_bank: Callable[..., FeatureBank], dtype: torch.dtype
) -> None:
    spec = toy_spec()
    bank = toy_bank(spec, dtype=dtype)
    given = model_of(GlobalWeighted, spec).bank({"id": ["a", "b"], "bank": bank})
    for tap in spec.taps:
        assert given[tap].dtype == torch.float32
        assert torch.equal(given[tap], bank[tap].float())


@pytest.mark.parametrize("head", [GlobalWeighted, LocalizedWeighted, MixtureOfExperts, UniformMean])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_under_autocast_the_head_takes_them_in_its_precision_and_says_nearly_the_same(
    toy_spec: Callable[..., BankSpec],
    toy_bank: Callable[..., FeatureBank],
    head: type[FusionHead],
    dtype: torch.dtype,
) -> None:
    spec = toy_spec()
    stacks = {
        name: torch.randn(len(spec.timesteps), 4, *spec.shape(spec.find(name, 21))).to(dtype) for name in spec.names()
    }
    bank = FeatureBank.stacked(spec, stacks)
    model, batch = model_of(head, spec), {"id": list("abcd"), "bank": bank, "label": torch.tensor([0, 1, 2, 0])}
    exact = model(batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taken: Any = model.bank(batch)
        rough = model(batch).logits
    for name in spec.names():
        assert taken.stack(name).dtype == torch.bfloat16
        assert (taken.stack(name).data_ptr() == stacks[name].data_ptr()) == (dtype == torch.bfloat16)
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()
    model.task.loss_sum(rough, batch).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
