"""What can be seen of samples whose labels cannot be used: their images, and masks with values outside the table."""

from __future__ import annotations

import copy
from typing import Any

from satdifuser.data.base import LabelledDataset, Sample
from satdifuser.data.readers.base import Reader
from satdifuser.data.splits.budgets import Within
from satdifuser.errors import UserError


def images_alone(data: LabelledDataset) -> LabelledDataset | None:
    """The same samples without labels; None where nothing says how they are read without."""
    if isinstance(data, Within):
        inner = images_alone(data.data)
        return None if inner is None else Within(inner, data.indices)
    if not isinstance(data, Reader) or data.label is None:
        return None
    alone = copy.copy(data)
    alone.label = None
    return alone


def as_far_as_it_goes(data: LabelledDataset, index: int) -> Sample | None:
    """A sample; with -1 where its mask has a value outside the table; without a label; or nothing."""
    for reader in (data, _every_value(data), images_alone(data)):
        try:
            if reader is not None:
                return reader[index]
        except UserError:
            continue
    return None


def _every_value(data: LabelledDataset) -> LabelledDataset | None:
    if not isinstance(data, Reader) or data.label != "mask":
        return None
    reader, table = copy.copy(data), copy.copy(data.table)
    table.numbers = _Every(table.numbers)
    reader.table = table
    return reader


class _Every(dict[int, Any]):
    """Numbers of a class table that has them all: those it does not name are -1."""

    def __contains__(self, number: object) -> bool:
        return True

    def __missing__(self, number: int) -> int:
        return -1
