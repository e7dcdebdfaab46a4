"""How alike the places of two networks are: the matrix of CKA, and the shape of their features over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.report import numbers
from satdifuser.report.charts import short
from satdifuser.report.depth import drawing as draw
from satdifuser.report.depth.content import Likeness, Place, Shape
from satdifuser.report.depth.drawing import Drawn
from satdifuser.report.figures import shorten

FEW = 16  # places on a side that leave room for numbers
LONG = 5.6  # inches of the longer side
READ = (
    "Linear CKA of each place of one side (rows) with each of the other (columns) on the same samples: 1 means the same"
    " features up to rotation and scale, 0 means unrelated ones. White lines part blocks and timesteps."
)
SHAPES = (
    "Intrinsic dimension (TwoNN): how many numbers tell neighbouring features apart. Effective rank: over how many"
    " directions their variance spreads, at most the count of channels. Places stand in the order of computation."
)


def matrix(one: Likeness) -> Drawn:
    """The matrix on a scale from 0 to 1, whatever its values are."""
    high, wide = len(one.rows), len(one.columns)
    cell = min(0.42, LONG / max(high, wide))
    size = (max(wide * cell, 1.0), max(high * cell, 1.0))
    with draw.drawing(size[0] + 2.9, size[1] + 1.9) as figure:
        ax = figure.subplots()
        ax.grid(visible=False)
        picture = ax.imshow(
            np.clip(one.values, 0, 1), cmap="cividis", vmin=0, vmax=1, interpolation="none", aspect="auto"
        )
        ax.set_facecolor("#bbbbbb")  # where there is no value
        columns = draw.thinned(wide, size[0])
        rows = draw.thinned(high, size[1])
        ax.set_xticks(columns, [_label(one.columns[n]) for n in columns], rotation=60, ha="right", fontsize=7)
        ax.set_yticks(rows, [_label(one.rows[n]) for n in rows], fontsize=7)
        ax.set_xlabel(short(one.second, 60))
        ax.set_ylabel(short(one.first, 60))
        for at in _parts(one.columns):
            ax.axvline(at - 0.5, color="white", lw=0.8)
        for at in _parts(one.rows):
            ax.axhline(at - 0.5, color="white", lw=0.8)
        if max(high, wide) <= FEW:
            _write(ax, one.values)
        figure.colorbar(picture, ax=ax, shrink=0.9, label="linear CKA")
        about = f"{numbers.plural(one.samples, 'sample')} of {one.split}, {one.pool} of each map"
        alt = f"Linear CKA of {one.first} (rows) and {one.second} (columns), {about}: {alike(one)}"
        caption = f"{one.first} and {one.second}: {about}. {READ} {outside(one.values)}"
        return draw.drawn(figure, f"cka {one.first} {one.second}", alt, caption.strip())


def alike(one: Likeness) -> str:
    """The most and the least alike places in words."""
    values = one.values
    if not np.isfinite(values).any():
        return "no value is known."
    most = _pair(one, int(np.nanargmax(values)))
    return f"most alike are {most}; least alike are {_pair(one, int(np.nanargmin(values)))}."


def partners(one: Likeness) -> str:
    """The place of the second side that is most like the first, middle and last of the first one."""
    known = [n for n in range(len(one.rows)) if np.isfinite(one.values[n]).any()]
    words = []
    for n in dict.fromkeys(known[at] for at in (0, len(known) // 2, len(known) - 1) if known):
        column = int(np.nanargmax(one.values[n]))
        words.append(
            f"{draw.name_of(one.rows[n])} is most like {draw.name_of(one.columns[column])}"
            f" ({_with_error(one.values[n, column], one.errors[n, column])})"
        )
    return "; ".join(words) + "." if words else ""


def outside(values: NDArray[np.float64]) -> str:
    """What lies beyond the scale, and what is not known."""
    said = []
    for some, word in ((values[values < 0], "below 0"), (values[values > 1], "above 1")):
        if some.size:
            extreme = some.min() if word == "below 0" else some.max()
            lie, are = ("lies", "is") if some.size == 1 else ("lie", "are")
            far = numbers.score(float(extreme))
            said.append(f"{some.size} of {values.size} values {lie} {word} (to {far}) and {are} drawn as {word[-1]}.")
    missing = int(np.isnan(values).sum())
    if missing:
        said.append(f"Grey: {numbers.plural(missing, 'value')} that {'is' if missing == 1 else 'are'} not known.")
    return " ".join(said) or "All values lie from 0 to 1."


def shapes(one: Likeness) -> Drawn | None:
    """Intrinsic dimension and effective rank over depth: a line for each side and timestep."""
    sides = [
        (name, places, found)
        for name, places, found in zip((one.first, one.second), (one.rows, one.columns), one.shapes, strict=True)
        if found
    ]
    if len(sides) == 2 and (sides[0][1], sides[0][2]) == (sides[1][1], sides[1][2]):
        sides = sides[:1]
    if not sides:
        return None
    if len({place.kind for place in sides[0][1]}) > 1 and len(draw.steps_of(sides[0][1])) == 1:
        return shapes_by_kind(sides)
    taps = [draw.taps_of(places) for _, places, _ in sides]
    shared = len(sides) == 1 or taps[0] == taps[1]
    lines = [_line_name(name, step, sides, places) for name, places, _ in sides for step in draw.steps_of(places)]
    style = draw.looks(lines)
    longest = max(map(len, taps))
    wide = min(draw.width_for(longest), (draw.WIDEST - 2.6) / 2)
    words = []
    with draw.drawing(2 * wide + 3.2, 3.3) as figure:
        axes = figure.subplots(1, 2)
        for ax, (what, read) in zip(axes, WHAT, strict=True):
            for name, places, found in sides:
                own = draw.taps_of(places)
                for step in draw.steps_of(places):
                    y = {p.tap: read(s) for p, s in zip(places, found, strict=True) if p.timestep == step}
                    label = _line_name(name, step, sides, places)
                    x = [n if shared else n / max(len(own) - 1, 1) for n, tap in enumerate(own) if tap in y]
                    values = [y[tap] for tap in own if tap in y]
                    look = style[label]
                    ax.plot(x, values, color=look.colour, ls=look.line, marker=look.marker, ms=3, lw=1.2, label=label)
                words.append(_extremes(what, name, places, [read(shape) for shape in found]))
            ax.set_ylabel(what)
            ax.set_ylim(bottom=0)
            if shared:
                draw.label_taps(ax, taps[0], wide)
            else:
                ax.set_xlabel("relative depth")
        if len(lines) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        title = " and ".join(dict.fromkeys(name for name, *_ in sides))
        return draw.drawn(figure, f"shapes {title}", " ".join(words), f"{title}. {SHAPES}")


def shapes_by_kind(sides: Sequence[tuple[str, Sequence[Place], Sequence[Shape]]]) -> Drawn:
    """Of networks of which many modules are known: a line for each kind of module over its places, a row for a side."""
    kinds = list(dict.fromkeys(place.kind for _, places, _ in sides for place in places))
    style = draw.looks(kinds)
    words = []
    with draw.drawing(9.6, 2.6 * len(sides) + 0.4) as figure:
        grid = figure.subplots(len(sides), 2, sharex="row", sharey="col", squeeze=False)
        for axes, (name, places, found) in zip(grid, sides, strict=True):
            blocks = list(dict.fromkeys(place.block for place in sorted(places, key=lambda place: place.number)))
            for ax, (what, read) in zip(axes, WHAT, strict=True):
                for kind in kinds:
                    pairs = [(p, s) for p, s in zip(places, found, strict=True) if p.kind == kind]
                    x, y = [blocks.index(p.block) for p, _ in pairs], [read(s) for _, s in pairs]
                    look = style[kind]
                    ax.plot(x, y, color=look.colour, ls=look.line, marker=look.marker, ms=3, lw=1.1, label=short(kind))
                words.append(_extremes(what, name, places, [read(shape) for shape in found]))
                ax.set_ylabel(what)
                ax.set_title(short(name, 44), fontsize=9)
                draw.label_taps(ax, blocks, 3.6)
        for ax in grid[0]:  # after the last row: the axis is shared, and a limit set before it would cut it off
            ax.set_ylim(bottom=0)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        title = " and ".join(name for name, *_ in sides)
        return draw.drawn(figure, f"shapes {title}", " ".join(words), f"{title}. {SHAPES}")


WHAT: Any = (("intrinsic dimension", lambda s: s.intrinsic), ("effective rank", lambda s: s.rank))


def _line_name(name: str, step: int | None, sides: Sequence[Any], places: Sequence[Place]) -> str:
    several = len(draw.steps_of(places)) > 1
    words = [short(name, 26)] if len(sides) > 1 or not several else []
    return ", ".join([*words, *([draw.step_name(step)] if several else [])])


def _extremes(what: str, name: str, places: Sequence[Place], values: Sequence[float]) -> str:
    if not np.isfinite(values).any():
        return f"{what} of {name}: not known."
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    return (
        f"{what.capitalize()} of {name}: from {values[low]:.1f} ({draw.name_of(places[low])})"
        f" to {values[high]:.1f} ({draw.name_of(places[high])})."
    )


def _pair(one: Likeness, at: int) -> str:
    row, column = divmod(at, one.values.shape[1])
    both = f"{draw.name_of(one.rows[row])} and {draw.name_of(one.columns[column])}"
    return f"{both}, {_with_error(one.values[row, column], one.errors[row, column])}"


def _with_error(value: float, error: float) -> str:
    return numbers.score(float(value)) + (f" ± {numbers.score(float(error))}" if np.isfinite(error) else "")


def _label(place: Place) -> str:
    return short(shorten(place.tap), 22) + ("" if place.timestep is None else f" @{place.timestep}")


def _parts(places: Sequence[Place]) -> list[int]:
    """Where another block or timestep begins, unless each place is one of its own."""
    at = [
        n
        for n in range(1, len(places))
        if (places[n].block, places[n].timestep) != (places[n - 1].block, places[n - 1].timestep)
    ]
    steps = [n for n in range(1, len(places)) if places[n].timestep != places[n - 1].timestep]
    return at if len(at) < max(len(places) * 0.6, 1) else steps if len(steps) < len(places) - 1 else []


def _write(ax: Any, values: NDArray[np.float64]) -> None:
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            colour = "white" if value < 0.6 else "black"
            text = f"{value:.2f}" if np.isfinite(value) else "-"
            ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
