"""Several splits as one data set: every row is its split's sample, and rows that are left out shift the others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from satdifuser.data.base import Labels
from satdifuser.data.joined import JoinedSplits
from satdifuser.errors import UserError


class Letters:
    """A split of samples whose ids and values are its letter and a number."""

    def __init__(self, letter: str, length: int) -> None:
        self.letter, self.length = letter, length
        self.name = f"letters {letter}"
        self.labels = Labels((letter,), ("#000",))
        self.identity = {"letter": letter}

    def __len__(self) -> int:
        return self.length

    def sample_id(self, index: int) -> str:
        return f"{self.letter}{index}"

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        if self.letter == "c":
            raise UserError("c.tif cannot be read")
        return {"id": self.sample_id(index), "value": (self.letter, index)}


def splits() -> dict[str, Any]:
    return {"val": Letters("a", 3), "empty": Letters("z", 0), "train": Letters("b", 2)}


ROWS = ["a0", "a1", "a2", "b0", "b1"]


def test_the_rows_are_the_samples_of_the_splits_one_after_the_other_in_the_order_given() -> None:
    data = JoinedSplits(splits())
    assert len(data) == 5
    assert [data.sample_id(row) for row in range(5)] == ROWS
    assert [data[row] for row in range(5)] == [{"id": f"{x}{n}", "value": (x, int(n))} for x, n in ROWS]
    assert data.ids() == {"val": ["a0", "a1", "a2"], "empty": [], "train": ["b0", "b1"]}
    assert list(data.ids()) == ["val", "empty", "train"]


def test_name_and_labels_are_those_of_the_first_split_and_the_identity_that_of_each() -> None:
    data = JoinedSplits(splits())
    assert (data.name, data.labels.classes) == ("letters a", ("a",))
    assert data.identity == {"val": {"letter": "a"}, "empty": {"letter": "z"}, "train": {"letter": "b"}}


@pytest.mark.parametrize("trial", range(5))
def test_without_some_rows_the_others_keep_their_order_and_the_whole_is_as_it_was(trial: int) -> None:
    data, left_out = JoinedSplits(splits()), set(random.Random(trial).sample(range(5), trial))
    rest = data.without(left_out)
    wanted = [name for row, name in enumerate(ROWS) if row not in left_out]
    assert len(rest) == len(wanted)
    assert [rest.sample_id(row) for row in range(len(rest))] == wanted
    assert [rest[row]["id"] for row in range(len(rest))] == wanted
    assert rest.ids() == {
        "val": [name for name in wanted if name[0] == "a"],
        "empty": [],
        "train": [name for name in wanted if name[0] == "b"],
    }
    assert (rest.identity, rest.name) == (data.identity, data.name)
    assert [data.sample_id(row) for row in range(len(data))] == ROWS


def test_rows_are_left_out_of_what_is_left_by_their_new_numbers() -> None:
    rest = JoinedSplits(splits()).without({0, 3}).without({1})
    assert [rest.sample_id(row) for row in range(len(rest))] == ["a1", "b1"]


def test_a_row_beyond_the_end_and_an_error_of_a_split_come_through() -> None:
    with pytest.raises(IndexError):
        JoinedSplits(splits())[5]
    with pytest.raises(UserError, match=r"c\.tif cannot be read"):
        JoinedSplits({"one": Letters("c", 1)})[0]
