"""What finetuning moved: 1 - CKA of each place with what it was before, by block and kind of module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.charts import short
from satdifuser.report.depth import drawing as draw
from satdifuser.report.depth.content import Likeness, Place
from satdifuser.report.depth.drawing import Drawn
from satdifuser.report.figures import shorten
from satdifuser.report.views import Cell, Grid, View, shade

READ = (
    "1 - CKA of each place before and after, on the same samples: 0 means that its features stayed what they were up to"
    " rotation and scale; ± is the standard error over batches."
)


@dataclass(frozen=True)
class Move:
    """How far a place has moved, and how sure that is."""

    place: Place
    value: float
    error: float

    def __str__(self) -> str:
        return numbers.score(self.value) + (f" ± {numbers.score(self.error)}" if np.isfinite(self.error) else "")


def moves(one: Likeness) -> list[Move]:
    """The places that both sides have, in the order of the rows; none where the sides are of two architectures."""
    if not one.same:
        return []
    there = {(place.tap, place.timestep): n for n, place in enumerate(one.columns)}
    found = []
    for row, place in enumerate(one.rows):
        column = there.get((place.tap, place.timestep))
        if column is not None:
            found.append(Move(place, 1 - float(one.values[row, column]), float(one.errors[row, column])))
    return found


def sentence(found: Sequence[Move]) -> str:
    """Where it moved most and least, and the mean of each kind of module."""
    known = sorted((move for move in found if np.isfinite(move.value)), key=lambda move: move.value)
    if not known:
        return "how far it moved is not known"
    most, least = known[-1], known[0]
    text = f"it moved most in {draw.name_of(most.place)} ({most}) and least in {draw.name_of(least.place)} ({least})"
    kinds: dict[str, list[float]] = {}
    for move in known:
        kinds.setdefault(move.place.kind, []).append(move.value)
    means = sorted(((float(np.mean(values)), kind) for kind, values in kinds.items()), reverse=True)
    if len(means) > 1:
        text += "; on average " + ", ".join(f"{kind} {numbers.score(mean)}" for mean, kind in means)
    return text


def table(one: Likeness) -> View | None:
    """Blocks x kinds of modules, a table for each timestep on one scale that begins at 0."""
    found = moves(one)
    if not found:
        return None
    known = [move.value for move in found if np.isfinite(move.value)]
    high = max([*known, 0.0]) or 1.0
    grids = []
    for step in draw.steps_of([move.place for move in found]):
        mine = [move for move in found if move.place.timestep == step]
        rows, kinds = _by_block(mine)
        lines = [(shorten(block), [_cell(moved.get(kind), high) for kind in kinds]) for block, moved in rows.items()]
        grids.append(Grid("before and after" if step is None else f"timestep {step}", "block", kinds, lines))
    note = f"{READ} Colours run from 0 to {numbers.score(high)}."
    return View(_names(one), sentence(found), grids, "0", numbers.score(high), note=note, opened=True)


def over_depth(one: Likeness) -> Drawn | None:
    """The same over blocks: a line for each kind of module, a panel for each timestep."""
    found = moves(one)
    if not any(np.isfinite(move.value) for move in found):
        return None
    steps = draw.steps_of([move.place for move in found])
    rows, kinds = _by_block([move for move in found if move.place.timestep == steps[0]])
    blocks = list(rows)
    style = draw.looks(kinds)
    columns = min(len(steps), 3)
    wide = min(draw.width_for(len(blocks)), (draw.WIDEST - 2.0) / columns)
    with draw.drawing(columns * wide + 2.2, -(-len(steps) // columns) * 2.5 + 0.7) as figure:
        grid = figure.subplots(-(-len(steps) // columns), columns, sharey=True, sharex=True, squeeze=False)
        for ax, step in zip(grid.ravel(), steps, strict=False):
            mine, _ = _by_block([move for move in found if move.place.timestep == step])
            if step is not None:
                ax.set_title(f"timestep {step}", fontsize=9)
            for kind in kinds:
                points = [(n, mine[b][kind]) for n, b in enumerate(blocks) if kind in mine.get(b, {})]
                look = style[kind]
                ax.errorbar(
                    [n for n, _ in points],
                    [move.value for _, move in points],
                    yerr=[np.nan_to_num(move.error) for _, move in points],
                    color=look.colour, ls=look.line, marker=look.marker, ms=4, lw=1.2, elinewidth=0.8,
                    label=short(kind),
                )  # fmt: skip
        for ax in grid.ravel()[len(steps) :]:
            ax.set_visible(False)
        for row in grid:
            row[0].set_ylabel("1 - CKA")
        for ax in grid[-1]:
            draw.label_taps(ax, blocks, wide)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        alt = f"How far each module moved, {_names(one)}: {sentence(found)}."
        return draw.drawn(figure, f"moved {one.first} {one.second}", alt, f"{_names(one)}. {READ}")


def _by_block(found: Sequence[Move]) -> tuple[dict[str, Mapping[str, Move]], list[str]]:
    """Block -> kind -> its move; where a block has two of a kind, its parts come apart."""
    kinds = list(dict.fromkeys(move.place.kind for move in found))
    for name in (lambda p: p.block or p.tap, lambda p: p.tap.rpartition(".")[0] or p.tap, lambda p: p.tap):
        rows: dict[str, dict[str, Move]] = {}
        for move in sorted(found, key=lambda move: move.place.number):
            rows.setdefault(name(move.place), {}).setdefault(move.place.kind, move)
        if sum(map(len, rows.values())) == len(found):
            break
    return dict(rows), kinds


def _cell(move: Move | None, high: float) -> Cell:
    if move is None:
        return Cell("")
    return Cell(str(move), shade(move.value, 0.0, high))


def _names(one: Likeness) -> str:
    return f"{one.first} and {one.second}"
