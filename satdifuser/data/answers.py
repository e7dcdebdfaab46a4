"""What a table says of samples: a class, several classes, a number, or the seven numbers of metadata."""

from __future__ import annotations

import datetime
import fnmatch
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from satdifuser.data.classes import Hot
from satdifuser.data.files.names import shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import counted
from satdifuser.data.tables import Missing, Table, word
from satdifuser.errors import UserError, nearest

T = TypeVar("T")
TableAnswer = Literal["label", "multilabel", "target"]
SEPARATORS = (";", "|", ",")  # a space, which names of classes may have, must be asked for
YES_NO = {"1": 1, "0": 0, "true": 1, "false": 0}
SEVEN: dict[str, tuple[str, ...]] = {
    "lon": ("lon", "longitude", "lng"),
    "lat": ("lat", "latitude"),
    "gsd": ("gsd", "resolution"),
    "cloud_cover": ("cloud_cover", "cloudcover", "eo:cloud_cover"),
    "year": ("year",),
    "month": ("month",),
    "day": ("day",),
}
RANGES = {"lon": (-180, 360), "lat": (-90, 90), "gsd": (0, 1e5), "cloud_cover": (0, 1), "year": (1900, 2200)}
RANGES |= {"month": (1, 12), "day": (1, 31)}
DATES = ("date", "datetime", "timestamp", "acquisition_date")
PERCENT = "percent:"


def answers(
    table: Table,
    label: TableAnswer,
    columns: str | Sequence[str],
    *,
    separator: str | None = None,
    classes: Sequence[str | None] = (),
    missing: Missing = "error",
) -> dict[str, Any]:
    """Sample -> answer: a word (label), a number (target), 0 and 1 for each class, or words of a list (multilabel).

    `columns` is one, several, or a pattern as label_*. Several are in the order of `classes` where they have their
    names. `missing=skip` leaves samples with an empty cell out, and says it.
    """
    names = _columns(table, columns)
    if label == "multilabel" and len(names) > 1:
        return _ones(table, _ordered(table, names, classes), missing)
    if len(names) > 1:
        raise UserError(f"{table.where}: a {label} is in one column, not in {', '.join(names)}: name one")
    if label == "multilabel":
        mark = separator_of(table, names[0], separator, [one for one in classes if one is not None])
        return _cells(table, names[0], lambda cell: tuple(_parts(cell, mark)), "a list of classes", missing)
    if label == "target":
        return _cells(table, names[0], lambda cell: number(cell, table.decimal_comma), "a number", missing)
    return _cells(table, names[0], word, "a class", missing)


def classes_of(
    table: Table, label: TableAnswer, columns: str | Sequence[str], separator: str | None = None
) -> list[str]:
    """The classes that a table shows: its columns in order, or its words, sorted (as numbers where all are)."""
    names = _columns(table, columns)
    if len(names) > 1:
        return names
    found = answers(table, label, columns, separator=separator, missing="skip").values()
    words = {one for each in found for one in (each if label == "multilabel" else (each,))}
    return sorted(words, key=int) if all(one.lstrip("-").isdecimal() for one in words) else sorted(words)


def metadata(
    table: Table, columns: Mapping[str, str | float] | None = None, missing: Missing = "error"
) -> dict[str, tuple[float, ...]]:
    """Sample -> longitude, latitude, metres of a pixel, cloud cover (0 to 1), year, month, day.

    `columns` says for each which column has it (`percent:NAME` of percents), or one number for all. Those that are not
    named are found by their own names; year, month and day in a column of dates too, where in a table's geometry.
    """
    given = dict(columns or {})
    unknown = [one for one in given if one not in SEVEN]
    if unknown:
        raise UserError(
            f"there is no metadata {unknown[0]!r}: it can be {', '.join(SEVEN)}{nearest(str(unknown[0]), SEVEN)}"
        )
    folded = {column.casefold(): column for column in table.columns}
    values = {one: _one_of_seven(table, one, given.get(one), folded, missing) for one in SEVEN}
    lost = [one for one, found in values.items() if found is None]
    if lost:
        raise UserError(
            f"{table.where} has no columns for {', '.join(lost)} of the metadata: name them, or give one number for"
            f" all, as {lost[0]}: 0"
        )
    known = [found for found in values.values() if found is not None]
    rows = [row for row in table.rows if all(row in found for found in known)]
    return {row: tuple(found[row] for found in known) for row in rows}


def number(cell: Any, decimal_comma: bool = False) -> float:
    """A finite number; a ValueError where it is none.

    >>> number("1,5", decimal_comma=True), number(True), number(" 2e3 ")
    (1.5, 1.0, 2000.0)
    """
    text = cell.replace(",", ".") if decimal_comma and isinstance(cell, str) and cell.count(",") == 1 else cell
    found = float(text)
    if math.isinf(found):
        raise ValueError("infinite")
    return found


def separator_of(table: Table, column: str, separator: str | None, classes: Sequence[str] = ()) -> str:
    """What parts the classes of a cell: as said, or the only one of ; | , that the column has.

    Of several it is the one that leaves nothing but `classes`.
    """
    if separator is not None:
        return separator
    cells = [cell for cell in table.raw(column) if isinstance(cell, str) and not cell.startswith("[")]
    found = [mark for mark in SEPARATORS if any(mark in cell for cell in cells)]
    if len(found) > 1 and classes:
        parts = {mark: {part for cell in cells for part in _parts(cell, mark)} for mark in found}
        found = [mark for mark in found if parts[mark] <= set(classes)] or found
    if len(found) > 1:
        raise UserError(
            f"{table.where}: column {shown(column)} has {' and '.join(found)} in its cells: set which separates classes"
        )
    if found:
        warn_once(f"{table.where}: {found[0]} separates the classes of column {shown(column)}")
    elif any(" " in cell for cell in cells):
        warn_once(f"{table.where}: each cell of column {shown(column)} is one class; if spaces separate, set separator")
    return found[0] if found else ";"


def _parts(cell: Any, mark: str) -> list[str]:
    if isinstance(cell, list | tuple):
        return [word(one) for one in cell]
    text = str(cell).strip() if not isinstance(cell, float) else word(cell)
    if text.startswith("["):
        return [word(one) for one in json.loads(text)]
    return [part.strip() for part in (text.split() if mark == " " else text.split(mark)) if part.strip()]


def _columns(table: Table, columns: str | Sequence[str]) -> list[str]:
    listed = [columns] if isinstance(columns, str) else list(columns)
    found: list[str] = []
    for one in listed:
        matches = [one] if one in table.columns else fnmatch.filter(table.columns, one) if "*" in one else []
        if not matches:
            table.raw(one)  # whose error lists the columns
        found += matches
    return list(dict.fromkeys(found))


def _ordered(table: Table, names: list[str], classes: Sequence[str | None]) -> list[str]:
    """The columns in the order of the classes (None: one that is ignored) where they have their names."""
    if not classes:
        return names
    if len(names) != len(classes):
        raise UserError(f"{table.where}: {len(names)} columns of labels and {len(classes)} classes: name one for each")
    named = [one for one in classes if one is not None]
    others = [one for one in names if one not in named]
    lost = [one for one in named if one not in names]
    if lost and len(lost) < len(named):
        raise UserError(
            f"{table.where}: data.classes has {lost[0]}, which is no column of labels, and"
            f" {len(named) - len(lost)} others that are: name classes as their columns{nearest(lost[0], others)}"
        )
    rest = iter(others)
    return names if lost else [next(rest) if one is None else one for one in classes]


def _ones(table: Table, names: Sequence[str], missing: Missing) -> dict[str, tuple[int, ...]]:
    each = [_cells(table, name, lambda cell: YES_NO[word(cell).lower()], "0 or 1", missing) for name in names]
    return {row: Hot(found[row] for found in each) for row in table.rows if all(row in found for found in each)}


def _cells(table: Table, column: str, read: Callable[[Any], T], what: str, missing: Missing) -> dict[str, T]:
    """Sample -> what its cell says; one line for those that are empty, and one for those that say something else."""
    found: dict[str, T] = {}
    lost, odd = [], []
    for row, cell in table.column(column).items():
        if cell is None or (what == "a number" and isinstance(cell, str) and cell.casefold() in ("nan", "na", "null")):
            lost.append(row)
            continue
        try:
            found[row] = read(cell)
        except (KeyError, ValueError, TypeError):
            odd.append((row, cell))
    if odd:
        rows = counted(f"cells are not {what}", [row for row, _ in odd])
        raise UserError(
            f"{table.where}, column {shown(column)}: {rows} ({shown(str(odd[0][1]))[:40]}): correct them, or name"
            " another column"
        )
    if lost and (missing == "error" or not found):
        raise UserError(f"{table.where}, column {shown(column)}: {counted('cells are empty', lost)}: fill them in")
    if lost:
        warn_once(f"{table.where}, column {shown(column)}: {counted('cells are empty and left out', lost)}")
    return found


def _one_of_seven(
    table: Table, one: str, given: str | float | None, folded: Mapping[str, str], missing: Missing
) -> dict[str, float] | None:
    if isinstance(given, int | float):
        found = dict.fromkeys(table.rows, float(given))
        return _in_range(table, one, found, "")
    column = given or next((folded[name] for name in SEVEN[one] if name in folded), None)
    if column is None:
        return _elsewhere(table, one, folded, missing)
    percent = column.startswith(PERCENT) or column == "eo:cloud_cover"  # STAC's are percents
    column = column.removeprefix(PERCENT)
    cells = _cells(table, column, lambda cell: number(cell, table.decimal_comma), "a number", missing)
    found = {row: value / 100 if percent else value for row, value in cells.items()}
    hint = f" (0 to 1; of percents write {one}: {PERCENT}{column})" if one == "cloud_cover" else ""
    return _in_range(table, one, found, hint)


def _in_range(table: Table, one: str, found: dict[str, float], hint: str) -> dict[str, float]:
    low, high = RANGES[one]
    bad = [row for row, value in found.items() if not low <= value <= high]
    if bad:
        rows = counted(f"values of {one} are not from {low:g} to {high:g}", bad)
        raise UserError(f"{table.where}: {rows} ({found[bad[0]]:g}){hint}")
    return found


def _elsewhere(table: Table, one: str, folded: Mapping[str, str], missing: Missing) -> dict[str, float] | None:
    """Of a column of dates, or of where the rows lie."""
    dates = next((folded[name] for name in DATES if name in folded), None)
    if one in ("year", "month", "day") and dates is not None:
        return _cells(table, dates, lambda cell: float(getattr(_date(cell), one)), "a date as 2020-12-31", missing)
    if one in ("lon", "lat") and table.footprints:
        from satdifuser.data.splits.places import Places

        rows = list(table.footprints)
        degrees = Places(rows, table.footprints.get).degrees[:, ("lon", "lat").index(one)]
        return dict(zip(rows, map(float, degrees), strict=True))
    return None


def _date(cell: Any) -> datetime.date:
    if isinstance(cell, datetime.date):
        return cell
    text = str(cell).strip()
    if len(text) == 8 and text.isdecimal():
        return datetime.datetime.strptime(text, "%Y%m%d").date()
    return datetime.datetime.fromisoformat(text.replace("/", "-")).date()
