"""The table that one reads first: models down, label budgets across, with the floor and chance under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from satdifuser.report import exports, numbers
from satdifuser.report.content import Section
from satdifuser.report.ranking import Place, budgets


@dataclass(frozen=True)
class Score:
    """A cell: `kind` is best, close (shares the first place) or nothing; `cut`: not all of its runs had converged."""

    text: str
    interval: str = ""
    kind: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table; `kind` is model, floor (a model of the floor) or reference (floor or chance itself)."""

    name: str
    kind: str
    cells: Sequence[Score]


@dataclass(frozen=True)
class Table:
    """The scores of one task, and sentences that say what the floor and chance are."""

    section: Section
    budgets: Sequence[float]
    lines: Sequence[Line]
    notes: Sequence[str]

    @property
    def cut(self) -> bool:
        return any(cell.cut for line in self.lines for cell in line.cells)


def table(section: Section, found: Sequence[Place]) -> Table:
    """Of the places of one task."""
    shares = budgets(found)
    lines = []
    for model, mine in exports.by_model(found).items():
        kind = "floor" if any(place.floor for place in mine.values()) else "model"
        lines.append(Line(model, kind, [_score(mine.get(share)) for share in shares]))
    for name, values in exports.references(found):
        lines.append(Line(name, "reference", [Score(numbers.score(value)) for value in values]))
    return Table(section, shares, lines, exports.against(section, found))


def _score(place: Place | None) -> Score:
    if place is None or place.score is None:
        return Score("-")
    between = exports.interval(place.estimate)
    kind = "best" if place.best else "close" if place.close else ""
    return Score(
        numbers.score(place.score), between if between != "-" else "", kind, bool(place.row.ended.get("max_steps"))
    )
