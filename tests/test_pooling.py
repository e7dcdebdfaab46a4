"""Pooled features: the same live and stored, with gradients that are right, and refused where there is no map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.pooling import NAMES, Pooling, held_of, pooling_for
from satdifuser.store import Form

Spec, Bank = Callable[..., BankSpec], Callable[..., FeatureBank]


@pytest.mark.parametrize("name", [*NAMES, "grid3"])
def test_a_pooled_bank_is_what_a_store_of_that_form_gives(toy_spec: Spec, toy_bank: Bank, name: str) -> None:
    bank = toy_bank(toy_spec())
    found, stored = Pooling(name).bank(bank), Form("float32", name).pack(bank).unpack()
    assert found.spec == stored.spec == Pooling(name).spec(bank.spec)
    for tap in found.spec.taps:
        assert torch.equal(found[tap], stored[tap])


@pytest.mark.parametrize("name", [*NAMES, "grid3"])
def test_gradients_are_those_of_finite_differences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # differences need more than float32
    maps = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Pooling(name).maps, maps)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1)])
def test_a_map_that_deviates_from_nothing_has_a_gradient(shape: tuple[int, int]) -> None:
    maps = torch.full((2, 3, *shape), 0.7, requires_grad=True)
    pooled = Pooling("moments").maps(maps)
    torch.testing.assert_close(pooled.flatten(1), torch.tensor([[0.7] * 3 + [0.0] * 3] * 2))
    pooled.sum().backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.full_like(maps, 1 / (shape[0] * shape[1])))  # that of the means alone


@pytest.mark.parametrize("shape", [(7, 5), (16, 16), (1, 2), (300, 301)])
def test_quantiles_are_the_moments_and_then_numpys(shape: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *shape) * torch.rand(2, 3, 1, 1) * 4 + torch.randn(2, 3, 1, 1)
    found = Pooling("quantiles").maps(maps)
    assert found.shape == (2, 21, 1, 1)
    assert Pooling("quantiles").numbers == 7
    assert torch.equal(found[:, :6], Pooling("moments").maps(maps))
    expected = np.quantile(maps.double().flatten(2).numpy(), [0.1, 0.25, 0.5, 0.75, 0.9], axis=2)
    np.testing.assert_allclose(found[:, 6:, 0, 0].reshape(2, 5, 3).numpy(), np.moveaxis(expected, 0, 1), atol=1e-5)


def test_of_a_map_of_one_pixel_quantiles_leave_its_value_alone() -> None:
    taps = (Tap("map", None, 0, 3, 4), Tap("map.class", None, 1, 5, 16))
    spec = BankSpec(taps, "toy", "none", (16, 16))
    bank = FeatureBank(spec, {taps[0]: torch.randn(2, 3, 4, 4), taps[1]: torch.randn(2, 5, 1, 1)})
    pooling = Pooling("quantiles")
    found = pooling.bank(bank)
    assert [found.spec.shape(tap) for tap in found.spec.taps] == [(21, 1, 1), (5, 1, 1)]
    assert torch.equal(found.map("map.class", None), bank.map("map.class", None))
    assert [pooling.numbers_of(spec, tap) for tap in taps] == [7, 1]
    assert [held_of(found.spec, tap) for tap in found.spec.taps] == ["quantiles", "mean"]
    assert [held_of(spec, tap) for tap in taps] == [None, None]
    assert Form("float32", "quantiles").pack(bank).unpack().spec == found.spec


def test_what_is_pooled_already_stays_and_cannot_be_pooled_to_something_else(toy_spec: Spec) -> None:
    spec = toy_spec()
    assert pooling_for(spec, None) is None
    assert pooling_for(spec, "mean") == Pooling("mean")
    means = Pooling("mean").spec(spec)
    assert pooling_for(means, "mean") is None
    with pytest.raises(UserError, match=r"pool=max needs maps, .* pooled already \(store.keep=mean\): leave pool out"):
        pooling_for(means, "max")


@pytest.mark.parametrize(("name", "near"), [("means", "mean"), ("grid0", "grid"), ("maps", "max"), (4, "")])
def test_an_unknown_name_is_one_line_with_those_that_there_are(toy_spec: Spec, name: Any, near: str) -> None:
    with pytest.raises(
        UserError, match=f"pool is '{name}': it can be mean, max, moments, quantiles, grid2, grid4.*{near}"
    ):
        pooling_for(toy_spec(), name)
