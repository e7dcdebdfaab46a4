"""The points of a study in rows: what one probe of one view scores over the places, with one label budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.depth.content import Point, Probed
from satdifuser.report.depth.drawing import finite, name_of, said, steps_of, taps_of
from satdifuser.report.estimate import Estimate
from satdifuser.report.ranking import LEVEL


@dataclass(frozen=True)
class Series:
    """The points of one probe, view and budget in the order of computation."""

    probed: Probed
    probe: str
    view: str
    budget: float
    points: tuple[Point, ...]

    @property
    def best(self) -> Point | None:
        """The place with the highest score; of equals the earliest."""
        known = [point for point in self.points if np.isfinite(self.value(point))]
        return max(known, key=self.value, default=None)

    def estimate(self, point: Point) -> Estimate | None:
        return point.scores.get(self.probed.metric)

    def value(self, point: Point) -> float:
        return finite(self.estimate(point))

    def close(self, point: Point) -> bool:
        """Not the best, and not to be told from it."""
        return point is not self.best and numbers.known(point.p) and (point.p or 0.0) >= LEVEL

    def untested(self, point: Point) -> bool:
        return point is not self.best and not numbers.known(point.p)

    @property
    def title(self) -> str:
        return f"{self.probe}, {self.view}"

    def sentence(self) -> str:
        """The best place in words, and which others are not to be told from it."""
        best = self.best
        if best is None:
            return f"{self.title}, {numbers.percent(self.budget)} of the labels: no place has a score."
        metric = numbers.metric_name(self.probed.metric)
        text = (
            f"{self.title}, {numbers.percent(self.budget)} of the labels: best at {name_of(best.place)} with {metric}"
            f" {said(self.estimate(best))}"
        )
        close = [name_of(point.place) for point in self.points if self.close(point)]
        if len(self.points) == 1:
            return f"{text}, the only place."
        if not close:
            tested = [point for point in self.points if point is not best and not self.untested(point)]
            return f"{text}{', worse at every other place' if len(tested) == len(self.points) - 1 else ''}."
        named = ", ".join(close[:3]) + (f" and {numbers.plural(len(close) - 3, 'other')}" if len(close) > 3 else "")
        return f"{text}; not to be told from it: {named}."


def series_of(probed: Probed) -> list[Series]:
    """Probe by probe, view by view, the smallest budget first."""
    groups: dict[tuple[str, str, float], list[Point]] = {}
    order: dict[tuple[str, str], int] = {}
    for point in probed.points:
        groups.setdefault((point.probe, point.view, point.budget), []).append(point)
        order.setdefault((point.probe, point.view), len(order))
    keys = sorted(groups, key=lambda key: (order[key[:2]], key[2]))
    return [Series(probed, *key, tuple(_in_order(groups[key]))) for key in keys]


def largest(found: Sequence[Series]) -> list[Series]:
    """Those of the largest budget."""
    top = max((one.budget for one in found), default=0.0)
    return [one for one in found if one.budget == top]


def grid(one: Series) -> tuple[list[int | None], list[str], list[list[Point | None]]]:
    """Timesteps, taps, and the point of each, None where there is none."""
    places = [point.place for point in one.points]
    steps, taps = steps_of(places), taps_of(places)
    there = {(point.place.timestep, point.place.tap): point for point in one.points}
    return steps, taps, [[there.get((step, tap)) for tap in taps] for step in steps]


def _in_order(points: Sequence[Point]) -> list[Point]:
    def order(point: Point) -> tuple[int, int, str]:
        step = point.place.timestep
        return -1 if step is None else step, point.place.number, point.place.tap

    return sorted(points, key=order)
