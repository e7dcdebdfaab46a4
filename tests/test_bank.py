from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap


def maps_of(bank):
    return {tap: bank[tap] for tap in bank.spec.taps}


# --- taps and specs


@pytest.mark.parametrize(("channels", "stride"), [(0, 8), (4, 0), (-1, 8)])
def test_tap_without_channels_or_stride_is_refused_by_name(channels, stride):
    with pytest.raises(BankError, match=rf"tap mid@21: channels \({channels}\) and stride \({stride}\)"):
        Tap("mid", 21, 0, channels, stride)


def test_tap_is_named_with_its_timestep_if_it_has_one():
    assert str(Tap("mid", 61, 0, 4, 8)) == "mid@61"
    assert str(Tap("mid", None, 0, 4, 8)) == "mid"


@pytest.mark.parametrize("field", ["timestep", "channels", "stride"])
def test_taps_cannot_be_changed(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Tap("mid", 21, 0, 4, 8), field, 3)


@pytest.mark.parametrize("field", ["taps", "encoder", "image_size", "settings"])
def test_specs_cannot_be_changed(toy_spec, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(toy_spec(), field, ())


def test_spec_without_taps_is_refused():
    with pytest.raises(BankError, match="'toy' has no taps"):
        BankSpec((), "toy", "none", (16, 16))


def test_spec_refuses_a_duplicate_tap_by_name():
    tap = Tap("mid", 21, 0, 4, 8)
    with pytest.raises(BankError, match="tap mid@21 is in the spec twice"):
        BankSpec((tap, Tap("up", 21, 1, 4, 8), tap), "toy", "none", (16, 16))


def test_spec_refuses_a_duplicate_name_and_timestep_of_other_channels():
    with pytest.raises(BankError, match="tap mid@21 is in the spec twice"):
        BankSpec((Tap("mid", 21, 0, 4, 8), Tap("mid", 21, 0, 5, 8)), "toy", "none", (16, 16))


@pytest.mark.parametrize("other", [Tap("mid", 61, 0, 5, 8), Tap("mid", 61, 0, 4, 4), Tap("mid", 61, 1, 4, 8)])
def test_spec_refuses_a_tap_that_differs_between_timesteps(other):
    with pytest.raises(BankError, match=r"mid@61 is .* but tap mid@21 is 4 at stride 8") as error:
        BankSpec((Tap("mid", 21, 0, 4, 8), other), "toy", "none", (16, 16))
    assert f"{other.channels} channels at stride {other.stride}" in str(error.value)


def test_spec_refuses_an_image_that_its_stride_does_not_divide():
    with pytest.raises(BankError, match=r"tap mid@21: an image of 16 x 20 .* stride 8"):
        BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (16, 20))


def test_spec_gives_strides_finest_first_and_names_in_the_order_of_computation():
    taps = (Tap("late", 97, 2, 4, 4), Tap("early", 97, 0, 6, 8), Tap("late", 21, 2, 4, 4), Tap("early", 21, 0, 6, 8))
    spec = BankSpec(taps, "toy", "none", (16, 24))
    assert spec.strides == (4, 8)
    assert spec.timesteps == (97, 21)
    assert spec.names() == ("early", "late")
    assert spec.names(stride=4) == ("late",)
    assert (spec.channels("early"), spec.channels("late")) == (6, 4)


def test_shape_of_a_tap_is_channels_then_height_then_width(toy_spec):
    spec = toy_spec(image_size=(16, 24))
    assert spec.size(4) == (4, 6)
    assert spec.shape(spec.find("mid", 61)) == (12, 2, 3)


def test_find_names_what_is_there_when_a_tap_is_not(toy_spec):
    with pytest.raises(BankError, match=r"no tap mid@22; .* 'toy' has mid@21, up\.0@21"):
        toy_spec().find("mid", 22)
    with pytest.raises(BankError, match="no tap mid; "):
        toy_spec().find("mid")


def test_spec_is_a_grid_only_with_every_tap_at_every_timestep(toy_spec):
    spec = toy_spec()
    assert spec.is_grid()
    assert toy_spec(timesteps=(None,)).is_grid()
    assert not dataclasses.replace(spec, taps=spec.taps[:-1]).is_grid()


def test_specs_are_equal_and_hash_alike_if_and_only_if_all_fields_agree(toy_spec):
    spec = toy_spec(settings=(("seed", 0),))
    assert spec == toy_spec(settings=(("seed", 0),))
    assert len({spec, toy_spec(settings=(("seed", 0),))}) == 1
    others = [
        toy_spec(settings=(("seed", 1),)),
        toy_spec(settings=(("seed", 0),), encoder="other"),
        toy_spec(settings=(("seed", 0),), weights="other"),
        toy_spec(settings=(("seed", 0),), mode="other"),
        toy_spec(settings=(("seed", 0),), image_size=(24, 16)),
        toy_spec(settings=(("seed", 0),), timesteps=(21, 61)),
        toy_spec(settings=(("seed", 0),), timesteps=(61, 21, 97)),
    ]
    assert all(spec != other for other in others)
    assert len({spec, *others}) == len(others) + 1


@pytest.mark.parametrize("timesteps", [(21, 61), (61, 21), (None,)])
def test_spec_survives_json(toy_spec, timesteps):
    spec = toy_spec(timesteps, mode="edge", settings=(("bands", "rgb"), ("seed", 3), ("stats", None)))
    again = BankSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.differences(spec) == []


def test_spec_survives_json_whatever_the_order_of_its_settings(toy_spec):
    spec = toy_spec(settings=(("seed", 3), ("bands", "rgb")))
    assert BankSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_spec_survives_json_with_a_tuple_among_its_settings(toy_spec):
    spec = toy_spec(settings=(("bands", (3, 2, 1)),))
    again = BankSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)


# --- selecting and comparing specs


def test_select_keeps_the_order_of_the_taps(toy_spec):
    spec = toy_spec().select(timesteps=[97, 21], names=["up.1", "mid"])
    assert [str(tap) for tap in spec.taps] == ["mid@21", "up.1@21", "mid@97", "up.1@97"]


def test_select_by_stride_leaves_only_that_stride(toy_spec):
    assert toy_spec().select(strides=[4]).names() == ("up.0",)


def test_select_of_nothing_in_particular_is_the_same_spec(toy_spec):
    assert toy_spec().select() == toy_spec()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"timesteps": [21, 22]}, r"no timestep 22; .*\[21, 61, 97\]"),
        ({"names": ["down"]}, r"no tap down; .*\['mid', 'up\.0', 'up\.1'\]"),
        ({"strides": [16]}, r"no stride 16; .*\[4, 8\]"),
    ],
)
def test_select_of_what_is_not_there_says_what_is(toy_spec, wanted, message):
    with pytest.raises(BankError, match=message):
        toy_spec().select(**wanted)


def test_select_of_nothing_at_all_is_refused(toy_spec):
    with pytest.raises(BankError, match="no taps"):
        toy_spec().select(names=[])
    with pytest.raises(BankError, match="no taps"):
        toy_spec().select(names=["up.0"], strides=[8])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"encoder": "other"}, "encoder: 'toy' and 'other'"),
        ({"weights": "other"}, "weights: 'none' and 'other'"),
        ({"mode": "edge"}, "mode: 'plain' and 'edge'"),
        ({"image_size": (24, 16)}, "image_size: (16, 24) and (24, 16)"),
        ({"settings": (("seed", 1),)}, "seed: None and 1"),
        ({"timesteps": (61, 21, 97)}, "order of the taps"),
    ],
)
def test_differences_has_one_line_for_one_change(toy_spec, change, line):
    assert toy_spec().differences(toy_spec(**change)) == [line]


def test_differences_of_taps_names_them_and_both_shapes(toy_spec):
    mine = toy_spec((21,), [("mid", 12, 8), ("up", 10, 4)])
    theirs = toy_spec((21,), [("mid", 13, 8), ("down", 10, 4)])
    assert mine.differences(theirs) == [
        "tap down@21: only in the second",
        "tap mid@21: (12, 2, 3) and (13, 2, 3)",
        "tap up@21: only in the first",
    ]


def test_differences_of_a_taps_depth_does_not_show_two_equal_shapes(toy_spec):
    mine = BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (16, 24))
    theirs = BankSpec((Tap("mid", 21, 1, 4, 8),), "toy", "none", (16, 24))
    (line,) = mine.differences(theirs)
    left, right = line.removeprefix("tap mid@21: ").split(" and ")
    assert left != right


# --- banks


def test_bank_refuses_a_map_of_the_wrong_shape_with_tap_and_both_shapes(toy_spec, toy_bank):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec))
    maps[spec.find("up.0", 61)] = torch.zeros(2, 10, 6, 4)
    with pytest.raises(BankError, match=r"up\.0@61 .*\(10, 6, 4\).*\(10, 4, 6\)"):
        FeatureBank(spec, maps)


@pytest.mark.parametrize("shape", [(), (2,), (2, 12), (2, 1, 12, 2, 3)])
def test_bank_refuses_a_map_with_the_wrong_number_of_dimensions(toy_spec, toy_bank, shape):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec))
    maps[spec.taps[0]] = torch.zeros(shape)
    with pytest.raises(BankError, match=r"mid@21 .*\(12, 2, 3\)"):
        FeatureBank(spec, maps)


def test_bank_refuses_a_missing_tap_with_the_shape_it_should_have(toy_spec, toy_bank):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec))
    del maps[spec.find("up.1", 97)]
    with pytest.raises(BankError, match=r"tap up\.1@97 is missing: .*\(8, 2, 3\)"):
        FeatureBank(spec, maps)


def test_bank_refuses_an_extra_tap_by_name(toy_spec, toy_bank):
    spec = toy_spec()
    extra = Tap("down", 21, 3, 4, 8)
    with pytest.raises(BankError, match=r"tap down@21 .* not in the spec: mid@21, "):
        FeatureBank(spec, {**maps_of(toy_bank(spec)), extra: torch.zeros(2, 4, 2, 3)})


def test_bank_refuses_maps_of_different_batch_sizes_and_names_both_taps(toy_spec, toy_bank):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec, batch=2))
    maps[spec.find("up.0", 61)] = torch.zeros(3, 10, 4, 6)
    with pytest.raises(BankError, match=r"up\.0@61 has 3 samples, but tap mid@21 has 2"):
        FeatureBank(spec, maps)


def test_bank_keeps_its_maps_in_the_order_of_the_spec(toy_spec, toy_bank):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec))
    bank = FeatureBank(spec, dict(reversed(maps.items())))
    assert list(bank) == list(spec.taps)
    assert len(bank) == 9
    assert all(bank[tap] is maps[tap] for tap in spec.taps)
    assert bank.map("up.1", 61) is maps[spec.find("up.1", 61)]


def test_bank_cannot_be_changed_through_items_or_through_the_maps_it_was_made_of(toy_spec, toy_bank):
    spec = toy_spec()
    maps = maps_of(toy_bank(spec, batch=2))
    bank = FeatureBank(spec, maps)
    with pytest.raises(TypeError):
        bank[spec.taps[0]] = torch.zeros(2, 12, 2, 3)
    with pytest.raises(TypeError):
        del bank[spec.taps[0]]
    maps.clear()
    assert len(bank) == 9
    assert bank.batch_size == 2


def test_bank_asked_for_a_tap_that_it_lacks_says_what_it_has(toy_spec, toy_bank):
    bank = toy_bank(toy_spec((21,)))
    with pytest.raises(BankError, match=r"no tap mid@61; the bank has mid@21, up\.0@21, up\.1@21"):
        bank[Tap("mid", 61, 0, 12, 8)]
    with pytest.raises(BankError, match=r"no tap mid@61; .* has mid@21, up\.0@21, up\.1@21"):
        bank.map("mid", 61)


def test_bank_answers_whether_it_holds_a_tap(toy_spec, toy_bank):
    bank = toy_bank(toy_spec((21,)))
    assert Tap("mid", 21, 0, 12, 8) in bank
    assert Tap("mid", 61, 0, 12, 8) not in bank


@pytest.mark.parametrize("timesteps", [(21, 61, 97), (97, 21, 61), (None,)])
def test_stack_goes_timestep_by_timestep_and_sample_by_sample_within(toy_spec, toy_bank, timesteps):
    bank = toy_bank(toy_spec(timesteps), batch=2)
    stacked = bank.stack("up.0")
    assert stacked.shape == (2 * len(timesteps), 10, 4, 6)
    for t, timestep in enumerate(timesteps):
        for sample in range(2):
            assert torch.equal(stacked[2 * t + sample], bank.map("up.0", timestep)[sample])


def test_stack_of_a_tap_missing_at_one_timestep_names_it(toy_spec, toy_bank):
    spec = toy_spec()
    bank = toy_bank(dataclasses.replace(spec, taps=spec.taps[:-1]))
    with pytest.raises(BankError, match=r"up\.1@97"):
        bank.stack("up.1")


def test_select_gives_a_bank_of_the_smaller_spec_with_the_same_tensors(toy_spec, toy_bank):
    bank = toy_bank(toy_spec())
    small = bank.select(bank.spec.select(timesteps=[61], strides=[8]))
    assert [str(tap) for tap in small] == ["mid@61", "up.1@61"]
    assert all(small[tap] is bank[tap] for tap in small)


def test_select_of_a_spec_with_other_taps_names_the_first_that_is_not_there(toy_spec, toy_bank):
    with pytest.raises(BankError, match="no tap mid@33"):
        toy_bank(toy_spec()).select(toy_spec((33,)))


def test_apply_changes_every_map_and_refuses_a_change_of_shape(toy_spec, toy_bank):
    bank = toy_bank(toy_spec())
    negative = bank.apply(torch.neg)
    assert all(torch.equal(negative[tap], -bank[tap]) for tap in bank)
    with pytest.raises(BankError, match=r"mid@21 .*\(12, 3, 2\).*\(12, 2, 3\)"):
        bank.apply(lambda value: value.transpose(-1, -2))


def test_to_converts_every_map(toy_spec, toy_bank):
    half = toy_bank(toy_spec(), dtype=torch.float32).to(torch.float16)
    assert {value.dtype for value in half.values()} == {torch.float16}


def test_check_accepts_a_bank_with_more_than_is_asked_for(toy_spec, toy_bank):
    spec = toy_spec()
    toy_bank(spec).check(spec, "head")
    toy_bank(spec).check(spec.select(timesteps=[61], names=["mid"]), "head")


@pytest.mark.parametrize(
    ("taps", "image_size", "there"),
    [
        ([("mid", 13, 8)], (16, 24), r"\(13, 2, 3\)"),
        ([("mid", 12, 4)], (16, 24), r"\(12, 4, 6\)"),
        ([("mid", 12, 8)], (24, 16), r"\(12, 3, 2\)"),
    ],
)
def test_check_names_consumer_tap_and_both_shapes(toy_spec, toy_bank, taps, image_size, there):
    bank = toy_bank(toy_spec((21,), taps, image_size))
    with pytest.raises(BankError, match=rf"the head was built for tap mid@21 \(12, 2, 3\), but .*{there}"):
        bank.check(toy_spec((21,), [("mid", 12, 8)]), "the head")


def test_check_lists_what_the_bank_has_when_a_timestep_is_missing(toy_spec, toy_bank):
    bank = toy_bank(toy_spec((21,), [("mid", 12, 8)]))
    with pytest.raises(BankError, match=r"built for tap mid@61 \(12, 2, 3\), but the bank has mid@21"):
        bank.check(toy_spec((61,), [("mid", 12, 8)]), "head")


def test_cat_joins_batches_in_order(toy_spec, toy_bank):
    spec = toy_spec()
    parts = [toy_bank(spec, batch) for batch in (2, 1, 3)]
    joined = FeatureBank.cat(parts)
    assert joined.batch_size == 6
    for tap in spec.taps:
        samples = [sample for part in parts for sample in part[tap]]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(joined[tap], samples, strict=True))


def test_cat_refuses_banks_of_different_specs_and_says_what_differs(toy_spec, toy_bank):
    with pytest.raises(BankError, match="weights: 'none' and 'other'"):
        FeatureBank.cat([toy_bank(toy_spec()), toy_bank(toy_spec(weights="other"))])


# --- banks whose timesteps lie side by side


def stacks_of(spec, batch=3):
    return {
        name: torch.randn(len(spec.timesteps), batch, *spec.shape(next(tap for tap in spec.taps if tap.name == name)))
        for name in spec.names()
    }


@pytest.mark.parametrize("timesteps", [(21, 61, 97), (97, 21), (None,)])
def test_a_bank_of_stacks_is_the_same_bank_and_stacks_without_a_copy(toy_spec, timesteps):
    spec = toy_spec(timesteps)
    stacks = stacks_of(spec)
    bank = FeatureBank.stacked(spec, stacks)
    plain = FeatureBank(spec, {tap: stacks[tap.name][timesteps.index(tap.timestep)] for tap in spec.taps})
    assert bank.spec == spec
    assert bank.batch_size == 3
    assert list(bank) == list(plain)
    for tap in spec.taps:
        assert torch.equal(bank[tap], plain[tap])
    for name in spec.names():
        assert torch.equal(bank.stack(name), plain.stack(name))
        assert bank.stack(name).data_ptr() == stacks[name].data_ptr()


def test_stack_of_a_tap_that_lacks_a_timestep_is_refused_for_a_bank_of_stacks_too(toy_spec):
    spec = toy_spec()
    less = dataclasses.replace(spec, taps=spec.taps[:-1])
    stacks = stacks_of(spec)
    stacks["up.1"] = stacks["up.1"][:2]
    bank = FeatureBank.stacked(less, stacks)
    assert torch.equal(bank.map("up.1", 61), stacks["up.1"][1])
    with pytest.raises(BankError, match=r"up\.1@97"):
        bank.stack("up.1")


def test_stack_goes_in_the_order_of_the_timesteps_where_a_taps_own_order_differs(toy_spec):
    spec = toy_spec((21, 61))
    taps = [spec.find(name, t) for name, t in [("mid", 21), ("mid", 61), ("up.0", 61), ("up.0", 21)]]
    mixed = dataclasses.replace(spec, taps=tuple(taps))
    stacks = stacks_of(mixed)
    bank = FeatureBank.stacked(mixed, stacks)
    assert torch.equal(bank.map("up.0", 61), stacks["up.0"][0])
    assert torch.equal(bank.stack("up.0"), torch.cat([stacks["up.0"][1], stacks["up.0"][0]]))


@pytest.mark.parametrize("harm", ["missing", "too few", "too many", "shape"])
def test_a_stack_that_does_not_fit_its_spec_is_refused_by_name(toy_spec, harm):
    spec = toy_spec()
    stacks = stacks_of(spec)
    if harm == "missing":
        del stacks["up.0"]
    else:
        stacks["up.0"] = {
            "too few": stacks["up.0"][:2],
            "too many": torch.cat([stacks["up.0"], stacks["up.0"]]),
            "shape": stacks["up.0"].transpose(-1, -2),
        }[harm]
    with pytest.raises(BankError, match=r"tap up\.0"):
        FeatureBank.stacked(spec, stacks)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    "which", [slice(1, 4), slice(0, None, 2), slice(0, 0), [3, 0, 0], [False, True, False, True, True]]
)
def test_samples_are_chosen_in_every_map_alike(toy_spec, toy_bank, stacked, which):
    spec = toy_spec()
    bank = FeatureBank.stacked(spec, stacks_of(spec, 5)) if stacked else toy_bank(spec, 5)
    which = which if isinstance(which, slice) else torch.tensor(which)
    some = bank.samples(which)
    order = torch.arange(5)[which].tolist()
    assert some.batch_size == len(order)
    for tap in spec.taps:
        assert some[tap].shape[0] == len(order)
        assert all(torch.equal(some[tap][i], bank[tap][n]) for i, n in enumerate(order))
    assert torch.equal(some.stack("up.0"), torch.cat([some.map("up.0", t) for t in spec.timesteps]))


def test_a_bank_of_stacks_stays_one_when_it_is_converted(toy_spec):
    spec = toy_spec()
    bank = FeatureBank.stacked(spec, stacks_of(spec))
    half = bank.to(torch.float16)
    for tap in spec.taps:
        assert torch.equal(half[tap], bank[tap].half())
    assert half.stack("mid").data_ptr() == half.map("mid", 21).data_ptr()
    with pytest.raises(BankError, match="mid@21"):
        bank.apply(lambda value: value.transpose(-1, -2))


def test_an_empty_bank_of_stacks_can_be_converted(toy_spec):
    spec = toy_spec()
    empty = FeatureBank.stacked(spec, stacks_of(spec, 0))
    assert empty.to(torch.float64).batch_size == 0
    assert empty.stack("mid").shape == (0, 12, 2, 3)


def test_select_and_cat_take_banks_of_stacks(toy_spec):
    spec = toy_spec()
    banks = [FeatureBank.stacked(spec, stacks_of(spec, batch)) for batch in (2, 1)]
    joined = FeatureBank.cat(banks)
    assert all(torch.equal(joined[tap], torch.cat([bank[tap] for bank in banks])) for tap in spec.taps)
    small = joined.select(spec.select(timesteps=[61, 97], names=["up.1"]))
    assert torch.equal(small.stack("up.1"), torch.cat([joined.map("up.1", 61), joined.map("up.1", 97)]))


def test_a_spec_of_several_dates_says_so_and_one_of_none_says_what_it_always_said() -> None:
    taps = (Tap("mid", 21, 0, 4, 8), Tap("up", 21, 1, 2, 4))
    one = BankSpec(taps, "toy", "none", (32, 16))
    series = BankSpec(taps, "toy", "none", (32, 16), dates=3)
    assert "dates" not in one.to_dict()
    assert BankSpec.from_dict(one.to_dict()) == one
    assert BankSpec.from_dict(json.loads(json.dumps(series.to_dict()))) == series
    assert [series.shape(tap) for tap in taps] == [(3, 4, 4, 2), (3, 2, 8, 4)]
    assert series.select(names=["up"]).dates == 3
    assert series.differences(one)[0] == "dates: 3 and None"
    assert series != one
    with pytest.raises(BankError, match="is of 0 dates"):
        BankSpec(taps, "toy", "none", (32, 16), dates=0)


def test_a_bank_of_several_dates_has_them_after_the_batch() -> None:
    spec = BankSpec((Tap("mid", 21, 0, 4, 8), Tap("mid", 61, 0, 4, 8)), "toy", "none", (32, 16), dates=3)
    stack = torch.randn(2, 5, *spec.shape(spec.taps[0]))
    bank = FeatureBank.stacked(spec, {"mid": stack})
    assert bank.batch_size == 5
    assert torch.equal(bank.map("mid", 61), stack[1])
    assert torch.equal(bank.samples(slice(1, 3)).map("mid", 21), stack[0, 1:3])
    assert torch.equal(bank.to(torch.float64).map("mid", 61), stack[1].double())
    assert torch.equal(FeatureBank.cat([bank, bank]).map("mid", 21), torch.cat([stack[0], stack[0]]))
    with pytest.raises(BankError, match=r"tap mid@21 has the shape \(2, 4, 4, 2\) for each sample"):
        FeatureBank(spec, dict.fromkeys(spec.taps, stack[0][:, :2]))
