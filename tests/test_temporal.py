"""Temporal heads beside slow loops in float64: what is not there counts nowhere, and the order of dates is nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.fusion import UniformMean
from satdifuser.temporal import Difference, TemporalAttention, TemporalHead, TemporalMax, TemporalMean
from satdifuser.temporal.attention import YEAR, positions

DATES, BATCH = 5, 3
HEADS: dict[str, Callable[[BankSpec], TemporalHead]] = {
    "mean": TemporalMean,
    "max": TemporalMax,
    "attention": lambda spec: TemporalAttention(spec, heads=2, key=3),
}


def spec_of(dates: int = DATES) -> BankSpec:
    taps = (Tap("mid.0", 21, 0, 4, 8), Tap("mid.0", 61, 0, 4, 8), Tap("up", 21, 1, 6, 4), Tap("up", 61, 1, 6, 4))
    return BankSpec(taps, "toy", "none", (16, 24), settings=(("seed", 0),), dates=dates)


def series(spec: BankSpec, blanks: bool = True, dtype: torch.dtype = torch.float64) -> tuple[FeatureBank, Tensor]:
    """Random maps and days, in no order; some images are not there, and hold anything."""
    count = spec.dates or 0
    dates = torch.stack([torch.randperm(900)[:count] + 18000 for _ in range(BATCH)])
    maps = {tap: torch.randn(BATCH, *spec.shape(tap), dtype=dtype) for tap in spec.taps}
    if blanks:
        gone = torch.rand(BATCH, count) < 0.4
        gone[:, int(torch.randint(count, ()))] = False
        gone[0, :] = torch.arange(count) > 0  # a sample of which one date is there
        dates = dates.masked_fill(gone, -1)
        for value in maps.values():
            value[gone] = 1e4 * torch.randn(int(gone.sum()), *value.shape[2:], dtype=dtype)
    return FeatureBank(spec, maps), dates


def slow_mean(values: list[float], days: list[int]) -> float:
    return math.fsum(values) / len(values)


def slow_max(values: list[float], days: list[int]) -> float:
    return sorted(values)[-1]


@pytest.mark.parametrize(("name", "slow"), [("mean", slow_mean), ("max", slow_max)])
def test_mean_and_max_are_those_of_the_dates_that_are_there(name: str, slow: Any) -> None:
    spec = spec_of()
    bank, dates = series(spec)
    found = HEADS[name](spec)(bank, dates)
    assert found.spec.dates is None
    for tap in spec.taps:
        maps = bank[tap].numpy()
        for sample, channel, y, x in np.ndindex(BATCH, *spec.shape(tap)[1:]):
            there = [t for t in range(DATES) if dates[sample, t] >= 0]
            wanted = slow([float(maps[sample, t, channel, y, x]) for t in there], [])
            assert float(found[tap][sample, channel, y, x]) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_difference_is_the_later_less_the_earlier_whichever_comes_first(absolute: bool) -> None:
    spec = spec_of(2)
    bank, dates = series(spec, blanks=False)
    dates[0], dates[1] = torch.tensor([18001, 18900]), torch.tensor([18900, 18001])
    found = Difference(spec, absolute=absolute)(bank, dates)
    by_place = Difference(spec, absolute=absolute)(bank)
    for tap in spec.taps:
        for sample in range(BATCH):
            first, second = bank[tap][sample, 0], bank[tap][sample, 1]
            later, earlier = (second, first) if dates[sample, 1] > dates[sample, 0] else (first, second)
            wanted = later - earlier
            assert torch.equal(found[tap][sample], wanted.abs() if absolute else wanted)
            assert torch.equal(by_place[tap][sample], (second - first).abs() if absolute else second - first)


def slow_attention(head: TemporalAttention, tap: Tap, maps: Tensor, dates: Tensor) -> np.ndarray[Any, Any]:
    """Garnot & Landrieu's formulas, pixel by pixel and head by head, with keys made and compared one by one."""
    state = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    name = str(tap.channels) if head.share == "width" else str(tap).replace(".", "/")
    query, key = state[f"queries.{name}.query"], state[f"queries.{name}.key"]
    heads, size, width = key.shape
    out = np.zeros((BATCH, *maps.shape[2:]))
    for sample, y, x in np.ndindex(BATCH, *maps.shape[3:]):
        there = [t for t in range(maps.shape[1]) if dates[sample, t] >= 0]
        days = [int(dates[sample, t]) for t in there]
        since = [math.fmod(day, YEAR) if head.days == "year" else day - min(days) for day in days]
        pixels = [[float(v) for v in maps[sample, t, :, y, x]] for t in there]
        for h in range(heads):
            scores = []
            for pixel, day in zip(pixels, since, strict=True):
                mean = math.fsum(pixel) / len(pixel)
                spread = math.sqrt(math.fsum((v - mean) ** 2 for v in pixel) / len(pixel) + 1e-5)
                entry = []
                for i in range(width):
                    angle = day / head.period ** (2 * (i // 2) / width)
                    entry.append((pixel[h * width + i] - mean) / spread + (math.cos if i % 2 else math.sin)(angle))
                keys = [math.fsum(key[h, k, i] * entry[i] for i in range(width)) for k in range(size)]
                scores.append(math.fsum(q * k for q, k in zip(query[h], keys, strict=True)) / math.sqrt(size))
            exps = [math.exp(score - max(scores)) for score in scores]
            for i in range(width):
                channel = h * width + i
                total = math.fsum(e * pixel[channel] for e, pixel in zip(exps, pixels, strict=True))
                out[sample, channel, y, x] = total / math.fsum(exps)
    return out


@pytest.mark.parametrize("days", ["first", "year"])
@pytest.mark.parametrize("share", ["width", "tap"])
def test_attention_is_the_papers_formulas_at_each_pixel(days: Any, share: Any) -> None:
    spec = spec_of()
    bank, dates = series(spec)
    head = TemporalAttention(spec, heads=2, key=3, days=days, period=700.0, share=share).double()
    found = head(bank, dates)
    for tap in spec.taps:
        np.testing.assert_allclose(found[tap].detach(), slow_attention(head, tap, bank[tap], dates), atol=1e-10)


def test_attention_shares_its_weights_as_it_is_told() -> None:
    spec = spec_of()
    assert len(TemporalAttention(spec, heads=2).queries) == 2
    assert len(TemporalAttention(spec, heads=2, share="tap").queries) == 4


@pytest.mark.parametrize("name", HEADS)
def test_the_order_in_which_dates_are_given_is_nothing(name: str) -> None:
    spec = spec_of()
    bank, dates = series(spec)
    head, order = HEADS[name](spec).double(), torch.randperm(DATES)
    found = head(bank, dates)
    turned = head(FeatureBank(spec, {tap: maps[:, order] for tap, maps in bank.items()}), dates[:, order])
    for tap in spec.taps:
        torch.testing.assert_close(turned[tap], found[tap], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_there_changes_nothing_even_if_it_is_no_number(name: str) -> None:
    spec = spec_of()
    bank, dates = series(spec)
    head = HEADS[name](spec).double()
    found = head(bank, dates)
    spoilt = {tap: maps.masked_fill((dates < 0)[:, :, None, None, None], torch.nan) for tap, maps in bank.items()}
    again = head(FeatureBank(spec, spoilt), dates)
    for tap in spec.taps:
        assert torch.equal(again[tap], found[tap])
    assert bool(found[spec.taps[0]].isfinite().all())


@pytest.mark.parametrize("name", HEADS)
def test_one_date_alone_is_its_own_mean_maximum_and_attention(name: str) -> None:
    spec = spec_of()
    bank, dates = series(spec)
    found = HEADS[name](spec).double()(bank, dates)
    for tap in spec.taps:  # of sample 0 the first date is there
        torch.testing.assert_close(found[tap][0], bank[tap][0, 0])


@pytest.mark.parametrize("name", [*HEADS, "difference"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    dates_count = 2 if name == "difference" else 3
    spec = BankSpec((Tap("mid", None, 0, 4, 8),), "toy", "none", (8, 16), dates=dates_count)
    bank, dates = series(spec, blanks=name != "difference")
    head = Difference(spec) if name == "difference" else HEADS[name](spec).double()
    tap, weights = spec.taps[0], list(head.parameters())

    def out(maps: Tensor, *_: Tensor) -> Tensor:
        return head(FeatureBank(spec, {tap: maps}), dates)[head.spec.taps[0]]

    maps = bank[tap].clone()
    maps[dates < 0] = 0.5
    assert torch.autograd.gradcheck(out, (maps.requires_grad_(), *weights))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    spec = spec_of()
    bank, dates = series(spec, dtype=torch.float32)
    head, rough = HEADS[name](spec), bank.to(dtype)
    found = head(rough, dates)
    wanted = head(rough.to(torch.float32), dates)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = head(rough, dates)
    for tap in spec.taps:
        assert found[tap].dtype == again[tap].dtype == torch.float32
        assert torch.equal(found[tap], wanted[tap])
        assert torch.equal(again[tap], wanted[tap])


def test_positions_are_sines_and_cosines_of_the_day() -> None:
    days = torch.randint(0, 4000, (7,))
    found = positions(days, 6, 1000.0)
    for row, day in zip(found.tolist(), days.tolist(), strict=True):
        wanted = [(math.cos if i % 2 else math.sin)(day / 1000 ** (2 * (i // 2) / 6)) for i in range(6)]
        assert row == pytest.approx(wanted, abs=1e-9)


def test_attention_begins_near_the_mean_and_learns_which_date_counts() -> None:
    """The value of the pixel at its second date is to be told, whichever place it comes at."""
    torch.manual_seed(0)
    spec = BankSpec((Tap("mid", None, 0, 8, 4),), "toy", "none", (8, 8), dates=4)
    tap, head = spec.taps[0], TemporalAttention(spec, heads=1, key=4)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)

    def loss(count: int = 32) -> Tensor:
        maps = torch.randn(count, *spec.shape(tap))
        order = torch.stack([torch.randperm(4) for _ in range(count)])
        found = head(FeatureBank(spec, {tap: maps}), 18000 + 40 * order)[head.spec.taps[0]]
        return (found - maps[order == 1]).square().mean()

    first = float(loss(256).detach())
    for _ in range(300):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert 0.6 < first < 1.2  # the mean of four is 0.75 off, a date drawn by chance 1.5
    assert float(loss(256).detach()) < 0.2 * first


def test_what_does_not_fit_is_said_in_one_line() -> None:
    spec, one = spec_of(), BankSpec((Tap("mid", None, 0, 4, 8),), "toy", "none", (16, 16))
    with pytest.raises(UserError, match=r"^temporal=mean is for samples of several dates, and these have one image$"):
        TemporalMean(one)
    with pytest.raises(UserError, match=r"temporal=difference is of two dates, and these samples have 5"):
        Difference(spec)
    with pytest.raises(UserError, match=r"temporal.heads is 4, which does not divide the 6 .*it can be 1, 2$"):
        TemporalAttention(spec, heads=4)
    with pytest.raises(UserError, match=r"TemporalAttention needs to know the dates of samples"):
        TemporalAttention(spec, heads=2)(series(spec)[0])
    with pytest.raises(UserError, match=r"dates \(3, 4\) for images \(3, 5\)"):
        TemporalMean(spec)(series(spec)[0], torch.ones(3, 4))
    two = spec_of(2)
    dates = torch.tensor([[18000, 18001], [18000, -1], [18000, 18001]])
    with pytest.raises(UserError, match="sample b lacks one of the two images"):
        Difference(two)(series(two, blanks=False)[0], dates, ["a", "b", "c"])


def test_heads_of_fusion_read_no_dates() -> None:
    with pytest.raises(BankError, match=r"UniformMean reads one map of each tap, not 5 dates"):
        UniformMean(spec_of(), 16)
    assert UniformMean(TemporalMean(spec_of()).spec, 16).pyramid.strides == (4, 8)


def test_the_spec_says_what_made_one_of_several_dates() -> None:
    spec = spec_of()
    mean, attention = TemporalMean(spec).spec, TemporalAttention(spec, heads=2).spec
    assert mean.differences(attention)[0].startswith("temporal: 'mean' and 'attention heads=2")
    assert mean.taps == spec.taps
    assert (mean.dates, spec.dates) == (None, DATES)
    assert spec.differences(mean)[:2] == ["dates: 5 and None", "temporal: None and 'mean'"]
