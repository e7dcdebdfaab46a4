"""What a page shows of depth, in parts: probes, likeness, what finetuning moved, decoders, and learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from satdifuser.report import numbers
from satdifuser.report.depth import curves, decoding, heats, likeness, moved
from satdifuser.report.depth.content import Depths, Likeness, Probed
from satdifuser.report.depth.drawing import Drawn, name_of, said
from satdifuser.report.depth.series import Series, largest, series_of
from satdifuser.report.views import View

OPENED = 3  # of a part's blocks: more are there, each with a click


@dataclass(frozen=True)
class Block:
    """One finding: a sentence, its charts and tables. `files` are drawings that only papers get."""

    title: str
    sentence: str
    charts: Sequence[Drawn] = ()
    views: Sequence[View] = ()
    words: Sequence[str] = ()
    files: Sequence[Drawn] = ()


@dataclass(frozen=True)
class Part:
    """A section of the page; `id` is its address, `lead` how to read it."""

    id: str
    name: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def parts(depths: Depths) -> list[Part]:
    """The sections of which there is something to show."""
    found = [
        Part("depth-probes", "Probes over depth", PROBES, _probes(depths.probes)),
        Part(
            "depth-moved", "What finetuning moved", MOVED, [_moved(one) for one in depths.likeness if moved.moves(one)]
        ),
        Part("depth-likeness", "Likeness of networks", LIKENESS, [_alike(one) for one in depths.likeness]),
        Part("depth-decoders", "Decoders against depth", DECODERS, _decoders(depths)),
        Part("depth-weights", "Learned weights against probes", WEIGHTS, _weights(depths)),
    ]
    return [part for part in found if part.blocks]


def figures(found: Sequence[Part]) -> list[Drawn]:
    """Every drawing of the parts."""
    return [drawn for part in found for block in part.blocks for drawn in (*block.charts, *block.files)]


PROBES = (
    "How much of what a task needs can be read at each place of a network that was not trained for it: a linear model"
    " or nearest neighbours learn from the features of one place alone. They say where knowledge is easy to reach, not"
    " what a decoder would make of several places together."
)
MOVED = (
    "How far each module's features are from what they were before finetuning, by linear CKA on the same samples. It"
    " says where features changed, not whether they became better."
)
LIKENESS = (
    "Which places of two networks carry alike features, by linear CKA. Its estimate has no bias from the size of a"
    " batch, so it can lie a little below 0."
)
DECODERS = (
    "Models of this comparison that differ in nothing but their decoder and the one depth that feeds it: how much"
    " either matters."
)
WEIGHTS = (
    "What a fusion head has learned to prefer, beside what probes find at the same places. Spearman's correlation is 1"
    " if both put the places in one order, 0 if they are unrelated. Places of one network resemble each other, so it"
    " has no p."
)


def _probes(probes: Sequence[Probed]) -> list[Block]:
    blocks = []
    for task in dict.fromkeys((one.task, one.metric) for one in probes):
        mine = [one for one in probes if (one.task, one.metric) == task]
        deep = [one for one in mine if len({point.place.number for point in one.points}) > 1]
        together = curves.relative_curves(deep)  # a model of one place has no depth
        if together:
            blocks.append(Block(f"{task[0]}, all models", _depths(deep), [together]))
        blocks += [_probe(one) for one in mine]
    return blocks


def _depths(probes: Sequence[Probed]) -> str:
    """At which relative depth each model is best, by its best probe and view."""
    words = []
    for one in probes:
        best = leading(one)
        if best is not None and best.best is not None:
            order = sorted({point.place.number for point in best.points})
            depth = order.index(best.best.place.number) / max(len(order) - 1, 1)
            words.append(f"{one.model} is best at {100 * depth:.0f} % of its depth")
    return f"{', '.join(words)}."


def leading(one: Probed) -> Series | None:
    """Of the largest budget, the probe and view with the highest score."""
    known = [series for series in largest(series_of(one)) if series.best]
    return max(known, key=lambda s: s.value(s.best) if s.best else float("-inf"), default=None)


def _probe(one: Probed) -> Block:
    found = largest(series_of(one))
    curve, heat = curves.probe_curves(one), heats.over_timesteps_figure(one)
    view = heats.over_timesteps(one)
    words = [series.sentence() for series in found]
    return Block(
        title=f"{one.task}, {one.model}",
        sentence=in_short(one),
        charts=[curve] if curve else [],
        views=[view] if view else [],
        words=[*words, *_calibration(one)],
        files=[heat] if heat else [],
    )


def in_short(one: Probed) -> str:
    """The best place of all probes and views at the largest budget."""
    best = leading(one)
    if best is None or best.best is None:
        return "no probe has a score."
    metric, point = numbers.metric_name(one.metric), best.best
    score = f"{metric} {said(best.estimate(point))}"
    return f"best at {name_of(point.place)}: {score} ({best.title}, {numbers.percent(best.budget)} of the labels)."


def _calibration(one: Probed) -> list[str]:
    """How far probabilities are off at the best places, as they are and scaled."""
    words = []
    for series in largest(series_of(one)):
        point = series.best
        if point is not None and point.calibration is not None:
            before, after = map(numbers.score, point.calibration)
            words.append(f"{series.title}: expected calibration error {before}, {after} after temperature scaling")
    return [f"At the best place: {'; '.join(words)}."] if words else []


def _alike(one: Likeness) -> Block:
    drawn = likeness.shapes(one)
    return Block(
        title=f"{one.first} and {one.second}",
        sentence=likeness.alike(one),
        charts=[likeness.matrix(one), *([drawn] if drawn else [])],
        words=[] if one.same else [likeness.partners(one)],
    )


def _moved(one: Likeness) -> Block:
    drawn, view = moved.over_depth(one), moved.table(one)
    return Block(
        title=f"{one.first} and {one.second}",
        sentence=f"{moved.sentence(moved.moves(one))}.",
        charts=[drawn] if drawn else [],
        views=[view] if view else [],
    )


def _decoders(depths: Depths) -> list[Block]:
    blocks = []
    for found in decoding.families(depths.decoded):
        words = decoding.best_depths(found)
        top = [text for budget, text in words if budget == words[0][0]]
        blocks.append(
            Block(
                title=f"{found[0].task}, {found[0].family}",
                sentence=f"{'; '.join(top)}." if top else "no decoder has a score.",
                charts=[decoding.against_depth(found)],
                words=[f"{numbers.percent(budget)} of the labels, {text}." for budget, text in words],
            )
        )
    return blocks


def _weights(depths: Depths) -> list[Block]:
    return [
        Block(f"{one.task}, {one.model}", decoding.agreement(one), [decoding.weights_beside(one)])
        for one in depths.weighed
    ]
