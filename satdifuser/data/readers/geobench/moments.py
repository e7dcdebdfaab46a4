"""When the images of a sample were taken: days since 1970-01-01, of what an index or a table says of them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import Any

from satdifuser.data.dates import day_of
from satdifuser.data.files.fitting import BadImageError

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
Moment = tuple[int, int]  # a day, and the how manieth image of it


def day(value: Any) -> int:
    """The day of a date, of eight digits, of seconds since 1970, or of a month's name.

    A month alone is that of a season from September 2000 to August 2001, in its middle: only the year is not told.

    >>> day(20180917), day("2018-09-17"), day(1537142400.0), day(datetime.date(2018, 9, 17))
    (17791, 17791, 17791, 17791)
    >>> day("September") < day("January") < day("August")
    True
    """
    if isinstance(value, str) and value.capitalize() in MONTHS:
        month = MONTHS.index(value.capitalize()) + 1
        return day_of(datetime.date(2000 if month >= 9 else 2001, month, 15))
    try:
        return day_of(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadImageError(f"has the date {value!r}, which is none: set data.when to a column of dates") from error


def moments(values: Sequence[Any]) -> list[Moment]:
    """Days in this order, told apart where several images are of one.

    >>> moments([20180917, 20180917, 20180918])
    [(17791, 0), (17791, 1), (17792, 0)]
    """
    found: Counter[int] = Counter()
    result = []
    for value in map(day, values):
        result.append((value, found[value]))
        found[value] += 1
    return result
