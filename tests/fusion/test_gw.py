from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from satdifuser.fusion import GlobalWeighted, UniformMean


@pytest.mark.parametrize("projection_dim", [24, 256])
def test_gw_is_the_sum_of_projected_maps_weighted_by_one_softmax_over_all_scales(
    toy_spec, toy_bank, randomised, projections, close, projection_dim
):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(GlobalWeighted(spec, projection_dim))
    fused = head(bank)
    weight = softmax(head.logits.detach().numpy())  # over all elements
    for sample in range(2):
        projected = projections(head, bank, sample)
        for stride, names in {8: ("mid", "up.1"), 4: ("up.0",)}.items():
            expected = np.zeros((projection_dim, 16 // stride, 24 // stride))
            for t, timestep in enumerate((21, 61, 97)):
                for name in names:
                    column = ("mid", "up.0", "up.1").index(name)
                    expected += weight[t, column] * projected[timestep, name]
            close(fused.maps[stride][sample], expected)


def test_gw_weights_are_the_softmax_of_the_logits_split_over_the_strides(toy_spec, toy_bank, randomised, close):
    spec = toy_spec()
    head = randomised(GlobalWeighted(spec, 8))
    weights = head(toy_bank(spec)).weights
    expected = softmax(head.logits.detach().numpy())
    close(weights[8], expected[:, [0, 2]])
    close(weights[4], expected[:, [1]])


def test_gw_weights_sum_to_one_over_all_strides_and_not_over_each(toy_spec, toy_bank, randomised):
    spec = toy_spec(taps=(("a", 8, 8), ("b", 8, 4), ("c", 8, 2)))
    weights = randomised(GlobalWeighted(spec, 8))(toy_bank(spec, batch=1)).weights
    sums = [float(value.sum()) for value in weights.values()]
    assert sum(sums) == pytest.approx(1.0, abs=1e-12)
    assert all(0 < value < 0.99 for value in sums)


def test_gw_taking_up_one_tap_takes_weight_from_the_other_scale(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = randomised(GlobalWeighted(spec, 8))
    before = head(bank).weights
    with torch.no_grad():
        head.logits[1, 1] += 2.0  # up.0 (stride 4) at the second timestep
    after = head(bank).weights
    assert after[4][1, 0] > before[4][1, 0]
    assert bool((after[8] < before[8]).all())


def test_gw_starts_with_the_same_weight_for_every_map(toy_spec, toy_bank):
    spec = toy_spec()
    weights = GlobalWeighted(spec, 8).double()(toy_bank(spec)).weights
    assert all(torch.allclose(value, torch.full_like(value, 1 / 9)) for value in weights.values())


def test_gw_learns_to_prefer_the_only_map_that_carries_the_target(toy_spec, toy_bank, randomised):
    spec = toy_spec((21, 61), [("a", 8, 8), ("b", 8, 8)])
    bank = toy_bank(spec, batch=2)
    head = randomised(GlobalWeighted(spec, 8))
    with torch.no_grad():
        head.logits.zero_()
        target = head.project["b"](bank.map("b", 61))
    for _ in range(12):
        (slope,) = torch.autograd.grad((head(bank).maps[8] - target).square().mean(), head.logits)
        with torch.no_grad():
            head.logits -= 0.5 * slope / slope.abs().max()
    weights = head(bank).weights[8]
    assert weights.argmax() == 3
    assert weights[1, 1] > 0.8


def test_gw_with_equal_logits_is_uniform_fusion_scaled_by_the_share_of_the_stride(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec)
    mean = randomised(UniformMean(spec, 8))
    head = GlobalWeighted(spec, 8).double()
    head.load_state_dict(mean.state_dict(), strict=False)
    uniform, weighted = mean(bank).maps, head(bank).maps
    assert torch.allclose(weighted[8], uniform[8] * 6 / 9)
    assert torch.allclose(weighted[4], uniform[4] * 3 / 9)
