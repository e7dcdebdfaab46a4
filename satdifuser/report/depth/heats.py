"""Tables of numbers in colours: probes over (timestep x tap), and what finetuning moved by block and kind of module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.charts import short
from satdifuser.report.depth import drawing as draw
from satdifuser.report.depth.content import Probed
from satdifuser.report.depth.drawing import Drawn
from satdifuser.report.depth.series import Series, grid, series_of
from satdifuser.report.figures import heatmap, shorten
from satdifuser.report.views import Cell, Grid, View, shade

MOST = 22  # columns that leave room for numbers in a figure for a paper
READ = (
    "Rows are timesteps, the least noise first; columns are taps in the order of computation. The star is the best"
    " place of its probe, view and budget, ≈ marks those not to be told from it (p at least 0.05)."
)


def over_timesteps(probed: Probed) -> View | None:
    """Scores of each (timestep, tap), a table for each probe, view and budget on one scale; None of one timestep."""
    found = [one for one in series_of(probed) if one.best]
    if not found or len(draw.steps_of([point.place for point in probed.points])) < 2:
        return None
    low, high = _range(found)
    grids = []
    for one in found:
        steps, taps, points = grid(one)
        rows = []
        for step, line in zip(steps, points, strict=True):
            cells = []
            for point in line:
                value = float("nan") if point is None else one.value(point)
                mark = "" if point is None else "★ " if point is one.best else "≈ " if one.close(point) else ""
                cells.append(Cell(mark + numbers.score(value), shade(value, low, high)))
            rows.append(("-" if step is None else str(step), cells))
        caption = f"{one.title}, {numbers.percent(one.budget)} of the labels"
        grids.append(Grid(caption, "timestep", list(map(shorten, taps)), rows, full=taps))
    metric = numbers.metric_name(probed.metric)
    best = max(found, key=lambda one: one.value(one.best) if one.best else -np.inf)
    note = f"{READ} Colours run from {metric} {numbers.score(low)} to {numbers.score(high)}."
    return View(
        f"{probed.model}, {probed.task}",
        best.sentence(),
        grids,
        f"{metric} {numbers.score(low)}",
        numbers.score(high),
        note=note,
        opened=True,
    )


def over_timesteps_figure(probed: Probed) -> Drawn | None:
    """The same as a figure for a paper."""
    found = [one for one in series_of(probed) if one.best]
    if not found or len(draw.steps_of([point.place for point in probed.points])) < 2:
        return None
    low, high = _range(found)
    taps = draw.taps_of([point.place for point in probed.points])
    steps = draw.steps_of([point.place for point in probed.points])
    with draw.drawing(1.8 + 0.42 * len(taps), (0.9 + 0.25 * len(steps)) * len(found) + 0.8) as figure:
        axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for ax, one in zip(axes, found, strict=True):
            own_steps, own_taps, points = grid(one)
            values = [[float("nan") if p is None else one.value(p) for p in line] for line in points]
            names = [short(shorten(tap), 22) for tap in own_taps]
            picture = heatmap(ax, values, own_steps, names, (low, high), "{:.2f}" if len(taps) <= MOST else "")
            ax.set_title(f"{one.title}, {numbers.percent(one.budget)}", fontsize=9)
            ax.set_ylabel("timestep")
            ax.grid(visible=False)
        figure.colorbar(picture, ax=list(axes), shrink=0.9, label=numbers.metric_name(probed.metric))
        words = " ".join(one.sentence() for one in found)
        alt = f"Probes of {probed.model} on {probed.task} over timesteps and taps. {words}"
        return draw.drawn(figure, f"timesteps {probed.task} {probed.model}", alt, READ)


def _range(found: Sequence[Series]) -> tuple[float, float]:
    values = [one.value(point) for one in found for point in one.points]
    known = [value for value in values if np.isfinite(value)]
    return min(known), max(known)
