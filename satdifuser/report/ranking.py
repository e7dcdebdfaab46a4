"""Who comes where: the rows in order, what is not to be told from the best, mean ranks, and the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from satdifuser.report.content import Comparison, Content, Cost, Estimate, Row, Section
from satdifuser.report.numbers import known

LEVEL = 0.05  # of the adjusted p


@dataclass(frozen=True)
class Place:
    """A row and where it stands within its task and budget; more of the main metric is better.

    `rank` counts from 1, equals share the better one, None without a score. `average` is the rank with equals at their
    mean. `p` is the adjusted one against `against`, the row with the highest score; None for that row itself and where
    none was made. `best`: significantly better than each of the others. `close`: the highest score and all that are not
    significantly different from it, where there are such; then none is best. `floor`: of the models that have learned
    nothing of images of the Earth.
    """

    row: Row
    section: Section
    rank: int | None
    average: float | None
    against: str | None
    comparison: Comparison | None
    of_seeds: int
    best: bool = False
    close: bool = False
    floor: bool = False

    @property
    def estimate(self) -> Estimate | None:
        return self.row.scores.get(self.section.metric)

    @property
    def score(self) -> float | None:
        return self.estimate.value if self.estimate and known(self.estimate.value) else None

    @property
    def leads(self) -> bool:
        """Whether this is the row that the others are tested against."""
        return self.against == self.row.model

    @property
    def p(self) -> float | None:
        return self.comparison.adjusted if self.comparison and known(self.comparison.adjusted) else None


@dataclass(frozen=True)
class Standing:
    """A model over all tasks and budgets: its mean rank, and how often it is best or shares the first place."""

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

    found: list[Place] = []
    for (task, budget), group in groupby(sorted(content.rows, key=order), key=lambda row: (row.task, row.budget)):
        rows = list(group)
        scores = [scored for row in rows if (scored := value(row)) is not None]
        leader = rows[0].model if scores else None
        against = {row.model: pairs.get((task, budget, frozenset((row.model, leader or "")))) for row in rows}
        tested = [pair.adjusted for row in rows[1 : len(scores)] if (pair := against[row.model])]
        alone = 0 < len(tested) == len(scores) - 1 and all(p < LEVEL for p in tested)
        shared = any(p >= LEVEL for p in tested)
        for row in rows:
            scored, rank, average = value(row), None, None
            if scored is not None:
                rank = 1 + sum(other > scored for other in scores)
                average = rank + (scores.count(scored) - 1) / 2
            leads, pair = row.model == leader, against[row.model] if row.model != leader else None
            place = Place(row, sections[task][1], rank, average, leader, pair, most, floor=row.model in content.floor)
            close = shared if leads else place.p is not None and place.p >= LEVEL
            found.append(replace(place, best=leads and alone, close=close))
    return found


def cells(found: Iterable[Place]) -> list[list[Place]]:
    """The places of each task and budget."""
    return [list(group) for _, group in groupby(found, key=lambda place: (place.row.task, place.row.budget))]


def floor(group: Iterable[Place]) -> Place | None:
    """The best of the floor among the places of one task and budget; None where it has none."""
    scored = [place for place in group if place.floor and place.score is not None]
    return max(scored, key=lambda place: place.score or 0.0, default=None)


def floors(found: Iterable[Place]) -> dict[tuple[str, float], Place]:
    """(task, budget) -> the best of the floor, where there is one."""
    groups = {(group[0].row.task, group[0].row.budget): floor(group) for group in cells(found)}
    return {key: place for key, place in groups.items() if place is not None}


def chance(section: Section, metric: str = "") -> float | None:
    """What chance scores in a metric, or in the main one."""
    return section.chance.scores.get(metric or section.metric) if section.chance else None


def models_of(found: Iterable[Place]) -> dict[tuple[str, str], list[Place]]:
    """(task, model) -> its places, the smallest budget first."""
    groups: dict[tuple[str, str], list[Place]] = {}
    for place in sorted(found, key=lambda place: place.row.budget):
        groups.setdefault((place.row.task, place.row.model), []).append(place)
    return groups


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
