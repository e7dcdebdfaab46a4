"""Everything of a study as tables: CSV in full precision, Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.depth.content import Decoded, Depths, Likeness, Place, Probed, Weighed
from satdifuser.report.depth.drawing import said
from satdifuser.report.depth.moved import moves
from satdifuser.report.depth.series import series_of
from satdifuser.report.estimate import Estimate
from satdifuser.report.tables import Cell, csv, markdown, markdown_text

PLACE = ("tap", "timestep", "number", "kind", "block", "channels", "stride")
PARTS = ("mean", "low", "high", "sd", "by_seed")


def tables(depths: Depths) -> Mapping[str, str]:
    """File name -> text, of what there is."""
    found: dict[str, str] = {}
    if depths.probes:
        found |= {"probe.csv": probe_csv(depths.probes), "probe.md": probe_md(depths.probes)}
    if depths.likeness:
        found |= {"likeness.csv": likeness_csv(depths.likeness), "likeness.md": likeness_md(depths.likeness)}
    if any(any(one.shapes) for one in depths.likeness):
        found["shapes.csv"] = shapes_csv(depths.likeness)
    if depths.decoded:
        found["decoders.csv"] = decoders_csv(depths.decoded)
    if depths.weighed:
        found["weights.csv"] = weights_csv(depths.weighed)
    return found


def probe_csv(probes: Sequence[Probed]) -> str:
    """One line for each place, view, probe and budget, with everything that is known of it."""
    metrics = list(dict.fromkeys(name for one in probes for point in one.points for name in point.scores))
    header = ["model", "task", "metric", "split", "samples", "chance", *PLACE, "view", "probe", "budget_percent"]
    header += ["training", "seeds", "best", "p_to_best", "strengths", "ece", "ece_scaled", "temperature"]
    header += [f"{metric}_{part}" for metric in metrics for part in PARTS]
    lines: list[list[Cell]] = []
    for one in probes:
        for row in series_of(one):
            for point in row.points:
                line: list[Cell] = [one.model, one.task, one.metric, one.split, one.samples, one.chance]
                line += [*_place(point.place), point.view, point.probe, point.budget, point.training]
                line += [_several(one.seeds), "yes" if point is row.best else "no", point.p, _several(point.strengths)]
                line += [*(point.calibration or (None, None)), point.temperature]
                for metric in metrics:
                    line += _estimate(point.scores.get(metric))
                lines.append(line)
    return csv(header, lines)


def probe_md(probes: Sequence[Probed]) -> str:
    """A table for each model, task, probe, view and budget: the best place first."""
    text = ["# Probes over depth"]
    for one in probes:
        text.append(
            f"## {markdown_text(one.model)} on {markdown_text(one.task)}\n\n"
            f"{numbers.metric_name(one.metric)} on {one.samples} samples of {markdown_text(one.split)}, with 95 %"
            f" intervals over them; {numbers.plural(len(one.seeds), 'seed')}. ≈: not to be told from the best place."
        )
        for row in series_of(one):
            text.append(markdown_text(row.sentence()))
            lines = []
            for point in sorted(row.points, key=lambda p: -np.nan_to_num(row.value(p), nan=-np.inf)):
                mark = (
                    "best" if point is row.best else ("≈ " if row.close(point) else "") + numbers.probability(point.p)
                )
                ece = "-" if point.calibration is None else " / ".join(map(numbers.score, point.calibration))
                words = [point.place.tap, "-" if point.place.timestep is None else str(point.place.timestep)]
                words += [said(row.estimate(point)), mark, _short(point.strengths), ece]
                lines.append([markdown_text(word) for word in words])
            header = ["tap", "timestep", numbers.metric_name(one.metric), "p to best", "strength", "ECE as is / scaled"]
            text.append(markdown(header, lines))
    return "\n\n".join(text) + "\n"


def likeness_csv(found: Sequence[Likeness]) -> str:
    """One line for each pair of places."""
    header = ["first", "second", "split", "samples", "batch", "pool", "same_architecture"]
    header += [f"row_{name}" for name in PLACE] + [f"column_{name}" for name in PLACE] + ["cka", "standard_error"]
    lines: list[list[Cell]] = []
    for one in found:
        about: list[Cell] = [one.first, one.second, one.split, one.samples, one.batch, one.pool]
        about.append("yes" if one.same else "no")
        for n, row in enumerate(one.rows):
            for m, column in enumerate(one.columns):
                values = [float(one.values[n, m]), float(one.errors[n, m])]
                lines.append([*about, *_place(row), *_place(column), *values])
    return csv(header, lines)


def likeness_md(found: Sequence[Likeness]) -> str:
    """What moved of two states of one network, else the place that is most like each one."""
    text = ["# Likeness of places (linear CKA)"]
    for one in found:
        text.append(
            f"## {markdown_text(one.first)} and {markdown_text(one.second)}\n\n"
            f"{one.samples} samples of {markdown_text(one.split)} in batches of {one.batch}; {markdown_text(one.pool)}"
            " of each map."
        )
        moved = moves(one)
        if moved:
            lines = [[str(m.place), m.place.kind, m.place.block, str(m)] for m in moved]
            text.append(markdown(["place", "kind", "block", "1 - CKA"], [list(map(markdown_text, w)) for w in lines]))
            continue
        lines = []
        for n, place in enumerate(one.rows):
            values = one.values[n]
            if np.isfinite(values).any():
                best = int(np.nanargmax(values))
                value = f"{numbers.score(float(values[best]))} ± {numbers.score(float(one.errors[n, best]))}"
                lines.append([str(place), str(one.columns[best]), value])
        header = [f"place of {markdown_text(one.first)}", f"most like, of {markdown_text(one.second)}", "CKA"]
        text.append(markdown(header, [list(map(markdown_text, words)) for words in lines]))
    return "\n\n".join(text) + "\n"


def shapes_csv(found: Sequence[Likeness]) -> str:
    """One line for each place of which the shape is known."""
    lines: list[list[Cell]] = []
    for one in found:
        sides = ((one.first, one.rows), (one.second, one.columns))
        for (name, places), shapes in zip(sides, one.shapes, strict=True):
            for place, shape in zip(places, shapes, strict=False):
                lines.append([one.first, one.second, name, *_place(place), shape.intrinsic, shape.rank])
    return csv(["first", "second", "side", *PLACE, "intrinsic_dimension", "effective_rank"], lines)


def decoders_csv(found: Sequence[Decoded]) -> str:
    """One line for each decoder, depth and budget."""
    header = ["family", "decoder", "task", "metric", "budget_percent", "depth", "tap", *PARTS, "parameters", "seconds"]
    lines: list[list[Cell]] = []
    for one in found:
        place: list[Cell] = [one.family, one.decoder, one.task, one.metric, one.budget, one.depth, one.tap]
        lines.append([*place, *_estimate(one.estimate), one.parameters, one.seconds])
    return csv(header, lines)


def weights_csv(found: Sequence[Weighed]) -> str:
    """One line for each place: its learned weight, and what a probe scores there."""
    header = ["model", "task", "probe", "view", "budget_percent", "spearman", *PLACE, "weight_over_equal", "metric"]
    lines: list[list[Cell]] = []
    for one in found:
        about: list[Cell] = [one.model, one.task, one.probe, one.view, one.budget, one.rank]
        for place, weight, estimate in zip(one.places, one.weights, one.estimates, strict=True):
            lines.append([*about, *_place(place), weight, one.metric, *_estimate(estimate)])
    return csv([*header, *PARTS], lines)


def _place(place: Place) -> list[Cell]:
    return [getattr(place, name) for name in PLACE]


def _estimate(estimate: Estimate | None) -> list[Cell]:
    if estimate is None:
        return [None] * len(PARTS)
    values = [estimate.value, estimate.low, estimate.high]
    return [*map(float, values), estimate.deviation, _several(estimate.seeds)]


def _several(values: Sequence[float | int | None]) -> str:
    return " ".join("-" if value is None else repr(value) for value in values)


def _short(values: Sequence[float | None]) -> str:
    return ", ".join("-" if value is None else f"{value:.3g}" for value in values) or "-"
