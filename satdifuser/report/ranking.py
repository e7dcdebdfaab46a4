"""Who comes where: the rows in order, what is not to be told from the best, mean ranks, and the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from satdifuser.report.content import Comparison, Content, Cost, Estimate, Row, Section
from satdifuser.report.numbers import known

LEVEL = 0.05  # of the adjusted p


@dataclass(frozen=True)
class Place:
    """A row and where it stands within its task and budget; more of the main metric is better.

    `rank` counts from 1, equals share the better one, None without a score. `average` is the rank with equals at their
    mean. `p` is the adjusted one against `against`, the best row; None for that row itself and where none was made.
    """

    row: Row
    section: Section
    rank: int | None
    average: float | None
    against: str | None
    comparison: Comparison | None
    of_seeds: int

    @property
    def estimate(self) -> Estimate | None:
        return self.row.scores.get(self.section.metric)

    @property
    def score(self) -> float | None:
        return self.estimate.value if self.estimate and known(self.estimate.value) else None

    @property
    def best(self) -> bool:
        return self.rank == 1

    @property
    def p(self) -> float | None:
        return self.comparison.adjusted if self.comparison and known(self.comparison.adjusted) else None

    @property
    def close(self) -> bool:
        """Not the best, and not significantly different from it."""
        return not self.best and self.p is not None and self.p >= LEVEL


@dataclass(frozen=True)
class Standing:
    """A model over all tasks and budgets: its mean rank, and how often it is best or not to be told from the best."""

    model: str
    mean: float
    by_task: dict[str, float]
    best: int
    best_or_close: int
    cells: int
    of: int


def places(content: Content) -> list[Place]:
    """All rows by task (in the report's order), budget, then score; rows without a score come last."""
    sections = {section.name: (number, section) for number, section in enumerate(content.sections)}
    pairs = {(c.task, c.budget, frozenset((c.first, c.second))): c for c in content.comparisons}
    most = max((len(row.seeds) for row in content.rows), default=0)

    def value(row: Row) -> float | None:
        estimate = row.scores.get(sections[row.task][1].metric)
        return estimate.value if estimate and known(estimate.value) else None

    def order(row: Row) -> tuple[int, float, bool, float]:
        scored = value(row)
        return sections[row.task][0], row.budget, scored is None, -(scored or 0.0)

    found = []
    for (task, budget), group in groupby(sorted(content.rows, key=order), key=lambda row: (row.task, row.budget)):
        rows = list(group)
        scores = [scored for row in rows if (scored := value(row)) is not None]
        for row in rows:
            scored, rank, average = value(row), None, None
            if scored is not None:
                rank = 1 + sum(other > scored for other in scores)
                average = rank + (scores.count(scored) - 1) / 2
            leader = rows[0].model if scores else None
            pair = pairs.get((task, budget, frozenset((row.model, leader)))) if leader and leader != row.model else None
            found.append(Place(row, sections[task][1], rank, average, leader, pair, most))
    return found


def cells(found: Iterable[Place]) -> list[list[Place]]:
    """The places of each task and budget."""
    return [list(group) for _, group in groupby(found, key=lambda place: (place.row.task, place.row.budget))]


def budgets(found: Iterable[Place]) -> list[float]:
    """The label budgets of these places, the smallest first."""
    return sorted({place.row.budget for place in found})


def models(content: Content) -> list[str]:
    """Every model's name once, in the order of the grid; one that only failed comes last."""
    return list(dict.fromkeys([row.model for row in content.rows] + [failure.model for failure in content.failures]))


def standings(found: Sequence[Place]) -> list[Standing]:
    """Models by mean rank over (task, budget); those that lack a cell come after those that have all."""
    total = len(cells(found))
    standing = []
    for model in dict.fromkeys(place.row.model for place in found):
        mine = [place for place in found if place.row.model == model and place.average is not None]
        if not mine:
            continue
        tasks = dict.fromkeys(place.row.task for place in mine)
        by_task = {task: statistics.fmean(p.average or 0 for p in mine if p.row.task == task) for task in tasks}
        standing.append(
            Standing(
                model=model,
                mean=statistics.fmean(place.average or 0 for place in mine),
                by_task=by_task,
                best=sum(place.best for place in mine),
                best_or_close=sum(place.best or place.close for place in mine),
                cells=len(mine),
                of=total,
            )
        )
    return sorted(standing, key=lambda s: (s.cells < s.of, s.mean))


def largest(found: Iterable[Place], task: str) -> list[Place]:
    """The places of a task at its largest budget."""
    mine = [place for place in found if place.row.task == task]
    top = max((place.row.budget for place in mine), default=None)
    return [place for place in mine if place.row.budget == top]


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, score) no other point beats: none is as cheap and as good, and better in one of the two.

    >>> front([(1, 0.5), (2, 0.5), (3, 0.9), (0.5, 0.1)])
    [True, False, True, True]
    """
    return [not any(c <= cost and s >= score and (c < cost or s > score) for c, s in points) for cost, score in points]


def whole_seconds(cost: Cost) -> float:
    """Training and, where features were extracted, that too (the whole of it, though others share the store)."""
    return cost.training_seconds + (cost.extraction_seconds or 0.0)
