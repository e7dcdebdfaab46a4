"""Charts of a comparison as SVG for a page: scores over budgets, intervals of one budget, scores against costs."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from satdifuser.report import numbers
from satdifuser.report.content import Cost, Section
from satdifuser.report.ranking import Place, cells, front, largest, whole_seconds

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, less yellow
MARKERS = "os^DvPX<>ph*d"
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
COSTS: tuple[tuple[str, Callable[[Cost], float | None], Callable[[float | None], str]], ...] = (
    ("training time, with extraction", whole_seconds, numbers.seconds),
    ("trainable parameters", lambda cost: cost.trainable, numbers.count),
    ("FLOPs of one image", lambda cost: cost.flops, numbers.count),
    ("peak memory of training", lambda cost: cost.peak_bytes, numbers.size),
)


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
    with canvas(6.4, max(3.3, 0.9 + 0.19 * len(order))) as figure:
        axes = figure.subplots()
        for number, model in enumerate(order):
            mine = [place for group in groups for place in group if place.row.model == model]
            apart = gap ** (number - (len(order) - 1) / 2)
            _line(axes, [(p.row.budget * apart, p) for p in mine], style[model], short(model, 24))
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("label budget (% of the training samples, log scale)")
        axes.set_ylabel(_axis(section))
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        svg = markup(figure)
    low, high = groups[0], groups[-1]
    words = [
        f"{_axis(section)} of {numbers.plural(len(order), 'model')} on {section.name} over label budgets of "
        f"{_and([numbers.percent(budget) for budget in budgets])}.",
        f"At {numbers.percent(budgets[0])} {_leads(low)}; at {numbers.percent(budgets[-1])} {_leads(high)}.",
    ]
    caption = f"{section.name}: the names stand in their order at {numbers.percent(budgets[-1])}."
    return Chart(svg, " ".join(words), caption)


def intervals(section: Section, found: Sequence[Place], style: dict[str, Style]) -> Chart | None:
    """A dot and an interval for each model at the largest budget of a task, best on top; open dots are the seeds."""
    group = [place for place in largest(found, section.name) if place.score is not None]
    if not group:
        return None
    several = any(len(place.row.seeds) > 1 for place in group)
    with canvas(6.4, 0.9 + 0.28 * len(group)) as figure:
        axes = figure.subplots()
        for height, place in enumerate(reversed(group)):
            estimate, look = place.estimate, style[place.row.model]
            assert estimate is not None  # it has a score
            _bars(axes, [estimate.value], [height], [_reach(place)], look, horizontal=True)
            if several:
                axes.plot(estimate.seeds, [height - 0.25] * len(estimate.seeds), "o", ms=3, mfc="none", mec="#555555")
        axes.set_yticks(range(len(group)), [short(place.row.model) for place in reversed(group)])
        axes.set_ylim(-0.7, len(group) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(_axis(section))
        svg = markup(figure)
    listed = "; ".join(f"{place.row.model} {_value(place)}" for place in group)
    budget = numbers.percent(group[0].row.budget)
    alt = f"{_axis(section)} on {section.name} with {budget} of the labels, from best to worst: {listed}."
    seeds = " Small open dots: the single seeds." if several else ""
    return Chart(svg, alt, f"{section.name}, {budget} of the labels: mean and 95 % interval.{seeds}")


def cost_charts(section: Section, found: Sequence[Place], style: dict[str, Style]) -> Chart | None:
    """The score against each cost that was measured, at the largest budget of a task; the Pareto front is filled."""
    group = [place for place in largest(found, section.name) if place.score is not None]
    panels = []
    for name, cost, show in COSTS:
        points = [(float(value), place) for place in group if (value := cost(place.row.cost)) and numbers.known(value)]
        if points:
            panels.append((name, show, points))
    if not panels or len(group) < 2:
        return None
    fronts = []
    with canvas(2.4 + 2.7 * len(panels), max(2.9, 0.5 + 0.19 * len(group))) as figure:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, show, points) in zip(grid, panels, strict=True):
            best = front([(cost, place.score or 0.0) for cost, place in points])
            _scatter(axes, points, best, style)
            _cost_ticks(axes, [cost for cost, _ in points], show)
            axes.set_xlabel(name)
            ahead = sorted((point for point, on in zip(points, best, strict=True) if on), key=lambda point: point[0])
            fronts.append(f"for {name}: {_and([place.row.model for _, place in ahead])}")
        grid[0].set_ylabel(_axis(section))
        handles = [_handle(style[place.row.model]) for place in group]
        figure.legend(
            handles, [short(p.row.model, 24) for p in group], loc="outside right upper", frameon=False, fontsize=8
        )
        svg = markup(figure)
    budget = numbers.percent(group[0].row.budget)
    alt = f"{_axis(section)} on {section.name} with {budget} of the labels against costs: {_leads(group)}."
    listed = "; ".join(fronts)
    return Chart(svg, f"{alt} On the Pareto front {listed}.", f"{section.name}, {budget}. On the front {listed}.")


def _scatter(axes: Any, points: Sequence[tuple[float, Place]], best: Sequence[bool], style: dict[str, Style]) -> None:
    axes.set_xscale("log")
    ahead = sorted(((c, p.score or 0.0) for (c, p), on in zip(points, best, strict=True) if on))
    axes.step(*zip(*ahead, strict=True), where="post", color="#999999", lw=1, zorder=1)
    for (cost, place), on in zip(points, best, strict=True):
        _bars(axes, [cost], [place.score or 0.0], [_reach(place)], style[place.row.model], filled=on)


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


def _line(axes: Any, points: Sequence[tuple[float, Place]], look: Style, label: str) -> None:
    axes.plot([], [], color=look.colour, marker=look.marker, ls=look.line, ms=5, lw=1.4, label=label)
    places = [place for _, place in points]
    heights = [place.score or 0.0 for place in places]
    axes.plot([x for x, _ in points], heights, color=look.colour, ls=look.line, lw=1.4)
    _bars(axes, [x for x, _ in points], heights, [_reach(place) for place in places], look)


def _bars(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    reach: Sequence[tuple[float, float]],
    look: Style,
    filled: bool = True,
    horizontal: bool = False,
) -> None:
    """Markers with their intervals."""
    lengths = [[below for below, _ in reach], [above for _, above in reach]]
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


def _handle(look: Style) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=look.colour, marker=look.marker, ls="none", ms=6)


def _reach(place: Place) -> tuple[float, float]:
    """How far the interval goes below and above the score."""
    estimate = place.estimate
    if estimate is None or not (numbers.known(estimate.low) and numbers.known(estimate.high)):
        return 0.0, 0.0
    return max(estimate.value - estimate.low, 0.0), max(estimate.high - estimate.value, 0.0)


def _axis(section: Section) -> str:
    return numbers.metric_name(section.metric)


def _value(place: Place) -> str:
    estimate = place.estimate
    assert estimate is not None  # only places with a score are drawn
    return f"{numbers.score(estimate.value)} [{numbers.score(estimate.low)}, {numbers.score(estimate.high)}]"


def _leads(group: Sequence[Place]) -> str:
    return f"{group[0].row.model} is best with {_value(group[0])}"


def _and(words: Sequence[str]) -> str:
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
