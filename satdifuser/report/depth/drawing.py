"""What all drawings of depth have in common: a figure as SVG and PDF, axes of places, lines of scores."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.engine.files import aside, write_text
from satdifuser.report import numbers
from satdifuser.report.charts import Chart, Style, canvas, markup, short, styles
from satdifuser.report.depth.content import Place
from satdifuser.report.estimate import Estimate
from satdifuser.report.figures import shorten

WIDEST = 11.4  # inches: what a page of a laptop's width has
LETTERS = 0.17  # inches that a turned label takes


@dataclass(frozen=True)
class Drawn(Chart):
    """A chart that is a file, too: `name` without its ending, and the same drawing as PDF."""

    name: str
    pdf: bytes


def drawn(figure: Any, name: str, alt: str, caption: str) -> Drawn:
    """The figure as markup for the page and as PDF, which is the same on every day."""
    svg = markup(figure)
    figure.set_layout_engine("none")  # it has just been laid out
    out = io.BytesIO()
    figure.savefig(out, format="pdf", metadata={"CreationDate": None, "ModDate": None})
    return Drawn(svg, alt, caption, slug(name), out.getvalue())


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """A figure whose letters stay letters in a PDF."""
    import matplotlib

    with canvas(min(width, WIDEST), height) as figure:
        matplotlib.rcParams["pdf.fonttype"] = 42
        yield figure


def write_figures(figures: Sequence[Drawn], folder: Path) -> list[Path]:
    """Each as SVG and PDF in the folder; those of one name are numbered."""
    paths: list[Path] = []
    seen: dict[str, int] = {}
    for figure in figures:
        folder.mkdir(parents=True, exist_ok=True)
        seen[figure.name] = seen.get(figure.name, 0) + 1
        name = figure.name if seen[figure.name] == 1 else f"{figure.name}-{seen[figure.name]}"
        paths.append(write_text(folder / f"{name}.svg", figure.svg + "\n"))
        path = folder / f"{name}.pdf"
        with aside(path, path.with_name(f".{path.name}.{os.getpid()}.partial")) as partial:
            partial.write_bytes(figure.pdf)
        paths.append(path)
    return paths


def slug(words: str, length: int = 80) -> str:
    """A name for a file.

    >>> slug("probes of <b>ViT-S/16</b> on EuroSAT"), slug("..")
    ('probes-of-b-vit-s-16-b-on-eurosat', 'figure')
    """
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:length].strip("-") or "figure"


def name_of(place: Place) -> str:
    """A place in words.

    >>> name_of(Place("mid_block", 21, 0, 64, 8)), name_of(Place("blocks.3", None, 3, 64, 8))
    ('mid_block at timestep 21', 'blocks.3')
    """
    return place.tap if place.timestep is None else f"{place.tap} at timestep {place.timestep}"


def step_name(timestep: int | None) -> str:
    return "no timestep" if timestep is None else f"timestep {timestep}"


def taps_of(places: Sequence[Place]) -> list[str]:
    """The distinct taps in the order of computation."""
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(place.tap, place.number)
    return sorted(first, key=lambda tap: first[tap])


def steps_of(places: Sequence[Place]) -> list[int | None]:
    """The distinct timesteps, the least noise first."""
    return sorted(dict.fromkeys(p.timestep for p in places), key=lambda t: -1 if t is None else t)


def thinned(count: int, inches: float, each: float = LETTERS) -> list[int]:
    """Which of so many labels fit beside each other: the first, and every n-th.

    >>> thinned(5, 3.0), thinned(10, 1.0, each=0.25)
    ([0, 1, 2, 3, 4], [0, 3, 6, 9])
    """
    return list(range(0, count, max(1, -(-count // max(int(inches / each), 1)))))


def label_taps(axes: Any, taps: Sequence[str], inches: float) -> None:
    """Taps along the bottom, each by its short name, or every n-th of many."""
    kept = thinned(len(taps), inches)
    axes.set_xticks(kept, [short(shorten(taps[n]), 22) for n in kept], rotation=60, ha="right", fontsize=7)
    axes.set_xlim(-0.6, len(taps) - 0.4)


def width_for(count: int) -> float:
    """Inches of a panel that holds so many places."""
    return float(np.clip(0.24 * count, 2.2, 9.0))


def finite(estimate: Estimate | None) -> float:
    """A score, or NaN where there is none."""
    return estimate.value if estimate is not None and numbers.known(estimate.value) else float("nan")


def bounds(estimate: Estimate | None) -> tuple[float, float]:
    """The ends of the interval, at the score itself where there is none."""
    value = finite(estimate)
    if estimate is None or not (numbers.known(estimate.low) and numbers.known(estimate.high)):
        return value, value
    return estimate.low, estimate.high


def said(estimate: Estimate | None) -> str:
    """A score and its interval in words."""
    if estimate is None or not numbers.known(estimate.value):
        return "-"
    low, high = bounds(estimate)
    return f"{numbers.score(estimate.value)} [{numbers.score(low)}, {numbers.score(high)}]"


def line(axes: Any, x: Sequence[float], estimates: Sequence[Estimate | None], look: Style, label: str) -> None:
    """Scores over places, with a band for their intervals (bars where there is only one place)."""
    y = [finite(one) for one in estimates]
    ends = [bounds(one) for one in estimates]
    axes.plot(x, y, color=look.colour, ls=look.line, lw=1.2, label=label)
    known = [n for n, value in enumerate(y) if np.isfinite(value)]
    if len(known) > 1:
        axes.fill_between(x, [low for low, _ in ends], [high for _, high in ends], color=look.colour, alpha=0.14, lw=0)
    for n in known if len(known) == 1 else ():
        bar(axes, x[n], estimates[n], look)


def bar(axes: Any, x: float, estimate: Estimate | None, look: Style) -> None:
    """The interval of one score."""
    value, (low, high) = finite(estimate), bounds(estimate)
    reach = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
    axes.errorbar([x], [value], yerr=reach, fmt="none", ecolor=look.colour, elinewidth=1, capsize=3, zorder=4)


def dots(axes: Any, x: Sequence[float], y: Sequence[float], look: Style, filled: bool, size: float = 4.5) -> None:
    """Markers without a line."""
    face = look.colour if filled else "white"
    axes.plot(x, y, look.marker, ls="none", color=look.colour, mfc=face, ms=size, mew=0.8, zorder=3)


def star(axes: Any, x: float, y: float, look: Style) -> None:
    """The best place."""
    axes.plot([x], [y], "*", ms=12, color=look.colour, mec="#000000", mew=0.6, zorder=5)


def looks(names: Sequence[str]) -> Mapping[str, Style]:
    """A style for each line of a chart."""
    return styles(list(dict.fromkeys(names)))
