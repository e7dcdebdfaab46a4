"""Probes over depth as charts: of one model on a task, and of all models of a task on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.charts import Style, short
from satdifuser.report.depth import drawing as draw
from satdifuser.report.depth.content import Probed
from satdifuser.report.depth.drawing import Drawn
from satdifuser.report.depth.series import Series, largest, series_of

READ = (
    "Each point is a probe that learned from the features of one place alone; places stand in the order of computation,"
    " the first one left. Star: the best place of its probe, view and budget. Filled: not to be told from it"
    " (paired permutation test, Holm over places, p at least 0.05). Open: worse. Bands: 95 % bootstrap intervals over"
    " test samples."
)
TOKEN = "class"  # the kind of a place of class tokens
RELATIVE = (
    "Depth runs from 0 (the first place that a model gives) to 1 (its last), so that networks of any length stand on"
    " one axis. A model with noise is shown at the timestep of its best place."
    " Star: each model's best place. Bands: 95 % bootstrap intervals over test samples."
)


def probe_curves(probed: Probed) -> Drawn | None:
    """Scores over places: a panel for each probe and view, a line for each timestep, or for each budget."""
    found = series_of(probed)
    if not any(one.best for one in found):
        return None
    taps = draw.taps_of([point.place for point in probed.points])
    steps = draw.steps_of([point.place for point in probed.points])
    by_step = len(steps) > 1
    panels = _panels(found, by_step)
    columns = max(map(len, panels))
    wide = min(draw.width_for(len(taps)), (draw.WIDEST - 1.9) / columns)
    names = [draw.step_name(step) for step in steps] if by_step else _budgets(found)
    style = draw.looks(names)
    with draw.drawing(columns * (wide + 0.25) + 1.9, len(panels) * 2.0 + 1.1) as figure:
        rows = figure.subplots(len(panels), columns, sharey=True, sharex=True, squeeze=False)
        for axes, row in zip(rows, panels, strict=True):
            for ax, panel in zip(axes, [*row, *[[]] * (columns - len(row))], strict=True):
                _panel(ax, panel, taps, style, by_step)
                if not panel:
                    ax.set_visible(False)
            axes[0].set_ylabel(numbers.metric_name(probed.metric))
        for ax in rows[-1]:
            draw.label_taps(ax, taps, wide)
        below = _chance(rows.ravel(), probed, found)
        if len(names) > 1:
            figure.legend(*_once(rows.ravel()), loc="outside right upper", frameon=False, fontsize=8)
        words = [
            f"Probes of {probed.model} on {probed.task} over {numbers.plural(len(taps), 'tap')}"
            + (f" and {numbers.plural(len(steps), 'timestep')}." if by_step else "."),
            *(one.sentence() for one in largest(found)),
        ]
        name = f"probes {probed.task} {probed.model}"
        return draw.drawn(
            figure,
            name,
            " ".join(words),
            f"{probed.model}, {probed.task}. {READ}{_tokens(found)}{_crosses(found)}{below}",
        )


def relative_curves(probes: Sequence[Probed]) -> Drawn | None:
    """All models of one task on relative depth, at the largest budget; None of one model alone."""
    best = {id(one): largest(series_of(one)) for one in probes}
    kinds = list(dict.fromkeys((s.probe, s.view) for one in probes for s in best[id(one)] if s.best))
    if len(probes) < 2 or not kinds:
        return None
    names = _apart([one.model for one in probes])
    style = draw.looks(names)
    columns = min(len(kinds), 3)
    rows = -(-len(kinds) // columns)
    words, wide = [], min(4.4, (draw.WIDEST - 2.2) / columns)
    with draw.drawing(columns * wide + 2.2, rows * 2.9 + 0.5) as figure:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for ax, kind in zip(grid.ravel(), kinds, strict=False):
            ax.set_title(", ".join(kind), fontsize=9)
            for name, one in zip(names, probes, strict=True):
                for line in (s for s in best[id(one)] if (s.probe, s.view) == kind and s.best):
                    depth = _relative(ax, line, style[name], name)
                    words.append(f"{name}, {', '.join(kind)}: best at depth {depth:.2f} with {_best(line)}.")
            ax.set_xlim(-0.03, 1.03)
        for ax in grid.ravel()[len(kinds) :]:
            ax.set_visible(False)
        for row in grid:
            row[0].set_ylabel(numbers.metric_name(probes[0].metric))
        for ax in grid.ravel()[max(len(kinds) - columns, 0) : len(kinds)]:
            ax.set_xlabel("relative depth")
        below = _chance(grid.ravel()[: len(kinds)], probes[0], [s for found in best.values() for s in found])
        figure.legend(*_once(grid.ravel()), loc="outside right upper", frameon=False, fontsize=8)
        task, budgets = probes[0].task, {s.budget for found in best.values() for s in found}
        labels = f"{numbers.percent(max(budgets))} of the labels" if len(budgets) == 1 else "each at its largest budget"
        alt = f"Probes of {len(probes)} models on {task} over relative depth, {labels}. {' '.join(words)}"
        return draw.drawn(figure, f"probes {task} relative depth", alt, f"{task}, {labels}. {RELATIVE}{below}")


def _relative(ax: Any, one: Series, look: Style, name: str) -> float:
    """The line at the timestep of the best place; gives the depth of that place."""
    best = one.best
    assert best is not None  # asked before
    mine = [point for point in one.points if point.place.timestep == best.place.timestep]
    numbers_ = sorted({point.place.number for point in one.points})
    at = {number: n / max(len(numbers_) - 1, 1) for n, number in enumerate(numbers_)}
    mine = sorted(mine, key=lambda point: point.place.number)
    x = [at[point.place.number] for point in mine]
    step = best.place.timestep
    label = short(name, 26) + ("" if step is None else f" @{step}")
    draw.line(ax, x, [one.estimate(point) for point in mine], look, label)
    draw.dots(ax, x, [one.value(point) for point in mine], look, True, 3)
    draw.star(ax, at[best.place.number], one.value(best), look)
    return at[best.place.number]


def _panels(found: Sequence[Series], by_step: bool) -> list[list[list[Series]]]:
    """Rows of panels, each of the series that it shows: a row for a probe and view, or a few to a row."""
    kinds: dict[tuple[str, str], list[Series]] = {}
    for one in found:
        kinds.setdefault((one.probe, one.view), []).append(one)
    if by_step:
        return [[[one] for one in mine] for mine in kinds.values()]
    panels = list(kinds.values())
    width = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    return [panels[n : n + width] for n in range(0, len(panels), width)]


def _panel(ax: Any, panel: Sequence[Series], taps: Sequence[str], style: Any, by_step: bool) -> None:
    where = {tap: n for n, tap in enumerate(taps)}
    for one in panel:
        ax.set_title(f"{one.title}, {numbers.percent(one.budget)}" if by_step else one.title, fontsize=9)
        steps = draw.steps_of([point.place for point in one.points])
        for step in steps if by_step else [None]:
            mine = [point for point in one.points if not by_step or point.place.timestep == step]
            mine = sorted(mine, key=lambda point: where[point.place.tap])
            label = draw.step_name(step) if by_step else f"{numbers.percent(one.budget)} of the labels"
            look = style[label]
            for token in sorted({p.place.kind == TOKEN for p in mine}):  # a line through both would go up and down
                some = [p for p in mine if (p.place.kind == TOKEN) is token]
                drawn = replace(look, line=":") if token else look
                draw.line(ax, [where[p.place.tap] for p in some], [one.estimate(p) for p in some], drawn, label)
            for filled in (True, False):
                some = [p for p in mine if p is not one.best and not one.untested(p) and one.close(p) is filled]
                draw.dots(ax, [where[p.place.tap] for p in some], [one.value(p) for p in some], look, filled)
            loose = [p for p in mine if one.untested(p)]
            ax.plot([where[p.place.tap] for p in loose], list(map(one.value, loose)), "x", color=look.colour, ms=4)
            for p in mine:
                if p is one.best:
                    draw.star(ax, where[p.place.tap], one.value(p), look)
                    draw.bar(ax, where[p.place.tap], one.estimate(p), look)


def _chance(axes: Sequence[Any], probed: Probed, found: Sequence[Series]) -> str:
    """A line at what guessing scores, where that is in reach; else words that say where it is."""
    chance = probed.chance
    values = [one.value(point) for one in found for point in one.points]
    known = [value for value in values if np.isfinite(value)]
    if chance is None or not np.isfinite(chance) or not known:
        return ""
    span = max(known) - min(known)
    if min(known) - chance > max(span, 0.05):
        return f" Guessing would score {numbers.score(chance)}, which is below what is drawn."
    for ax in axes:
        if ax.get_visible():
            ax.axhline(chance, color="#777777", ls=(0, (4, 3)), lw=0.9, zorder=1)
    return f" Grey dashes: what guessing would score, {numbers.score(chance)}."


def _tokens(found: Sequence[Series]) -> str:
    there = {point.place.kind == TOKEN for one in found for point in one.points}
    return " Dotted: class tokens, beside the maps of their blocks." if there == {False, True} else ""


def _crosses(found: Sequence[Series]) -> str:
    loose = any(one.untested(point) for one in found for point in one.points if np.isfinite(one.value(point)))
    return " Crosses: not tested." if loose else ""


def _budgets(found: Sequence[Series]) -> list[str]:
    return [f"{numbers.percent(budget)} of the labels" for budget in sorted({one.budget for one in found})]


def _best(one: Series) -> str:
    assert one.best is not None
    return (
        f"{numbers.metric_name(one.probed.metric)} {draw.said(one.estimate(one.best))} ({draw.name_of(one.best.place)})"
    )


def _apart(names: Sequence[str]) -> list[str]:
    """Names of which none stands twice.

    >>> _apart(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _once(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The handles and words of a legend, each word once."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, word in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(word, handle)
    return list(found.values()), list(found)
