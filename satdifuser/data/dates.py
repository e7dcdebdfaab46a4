"""Dates as samples have them: days since 1970-01-01, and -1 of an image that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from torch import Tensor

NO_DATE = -1
EPOCH = date(1970, 1, 1).toordinal()
FIRST, LAST = 19000101, 21001231  # what eight digits can be
SECONDS = 1e8  # of 1973: before that no satellite of ours flew, and smaller numbers are something else


@dataclass(frozen=True)
class Series:
    """How many images each sample of a data set has (None: one, of its own), and whether their dates are known."""

    dates: int | None
    dated: bool


def day_of(value: Any) -> int:
    """The day of a date, of eight digits, of ISO text, or of seconds since 1970; else a ValueError.

    >>> day_of(20180917), day_of("2018-09-17T10:30"), day_of(1537142400.0), day_of(date(2018, 9, 17))
    (17791, 17791, 17791, 17791)
    """
    if isinstance(value, date):  # a moment of a day too
        return value.toordinal() - EPOCH
    if isinstance(value, str) and not value.isdigit():
        return date.fromisoformat(value[:10]).toordinal() - EPOCH
    if FIRST <= int(value) <= LAST and int(value) == float(value):
        return date.fromisoformat(str(int(value))).toordinal() - EPOCH
    if float(value) < SECONDS:
        raise ValueError(f"{value} is no date: neither eight digits nor seconds since 1970")
    return int(float(value) // 86400)


def day_text(day: int) -> str:
    """
    >>> day_text(18262)
    '2020-01-01'
    """
    known = 1 <= day + EPOCH <= date.max.toordinal()
    return date.fromordinal(day + EPOCH).isoformat() if known else f"day {day}"


def one_of(sample: Mapping[str, Any]) -> Tensor:
    """The image of a sample `[bands, H, W]`; of several dates the latest, which is what a mask of change shows."""
    image: Tensor = sample["image"]
    if image.ndim == 3:
        return image
    dates = sample.get("dates")
    return image[-1 if dates is None else int(dates.argmax())]


def dates_fault(image: Tensor, dates: Tensor | None) -> str | None:
    """What is wrong with the dates of a series of images; None if nothing is."""
    if dates is None:
        return None
    if tuple(dates.shape) != (len(image),) or dates.is_floating_point():
        return (
            f"has {len(image)} images and dates of the shape {tuple(dates.shape)}, {dates.dtype}: give a whole number"
            " for each image, days since 1970-01-01 or -1 for one that is not there"
        )
    if not bool((dates != NO_DATE).any()):
        return "has no image at any of its dates (all are -1): leave the sample out"
    return None
