"""Some of many, as far apart as can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly(these: Sequence[T], most: int | None) -> list[T]:
    """At most so many of these, in their order; null: all.

    >>> evenly(range(10), 4), evenly("abc", None), evenly("abc", 5)
    ([0, 2, 5, 7], ['a', 'b', 'c'], ['a', 'b', 'c'])
    """
    count = len(these)
    wanted = count if most is None else min(count, most)
    return [these[place * count // wanted] for place in range(wanted)]
