"""Charts of scores against costs, each cost by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from satdifuser.report import numbers
from satdifuser.report.charts import (
    WIDE,
    Chart,
    Style,
    axis_of,
    bars,
    canvas,
    legend,
    legend_height,
    listed,
    markup,
    reach,
    short,
)
from satdifuser.report.content import Cost, Section
from satdifuser.report.ranking import Place, front, largest, whole_seconds
from satdifuser.report.words import leads

COSTS: tuple[tuple[str, Callable[[Cost], float | None], Callable[[float | None], str]], ...] = (
    ("training time, with extraction", whole_seconds, numbers.seconds),
    ("trainable parameters", lambda cost: cost.trainable, numbers.count),
    ("FLOPs of one image", lambda cost: cost.flops, numbers.count),
    ("peak memory of training", lambda cost: cost.peak_bytes, numbers.size),
)


def cost_charts(section: Section, found: Sequence[Place], style: dict[str, Style]) -> list[Chart]:
    """The score against each cost that was measured, at the largest budget of a task; the Pareto front is filled."""
    group = [place for place in largest(found, section.name) if place.score is not None]
    panels = []
    for name, cost, show in COSTS:
        points = [(float(value), place) for place in group if (value := cost(place.row.cost)) and numbers.known(value)]
        if points:
            panels.append((name, show, points))
    if not panels or len(group) < 2:
        return []
    charts = []
    budget = numbers.percent(group[0].row.budget)
    ends = _ends(group)
    for name, show, points in panels:
        best = front([(cost, place.score or 0.0) for cost, place in points])
        ahead = sorted((point for point, on in zip(points, best, strict=True) if on), key=lambda point: point[0])
        front_said = f"On the Pareto front for {name}: {listed([place.row.model for _, place in ahead])}."
        with canvas(WIDE, 2.7 + legend_height(len(points))) as figure:
            axes = figure.subplots()
            _scatter(axes, points, best, style)
            _cost_ticks(axes, [cost for cost, _ in points], show)
            axes.set_xlabel(f"{name} (log scale)")
            axes.set_ylabel(axis_of(section))
            axes.set_ylim(*ends)  # the same in each of them
            shown = [place.row.model for _, place in points]
            legend(figure, [_handle(style[model]) for model in shown], [short(model, 24) for model in shown])
            svg = markup(figure)
        alt = f"{axis_of(section)} on {section.name} with {budget} of the labels against {name}: {leads(group[0])}."
        charts.append(Chart(svg, f"{alt} {front_said}", f"{section.name}, {budget}. {front_said}"))
    return charts


def _ends(group: Sequence[Place]) -> tuple[float, float]:
    """The ends of an axis that holds all intervals."""
    low = min((place.score or 0.0) - reach(place)[0] for place in group)
    high = max((place.score or 0.0) + reach(place)[1] for place in group)
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _scatter(axes: Any, points: Sequence[tuple[float, Place]], best: Sequence[bool], style: dict[str, Style]) -> None:
    axes.set_xscale("log")
    ahead = sorted(((c, p.score or 0.0) for (c, p), on in zip(points, best, strict=True) if on))
    axes.step(*zip(*ahead, strict=True), where="post", color="#999999", lw=1, zorder=1)
    for (cost, place), on in zip(points, best, strict=True):
        bars(axes, [cost], [place.score or 0.0], [reach(place)], style[place.row.model], filled=on)


def _cost_ticks(axes: Any, costs: Sequence[float], show: Callable[[float | None], str]) -> None:
    """Ticks of a logarithmic cost where people would set them, with room for their words."""
    low, high = min(costs), max(costs)
    room = max(1.5, (high / low) ** 0.1)
    low, high = low / room, high * room
    finer = [[a * 10.0**b for b in range(-4, 19) for a in some] for some in ((1, 2, 5), (1, 3), (1,))]
    if show is numbers.seconds:
        minutes = [60.0, 120.0, 300.0, 600.0, 1800.0]
        finer = [[s for s in some if s < 40] + minutes + [3600 * s for s in some if s >= 1] for some in finer]
    for steps in finer:
        ticks = [step for step in steps if low <= step <= high]
        if len(ticks) <= 4:
            break
    while len(ticks) > 4:
        ticks = ticks[::2]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [show(tick) for tick in ticks])
    axes.minorticks_off()


def _handle(look: Style) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=look.colour, marker=look.marker, ls="none", ms=6)
