"""The class table: which numbers of a mask (or words of a table) are which classes, and which count nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from satdifuser.data.base import Labels
from satdifuser.data.colours import colours
from satdifuser.data.files.fitting import BadImageError
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word

IGNORED = 255  # in what a reader gives; more classes than that have a number above them all
ClassWords = Annotated[
    list[Any] | dict[Any, Any],
    Word("names in the order of their numbers, or {number: name} or {number: {name, colour}}"),
]


class Hot(tuple[int, ...]):
    """0 or 1 for each of the table's values, in their order: not numbers of classes."""


class ClassTable:
    """Values and their classes; several values of one name are one class, and null ignores a value.

    >>> table = ClassTable({1: "water", 2: {"name": "wood", "colour": "#00aa00"}, 3: "wood", 0: None}, ignore=[9])
    >>> table.labels.classes, table.mask(np.array([[0, 1], [3, 9]])).tolist()
    (('water', 'wood'), [[255, 0], [1, 255]])
    """

    def __init__(self, classes: Sequence[Any] | Mapping[Any, Any], ignore: Sequence[int | float] = ()) -> None:
        entries = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
        names: dict[str, str | None] = {}
        self.numbers: dict[int, int | None] = {}  # of a mask: the class, or None where it is ignored
        for value, entry in entries.items():
            name, colour = self._entry(value, entry)
            if name is not None and (name not in names or colour):
                names[name] = colour
            number = _whole(value)
            self.numbers[number] = None if name is None else list(names).index(name)
        self.names = [None if (at := self.numbers[n]) is None else list(names)[at] for n in self.numbers]
        clash = [value for value in ignore if self.numbers.get(_whole(value)) is not None]
        if clash:
            raise UserError(f"data.ignore has {clash[0]}, which data.classes gives a name: leave one of them out")
        self.numbers.update({_whole(value): None for value in ignore})
        usual = colours(len(names))
        self.labels = Labels(
            tuple(names),
            tuple(own or other for own, other in zip(names.values(), usual, strict=True)),
            IGNORED if len(names) <= IGNORED else len(names),
        )

    @staticmethod
    def _entry(value: Any, entry: Any) -> tuple[str | None, str | None]:
        if isinstance(entry, Mapping):
            unknown = entry.keys() - {"name", "colour"}
            if unknown or "name" not in entry:
                raise UserError(f"data.classes.{value} is {dict(entry)}: give name, and colour if it has one")
            return None if entry["name"] is None else str(entry["name"]), entry.get("colour")
        return None if entry is None else str(entry), None

    def to_dict(self) -> dict[str, Any]:
        """For the identity of data: classes, and which numbers they are where these are not 0, 1, 2 and so on."""
        plain = {number: number for number in range(len(self.labels.classes))}
        return {
            "classes": list(self.labels.classes),
            **({} if self.numbers == plain else {"values": {str(n): c for n, c in sorted(self.numbers.items())}}),
        }

    def mask(self, numbers: np.ndarray[Any, Any]) -> Tensor:
        """int64: classes, and the ignore index; a value outside the table is an error that names it."""
        found = np.full(numbers.shape, -1, np.int64)
        values, places = np.unique(numbers, return_inverse=True)
        into = np.empty(len(values), np.int64)
        for place, value in enumerate(values):
            number = int(value) if np.isfinite(value) and value == int(value) else None
            if number is None or number not in self.numbers:
                pixels = int((places == place).sum())
                raise BadImageError(
                    f"has a mask with {value:g}, but the class table has {self._known()}: name it in data.classes or"
                    f" data.ignore, or replace the file (it is in {pixels} pixel{'' if pixels == 1 else 's'})"
                )
            known = self.numbers[number]
            into[place] = self.labels.ignore_index if known is None else known
        found = into[places.reshape(numbers.shape)]
        return torch.from_numpy(found)

    def several(self, value: Any) -> Tensor:
        """float32, 0 or 1 for each class: of `Hot` or an array that has them, or of names or numbers of classes.

        >>> ClassTable({0: "a", 1: "b", 2: "a", 3: None}).several(Hot((0, 0, 1, 1))).tolist()
        [1.0, 0.0]
        """
        hot = isinstance(value, Hot | np.ndarray | Tensor)
        given = value.tolist() if isinstance(value, np.ndarray | Tensor) else list(value)
        bits = bool(given) and all(not isinstance(one, str) and one in (0, 1) for one in given)
        if hot or (bits and (len(given) == len(self.names) or len({*given}) < len(given))):
            if not bits or len(given) != len(self.names) or {*self.numbers} < {*range(len(given))}:
                raise BadImageError(
                    f"has {len(given)} numbers, 0 or 1 for each class, but data.classes has {len(self.names)}: set it"
                    " to the set's classes, in their order"
                )
            known = [self.numbers[place] for place, one in enumerate(given) if one]
        else:
            known = [self.label(one) for one in given]
        found = torch.zeros(len(self.labels.classes))
        found[[one for one in known if one is not None]] = 1.0
        return found

    def label(self, value: Any) -> int:
        """The class of a whole image, by its number or its name."""
        known = self.place(value)
        if known is None:
            close = nearest(str(value), self.labels.classes)
            there = f"the classes are {self._called()}" if _called(value) else f"there are {self._known()}"
            raise BadImageError(
                f"has a label {value if not isinstance(value, float) else f'{value:g}'}, but {there}{close}: set"
                " data.classes to the set's, or replace the file"
            )
        return known

    def place(self, value: Any) -> int | None:
        """The same; None of a value that is in no class."""
        if isinstance(value, str) and value in self.labels.classes:
            return self.labels.classes.index(value)
        return None if _called(value) else self.numbers.get(_whole(value))

    def _called(self, most: int = 12) -> str:
        names = self.labels.classes
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

    def _known(self) -> str:
        numbers = sorted(number for number, known in self.numbers.items() if known is not None)
        ignored = sorted(number for number, known in self.numbers.items() if known is None)
        whole = numbers == list(range(len(numbers))) and len(numbers) > 1
        said = f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers)) or "nothing"
        return said + (f" and {', '.join(map(str, ignored))} (ignored)" if ignored else "")


def _called(value: Any) -> bool:
    """Whether a value is a name, and no whole number."""
    try:
        _whole(value)
    except UserError:
        return True
    return False


def _whole(value: Any) -> int:
    try:
        number = float(value)
        if number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"data.classes has the value {value!r}: the values of a mask are whole numbers")
