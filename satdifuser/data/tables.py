"""Tables about samples: CSV, Parquet or GeoJSON whose rows are joined to samples by a column that names them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from satdifuser.data.files.names import shown
from satdifuser.data.files.tabular import read_columns
from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import Names, counted
from satdifuser.data.splits.places import Footprint
from satdifuser.errors import UserError, nearest

Missing = Literal["error", "skip"]
THINGS = ("sample", "image", "file", "tile", "patch", "chip", "scene")
NAMES = [thing + ending for ending in ("", "_id", "_name", "_path") for thing in THINGS]
KEYS = ("id", "name", "filename", "filepath", "path", "key", "fid", *NAMES)  # of columns that name samples


@dataclass(frozen=True)
class Table:
    """Columns of cells as a file has them (an empty cell, or NaN, is None), and for each row whom it is about."""

    path: Path
    setting: str
    cells: Mapping[str, list[Any]]
    keys: tuple[str, ...]
    """Columns that may name samples: the one that was given, or all whose name says so."""
    places: Sequence[Footprint | None] = ()
    decimal_comma: bool = False
    ids: tuple[str, ...] | None = None
    """Sample ids of the rows, once it is joined."""

    @property
    def where(self) -> str:
        return f"{self.setting} {shown(self.path)}"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.cells)

    @property
    def key(self) -> str:
        if len(self.keys) != 1:
            listed = ", ".join(map(shown, self.columns))
            several = f"several columns that may name samples ({', '.join(self.keys)})" if self.keys else None
            raise UserError(
                f"{self.where} has {several or 'no column whose name says that it names samples'}: set"
                f" {self.setting.rpartition('.')[0] or 'data'}.key to one of {listed}"
            )
        return self.keys[0]

    @property
    def rows(self) -> tuple[str, ...]:
        """Whom the rows are about: sample ids once it is joined, else what the key column has."""
        if self.ids is not None:
            return self.ids
        lost = [f"row {row}" for row, cell in enumerate(self.cells[self.key], 2) if cell is None]
        if lost:
            raise UserError(f"{self.where}: {counted(f'rows have no {self.key}', lost)}: name their samples")
        return tuple(word(cell) for cell in self.cells[self.key])

    def raw(self, name: str) -> list[Any]:
        """The cells of a column, in the order of the rows."""
        if name not in self.cells:
            listed = ", ".join(map(shown, self.columns))
            raise UserError(f"{self.where} has no column {shown(name)}: it has {listed}{nearest(name, self.columns)}")
        return self.cells[name]

    def column(self, name: str) -> dict[str, Any]:
        """Sample -> cell."""
        return dict(zip(self.rows, self.raw(name), strict=True))

    @property
    def footprints(self) -> dict[str, Footprint]:
        """Sample -> where it lies, of those of which the table says it."""
        if not self.places:
            return {}
        return {row: place for row, place in zip(self.rows, self.places, strict=True) if place is not None}

    def joined(self, names: Sequence[str], missing: Missing = "error") -> Table:
        """The rows of these samples, by their ids; the key column names them with or without folder and ending.

        `missing=skip` leaves samples without a row out, and says it; rows without a sample are left out.
        """
        found = self._with_key(Names(names))
        rows, matches = found
        lost = [key for key, match in zip(rows.rows, matches, strict=True) if match is None]
        kept: dict[str, int] = {}
        twice = []
        for number, match in enumerate(matches):
            if match is None:
                continue
            if match in kept and any(cells[number] != cells[kept[match]] for cells in self.cells.values()):
                twice.append(match)
            kept.setdefault(match, number)
        if twice:
            raise UserError(f"{self.where}: {counted('samples have several rows that differ', twice)}: leave one")
        absent = [name for name in names if name not in kept]
        if absent and (missing == "error" or not kept):
            instead = f" (rows name {self.key if len(self.keys) == 1 else 'them'} as {shown(lost[0])})" if lost else ""
            raise UserError(
                f"{self.where}: {counted(f'of {len(names)} samples have no row', absent)}{instead}: add them"
            )
        again = sum(match is not None for match in matches) - len(kept)
        for line in (
            counted(f"of {len(names)} samples have no row and are left out", absent) if absent else "",
            counted("rows are of no sample", lost) if lost else "",
            f"{again} rows stand twice and count once" if again else "",
        ):
            if line:
                warn_once(f"{self.where}: {line}")
        picked = list(kept.values())
        return replace(
            self,
            keys=rows.keys,
            cells={name: [cells[number] for number in picked] for name, cells in self.cells.items()},
            places=[self.places[number] for number in picked] if self.places else (),
            ids=tuple(kept),
        )

    def _with_key(self, names: Names) -> tuple[Table, list[str | None]]:
        """The table by the column that names samples: where several may, the only one that names any of these."""
        ways = []
        for key in self.keys if len(self.keys) > 1 else (self.key,):
            one = replace(self, keys=(key,))
            if len(self.keys) > 1 and None in self.cells[key]:
                continue
            matches = [names.find(row, self.where) for row in one.rows]
            if len(self.keys) == 1 or any(match is not None for match in matches):
                ways.append((one, matches))
        if not ways or any(matches != ways[0][1] for _, matches in ways):
            _ = self.key  # whose error says what there is
        return ways[0]


def read_table(path: str | Path, key: str | None = None, name: str = "data.table") -> Table:
    """A table's columns; `key` is the one that names samples (null: found by its name), `name` what errors call it."""
    path = Path(path).expanduser()
    cells, places, comma = read_columns(path, name)
    cells = {column: [None if empty(cell) else cell for cell in found] for column, found in cells.items()}
    table = Table(path, name, cells, (), places, comma)
    if not cells or not next(iter(cells.values())):
        raise UserError(f"{table.where} has no rows: it must have one for each sample")
    if key is not None:
        table.raw(key)
        return replace(table, keys=(key,))
    folded = {column.casefold().replace(" ", "_").replace("-", "_"): column for column in cells}
    found = tuple(folded[one] for one in KEYS if one in folded)
    return replace(table, keys=found or (table.columns if len(cells) == 1 else ()))


def empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def word(cell: Any) -> str:
    """A cell as one would write it: 3.0 is 3, true is 1.

    >>> word(3.0), word(" a "), word(True), word(2.5)
    ('3', 'a', '1', '2.5')
    """
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
