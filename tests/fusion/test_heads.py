"""What all heads share."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from satdifuser.bank import BankError, FeatureBank
from satdifuser.errors import UserError
from satdifuser.fusion import Concatenated, GlobalWeighted, Levels, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.fusion.base import Bottleneck, group_norm


def warm_moe(spec, projection_dim=384):
    return MixtureOfExperts(spec, projection_dim, experts=4, top_k=2, warmup_steps=0)


def dense_moe(spec, projection_dim=384):
    return MixtureOfExperts(spec, projection_dim, experts=4, top_k=2, warmup_steps=9)


DENSE = {
    "concat": Concatenated,
    "mean": UniformMean,
    "levels": Levels,
    "gw": GlobalWeighted,
    "lw": LocalizedWeighted,
    "moe": dense_moe,
}
HEADS = {**DENSE, "moe (sparse)": warm_moe}


@pytest.fixture(params=list(HEADS))
def make(request):
    return HEADS[request.param]


@pytest.fixture(params=list(DENSE))
def make_dense(request):
    return DENSE[request.param]


# --- the building blocks


@pytest.mark.parametrize(("channels", "width"), [(5, 384), (12, 256), (12, 16), (7, 24)])
def test_bottleneck_agrees_with_a_slow_one(randomised, slow, close, channels, width):
    block = randomised(Bottleneck(channels, width))
    assert block.spread.weight.shape == (width // 4, width // 4, 3, 3)
    x = torch.randn(2, channels, 2, 3, dtype=torch.float64)
    for sample, value in zip(block(x), x, strict=True):
        close(sample, slow.bottleneck(block, value.numpy()))


@pytest.mark.parametrize("channels", [64, 96, 128, 256, 384, 512])
def test_group_norm_has_thirty_two_groups_at_the_widths_in_use(channels):
    assert group_norm(channels).num_groups == 32


@pytest.mark.parametrize("channels", [2, 3, 6, 24, 32, 33, 48, 100])
def test_group_norm_of_other_widths_trains_on_a_single_pixel(channels):
    layer = group_norm(channels)
    assert channels % layer.num_groups == 0
    assert layer.train()(torch.randn(1, channels, 1, 1)).isfinite().all()


def test_mean_head_is_the_plain_mean_of_the_projected_maps(toy_spec, toy_bank, randomised, projections, close):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(UniformMean(spec, 16))
    fused = head(bank)
    for stride, names in {8: ("mid", "up.1"), 4: ("up.0",)}.items():
        for sample in range(2):
            projected = projections(head, bank, sample)
            chosen = [projected[t, name] for t in (21, 61, 97) for name in names]
            close(fused.maps[stride][sample], sum(chosen) / len(chosen))
        assert fused.weights[stride].flatten().tolist() == pytest.approx([1 / (3 * len(names))] * 3 * len(names))


@pytest.mark.parametrize("head", [UniformMean, GlobalWeighted, LocalizedWeighted])
def test_bottlenecks_are_one_for_each_tap_and_shared_over_the_timesteps(toy_spec, head):
    one, three = head(toy_spec((21,)), 16), head(toy_spec((21, 61, 97)), 16)
    assert sum(isinstance(module, Bottleneck) for module in three.modules()) == 3
    assert {k: v.shape for k, v in one.project.state_dict().items()} == {
        k: v.shape for k, v in three.project.state_dict().items()
    }


# --- shapes and weights


@pytest.mark.parametrize("timesteps", [(21, 61, 97), (None,)])
def test_head_gives_one_map_of_its_width_for_each_stride(toy_spec, toy_bank, make, timesteps):
    spec = toy_spec(timesteps, [("a", 12, 8), ("b", 10, 4), ("c", 8, 8), ("d", 6, 2)])
    head = make(spec, 16).double()
    maps = head(toy_bank(spec, batch=2)).maps
    assert {stride: tuple(value.shape) for stride, value in maps.items()} == {
        2: (2, 16, 8, 12),
        4: (2, 16, 4, 6),
        8: (2, 16, 2, 3),
    }
    assert (head.pyramid.strides, head.pyramid.channels, head.pyramid.image_size) == ((2, 4, 8), 16, (16, 24))


@pytest.mark.parametrize("timesteps", [(21, 61, 97), (None,)])
def test_head_gives_weights_of_timesteps_times_taps_that_sum_to_one_and_need_no_gradient(
    toy_spec, toy_bank, randomised, make, timesteps
):
    spec = toy_spec(timesteps)
    weights = randomised(make(spec, 16))(toy_bank(spec)).weights
    steps = len(timesteps)
    assert {stride: tuple(value.shape) for stride, value in weights.items()} == {4: (steps, 1), 8: (steps, 2)}
    assert all(not value.requires_grad and bool((value >= 0).all()) for value in weights.values())
    whole = 1 if make in (Concatenated, GlobalWeighted) else 2  # theirs are over all strides, the others' over each
    assert float(sum(value.sum() for value in weights.values())) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("cuts", [(5,), (2, 3), (1, 1, 1, 1, 1)])
def test_head_gives_the_same_maps_however_the_batch_is_split(toy_spec, toy_bank, randomised, make, cuts):
    spec = toy_spec()
    bank = toy_bank(spec, batch=5)
    head = randomised(make(spec, 16))
    whole = head(bank).maps
    starts = [sum(cuts[:i]) for i in range(len(cuts))]
    parts = [
        head(FeatureBank(spec, {tap: value[start : start + size] for tap, value in bank.items()})).maps
        for start, size in zip(starts, cuts, strict=True)
    ]
    for stride in (4, 8):
        joined = torch.cat([part[stride] for part in parts])
        torch.testing.assert_close(joined, whole[stride], rtol=1e-10, atol=1e-10)


def test_head_gives_the_same_maps_in_training_and_evaluation(toy_spec, toy_bank, randomised, make):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = randomised(make(spec, 16))
    training, evaluation = head.train()(bank).maps, head.eval()(bank).maps
    assert all(torch.equal(training[stride], evaluation[stride]) for stride in (4, 8))


def test_head_does_not_change_the_bank(toy_spec, toy_bank, randomised, make):
    spec = toy_spec()
    bank = toy_bank(spec)
    before = bank.apply(torch.clone)
    randomised(make(spec, 16))(bank)
    assert all(torch.equal(bank[tap], before[tap]) for tap in bank)


def test_head_loaded_from_its_state_gives_the_same_maps(toy_spec, toy_bank, randomised, make):
    spec = toy_spec()
    bank = toy_bank(spec)
    head, again = randomised(make(spec, 16)), make(spec, 16).double()
    again.load_state_dict(head.state_dict())
    assert all(torch.equal(head(bank).maps[stride], again(bank).maps[stride]) for stride in (4, 8))


@pytest.mark.parametrize("timesteps", [(97, 21, 61), (21, 33, 61, 97, 140)])
def test_head_uses_the_timesteps_it_was_built_for_whatever_others_or_order_the_bank_has(
    toy_spec, toy_bank, randomised, make, timesteps
):
    spec = toy_spec((21, 61, 97))
    bank = toy_bank(toy_spec(timesteps), batch=3)
    head = randomised(make(spec, 16))
    expected = head(bank.select(spec))
    given = head(bank)
    for stride in (4, 8):
        torch.testing.assert_close(given.maps[stride], expected.maps[stride])
        torch.testing.assert_close(given.weights[stride], expected.weights[stride])


@pytest.mark.parametrize("name", ["mid", "up.0", "up.1"])
def test_head_depends_on_every_map(toy_spec, toy_bank, randomised, make, name):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = randomised(make(spec, 16))
    stride = spec.find(name, 21).stride
    before = head(bank).maps
    for timestep in spec.timesteps:
        tap = spec.find(name, timestep)
        changed = FeatureBank(spec, {**dict(bank), tap: torch.randn_like(bank[tap])})
        after = head(changed).maps
        assert not torch.allclose(after[stride], before[stride])
        assert torch.equal(after[12 - stride], before[12 - stride])  # strides 4 and 8: the other one


# --- gradients


def test_gradients_reach_every_parameter(toy_spec, toy_bank, make_dense):
    spec = toy_spec()
    head = make_dense(spec, 16).double()
    fused = head(toy_bank(spec))
    # a random target: sums over a normalised map would have no gradient
    loss = sum((value * torch.randn_like(value)).sum() for value in fused.maps.values())
    if fused.aux_loss is not None:
        loss = loss + fused.aux_loss
    loss.backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert without == []
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters())


def test_gradients_reach_the_maps(toy_spec, toy_bank, make_dense):
    spec = toy_spec()
    bank = toy_bank(spec).apply(lambda value: value.requires_grad_())
    fused = make_dense(spec, 16).double()(bank)
    sum((value * torch.randn_like(value)).sum() for value in fused.maps.values()).backward()
    assert all(bool(bank[tap].grad.any()) for tap in bank)


# --- refusals


@pytest.mark.parametrize(
    ("taps", "image_size", "theirs"),
    [
        ((("mid", 13, 8), ("up.0", 10, 4), ("up.1", 8, 8)), (16, 24), r"\(13, 2, 3\)"),
        ((("mid", 12, 4), ("up.0", 10, 4), ("up.1", 8, 8)), (16, 24), r"\(12, 4, 6\)"),
        ((("mid", 12, 8), ("up.0", 10, 4), ("up.1", 8, 8)), (24, 16), r"\(12, 3, 2\)"),
    ],
)
def test_head_refuses_a_bank_of_another_spec_with_tap_and_both_shapes(
    toy_spec, toy_bank, make, taps, image_size, theirs
):
    head = make(toy_spec(), 8).double()
    with pytest.raises(BankError, match=rf"tap mid@21 \(12, 2, 3\), but .*{theirs}") as error:
        head(toy_bank(toy_spec(taps=taps, image_size=image_size)))
    assert type(head).__name__ in str(error.value)


def test_head_refuses_a_bank_without_one_of_its_timesteps_and_names_the_tap(toy_spec, toy_bank, make):
    head = make(toy_spec((21, 61)), 8).double()
    with pytest.raises(BankError, match=r"built for tap mid@61 \(12, 2, 3\), but the bank has mid@21, "):
        head(toy_bank(toy_spec((21,))))


def test_head_refuses_a_spec_that_is_not_a_full_grid_and_lists_its_taps(toy_spec, make):
    spec = toy_spec()
    with pytest.raises(BankError, match=r"every tap at every timestep: mid@21, .*up\.0@97$"):
        make(dataclasses.replace(spec, taps=spec.taps[:-1]))


def test_head_refuses_a_projection_too_narrow_to_normalise(toy_spec, make):
    with pytest.raises(UserError, match=r"fusion\.projection_dim is 4"):
        make(toy_spec(), 4)
