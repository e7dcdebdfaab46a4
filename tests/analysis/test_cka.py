"""CKA against Song et al.'s formula written with traces, the U-statistic itself, and values that algebra gives."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.analysis import cka, rows
from satdifuser.analysis.cka import GROUPS, MinibatchCKA, cka_full, grams
from satdifuser.errors import UserError

EXACT = 1e-10  # one batch of all samples, and float64 on all samples at once


def song(x: Any, y: Any) -> float:
    """HSIC_1 of linear kernels, equation 5 of Song et al. 2012, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, ones = len(x), np.ones(len(x))
    k, l = ((a - a.mean(0)) @ (a - a.mean(0)).T for a in (x, y))  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    first = np.trace(k @ l)
    second = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (ones @ k @ l @ ones)
    return float((first + second - third) / (n * (n - 3)))


def slow(x: Any, y: Any) -> float:
    return song(x, y) / math.sqrt(song(x, x) * song(y, y))


def pair(samples: int, generator: torch.Generator, channels: tuple[int, int] = (6, 9), noise: float = 1.0) -> Any:
    """Two maps that share some directions, and what CKA of endlessly many samples is."""
    one, other = (torch.randn(3, c, generator=generator).double() for c in channels)
    z = torch.randn(samples, 3, generator=generator).double()
    x, y = (z @ m + noise * torch.randn(samples, m.shape[1], generator=generator) for m in (one, other))
    within = [(m.T @ m + noise**2 * torch.eye(m.shape[1])).square().sum().sqrt() for m in (one, other)]
    return x, y, float((one.T @ other).square().sum() / within[0] / within[1])


def fill(x: Any, y: Any, sizes: list[int]) -> MinibatchCKA:
    found = MinibatchCKA(len(x), len(y))
    for a, b in zip(*(zip(*(each.split(sizes) for each in side), strict=True) for side in (x, y)), strict=True):
        found.add(a, b)
    return found


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    return torch.Generator().manual_seed(sum(request.node.name.encode()))


def test_one_batch_of_all_samples_is_the_formula_for_every_pair(generator: torch.Generator) -> None:
    shared = torch.randn(70, 4, generator=generator)
    x, y = (
        [shared @ torch.randn(4, c, generator=generator) + torch.randn(70, c, generator=generator) for c in channels]
        for channels in ((3, 20, 200), (5, 70))
    )
    found = fill(x, y, [70])
    wanted = [[slow(a, b) for b in y] for a in x]
    np.testing.assert_allclose(found.value, wanted, rtol=EXACT, atol=EXACT)
    assert found.value.shape == (3, 2)
    assert np.isnan(found.error).all()


def test_the_formula_is_the_mean_over_all_quadruples_of_samples(generator: torch.Generator) -> None:
    x, y, _ = pair(7, generator)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    terms = [float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])) for i, j, q, r in itertools.permutations(range(7), 4)]
    a, b = grams([x, y])
    assert float((a * b).sum()) / (7 * 4) == pytest.approx(np.mean(terms), rel=EXACT)
    assert song(x, y) == pytest.approx(np.mean(terms), rel=EXACT)


def test_u_centred_grams_have_no_diagonal_and_no_sums(generator: torch.Generator) -> None:
    found = grams([torch.randn(9, c, generator=generator) + 100 for c in (2, 30)])
    assert found.dtype == torch.float64
    assert float(found.diagonal(dim1=1, dim2=2).abs().max()) == 0
    assert float(found.sum(2).abs().max()) < 1e-9
    torch.testing.assert_close(found, found.mT)


@pytest.mark.parametrize("channels", [(6, 9), (90, 7), (120, 130)])
def test_all_samples_at_once_are_the_formula_whatever_is_larger(
    generator: torch.Generator, channels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, _ = pair(100, generator, channels)
    for block in (rows.BLOCK, 500):
        monkeypatch.setattr(rows, "BLOCK", block)
        monkeypatch.setattr(cka, "BLOCK", block)
        assert cka_full(x, y) == pytest.approx(slow(x, y), rel=EXACT)
        k, l = ((a - a.mean(0)) @ (a - a.mean(0)).T for a in (x.numpy(), y.numpy()))  # noqa: E741
        biased = np.trace(k @ l) / math.sqrt(np.trace(k @ k) * np.trace(l @ l))
        assert cka_full(x.numpy(), y.numpy(), unbiased=False) == pytest.approx(biased, rel=EXACT)


def test_all_samples_at_once_take_no_matrix_of_samples_by_samples() -> None:
    x = torch.randn(200_000, 3)  # whose Gram matrix would take 320 GB
    assert cka_full(x, x[:, :2] * 1.0) == pytest.approx(math.sqrt(2 / 3), abs=0.02)


def test_minibatches_lie_around_the_value_of_endless_samples_as_their_errors_say(generator: torch.Generator) -> None:
    scores, gaps = [], []
    for _ in range(150):
        x, y, truth = pair(24 * 16, generator)
        found = fill([x], [y], [16] * 24)
        scores.append((found.value - truth).item() / found.error.item())
        gaps.append((found.value - truth).item())
    inside = np.mean(np.abs(scores) < 2.07)  # Student's t with 23 degrees, 95 %
    assert 0.85 < inside <= 1
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / math.sqrt(150) + 0.01


def test_minibatches_come_near_the_full_batch_with_more_samples(generator: torch.Generator) -> None:
    gaps, errors = {}, {}
    for batches in (8, 128):
        trials = []
        for _ in range(25):
            x, y, _ = pair(32 * batches, generator)
            found = fill([x], [y], [32] * batches)
            trials.append((abs(found.value.item() - cka_full(x, y)), found.error.item()))
            assert trials[-1][0] < 4 * trials[-1][1] + 0.002
        gaps[batches], errors[batches] = np.mean(trials, 0)
    assert gaps[128] < gaps[8] / 2
    assert 0.15 < errors[128] / errors[8] < 0.4  # a quarter, of sixteen times the samples


def test_independent_maps_have_none_where_the_biased_estimator_sees_much(generator: torch.Generator) -> None:
    x, y = torch.randn(4000, 50, generator=generator), torch.randn(4000, 40, generator=generator)
    found = fill([x], [y], [8] * 500)
    assert abs(found.value.item()) < 4 * found.error.item() < 0.1
    parts = zip(x.split(8), y.split(8), strict=True)
    assert np.mean([cka_full(a, b, unbiased=False) for a, b in parts]) > 0.7


def jackknife(x: Any, y: Any, sizes: list[int]) -> tuple[float, float]:
    """The value and its error by leaving out each batch in turn; of unequal batches as Busing et al. 1999 have it."""
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    table = [[len(a) * song(a, b), len(a) * song(a, a), len(a) * song(b, b)] for a, b in parts]

    def value(which: list[int]) -> float:
        cross, own, other = (sum(table[i][place] for i in which) for place in range(3))
        return cross / math.sqrt(own * other)

    count, total = len(parts), sum(sizes)
    whole = value(list(range(count)))
    left = [value([i for i in range(count) if i != out]) for out in range(count)]
    centre = count * whole - sum((1 - size / total) * each for size, each in zip(sizes, left, strict=True))
    variance = 0.0
    for size, each in zip(sizes, left, strict=True):
        ratio = total / size
        variance += (ratio * whole - (ratio - 1) * each - centre) ** 2 / (ratio - 1) / count
    return whole, math.sqrt(variance)


@pytest.mark.parametrize("sizes", [[20] * 5, [20, 20, 20, 7], [30, 4], [6] * 40])
def test_value_and_error_are_those_of_leaving_batches_out_one_by_one(
    generator: torch.Generator, sizes: list[int]
) -> None:
    x, y, _ = pair(sum(sizes), generator)
    found = fill([x, y], [y], sizes)
    assert (found.samples, found.batches) == (sum(sizes), len(sizes))
    assert (found.value[0, 0], found.error[0, 0]) == pytest.approx(jackknife(x, y, sizes), rel=1e-8)
    assert (found.value[1, 0], found.error[1, 0]) == pytest.approx((1, 0), abs=1e-7)


def test_of_equal_batches_the_error_is_the_textbooks(generator: torch.Generator) -> None:
    x, y, _ = pair(80, generator)
    left = [fill([np_out(x, i)], [np_out(y, i)], [10] * 7).value.item() for i in range(8)]
    wanted = math.sqrt(7 / 8 * sum((each - np.mean(left)) ** 2 for each in left))
    assert fill([x], [y], [10] * 8).error.item() == pytest.approx(wanted, rel=1e-8)


def np_out(x: torch.Tensor, batch: int) -> torch.Tensor:
    return torch.cat([part for place, part in enumerate(x.split(10)) if place != batch])


def test_what_is_held_stays_the_same_however_many_batches_there_are(generator: torch.Generator) -> None:
    held = []
    for batches in (GROUPS, 8 * GROUPS, 8 * GROUPS + 3):
        x, y, _ = pair(6 * batches, generator)
        found = fill([x, y], [y, x, y], [6] * batches)
        value, error = jackknife(x, y, [6] * batches)
        assert found.value[0, 0] == pytest.approx(value, rel=1e-9)
        assert found.error[0, 0] == pytest.approx(error, rel=0.35)
        assert found.samples == 6 * batches == sum(group.weight for group in found._groups)
        held.append(sum(part.nbytes for group in found._groups for part in (group.cross, group.first, group.second)))
    assert held[1] == held[0]
    assert held[2] < held[0]


def test_a_map_is_read_in_blocks_that_do_not_grow_with_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(20, 1003) * 3 + 50
    whole, before = rows.gram(x), x.clone()
    monkeypatch.setattr(rows, "BLOCK", 400)
    blocks = list(rows.channel_blocks(x))
    assert max(block.numel() for block in blocks) <= 400
    assert sum(block.shape[1] for block in blocks) == 1003
    torch.testing.assert_close(rows.gram(x), whole, rtol=1e-12, atol=1e-9)
    assert torch.equal(x, before)


def test_turns_scale_and_offset_change_nothing(generator: torch.Generator) -> None:
    x, y, _ = pair(60, generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())[0]
    sizes = [25, 25, 10]
    found = fill([x, x @ turn, -7 * x, x + 1000 * torch.randn(6, generator=generator)], [y], sizes)
    np.testing.assert_allclose(found.value, found.value[0].repeat(4)[:, None], rtol=1e-9)
    np.testing.assert_allclose(found.error, found.error[0].repeat(4)[:, None], rtol=1e-6)
    stretched = fill([x * torch.linspace(1, 9, 6)], [y], sizes)
    assert abs(stretched.value - found.value[0]).item() > 1e-3


def test_the_order_of_samples_in_a_batch_changes_nothing_but_must_be_one(generator: torch.Generator) -> None:
    x, y, _ = pair(40, generator)
    order = torch.randperm(40, generator=generator)
    assert fill([x[order]], [y[order]], [40]).value == pytest.approx(fill([x], [y], [40]).value, rel=1e-10)
    assert abs(fill([x[order]], [y], [40]).value - fill([x], [y], [40]).value).item() > 0.05


def test_a_side_against_itself_is_what_two_equal_sides_are(generator: torch.Generator) -> None:
    x, y, _ = pair(48, generator)
    two, one = fill([x, y], [x, y], [16] * 3), MinibatchCKA(2, 2)
    for a, b in zip(x.split(16), y.split(16), strict=True):
        one.add_alone([a, b])
    np.testing.assert_allclose(one.value, two.value, rtol=1e-12)
    np.testing.assert_allclose(one.error, two.error, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.diag(one.value), 1, rtol=1e-12)


def test_float32_far_from_zero_loses_nothing_beyond_its_own_rounding(generator: torch.Generator) -> None:
    x, y, _ = pair(50, generator)
    a, b = (x + 3000).float(), y.float()
    assert fill([a], [b], [50]).value.item() == pytest.approx(slow(a.double() - 3000, b), rel=EXACT)
    assert cka_full(a, b) == pytest.approx(slow(a.double() - 3000, b), rel=EXACT)


def outlier() -> torch.Tensor:
    """Samples without any likeness to each other but that one differs."""
    found = torch.zeros(32, 5)
    found[3] = 2.0
    return found


@pytest.mark.parametrize(
    "flat",
    [
        torch.zeros(32, 5),
        torch.full((32, 5), 1234.567),
        torch.full((32, 5), 0.1) * (1 + 1.2e-7 * torch.randn(32, 5).sign()),
        torch.full((32, 5), 1 / 3, dtype=torch.float64) + 1e-17,
        torch.full((32, 5), 0.7, dtype=torch.float16),
        torch.eye(32),
        outlier(),
    ],
    ids=["zero", "constant", "noise", "float64", "float16", "one-hot", "outlier"],
)
def test_maps_without_structure_have_no_value(flat: torch.Tensor, generator: torch.Generator) -> None:
    x = torch.randn(32, 4, generator=generator)
    found = fill([flat, x], [x, flat], [32])
    assert np.isnan([found.value[0, 0], found.value[0, 1], found.value[1, 1]]).all()
    assert found.value[1, 0] == pytest.approx(1)
    assert math.isnan(cka_full(flat, x))
    assert math.isnan(cka_full(flat, flat))
    halves = fill([flat, x], [x, flat], [16, 16])
    assert np.isnan([halves.error[0, 0], halves.error[0, 1], halves.error[1, 1]]).all()


def test_a_map_that_is_not_finite_spoils_no_other(generator: torch.Generator) -> None:
    x, y, _ = pair(32, generator)
    for bad in (math.nan, math.inf):
        broken = x.clone()
        broken[4, 2] = bad
        found = fill([broken, x], [y], [16, 16])
        assert math.isnan(found.value[0, 0])
        assert found.value[1] == pytest.approx(fill([x], [y], [16, 16]).value[0])


def test_a_map_that_varies_in_one_batch_only_has_a_value() -> None:
    x = torch.cat([torch.ones(16, 3), torch.randn(16, 3)])
    assert fill([x], [x], [16, 16]).value.item() == pytest.approx(1)


def test_few_samples_are_an_error_that_says_how_many_are_needed() -> None:
    x = torch.randn(3, 5)
    with pytest.raises(UserError, match="at least 4 samples, not 3"):
        MinibatchCKA(1, 1).add([x], [x])
    with pytest.raises(UserError, match="at least 4 samples, not 3"):
        cka_full(x, x)
    assert cka_full(x, x, unbiased=False) == pytest.approx(1)
    assert fill([torch.randn(4, 5)], [torch.randn(4, 5)], [4]).value.shape == (1, 1)


def test_what_does_not_belong_together_is_refused() -> None:
    x = torch.randn(8, 5)
    counter = MinibatchCKA(2, 1)
    with pytest.raises(ValueError, match="no batch"):
        _ = counter.value
    with pytest.raises(ValueError, match="1 and 1 maps of a comparison of 2 with 1"):
        counter.add([x], [x])
    with pytest.raises(ValueError, match=r"maps of \[7, 8\] samples"):
        counter.add([x, x[:7]], [x])
    with pytest.raises(ValueError, match="8 samples on one side and 6 on the other"):
        counter.add([x, x], [x[:6]])
    with pytest.raises(ValueError, match="8 samples on one side and 6 on the other"):
        cka_full(x, x[:6])
    with pytest.raises(ValueError, match=r"\[samples, channels\], not \[8, 5, 1, 1\]"):
        counter.add([x[..., None, None], x], [x])
