"""Training curves as small drawings: the score on validation and the loss over steps, a line for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from satdifuser.report import numbers
from satdifuser.report.content import Content, Curve

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 236, 112, 44, 16, 6
DASHES = ("", "5 3", "1.5 2.5", "7 2 1.5 2")
ENDS = {"patience": "validation had stopped rising", "max_steps": "the most steps allowed", "fitted": "a fit"}


@dataclass(frozen=True)
class Drawn:
    """The curves of one budget: two drawings, and how its runs ended."""

    budget: float
    scores: str
    losses: str
    ended: str


@dataclass(frozen=True)
class Group:
    """The curves of a model on a task."""

    task: str
    model: str
    metric: str
    sentence: str
    drawings: Sequence[Drawn]


def groups(content: Content) -> list[Group]:
    """The curves of each task and model, in the order of the report."""
    found = []
    for section in content.sections:
        mine = [curve for curve in content.curves if curve.task == section.name]
        for model in dict.fromkeys(curve.model for curve in mine):
            curves = [curve for curve in mine if curve.model == model]
            metric = numbers.metric_name(section.metric)
            drawings = [
                _drawn([curve for curve in curves if curve.budget == budget], metric)
                for budget in sorted({curve.budget for curve in curves})
            ]
            found.append(Group(section.name, model, metric, _ended(curves), drawings))
    return found


def _drawn(curves: Sequence[Curve], metric: str) -> Drawn:
    what = f"{curves[0].model} on {curves[0].task} with {numbers.percent(curves[0].budget)} of the labels"
    return Drawn(
        curves[0].budget,
        _chart([curve.scores for curve in curves], f"{metric} on validation", what),
        _chart([curve.losses for curve in curves], "training loss", what),
        _ended(curves),
    )


def _ended(curves: Sequence[Curve]) -> str:
    """How many runs ended how."""
    parts = []
    for how, words in ENDS.items():
        count = sum(curve.ended == how for curve in curves)
        if count:
            parts.append(f"{words}, {count} of {numbers.plural(len(curves), 'run')}")
    return "ended by: " + "; ".join(parts) if parts else "how its runs ended is not known"


def _chart(lines: Sequence[Sequence[tuple[int, float]]], name: str, what: str) -> str:
    """Lines over steps, with the ends of both axes; the alternative text says the first and last values."""
    points = [point for line in lines for point in line]
    if not points:
        return ""
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0

    def place(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 6) * step / max(last, 1)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / span)
        return round(x, 1), round(y, 1)

    drawn = []
    for number, line in enumerate(lines):
        if not line:
            continue
        dash = DASHES[number % len(DASHES)]
        path = "L".join("{:g} {:g}".format(*place(*point)) for point in line)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        drawn.append(f'<path class="curve" d="M{path}"{dashed}/>')
        if len(line) == 1:
            drawn.append('<circle class="curve" cx="{:g}" cy="{:g}" r="2"/>'.format(*place(*line[0])))
    floor = HEIGHT - BOTTOM
    axes = f'<path class="axes" d="M{LEFT} {TOP}V{floor}H{WIDTH - 6}"/>'
    texts = [
        (LEFT - 4, TOP + 8, "end", numbers.score(high)),
        (LEFT - 4, floor, "end", numbers.score(low)),
        (LEFT, HEIGHT - 3, "start", "0"),
        (WIDTH - 6, HEIGHT - 3, "end", f"step {last}"),
        ((LEFT + WIDTH) // 2, HEIGHT - 3, "middle", name),
    ]
    words = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>' for x, y, anchor, text in texts
    )
    firsts, lasts = ([line[end][1] for line in lines if line] for end in (0, -1))
    alt = (
        f"{name} of {what} over {last} steps, {numbers.plural(len(firsts), 'run')}: from"
        f" {_range(firsts)} to {_range(lasts)} at the end"
    )
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="small" role="img" aria-label="{escape(alt)}" {frame}>{axes}{"".join(drawn)}{words}</svg>'


def _range(values: Sequence[float]) -> str:
    low, high = numbers.score(min(values)), numbers.score(max(values))
    return low if low == high else f"{low} to {high}"
