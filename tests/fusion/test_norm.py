"""What follows the convolutions of a head: GroupNorm, or BatchNorm where `norm` says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError
from satdifuser.fusion import Concatenated, GlobalWeighted, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.fusion.base import BatchNorm, Bottleneck


def sparse_moe(spec, projection_dim, norm):
    return MixtureOfExperts(spec, projection_dim, norm, experts=4, top_k=2, warmup_steps=0)


HEADS = {"concat": Concatenated, "mean": UniformMean, "gw": GlobalWeighted, "lw": LocalizedWeighted, "moe": sparse_moe}


@pytest.fixture(params=list(HEADS))
def make(request):
    return HEADS[request.param]


def travelled(module):
    """Give every BatchNorm statistics that are not those it starts with."""
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return module


def slow_bottleneck(slow, block, batch, moments):
    """The block on `[samples, C, H, W]`; `moments` gives a layer's mean and variance from its name and input."""
    p = slow.parameters(block)

    def normed(x, layer, norm):
        y = np.stack([slow.conv(sample, p[f"{layer}.weight"]) for sample in x])
        mean, var = moments(norm, y)
        y = (y - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
        return y * p[f"{norm}.weight"][:, None, None] + p[f"{norm}.bias"][:, None, None]

    y = np.maximum(normed(batch, "reduce", "norm1"), 0)
    y = np.maximum(normed(y, "spread", "norm2"), 0)
    return np.maximum(normed(y, "expand", "norm3") + normed(batch, "shortcut", "norm4"), 0)


def test_a_bottleneck_over_batches_agrees_with_a_slow_one(randomised, slow, close):
    block = travelled(randomised(Bottleneck(5, 16, norm="batch")))
    p = slow.parameters(block)
    x = torch.randn(3, 5, 2, 3, dtype=torch.float64)
    running = slow_bottleneck(
        slow, block, x.numpy(), lambda name, y: (p[f"{name}.running_mean"], p[f"{name}.running_var"])
    )
    close(block.eval()(x), running)
    of_batch = slow_bottleneck(slow, block, x.numpy(), lambda name, y: (y.mean((0, 2, 3)), y.var((0, 2, 3))))
    close(block.train()(x), of_batch)


def test_it_keeps_how_strong_a_sample_is_where_groups_of_channels_do_not(randomised):
    x = torch.randn(4, 6, 3, 3, dtype=torch.float64)
    group, batch = randomised(Bottleneck(6, 16)), travelled(randomised(Bottleneck(6, 16, norm="batch"))).eval()
    torch.testing.assert_close(group(5 * x), group(x), atol=1e-2, rtol=1e-2)  # but for the epsilon
    assert (batch(5 * x) - batch(x)).abs().mean() > 0.1


def test_a_lone_value_is_measured_by_the_running_statistics_and_does_not_move_them():
    layer = travelled(BatchNorm(3).double())
    before = layer.running_mean.clone()
    x = torch.randn(1, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))
    assert torch.equal(layer.running_mean, before)
    layer.train()(torch.randn(2, 3, 1, 1, dtype=torch.float64))
    assert not torch.equal(layer.running_mean, before)


def test_an_expert_that_one_pooled_map_chose_trains(toy_spec):
    spec = toy_spec((21,), [("mid", 12, 8)], image_size=(8, 8))  # one value for each channel
    head = sparse_moe(spec, 16, "batch").double()
    bank = FeatureBank(spec, {tap: torch.randn(3, 12, 1, 1, dtype=torch.float64) for tap in spec.taps})
    head(bank).maps[8].square().sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_a_head_in_evaluation_gives_a_sample_the_same_maps_beside_whatever_others(toy_spec, toy_bank, randomised, make):
    spec = toy_spec()
    bank = toy_bank(spec, batch=5)
    head = travelled(randomised(make(spec, 16, norm="batch"))).eval()
    whole, part = head(bank).maps, head(bank.samples(slice(1, 3))).maps
    for stride in (4, 8):
        torch.testing.assert_close(part[stride], whole[stride][1:3], rtol=1e-10, atol=1e-10)


def test_a_head_loaded_from_its_state_has_its_statistics(toy_spec, toy_bank, randomised, make):
    spec = toy_spec()
    bank = toy_bank(spec)
    head, again = travelled(randomised(make(spec, 16, norm="batch"))).eval(), make(spec, 16, norm="batch").double()
    again.load_state_dict(head.state_dict())
    assert all(torch.equal(head(bank).maps[stride], again.eval()(bank).maps[stride]) for stride in (4, 8))


def test_concatenated_channels_are_standardised_over_the_batch(toy_spec, toy_bank, randomised, slow, close):
    spec = toy_spec()
    bank = toy_bank(spec, batch=3)
    head = randomised(Concatenated(spec, 16, norm="batch"))
    weight, bias = (slow.parameters(head)[f"mix.8.{what}"] for what in ("weight", "bias"))
    x = np.concatenate([bank.map(name, t).numpy() for name in ("mid", "up.1") for t in (21, 61, 97)], axis=1)
    x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    close(head(bank).maps[8], np.stack([slow.conv(sample, weight, bias) for sample in x]))


def test_an_unknown_norm_is_refused_with_those_there_are(toy_spec, make):
    with pytest.raises(UserError, match=r"fusion\.norm is 'bach': it can be group or batch; did you mean batch\?"):
        make(toy_spec(), 16, norm="bach")
