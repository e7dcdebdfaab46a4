"""The rule that holds files out: shares of each class, by a hash of the names and nothing else."""

from __future__ import annotations

import hashlib
import math
import random

import pytest

from satdifuser.data.splits.holdout import SPLITS, check_split, held_out
from satdifuser.errors import UserError

PARTS = ("train", "val", "test")


def named(**counts: int) -> dict[str, list[str]]:
    """Names by class, in no order."""
    return {name: random.sample([f"{name}/{i}.png" for i in range(count)], count) for name, count in counts.items()}


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.25, 0.5), (0.0, 0.3), (0.3, 0.0), (0.0, 0.0), (0.13, 0.29)])
def test_splits_share_no_file_and_together_are_all(val: float, test: float) -> None:
    names = named(forest=37, water=1, crops=104)
    found = held_out(names, val, test)
    assert tuple(found) == SPLITS
    everything = sorted(name for members in names.values() for name in members)
    assert sorted(name for part in PARTS for name in found[part]) == found["all"] == everything
    assert all(members == sorted(members) for members in found.values())


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.25, 0.5), (0.125, 0.2)])
def test_each_class_has_its_share_in_whole_files(val: float, test: float) -> None:
    names = named(**{letter: random.randrange(1, 90) for letter in "abcdefgh"})
    found = held_out(names, val, test)
    for letter, members in names.items():
        for part, share in (("val", val), ("test", test)):
            count = sum(name.startswith(f"{letter}/") for name in found[part])
            assert abs(count - share * len(members)) <= 0.5, (letter, part)


@pytest.mark.parametrize(("count", "tested"), [(4, 0), (5, 1), (14, 1), (15, 2)])
def test_half_a_file_is_a_file(count: int, tested: int) -> None:
    assert len(held_out(named(a=count), val=0.0, test=0.1)["test"]) == tested


def test_the_rule_is_the_order_of_blake2b_of_the_names() -> None:
    names = named(forest=23, water=9)
    val, test = 0.2, 0.3
    wanted: dict[str, set[str]] = {part: set() for part in PARTS}
    for members in names.values():
        digests = {name: hashlib.blake2b(name.encode("utf-8"), digest_size=16).hexdigest() for name in members}
        tested, validated = math.floor(test * len(members) + 0.5), math.floor(val * len(members) + 0.5)
        for name in members:
            place = sum(digest < digests[name] for digest in digests.values())
            part = "test" if place < tested else "val" if place < tested + validated else "train"
            wanted[part].add(name)
    found = held_out(names, val, test)
    assert {part: set(found[part]) for part in PARTS} == wanted


def test_the_rule_of_today_is_the_rule_of_tomorrow() -> None:
    found = held_out({"a": [f"a/{i}.jpg" for i in range(10)]}, val=0.1, test=0.2)
    assert (found["test"], found["val"]) == (["a/2.jpg", "a/7.jpg"], ["a/6.jpg"])  # stores and papers name splits by it


def test_the_order_of_names_and_of_classes_does_not_matter() -> None:
    names = named(forest=31, water=12, crops=57)
    shuffled = {name: random.sample(names[name], len(names[name])) for name in random.sample(list(names), 3)}
    assert held_out(names, 0.1, 0.2) == held_out(shuffled, 0.1, 0.2)


def test_a_file_more_or_less_moves_hardly_another_and_none_of_another_class() -> None:
    names = named(forest=211, water=40)
    before = held_out(names, 0.15, 0.2)
    for number in range(100):
        new = f"forest/new-{number}.png"
        after = held_out({**names, "forest": [*names["forest"], new]}, 0.15, 0.2)
        moved = {name for part in PARTS for name in set(before[part]) ^ set(after[part])} - {new}
        assert len(moved) <= 3  # one at the first border, two at the second
        assert not any(name.startswith("water/") for name in moved)


@pytest.mark.parametrize(
    ("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1.0, 0.0), (0.0, 1.2), (10, 10), (math.nan, 0.1)]
)
def test_shares_that_leave_nothing_to_train_are_refused_with_both(val: float, test: float) -> None:
    with pytest.raises(UserError) as caught:
        held_out(named(a=8), val, test)
    for words in (f"data.val is {val}", f"data.test is {test}", "leave some to train"):
        assert words in str(caught.value)


def test_an_unknown_split_is_an_error_that_suggests_the_nearest() -> None:
    for split in SPLITS:
        check_split(split)
    with pytest.raises(UserError, match=r"no split 'tran'.*train, val, test, all.*did you mean train"):
        check_split("tran")
