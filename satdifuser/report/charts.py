"""Charts of a comparison as SVG for a page: scores over budgets, intervals of one budget, scores against costs."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from satdifuser.report import numbers
from satdifuser.report.content import Section
from satdifuser.report.ranking import Place, cells, chance, floors, largest
from satdifuser.report.words import leads

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, less yellow
MARKERS = "os^DvPX<>ph*d"
WIDE = 4.3  # inches: what a phone shows without shrinking the letters
LINES = ("-", "--", ":", "-.")
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "satdifuser",
    "text.parse_math": False,  # a model's name may hold a dollar
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.edgecolor": "#555555",
}


@dataclass(frozen=True)
class Chart:
    """A drawing (SVG markup, safe to inline), what it shows in words, and the line under it."""

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Style:
    """What tells a model from the others, with colour or without."""

    colour: str
    marker: str
    line: str


def styles(models: Sequence[str]) -> dict[str, Style]:
    """A style for each model, the same in every chart.

    >>> len(set(styles([str(n) for n in range(40)]).values()))
    40
    """
    many = [Style(COLOURS[n % 7], MARKERS[n % 13], LINES[n % 4]) for n in range(len(models))]
    return dict(zip(models, many, strict=True))


def short(name: str, length: int = 30) -> str:
    """A name that fits beside a chart; a first underscore would hide it from matplotlib's legend.

    >>> short("a" * 40), short("_x")
    ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaa…', ' _x')
    """
    name = " ".join("".join(sign for sign in name if sign.isprintable() or sign.isspace()).split())
    name = name if len(name) <= length else name[: length - 1] + "…"
    return f" {name}" if name.startswith("_") else name


def budget_curves(section: Section, found: Sequence[Place], style: dict[str, Style]) -> Chart | None:
    """A line for each model over the label budgets of a task, with intervals; None if there is one budget only."""
    groups = cells(p for p in found if p.row.task == section.name and p.score is not None)
    if len(groups) < 2:
        return None
    budgets = [group[0].row.budget for group in groups]
    order = list(dict.fromkeys(place.row.model for group in reversed(groups) for place in group))
    gap = (budgets[-1] / budgets[0]) ** min(0.008, 0.05 / len(order))  # from one model's points to the next one's
    with canvas(WIDE, 2.9 + legend_height(len(order))) as figure:
        axes = figure.subplots()
        for number, model in enumerate(order):
            mine = [place for group in groups for place in group if place.row.model == model]
            apart = gap ** (number - (len(order) - 1) / 2)
            _line(axes, [(p.row.budget * apart, p) for p in mine], style[model], short(model, 24))
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("label budget (% of the training samples, log scale)")
        axes.set_ylabel(axis_of(section))
        drawn = _references(axes, section, found, budgets)
        legend(figure, *axes.get_legend_handles_labels())
        svg = markup(figure)
    low, high = groups[0], groups[-1]
    words = [
        f"{axis_of(section)} of {numbers.plural(len(order), 'model')} on {section.name} over label budgets of "
        f"{listed([numbers.percent(budget) for budget in budgets])}.",
        f"At {numbers.percent(budgets[0])} {leads(low[0])}; at {numbers.percent(budgets[-1])} {leads(high[0])}.",
    ]
    caption = f"{section.name}: the names stand in their order at {numbers.percent(budgets[-1])}.{drawn}"
    return Chart(svg, " ".join(words), caption)


def intervals(section: Section, found: Sequence[Place], style: dict[str, Style]) -> Chart | None:
    """A dot and an interval for each model at the largest budget of a task, best on top; open dots are the seeds."""
    group = [place for place in largest(found, section.name) if place.score is not None]
    if not group:
        return None
    several = any(len(place.row.seeds) > 1 for place in group)
    with canvas(WIDE, 0.9 + 0.28 * len(group)) as figure:
        axes = figure.subplots()
        for height, place in enumerate(reversed(group)):
            estimate, look = place.estimate, style[place.row.model]
            assert estimate is not None  # it has a score
            bars(axes, [estimate.value], [height], [reach(place)], look, horizontal=True)
            if several:
                axes.plot(estimate.seeds, [height - 0.25] * len(estimate.seeds), "o", ms=3, mfc="none", mec="#555555")
        axes.set_yticks(range(len(group)), [short(place.row.model, 22) for place in reversed(group)], fontsize=8)
        axes.set_ylim(-0.7, len(group) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(axis_of(section))
        drawn = _references(axes, section, group, [], across=True)
        svg = markup(figure)
    told = "; ".join(f"{place.row.model} {_value(place)}" for place in group)
    budget = numbers.percent(group[0].row.budget)
    alt = f"{axis_of(section)} on {section.name} with {budget} of the labels, from best to worst: {told}."
    seeds = " Small open dots: the single seeds." if several else ""
    return Chart(svg, alt, f"{section.name}, {budget} of the labels: mean and 95 % interval.{seeds}{drawn}")


def legend_height(count: int) -> float:
    """Inches under a chart for so many names, two beside each other."""
    return 0.1 + 0.18 * -(-count // 2)


def legend(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """The names under the drawing, so that it is as wide as a phone shows it."""
    figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=8, columnspacing=1.0)


def _references(
    axes: Any, section: Section, found: Sequence[Place], shares: Sequence[float], across: bool = False
) -> str:
    """Chance as a line, where it lies near the scores, and the floor as a step; gives the words that name them."""
    value, said = chance(section), ""
    low, high = axes.get_xlim() if across else axes.get_ylim()
    if value is not None and low - 0.35 * (high - low) <= value <= high:
        (axes.axvline if across else axes.axhline)(value, color="#555555", lw=0.9, ls=(0, (1, 2)), zorder=1)
        said += " Dotted: chance."
    elif value is not None:
        said += f" Chance, {numbers.score(value)}, lies outside."
    lowest = floors(place for place in found if place.row.task == section.name)
    below = {share: place.score for (_, share), place in lowest.items() if place.score is not None}
    if below and across:
        axes.axvline(max(below.items())[1], color="#555555", lw=0.9, ls="--", zorder=1)
    elif below and len(shares) > 1:
        there = [share for share in shares if share in below]
        axes.plot(there, [below[share] for share in there], color="#555555", lw=5, alpha=0.25, zorder=1)
    return said + ((" Dashed: the floor." if across else " Broad and grey: the floor.") if below else "")


def _line(axes: Any, points: Sequence[tuple[float, Place]], look: Style, label: str) -> None:
    axes.plot([], [], color=look.colour, marker=look.marker, ls=look.line, ms=5, lw=1.4, label=label)
    places = [place for _, place in points]
    heights = [place.score or 0.0 for place in places]
    axes.plot([x for x, _ in points], heights, color=look.colour, ls=look.line, lw=1.4)
    bars(axes, [x for x, _ in points], heights, [reach(place) for place in places], look)


def bars(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    reaches: Sequence[tuple[float, float]],
    look: Style,
    filled: bool = True,
    horizontal: bool = False,
) -> None:
    """Markers with their intervals."""
    lengths = [[below for below, _ in reaches], [above for _, above in reaches]]
    axes.errorbar(
        x,
        y,
        **{"xerr" if horizontal else "yerr": lengths},
        fmt=look.marker,
        color=look.colour,
        mfc=look.colour if filled else "white",
        ms=6,
        elinewidth=0.9,
        capsize=2,
        zorder=3,
    )


def reach(place: Place) -> tuple[float, float]:
    """How far the interval goes below and above the score."""
    estimate = place.estimate
    if estimate is None or not (numbers.known(estimate.low) and numbers.known(estimate.high)):
        return 0.0, 0.0
    return max(estimate.value - estimate.low, 0.0), max(estimate.high - estimate.value, 0.0)


def axis_of(section: Section) -> str:
    return numbers.metric_name(section.metric)


def _value(place: Place) -> str:
    estimate = place.estimate
    assert estimate is not None  # only places with a score are drawn
    return f"{numbers.score(estimate.value)} [{numbers.score(estimate.low)}, {numbers.score(estimate.high)}]"


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@contextmanager
def canvas(width: float, height: float) -> Iterator[Any]:
    """A figure on a canvas that needs no screen and leaves the user's backend and settings alone."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font has it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield Figure(figsize=(width, height), layout="constrained")


def markup(figure: Any) -> str:
    """The figure as an `<svg>` element alone: no date, no declaration, nothing that is fetched."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text)
    return _own_ids(text, hashlib.sha256(text.encode()).hexdigest()[:8])


def _own_ids(svg: str, name: str) -> str:
    """Ids that are no other drawing's: those that nothing points to go, the others begin with this drawing's name."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
