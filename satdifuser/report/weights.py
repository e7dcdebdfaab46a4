"""The learned weights of heads on one scale: how many equal shares each map has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.report.content import Insight, Section
from satdifuser.report.figures import shorten
from satdifuser.report.pictures import Pictures, png, shaded, shrink
from satdifuser.report.ranking import Place
from satdifuser.report.views import Cell, Grid, View, ranked, shade

MAPPED = 3  # samples with weight maps
MOVED = 0.1  # of an equal share: a head of which no map has moved so far is as at the start
NAMES = {"GlobalWeighted": "gw", "LocalizedWeighted": "lw", "MixtureOfExperts": "moe", "Concatenated": "concat"}
EVEN = ("UniformMean", "Plain")  # heads that learn no weights


@dataclass(frozen=True)
class Shares:
    """Weights over the equal share: 1 where a head prefers nothing.

    `together`: they sum to 1 over the maps of all strides, as in gw; else over those of each stride, as in lw and moe.
    """

    values: Mapping[int, NDArray[Any]]
    sums: Mapping[int, float]
    together: bool

    @property
    def count(self) -> int:
        return sum(values.size for values in self.values.values())


def shares(weights: Mapping[int, NDArray[Any]]) -> Shares:
    """
    >>> shares({4: np.array([[0.5, 0.1]]), 8: np.array([[0.4]])}).values[4].round(6).tolist()
    [[1.5, 0.3]]
    """
    sums = {stride: float(np.nansum(values)) for stride, values in weights.items()}
    together = math.isclose(sum(sums.values()), 1.0, rel_tol=1e-2)
    count = sum(np.size(values) for values in weights.values())
    found = {}
    for stride, values in weights.items():
        maps, total = (count, 1.0) if together else (np.size(values), sums[stride] or 1.0)
        found[stride] = np.asarray(values, dtype=np.float64) * maps / total
    return Shares(found, sums, together)


def moved(insight: Insight) -> float | None:
    """How far the map that moved most is from where it began, in equal shares; None where the start is not known."""
    if insight.start is None:
        return None
    begun, ended = shares(insight.start).values, shares(insight.weights).values
    return max(float(np.nanmax(np.abs(ended[stride] - begun[stride]))) for stride in ended)


def learned(insight: Insight) -> bool:
    """Whether there are weights, of a head that learns some."""
    if not insight.weights:
        return False
    far = max(float(np.nanmax(np.abs(values - 1))) for values in shares(insight.weights).values.values())
    return insight.head not in EVEN or far > 1e-6


def views(section: Section, found: Sequence[Place], pictures: Pictures) -> list[View]:
    """The learned weights of every model that has some, on one scale of colours, in the order of the ranking.

    Those of several noise levels are shown at once, but not those of a head that is as at its start.
    """
    insights = [insight for insight in ranked(section, found) if learned(insight)]
    every = [values for insight in insights for values in shares(insight.weights).values.values()]
    if not every:
        return []
    low, high = min(float(np.nanmin(one)) for one in every), max(float(np.nanmax(one)) for one in every)
    return [_view(section, insight, low, high, pictures) for insight in insights]


def _view(section: Section, insight: Insight, low: float, high: float, pictures: Pictures) -> View:
    mine = shares(insight.weights)
    steps = ["-" if step is None else str(step) for step in insight.timesteps]
    grids = []
    for stride, values in sorted(mine.values.items()):
        sums = f", {100 * mine.sums[stride]:.0f} % of the whole" if mine.together and len(mine.values) > 1 else ""
        caption = f"stride {stride}{sums}"
        grids.append(_heat(caption, values, steps, insight.taps[stride], low, high, "{:.2f}"))
    maps, note = _maps(section, insight, pictures)
    used = [_usage(insight, steps)] if insight.usage else []
    far = moved(insight)
    still = far is not None and far < MOVED
    ends = f"{low:.2f}", f"{high:.2f} equal shares"
    view = View(insight.model, _sentence(insight, mine, steps, still), grids, *ends, maps, note, extra=used)
    return replace(view, opened=len(steps) > 1 and not still)


def sums_over(mine: Shares) -> str:
    """What the weights are shares of, in words."""
    if mine.together:
        strides = "" if len(mine.values) == 1 else f" of {len(mine.values)} strides together"
        return f"the weights sum to 1 over all {mine.count} maps{strides}"
    counts = sorted({values.size for values in mine.values.values()})
    return f"the weights sum to 1 over the maps of each stride ({' or '.join(map(str, counts))})"


def _sentence(insight: Insight, mine: Shares, steps: Sequence[str], still: bool) -> str:
    """Whether the head moved, where the largest weight lies, and what the weights sum over."""
    stride = max(mine.values, key=lambda stride: float(np.nanmax(mine.values[stride])))
    values = mine.values[stride]
    step, tap = map(int, np.unravel_index(int(np.nanargmax(values)), values.shape))
    place = f"{insight.taps[stride][tap]}, stride {stride}"
    place += "" if steps[step] == "-" else f", timestep {steps[step]}"
    most = f"most weight, {float(values[step, tap]):.2f} equal shares, on {place}"
    begun = f"as at the start (no map has moved by {MOVED:g} of an equal share)" if still else most
    head = f"{NAMES[insight.head]}: " if insight.head in NAMES else ""
    return f"{head}{begun}; {sums_over(mine)}"


def _maps(section: Section, insight: Insight, pictures: Pictures) -> tuple[Grid | None, str]:
    """Where each timestep counts: the weight of the finest stride's pixels, summed over its taps."""
    if not insight.maps:
        return None, ""
    stride = min(insight.maps)
    values = np.asarray(insight.maps[stride], dtype=np.float64).sum(2)[:MAPPED]
    low, high = float(values.min()), float(values.max())
    shown = section.panel
    rows, taken = [], []
    for number, sample in enumerate(values):
        name = shown.ids[number] if shown and number < len(shown.ids) else str(number + 1)
        cells = []
        if shown and number < len(shown.ids):
            cells.append(Cell(picture=png(shrink(shown.pictures[number], 96)), alt=f"test sample {name}"))
        for step, weight in zip(insight.timesteps, sample, strict=True):
            said = f"mean {weight.mean():.2f}"
            alt = f"weight of timestep {step} on sample {name}: {said}, from {weight.min():.2f} to {weight.max():.2f}"
            cells.append(Cell(said, picture=png(shrink(shaded(weight, low, high), 96)), alt=alt))
        rows.append((name, cells))
        taken += [cell.picture for cell in cells]
    if not pictures.take(taken):
        return None, "The weight maps are left out, to keep the file small."
    columns = ["image"] if shown else []
    columns += ["-" if step is None else f"timestep {step}" for step in insight.timesteps]
    caption = (
        f"stride {stride}: weight of each timestep at each place, summed over taps (all timesteps sum to 1); dark"
        f" {low:.2f}, light {high:.2f}"
    )
    return Grid(caption, "sample", columns, rows), ""


def _usage(insight: Insight, steps: Sequence[str]) -> View:
    high = max(float(np.nanmax(values)) for values in insight.usage.values())
    grids = [
        _heat(f"stride {stride}", values, steps, [f"expert {n + 1}" for n in range(values.shape[1])], 0.0, high)
        for stride, values in sorted(insight.usage.items())
    ]
    said = "How often each expert is used, by timestep: each row sums to 1."
    return View(insight.model, said, grids, "0.000", f"{high:.3f}")


def _heat(
    caption: str,
    values: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    low: float,
    high: float,
    number: str = "{:.3f}",
) -> Grid:
    lines = [
        (name, [Cell(number.format(value), shade(value, low, high)) for value in line])
        for name, line in zip(rows, np.asarray(values, dtype=np.float64), strict=True)
    ]
    return Grid(caption, "timestep", [shorten(name) for name in columns], lines, full=columns)
