"""What a section shows of its models, as tables for the page: confusions and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.report import numbers
from satdifuser.report.content import Insight, Panel, Section
from satdifuser.report.pictures import SIDE, Pictures, drawn, png, shaded, shrink
from satdifuser.report.ranking import Place, largest

SHADES = 32
SAMPLES = 6  # of a panel


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, its shade, or a picture with its description. `right`: None where there is none."""

    text: str = ""
    shade: int | None = None
    picture: str = ""
    alt: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Grid:
    """A table with names on both sides; `full` are the column names in full where `columns` shortens them."""

    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    full: Sequence[str] = ()


@dataclass(frozen=True)
class View:
    """What is shown of one model: a sentence, tables on one scale of colours, and what the scale's ends mean."""

    model: str
    sentence: str
    grids: Sequence[Grid]
    low: str = ""
    high: str = ""
    maps: Grid | None = None
    note: str = ""
    extra: Sequence[View] = field(default_factory=tuple)
    opened: bool = False  # shown without a click


def confusions(section: Section, found: Sequence[Place]) -> list[View]:
    """Confusion matrices in per cent of the true class, in the order of the ranking."""
    views: list[View] = []
    names = list(section.task.labels.classes)
    for insight in ranked(section, found):
        if insight.confusion is None:
            continue
        counts = np.asarray(insight.confusion, dtype=np.float64)
        totals = counts.sum(1, keepdims=True)
        share = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
        rows = []
        for number, name in enumerate(names):
            cells = [Cell(_percent(value), shade(value, 0, 100)) for value in share[number]]
            rows.append((name, [Cell(f"{int(totals[number, 0]):,}".replace(",", " ")), *cells]))
        caption = "per cent of each true class (row) by predicted class (column)"
        grid = Grid(caption, "truth", ["count", *names], rows)
        views.append(View(insight.model, _confused(share, names), [grid], "0 %", "100 %", opened=not views))
    return views


def panel(section: Section, found: Sequence[Place], pictures: Pictures) -> tuple[Grid | None, str]:
    """Some test samples: picture, truth, and what every model says; with a note on what was left out."""
    shown = section.panel
    if shown is None or not len(shown.ids):
        return None, ""
    order = [model for model in _models(section, found) if model in shown.predictions]
    order += [model for model in shown.predictions if model not in order]
    rows = []
    for number in range(min(len(shown.ids), SAMPLES)):
        cells = _sample(section, shown, number, order)
        if not pictures.take([cell.picture for cell in cells if cell.picture]):
            break
        rows.append((shown.ids[number], cells))
    note = f"Images: {shown.told}." if shown.told else ""
    if len(rows) < len(shown.ids):
        note += f" {len(rows)} of the {numbers.plural(len(shown.ids), 'sample')} are shown, to keep the file small."
    return Grid(f"test samples of {section.name}", "sample", ["image", "truth", *order], rows), note.strip()


def _sample(section: Section, shown: Panel, number: int, order: Sequence[str]) -> list[Cell]:
    name, truth = shown.ids[number], shown.truth[number]
    picture = png(shrink(shown.pictures[number]))
    cells = [Cell(picture=picture, alt=f"test sample {name}")]
    if section.task.dense:
        cells.append(Cell(picture=png(_map(section, shown, truth, true=True)), alt=f"truth of sample {name}"))
    else:
        cells.append(Cell(_say(section, truth)))
    values = {model: shown.predictions[model][number] for model in order}
    closest = _closest(section, truth, values)
    for model in order:
        if section.task.dense:
            right = _agreement(section, truth, values[model])
            alt = f"{model} on sample {name}" + (f": {right} of the pixels right" if right else "")
            cells.append(
                Cell(
                    f"{right} right" if right else _distance(truth, values[model]),
                    picture=png(_map(section, shown, values[model])),
                    alt=alt,
                )
            )
        else:
            cells.append(_answer(section, truth, values[model], model in closest))
    return cells


def _map(section: Section, shown: Panel, value: Any, true: bool = False) -> NDArray[Any]:
    """A map of classes in their colours; of numbers between the least and the greatest truth that is shown."""
    if np.asarray(value).dtype.kind != "f":
        return drawn(section.task, np.where(_counts(section, value), value.astype(np.int64), -1) if true else value)
    known = shown.truth[np.isfinite(shown.truth)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    step = -(-max(value.shape) // SIDE)
    return shaded(value[::step, ::step], low, high, blank=(176, 176, 176))


def _distance(truth: Any, value: Any) -> str:
    """How far off a map of numbers is, where there is a truth."""
    if np.asarray(truth).dtype.kind != "f":
        return ""
    there = np.isfinite(truth)
    error = np.asarray(value, np.float64)[there] - np.asarray(truth, np.float64)[there]
    return f"rmse {np.sqrt((error**2).mean()):.3g}" if there.any() else ""


def _answer(section: Section, truth: Any, value: Any, closest: bool) -> Cell:
    """What a model says of a whole image, and whether it is right; a number says how far off it is."""
    said = _say(section, value)
    truth, value = np.asarray(truth), np.asarray(value)
    if truth.ndim == 0 and truth.dtype.kind == "f":
        return Cell(f"{said}\noff by {float(value) - float(truth):+.2g}" + ("\n\u25cf closest" if closest else ""))
    if truth.ndim == 0:
        return Cell(said, right=bool(truth == value))
    names = section.task.labels.classes
    there, told = truth.astype(bool), value.astype(bool)
    lines = [name if here else f"{name} (wrong)" for name, here, says in zip(names, there, told, strict=True) if says]
    lines += [f"{name} (missed)" for name, here, says in zip(names, there, told, strict=True) if here and not says]
    return Cell("\n".join(lines) or "none of them", right=bool((there == told).all()))


def _closest(section: Section, truth: Any, values: dict[str, Any]) -> set[str]:
    """The models whose number is nearest to the truth."""
    if section.task.dense or np.ndim(truth) or np.asarray(truth).dtype.kind != "f":
        return set()
    off = {model: abs(float(value) - float(truth)) for model, value in values.items()}
    return {model for model, distance in off.items() if distance == min(off.values())}


def _say(section: Section, value: Any) -> str:
    import torch

    return section.task.describe(torch.as_tensor(np.asarray(value))) or "none of them"


def _agreement(section: Section, truth: Any, value: Any) -> str:
    """The share of the pixels that count which is right."""
    truth, value = np.asarray(truth), np.asarray(value)
    if truth.dtype.kind not in "iu" or value.dtype.kind not in "iu" or truth.shape != value.shape:
        return ""
    valid = (truth >= 0) & (truth < section.task.outputs) & _counts(section, truth)
    return f"{100 * (truth == value)[valid].mean():.0f} %" if valid.any() else ""


def _counts(section: Section, truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the truth counts in the metrics."""
    return ~np.isin(truth.astype(np.int64), section.task.ignored)


def shade(value: float, low: float, high: float) -> int | None:
    """A number's place on the scale of colours."""
    if not np.isfinite(value):
        return None
    share = (value - low) / ((high - low) or 1.0)
    return int(np.clip(round(share * (SHADES - 1)), 0, SHADES - 1))


def _percent(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "-"


def _confused(share: NDArray[Any], names: Sequence[str]) -> str:
    """The largest confusion in words."""
    apart = np.where(np.eye(len(names), dtype=bool), np.nan, share)
    if not np.isfinite(apart).any() or float(np.nanmax(apart)) == 0:
        return "confuses no classes"
    truth, said = map(int, np.unravel_index(int(np.nanargmax(apart)), apart.shape))
    return f"most confused: {apart[truth, said]:.0f} % of {names[truth]} is taken for {names[said]}"


def _models(section: Section, found: Sequence[Place]) -> list[str]:
    return [place.row.model for place in largest(found, section.name)]


def ranked(section: Section, found: Sequence[Place]) -> list[Insight]:
    """The insights in the order of the ranking at the largest budget."""
    order = {model: number for number, model in enumerate(_models(section, found))}
    return sorted(section.insights, key=lambda insight: order.get(insight.model, len(order)))
