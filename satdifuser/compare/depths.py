"""What a grid's own runs say of depth: decoders against the depth that feeds them, learned weights beside probes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from satdifuser.bank import BankSpec
from satdifuser.compare.grid import Cell, digest
from satdifuser.compare.plan import Planned
from satdifuser.compare.shared import Shared
from satdifuser.compare.study import Looked, name_of
from satdifuser.config import config_root
from satdifuser.report.content import Content, Insight, Row
from satdifuser.report.depth.content import Decoded, Depths, Place, Point, Probed, Weighed
from satdifuser.report.depth.drawing import finite
from satdifuser.report.depth.series import largest, series_of
from satdifuser.report.weights import shares
from satdifuser.settings.part import Part
from satdifuser.yaml_file import load_yaml

DEPTH = (("encoder", "blocks"), ("select", "depths"), ("select", "taps"))  # settings that choose what feeds a decoder


def depths_of(content: Content, planned: Sequence[Planned], shared: Shared, looked: Looked) -> Depths:
    """All that a report shows of depth: what studies found, and what the grid itself says."""
    found = looked.depths
    return Depths(found.probes, found.likeness, decoded(content, planned, shared), weighed(content, looked))


def decoded(content: Content, planned: Sequence[Planned], shared: Shared) -> tuple[Decoded, ...]:
    """The rows of models that read one depth, in families that differ in nothing but decoder and depth.

    A family has two depths or more.
    """
    cells: dict[tuple[str, str], Cell] = {}
    for run in planned:
        if run.folder is not None:
            cells.setdefault((run.cell.model, run.cell.task), run.cell)
    metrics = {section.name: section.metric for section in content.sections}
    families: dict[str, list[tuple[Row, Cell, tuple[int, str]]]] = {}
    for row in content.rows:
        cell = cells[row.model, row.task]
        fed = fed_by(cell, shared)
        if fed is not None and metrics[row.task] in row.scores:
            families.setdefault(family_of(cell), []).append((row, cell, fed))
    found: list[Decoded] = []
    for members in families.values():
        if len({fed for *_, fed in members}) < 2:
            continue
        cells_of = [cell for _, cell, _ in members]
        name = name_of(cells_of)
        taken = {one.family for one in found if one.task == members[0][0].task}
        name = next(one for n in itertools.count(1) if (one := name if n == 1 else f"{name} ({n})") not in taken)
        decoders = decoder_names([cell.config.decoder for cell in cells_of])
        for row, cell, (depth, tap) in members:
            estimate, metric = row.scores[metrics[row.task]], metrics[row.task]
            costs = row.cost.trainable, row.cost.training_seconds
            decoder = decoders[digest(cell.config.decoder.plain())]
            found.append(Decoded(name, decoder, row.task, metric, row.budget, depth, tap, estimate, *costs))
    return tuple(found)


def decoder_names(decoders: Sequence[Part]) -> dict[str, str]:
    """Each decoder by its name in the configuration, with the settings in which it differs from others of its class."""
    several = {digest(one.plain()): one for one in decoders}
    names = {}
    for key, one in several.items():
        others = [other.plain() for other in several.values() if other.label == one.label]
        mine = one.plain()
        apart = [name for name in mine if any(other.get(name) != mine[name] for other in others)]
        names[key] = " ".join(
            [_choices().get(mine["_target_"], one.label), *(f"{name}={mine[name]}" for name in apart)]
        )
    return names


@functools.cache
def _choices() -> dict[str, str]:
    """Class -> how it is chosen, of the decoders that ship."""
    return {load_yaml(file)["_target_"]: file.stem for file in sorted((config_root() / "decoder").glob("*.yaml"))}


def fed_by(cell: Cell, shared: Shared) -> tuple[int, str] | None:
    """The only depth that a model's decoder is fed by, and its tap; None where there are more."""
    spec = cell.config.select.of(BankSpec.from_dict(shared.facts(cell).spec))
    taps = {(tap.depth, tap.name) for tap in spec.taps if not tap.name.endswith(".class")}
    return next(iter(taps)) if len(taps) == 1 else None


def family_of(cell: Cell) -> str:
    """What a model is but for its decoder and the depth that feeds it."""
    values = {**cell.settings()}
    values.pop("decoder")
    for group, name in DEPTH:
        values[group] = {key: value for key, value in values[group].items() if key != name}
    values.pop("budget", None)
    values.pop("seed", None)
    return digest([cell.task, values])


def weighed(content: Content, looked: Looked) -> tuple[Weighed, ...]:
    """Each head that has learned weights, beside the probes of the features that it reads."""
    found = []
    for study, probed in looked.probes:
        for section in content.sections:
            for insight in section.insights:
                if insight.task == probed.task and insight.model in study.models:
                    one = _weighed(insight, probed)
                    found += [one] if one else []
    return tuple(found)


def _weighed(insight: Insight, probed: Probed) -> Weighed | None:
    """Of the linear probe of the mean, or the first there is, at the largest budget; None of equal weights."""
    weights = equal_shares(insight)
    series = [one for one in largest(series_of(probed)) if one.best]
    series.sort(key=lambda one: (one.probe == "knn", one.view not in ("mean", "pixels")))
    if not series or len(set(np.round(list(weights.values()), 9))) < 2:
        return None
    chosen = series[0]
    points = [point for point in chosen.points if _place(point.place) in weights and _known(chosen, point)]
    if len(points) < 3:
        return None
    mine = [weights[_place(point.place)] for point in points]
    scores = [chosen.value(point) for point in points]
    return Weighed(
        model=insight.model,
        task=insight.task,
        metric=probed.metric,
        probe=chosen.probe,
        view=chosen.view,
        budget=chosen.budget,
        places=tuple(point.place for point in points),
        weights=tuple(mine),
        estimates=tuple(point.scores[probed.metric] for point in points),
        rank=rank_correlation(mine, scores),
    )


def equal_shares(insight: Insight) -> dict[tuple[str, int | None], float]:
    """(tap, timestep) -> its weight over the equal share of what the weights sum over: all maps, or a stride's."""
    return {
        (tap, step): float(values[row, column])
        for stride, values in shares(insight.weights).values.items()
        for row, step in enumerate(insight.timesteps)
        for column, tap in enumerate(insight.taps[stride])
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; NaN where one side has no order."""
    from scipy.stats import spearmanr

    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return float(spearmanr(first, second).statistic)


def _place(place: Place) -> tuple[str, int | None]:
    return place.tap, place.timestep


def _known(series: Any, point: Point) -> bool:
    return math.isfinite(finite(series.estimate(point)))
