"""Learned weights in equal shares: what they sum over, and which heads are as at their start."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from satdifuser.report.content import Insight
from satdifuser.report.pictures import Pictures
from satdifuser.report.ranking import places
from satdifuser.report.weights import learned, moved, shares, views

TAPS = {4: ("a", "b"), 8: ("c", "d", "e")}


def insight(head, weights, start=None, model="model"):
    return Insight(model, "segmentation", (0, 21), TAPS, weights, head=head, start=start)


def random_weights(together, seed=0):
    random = np.random.default_rng(seed)
    raw = {stride: random.random((2, len(names))) for stride, names in TAPS.items()}
    whole = sum(values.sum() for values in raw.values())
    return {stride: values / (whole if together else values.sum()) for stride, values in raw.items()}


@pytest.mark.parametrize("together", [True, False])
def test_shares_are_multiples_of_what_an_even_head_gives(together) -> None:
    weights = random_weights(together)
    found = shares(weights)
    assert found.together == together
    for stride, values in weights.items():
        even = 1 / 10 if together else 1 / values.size
        np.testing.assert_allclose(found.values[stride], values / even, rtol=1e-12)
        assert found.sums[stride] == pytest.approx(values.sum())
    sizes = sum(found.values[stride].sum() for stride in TAPS)
    assert sizes == pytest.approx(found.count)  # the mean share is one


def test_a_head_is_as_at_the_start_until_a_map_has_moved_by_a_tenth_of_a_share() -> None:
    start = {stride: np.full((2, len(names)), 0.1) for stride, names in TAPS.items()}
    ended = {stride: values.copy() for stride, values in start.items()}
    ended[4][0, 0] += 0.009
    ended[8][0, 0] -= 0.009
    assert moved(insight("GlobalWeighted", ended, start)) == pytest.approx(0.09)
    assert moved(insight("GlobalWeighted", ended)) is None


def test_the_page_says_of_each_head_what_it_sums_over_and_whether_it_moved(make) -> None:
    content = make(models=("gw", "lw", "moe", "mean"), tasks=("segmentation",), budgets=(100.0,), samples=1)
    even = {stride: np.full((2, len(names)), 0.1) for stride, names in TAPS.items()}
    local = random_weights(False)
    heads = [
        insight("GlobalWeighted", even, even, "gw"),
        insight("LocalizedWeighted", local, local, "lw"),  # begins with weights that are not even, and stays
        insight("MixtureOfExperts", local, random_weights(False, seed=1), "moe"),
        insight("UniformMean", even, even, "mean"),
    ]
    section = dataclasses.replace(content.sections[0], insights=heads)
    content = dataclasses.replace(content, sections=[section])
    found = {view.model: view for view in views(section, places(content), Pictures(10**6))}
    assert {*found} == {"gw", "lw", "moe"}  # the mean learns none
    assert "sum to 1 over all 10 maps of 2 strides together" in found["gw"].sentence
    assert "sum to 1 over the maps of each stride (4 or 6)" in found["lw"].sentence
    heads_of = [found[name] for name in ("gw", "lw", "moe")]
    assert ["as at the start" in view.sentence for view in heads_of] == [True, True, False]
    assert [view.opened for view in heads_of] == [False, False, True]
    assert len({(view.low, view.high) for view in found.values()}) == 1  # one scale of colours
    assert "stride 4, 40 % of the whole" in [grid.caption for grid in found["gw"].grids]
    top = max(float(values.max()) for values in shares(local).values.values())
    assert f"most weight, {top:.2f} equal shares, on" in found["moe"].sentence
    assert not learned(heads[-1])
