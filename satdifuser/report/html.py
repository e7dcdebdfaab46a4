"""The report of a comparison: one HTML file that loads nothing, and its tables as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satdifuser.engine.files import write_text
from satdifuser.report import charts, costs, exports, numbers, ranking, scores, training, views, weights, words
from satdifuser.report.content import Comparison, Content, Section
from satdifuser.report.depth.drawing import write_figures
from satdifuser.report.depth.exports import tables as depth_tables
from satdifuser.report.depth.sections import OPENED, Part, figures
from satdifuser.report.depth.sections import parts as depth_parts
from satdifuser.report.glossary import GLOSSARY
from satdifuser.report.pictures import Pictures
from satdifuser.report.ranking import LEVEL, Place
from satdifuser.report.rendering import rendered, shown
from satdifuser.report.scenes import scene_pictures

PICTURE_BYTES = 6_000_000  # of all pictures together; charts and tables come on top


def write_report(content: Content, folder: Path) -> list[Path]:
    """Write report.html, tables.md, ranking.csv, comparisons.csv and tables.tex into the folder, which is made.

    What there is of depth comes with its own tables and figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = depth_parts(content.depths)
    texts = {
        "report.html": page(content, parts),
        "tables.md": exports.tables_md(content),
        "ranking.csv": exports.ranking_csv(content),
        "comparisons.csv": exports.comparisons_csv(content),
        "tables.tex": exports.tables_tex(content),
        **depth_tables(content.depths),
    }
    paths = [write_text(folder / name, text) for name, text in texts.items()]
    return [*paths, *write_figures(figures(parts), folder / "figures")]


def page(content: Content, parts: Sequence[Part] = ()) -> str:
    """The report as HTML; `parts` are the sections on depth."""
    return rendered(
        "template.html",
        content=content,
        level=LEVEL,
        about_settings=exports.SETTINGS,
        parts=parts,
        opened=OPENED,
        **context(content, parts),
    )


def context(content: Content, parts: Sequence[Part] = ()) -> dict[str, Any]:
    """All that the template shows beside the content itself."""
    found = ranking.places(content)
    models = ranking.models(content)
    style = charts.styles(models)
    pictures = {s.name: Pictures(PICTURE_BYTES // len(content.sections)) for s in content.sections}
    tasks = [section for section in content.sections if any(place.row.task == section.name for place in found)]
    # The panels come first, so that they have the pictures' bytes before the weight maps do.
    panels = [(section, *views.panel(section, found, pictures[section.name])) for section in tasks]
    curves = [charts.budget_curves(s, found, style) or charts.intervals(s, found, style) for s in tasks]
    insights = [(section, weights.views(section, found, pictures[section.name])) for section in tasks]
    confused = [(section, views.confusions(section, found)) for section in tasks]
    groups = ranking.cells(found)
    budgets, lowest = ranking.budgets(found), ranking.floors(found)
    standing = ranking.standings(found) if len(groups) > 1 and len(models) > 1 else []
    of_task = {section.name: [place for place in found if place.row.task == section.name] for section in tasks}
    sections: dict[str, Sequence[Any]] = {
        "scores": [scores.table(section, of_task[section.name]) for section in tasks],
        "ranking": found,
        "ranks": standing,
        "curves": [chart for chart in curves if chart],
        "costs": [chart for section in tasks for chart in costs.cost_charts(section, found, style)],
        "tests": [tests for group in groups if (tests := _tests(content, group)).pairs],
        "weights": [(section, made) for section, made in insights if made],
        "confusion": [(section, made) for section, made in confused if made],
        "predictions": [(section, grid, note) for section, grid, note in panels if grid],
        "training": training.groups(content),
        "scenes": [(s, s.scene, scene_pictures(s, found, pictures[s.name])) for s in tasks if s.scene],
    }
    return {
        **sections,
        "columns": columns(found),
        "lines": [_line(place, found, lowest) for place in found],
        "models": models,
        "tasks": tasks,
        "metrics": [(s, exports.explained(s, of_task[s.name])) for s in tasks],
        "notes": [line for line in (words.convergence(content.rows), words.runs(content.made)) if line],
        "fewer": words.fewer(found),
        "glossary": GLOSSARY,
        "budgets": budgets,
        "seeds": sorted({seed for row in content.rows for seed in row.seeds}),
        "in_short": [_in_short(section, ranking.largest(found, section.name)) for section in tasks],
        "nav": _nav(sections, len(budgets) > 1, parts),
        "environments": _environments(content.environments),
        "settings": [(str(name), shown(value)) for name, value in content.settings.items()],
        "left_out": sum(some.left_out for some in pictures.values()),
        "incomplete": any(one.cells < one.of for one in standing),
    }


@dataclass(frozen=True)
class Column:
    """A column of the ranking: `kind` is text or number; `help` says what the header is short for.

    `part`: core (shown everywhere), more (not on a phone until it is asked for), or rare (not in print either).
    """

    name: str
    kind: str = "number"
    help: str = ""
    part: str = "more"


@dataclass(frozen=True)
class Entry:
    """A cell of the ranking: what is read and what it is sorted by."""

    text: str
    value: float | None = None


def columns(found: Sequence[Place]) -> list[Column]:
    """The columns of the ranking after task, budget and model."""
    shared = [
        Column("rank", help="within its task and budget", part="core"),
        Column("train samples"),
        Column("seeds"),
        Column("converged", "text", "runs that ended because validation had stopped rising, or that are fits", "core"),
        Column("metric", "text", "the main metric of the task; more is better"),
        Column("score", help="mean over the seeds", part="core"),
        Column("95 % interval", help="bootstrap over test samples; sorted by its lower end", part="core"),
        Column("\u00b1 seeds", help="standard deviation over the seeds"),
        Column("p to highest", help="adjusted p against the highest score of the task and budget", part="core"),
        Column("floor", help="the best model that has learned nothing of images of the Earth", part="core"),
        Column("chance", help="the best answer that looks at no image", part="core"),
    ]
    others = [Column(_directed(name)) for name in exports.other_metrics(found)]
    return [
        *shared,
        *others,
        Column("trainable", help="trainable parameters"),
        Column("total", help="all parameters", part="rare"),
        Column("FLOPs", help="of a forward pass of one image, encoder and head"),
        Column("extraction", help="time to make the feature store, which other models may share"),
        Column("training", help="time to train, mean over runs"),
        Column("memory", help="peak that training added", part="rare"),
        Column("features", help="bytes of the feature store, which other models may share", part="rare"),
        Column("checkpoint", help="bytes of a checkpoint", part="rare"),
    ]


def _line(place: Place, found: Sequence[Place], lowest: Mapping[tuple[str, float], Place]) -> list[Entry]:
    """The cells of a row under those columns."""
    below = lowest.get((place.row.task, place.row.budget))
    floor, chance = below.score if below else None, ranking.chance(place.section)
    row, main, cost = place.row, place.estimate, place.row.cost
    seeds = str(len(row.seeds)) if len(row.seeds) == place.of_seeds else f"{len(row.seeds)} of {place.of_seeds}"
    spread = exports.deviation(main)
    line = [
        Entry(str(place.rank or "-"), place.rank),
        Entry(f"{row.training_samples:,}".replace(",", "\u202f"), row.training_samples),
        Entry(seeds, len(row.seeds)),
        Entry(numbers.converged(row.ended)),
        Entry(numbers.metric_name(place.section.metric)),
        Entry(numbers.score(place.score), place.score),
        Entry(exports.interval(main), main.low if main else None),
        Entry(numbers.score(spread), spread),
        Entry(exports.mark(place), place.p),
        Entry(numbers.score(floor), floor),
        Entry(numbers.score(chance), chance),
    ]
    for name in exports.other_metrics(found):
        value = row.scores[name].value if name in row.scores else None
        line.append(Entry(numbers.score(value), value))
    values: list[float | None] = [
        cost.trainable,
        cost.total,
        cost.flops,
        cost.extraction_seconds,
        cost.training_seconds,
    ]
    values += [cost.peak_bytes, cost.feature_bytes, cost.checkpoint_bytes]
    line += [Entry(text, value) for text, value in zip(exports.costs(cost), values, strict=True)]
    return [
        Entry(e.text, e.value if isinstance(e.value, int | float) and numbers.known(e.value) else None) for e in line
    ]


@dataclass(frozen=True)
class Tests:
    """The pairwise tests of one task and budget: models in their order, and each pair from either side."""

    section: Section
    budget: float
    order: Sequence[str]
    pairs: Sequence[Comparison]
    sides: Mapping[tuple[str, str], tuple[float, float]]

    @property
    def different(self) -> int:
        return sum(pair.adjusted < LEVEL for pair in self.pairs)


def _tests(content: Content, group: Sequence[Place]) -> Tests:
    section, budget = group[0].section, group[0].row.budget
    pairs = [pair for pair in content.comparisons if (pair.task, pair.budget) == (section.name, budget)]
    sides = {(pair.first, pair.second): (pair.difference, pair.adjusted) for pair in pairs}
    sides |= {(pair.second, pair.first): (-pair.difference, pair.adjusted) for pair in pairs}
    order = [place.row.model for place in group if any(place.row.model in side for side in sides)]
    return Tests(section, budget, order, pairs, sides)


def _in_short(section: Section, group: Sequence[Place]) -> dict[str, Any]:
    """Who leads a task at its largest budget, and who is not to be told from it."""
    scored = [place for place in group if place.score is not None]
    below, chance = ranking.floor(group), ranking.chance(section)
    against = [f"the floor is {numbers.score(below.score)} ({below.row.model})"] if below else []
    against += [f"chance is {numbers.score(chance)}"] if chance is not None else []
    worse = sum(place.p is not None and place.p < LEVEL for place in scored)
    return {
        "section": section,
        "budget": group[0].row.budget,
        "leader": scored[0] if scored else None,
        "close": [place for place in scored if place.close and not place.leads],
        "against": "; ".join(against),
        "worse": worse,
        "others": len(scored) - 1,
    }


def _nav(sections: Mapping[str, Sequence[Any]], several: bool, parts: Sequence[Part]) -> list[tuple[str, str]]:
    names = {
        "scores": "Scores",
        "ranking": "Ranking",
        "ranks": "Mean ranks",
        "curves": "Scores over label budgets" if several else "Scores and intervals",
        "costs": "Score against cost",
        "tests": "Pairwise tests",
        "weights": "Learned weights",
        "training": "Training curves",
        "confusion": "Confusion matrices",
        "predictions": "Predictions",
        "scenes": "Maps of a scene",
    }
    there = [(key, name) for key, name in names.items() if sections[key]]
    there = [("reading", "How to read this"), *there] if there else there
    return [*there, *((part.id, part.name) for part in parts), ("repeat", "To repeat it")]


def _environments(environments: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """A line for each fact or package: what every environment has, and whether they differ."""
    flat = []
    for one in environments:
        packages = one.get("packages") or {}
        facts = {str(key): value for key, value in one.items() if key != "packages"}
        flat.append({**facts, **{str(key): value or "not installed" for key, value in packages.items()}})
    lines = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [shown(one.get(key)) for one in flat]
        lines.append((key, values, len(set(values)) > 1))
    return lines


def _directed(name: str) -> str:
    arrow = " \u2193" if name in numbers.LESS_IS_BETTER else ""
    return numbers.metric_name(name) + arrow
