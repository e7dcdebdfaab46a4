"""The class table: values to classes, merged and ignored ones, and none that is not in it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from satdifuser.data.classes import ClassTable, Hot
from satdifuser.data.files.fitting import BadImageError
from satdifuser.errors import UserError


def test_a_mask_is_translated_value_by_value() -> None:
    values = random.sample(range(-5, 400), 30)
    names = [random.choice(["water", "wood", "town", None]) for _ in values] + ["water", "wood"]
    table = ClassTable(dict(zip([*values, 1000, 1001], names, strict=True)), ignore=[2000])
    mask = np.random.default_rng().choice([*values, 1000, 1001, 2000], (40, 30))
    said = dict(zip([*values, 1000, 1001], names, strict=True))
    for row, found in zip(mask, table.mask(mask).tolist(), strict=True):
        for value, number in zip(row, found, strict=True):
            name = said.get(int(value))
            assert number == (table.labels.ignore_index if name is None else table.labels.classes.index(name))


def test_a_list_is_names_in_the_order_of_their_numbers() -> None:
    table = ClassTable(["no data", "wood", "water"])
    assert table.labels.classes == ("no data", "wood", "water")
    assert table.mask(np.array([[2.0, 0.0]])).tolist() == [[2, 0]]
    assert table.to_dict() == {"classes": ["no data", "wood", "water"]}


def test_colours_are_given_or_far_apart() -> None:
    table = ClassTable({1: {"name": "a", "colour": "#010203"}, 2: "b"})
    assert table.labels.colours[0] == "#010203"
    assert len(set(table.labels.colours)) == 2


def test_more_classes_than_a_byte_have_an_ignore_index_above_them() -> None:
    assert ClassTable([str(n) for n in range(255)]).labels.ignore_index == 255
    assert ClassTable([str(n) for n in range(300)]).labels.ignore_index == 300


@pytest.mark.parametrize("value", [3, -1, 0.5, np.nan, np.inf, 255])
def test_a_value_outside_the_table_is_named(value: float) -> None:
    mask = np.zeros((5, 6))
    mask[random.randrange(5), random.randrange(6)] = value
    with pytest.raises(BadImageError, match=f"a mask with {value:g}, but the class table has 0 to 2") as caught:
        ClassTable(["a", "b", "c"]).mask(mask)
    assert "data.classes" in str(caught.value)


def test_what_is_merged_or_ignored_is_in_the_identity() -> None:
    plain, merged = ClassTable(["a", "b"]), ClassTable({0: "a", 1: "b", 2: "b"})
    ignoring = ClassTable(["a", "b"], ignore=[2])
    assert len({str(table.to_dict()) for table in (plain, merged, ignoring)}) == 3


def test_labels_are_numbers_or_names() -> None:
    table = ClassTable({10: "a", 20: "b"})
    assert [table.label(value) for value in (10, 20.0, "b", np.int64(10), "20")] == [0, 1, 1, 0, 1]
    for wrong in (0, 1.5, "bb", None):
        with pytest.raises(BadImageError, match="a label"):
            table.label(wrong)


@pytest.mark.parametrize(
    ("classes", "ignore", "said"),
    [
        ({1.5: "a"}, [], "whole numbers"),
        ({"x": "a"}, [], "whole numbers"),
        ({1: {"nam": "a"}}, [], "data.classes.1"),
        (["a", "b"], [1], "data.ignore has 1"),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_line(classes: Any, ignore: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ClassTable(classes, ignore)


def test_zeros_and_ones_are_each_of_the_tables_values_and_never_numbers_of_classes() -> None:
    table = ClassTable({0: "x", 1: "y", 2: "x", 3: None})
    for hot in (Hot((0, 1, 1, 1)), np.array([0, 1, 1, 1]), [0, 1, 1, 1]):
        assert table.several(hot).tolist() == [1, 1]
    assert table.several(Hot((0, 0, 0, 1))).tolist() == [0, 0]
    assert table.several(np.array([0, 0, 1, 0])).tolist() == [1, 0]
    for other in (np.array([0, 1]), np.eye(43)[3], [0, 0, 1, 0, 0, 0, 0], Hot((1, 0))):
        with pytest.raises(BadImageError, match=f"has {len(other)} numbers, 0 or 1 for each class"):
            table.several(other)
    with pytest.raises(BadImageError, match="numbers, 0 or 1"):
        ClassTable(["a", "b", "c"]).several(np.array([0, 1, 2]))


def test_members_are_names_or_numbers_of_classes() -> None:
    table = ClassTable(["a", "b", "c", "d"])
    assert table.several([3, 0]).tolist() == [1, 0, 0, 1]
    assert table.several(("b", "d")).tolist() == [0, 1, 0, 1]
    assert table.several([]).tolist() == [0, 0, 0, 0]
    assert table.several([1, 0]).tolist() == [1, 1, 0, 0]
    with pytest.raises(BadImageError, match="a label e"):
        table.several(["a", "e"])
