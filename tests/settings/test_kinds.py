"""Kinds of settings: what passes, what is refused, and that the words say the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Len, Lt

from satdifuser.errors import UserError
from satdifuser.kinds import (
    MOST,
    Count,
    NotNegative,
    Percent,
    Place,
    Positive,
    Precision,
    Rate,
    Seed,
    Share,
    Side,
    Whole,
    check,
    check_fields,
    checked,
    hints_of,
    shown,
    words,
)

NUMBERS = {
    "Count": (Count, lambda x: isinstance(x, int) and 1 <= x <= MOST),
    "Whole": (Whole, lambda x: isinstance(x, int) and 0 <= x <= MOST),
    "Side": (Side, lambda x: isinstance(x, int) and x >= 1),
    "Seed": (Seed, lambda x: isinstance(x, int) and 0 <= x < 2**32),
    "Positive": (Positive, lambda x: x > 0),
    "NotNegative": (NotNegative, lambda x: x >= 0),
    "Share": (Share, lambda x: 0 <= x <= 1),
    "Rate": (Rate, lambda x: 0 <= x < 1),
    "Percent": (Percent, lambda x: 0 < x <= 100),
}
EDGES = [0, 1, -1, 0.0, 1.0, -0.0, 100, 100.5, 2**32 - 1, 2**32, 0.5, 1e-320, 10**400, -(10**400)]
NEVER = [math.nan, math.inf, -math.inf, True, False, None, "1", "abc", "", [1], {"a": 1}]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_passes_just_where_its_range_says(name: str) -> None:
    kind, allowed = NUMBERS[name]
    tried = [*EDGES, *(random.uniform(-2, 2) for _ in range(50)), *(random.randrange(-3, 200) for _ in range(50))]
    whole = kind in (Count, Whole, Side, Seed)
    for value in tried:
        if (whole and isinstance(value, float)) or (not whole and isinstance(value, int) and abs(value) > 10**300):
            expected = False
        else:
            expected = bool(allowed(value))
        if not expected:
            with pytest.raises(UserError) as error:
                check(value, kind, "a.b")
            assert str(error.value).startswith(f"a.b is {shown(value)}: it must be ")
            continue
        found = check(value, kind, "a.b")
        assert found == value
        assert type(found) is (int if whole else float)


@pytest.mark.parametrize("value", NEVER, ids=repr)
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_never_passes(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"^a\.b is "):
        check(value, NUMBERS[name][0], "a.b")


def test_numbers_of_numpy_are_numbers() -> None:
    assert check(np.int64(3), Count, "n") == 3
    assert check(np.float32(0.5), Share, "n") == 0.5
    with pytest.raises(UserError, match="n is nan"):
        check(np.float64("nan"), Share, "n")


def test_choices_name_each_other() -> None:
    assert check("bf16", Precision, "p") == "bf16"
    with pytest.raises(UserError, match=r"^p is 'bf61': it can be no, bf16 or fp16; did you mean bf16"):
        check("bf61", Precision, "p")
    with pytest.raises(UserError, match=r"^p is false: it can be no, bf16 or fp16$"):  # what YAML makes of a bare no
        check(False, Precision, "p")


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf], ["a"], [True], "12", 3.5, None, []], ids=repr)
def test_each_of_a_list_is_checked(bad: Any) -> None:
    with pytest.raises(UserError, match=r"x is .*a list of 1 or more, each a number of 0 or more"):
        check(bad, Annotated[Sequence[NotNegative], Len(1)], "x")


def test_a_path_may_not_be_empty_and_begins_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    assert check("~/run", Place, "run") == "/home/a b/run"
    with pytest.raises(UserError, match="run is '': it must be a path"):
        check("", Place, "run")


def test_words_say_the_range() -> None:
    assert words(Annotated[float, Gt(0), Lt(1)]) == "a number above 0 and below 1"
    assert words(Annotated[int, Ge(2), Le(5)]) == "a whole number from 2 to 5"
    assert words(Annotated[int, Le(5)]) == "a whole number of at most 5"
    assert words(Annotated[float, Lt(5)]) == "a number below 5"
    assert words(float | Sequence[float]) == "a number, or a list, each a number"
    assert words(Literal["a", None]) == "a or null"
    assert words(bool) == "true or false"
    assert words(Any | None) == "Any, or null" or words(Any | None)  # of a kind of one's own the name


@checked("thing")
def call(size: Count, /, *rest: int, share: Share = 0.5, anything: Any = None) -> tuple[Any, ...]:
    """A function."""
    return size, rest, share, anything


def test_arguments_are_checked_however_they_are_given() -> None:
    assert call(2) == (2, (), 0.5, None)
    assert call(2, share=1) == (2, (), 1.0, None)
    assert call.__doc__ == "A function."
    for wrong in (lambda: call(0), lambda: call(1, share=2)):
        with pytest.raises(UserError, match=r"^thing\.(size|share) is "):
            wrong()
    with pytest.raises(TypeError):
        call()


@dataclass(frozen=True)
class Fields:
    rank: Count = 1
    share: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "fields")


def test_fields_are_checked_and_kept_as_their_kind_has_them() -> None:
    assert Fields(share=1).share == 1.0
    assert isinstance(Fields(share=1).share, float)
    with pytest.raises(UserError, match=r"^fields\.rank is 0: it must be a whole number of 1 or more$"):
        Fields(rank=0)


class Own:
    def __init__(self, a: Count, b: NotThere, c: str = "x", **rest: Any) -> None:  # noqa: F821
        self.a = a


def test_a_kind_that_cannot_be_found_out_is_any_but_still_no_nan() -> None:
    assert hints_of(Own)["a"] == Count
    assert hints_of(Own)["b"] is Any
    with pytest.raises(UserError, match=r"own\.b\.deep is nan: it must be a finite number"):
        check({"deep": [1, {"x": 2}, math.nan]}, hints_of(Own)["b"], "own.b")
