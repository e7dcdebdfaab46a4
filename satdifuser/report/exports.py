"""The ranking and the pairwise tests as Markdown, CSV and LaTeX."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from satdifuser.report import numbers, words
from satdifuser.report.content import Comparison, Content, Cost, Estimate, Section
from satdifuser.report.ranking import LEVEL, Place, budgets, chance, floors, places
from satdifuser.report.tables import Cell, csv, latex, latex_text, markdown, markdown_text

NOTE = (
    "Scores are means over the seeds with their bootstrap 95 % interval over test samples; ± is the standard deviation "
    "over seeds. Bold: significantly better than every other model of its task and budget. ≈: the highest score and "
    "all that are not significantly different from it (paired permutation test on the same test samples, "
    f"Holm-corrected over all pairs of one task and budget, adjusted p at least {LEVEL:g}): they share the first "
    "place. Converged: in how many runs training ended because validation had stopped rising, or is a fit; in the "
    "others it ended at the most steps that it was given, and more might help."
)
FLOOR = "Floor: the best of the models that have learned nothing of images of the Earth"
SETTINGS = (
    "The settings of a task say what its metrics are. All models of a task have the same ones, so their scores "
    "compare; those of a task with other settings do not compare with them."
)
COSTS = ("trainable", "parameters", "FLOPs/image", "extraction", "training", "peak memory", "features", "checkpoint")


def ranking_csv(content: Content) -> str:
    """One line for each row, in the order of the ranking, with everything that is known of it in full precision."""
    metrics = list(dict.fromkeys(name for row in content.rows for name in row.scores))
    costs = [field.name for field in fields(Cost)]
    header = ["task", "budget_percent", "model", "rank", "training_samples", "test_samples", "seeds", "ended", "metric"]
    header += ["highest_model", "p_to_highest", "adjusted_p_to_highest", "stands", "of_floor", "floor", "chance"]
    for name in metrics:
        header += [f"{name}_{part}" for part in ("mean", "low", "high", "sd", "by_seed")]
    lines: list[list[Any]] = []
    found = places(content)
    lowest = floors(found)
    for place in found:
        row, pair = place.row, place.comparison
        line: list[Any] = [row.task, row.budget, row.model, place.rank, row.training_samples]
        ended = " ".join(f"{how}:{number}" for how, number in sorted(row.ended.items()))
        line += [place.section.test_samples, row.seeds, ended, place.section.metric, place.against]
        line += [pair.p if pair else None, pair.adjusted if pair else None]
        below = lowest.get((row.task, row.budget))
        line += [
            "best" if place.best else "shares first place" if place.close else None,
            "yes" if place.floor else "no",
        ]
        line += [below.score if below else None, chance(place.section)]
        for name in metrics:
            line += _whole(row.scores.get(name))
        lines.append([*line, *(getattr(row.cost, name) for name in costs)])
    return csv([*header, *costs], [[_plain(cell) for cell in line] for line in lines])


def comparisons_csv(content: Content) -> str:
    """One line for each pair of models of a task and budget: `first` minus `second`."""
    header = [field.name for field in fields(Comparison)]
    return csv(header, [[_plain(getattr(pair, name)) for name in header] for pair in content.comparisons])


def tables_md(content: Content) -> str:
    """The same for people, as Markdown."""
    text = [f"# {markdown_text(content.title)}", NOTE]
    if content.missing:
        text.append(f"{numbers.plural(content.missing, 'run')} of the grid without a result.")
    if content.partial:
        text.append("\n".join(f"* Not shown: {markdown_text(line)}" for line in content.partial))
    text.append(SETTINGS)
    text += [markdown_text(line) for line in (words.runs(content.made), words.convergence(content.rows)) if line]
    fewer = words.fewer(places(content))
    text += ["\n".join(f"* {markdown_text(line)}" for line in fewer)] if fewer else []
    for section, found in _by_section(content):
        text.append(f"## {markdown_text(section.name)}: {numbers.metric_name(section.metric)}")
        said = [*explained(section, found), *against(section, found)]
        text += ["\n".join(f"* {markdown_text(line)}" for line in said)] if said else []
        if len(budgets(found)) > 1:
            text.append(markdown(*_by_budget(found, markdown_text, "**{}**")))
        text.append(markdown(*_ranking(section, found, markdown_text, "**{}**")))
    for section, pairs in _pairs(content):
        text.append(f"## Pairwise tests: {markdown_text(section.name)}, {numbers.metric_name(section.metric)}")
        text.append(markdown(*_tests(pairs, markdown_text)))
    if content.failures:
        text.append("## Failed runs")
        rows = [
            [*map(markdown_text, (f.task, numbers.percent(f.budget), f.model, str(f.seed), f.error))]
            for f in content.failures
        ]
        text.append(markdown(["task", "budget", "model", "seed", "error"], rows))
    return "\n\n".join(text) + "\n"


def tables_tex(content: Content) -> str:
    """The same for a paper: booktabs and longtable."""
    text = [
        r"% needs \usepackage{booktabs,longtable}; some tables are wide: use \footnotesize, or landscape of pdflscape"
    ]
    for number, (section, found) in enumerate(_by_section(content), 1):
        header, rows = _ranking(section, found, latex_text, r"\textbf{{{}}}")
        cut = len(header) - len(COSTS)
        said = [*explained(section, found), *against(section, found)]
        caption = latex_text(" ".join([f"{section.name}: {numbers.metric_name(section.metric)}.", *said, NOTE]))
        scores = [row[:cut] for row in rows]
        text.append(latex(_tex(header[:cut]), scores, "rl" + "r" * (cut - 2), caption, f"tab:ranking-{number}"))
        if len(budgets(found)) > 1:
            names, scored = _by_budget(found, latex_text, r"\textbf{{{}}}")
            named = f"{section.name}: {numbers.metric_name(section.metric)} by share of the labels."
            caption = latex_text(" ".join([named, *explained(section), *against(section, found), NOTE]))
            text.append(latex(_tex(names), scored, "l" + "r" * (len(names) - 1), caption, f"tab:budgets-{number}"))
        spent = [row[:2] + row[cut:] for row in rows]
        caption = latex_text(f"{section.name}: costs, means over the seeds. FLOPs are of one image's forward pass.")
        align = "rl" + "r" * len(COSTS)
        text.append(latex(_tex(header[:2] + header[cut:]), spent, align, caption, f"tab:costs-{number}"))
    for number, (section, pairs) in enumerate(_pairs(content), 1):
        header, rows = _tests(pairs, latex_text)
        named = (
            f"{section.name}: differences in {numbers.metric_name(section.metric)}, first minus second; paired "
            "permutation tests, Holm-corrected over all pairs of one budget."
        )
        caption = latex_text(" ".join([named, *explained(section)]))
        text.append(latex(_tex(header), rows, "rllrrrr", caption, f"tab:tests-{number}"))
    return "\n\n".join(text) + "\n"


Escape = Callable[[str], str]
Table = tuple[list[str], list[list[str]]]


def other_metrics(found: Sequence[Place]) -> list[str]:
    """The metrics of these rows beside the main one of their own task."""
    return list(dict.fromkeys(n for place in found for n in place.row.scores if n != place.section.metric))


def explained(section: Section, found: Sequence[Place] = ()) -> list[str]:
    """A sentence on the main metric of a task, and on each other that its rows have; before them one on its folds."""
    words, said = section.task.explain(), list[str]()
    if section.folds:
        counted = numbers.plural(section.test_samples, "test sample")
        said.append(f"{section.folds} folds, {counted} in all: each model was trained once for each fold.")
    for metric in (section.metric, *other_metrics(found)):
        name = numbers.metric_name(metric)
        if name.partition(" ")[0].islower():  # mIoU stays as it is
            name = name[0].upper() + name[1:]
        if metric in words:
            said.append(f"{name} {words[metric]}.")
    return said


def against(section: Section, found: Sequence[Place]) -> list[str]:
    """What chance and the floor of a task are, a sentence of each."""
    said = [f"Chance: {section.chance.told}."] if section.chance else []
    names = list(dict.fromkeys(place.row.model for place in found if place.floor))
    return [*said, f"{FLOOR} ({', '.join(names)})."] if names else said


def _ranking(section: Section, found: Sequence[Place], escape: Escape, bold: str) -> Table:
    others = other_metrics(found)
    header = ["budget", "model", "rank", "train samples", "seeds", "converged"]
    header += [numbers.metric_name(section.metric)]
    header += [
        "95 % interval",
        "± seeds",
        "adjusted p to highest",
        "floor",
        "chance",
        *map(numbers.metric_name, others),
    ]
    header += COSTS
    rows, lowest = [], floors(found)
    for place in found:
        row, cost, main = place.row, place.row.cost, place.estimate
        shown = escape(numbers.score(place.score))
        name = f"{row.model} (floor)" if place.floor else row.model
        line = [name, str(place.rank or "-"), str(row.training_samples), str(len(row.seeds))]
        line.append(numbers.converged(row.ended))
        cells = [escape(numbers.percent(row.budget)), *map(escape, line), bold.format(shown) if place.best else shown]
        cells.append(escape(interval(main)))
        cells.append(escape(numbers.score(deviation(main))))
        cells.append(escape(mark(place)))
        below = lowest.get((row.task, row.budget))
        cells += [escape(numbers.score(below.score if below else None)), escape(numbers.score(chance(section)))]
        cells += [escape(numbers.score(_value(row.scores.get(name)))) for name in others]
        cells += [escape(text) for text in costs(cost)]
        rows.append(cells)
    return [escape(name) for name in header], rows


def _by_budget(found: Sequence[Place], escape: Escape, bold: str) -> Table:
    """Models down, label budgets across; the best on average over the budgets comes first, floor and chance last."""
    shares = budgets(found)

    def cell(place: Place | None) -> str:
        if place is None:
            return "-"
        shown = escape(numbers.score(place.score))
        close = escape("≈") + " " if place.close else ""
        return f"{close}{bold.format(shown) if place.best else shown} {escape(interval(place.estimate))}"

    rows = []
    for model, mine in by_model(found).items():
        name = f"{model} (floor)" if any(place.floor for place in mine.values()) else model
        rows.append([escape(name), *(cell(mine.get(share)) for share in shares)])
    for name, values in references(found):
        rows.append([escape(name), *(escape(numbers.score(value)) for value in values)])
    return [escape("model"), *(escape(numbers.percent(share)) for share in shares)], rows


def by_model(found: Sequence[Place]) -> dict[str, dict[float, Place]]:
    """Model -> budget -> place of one task; the best on average over the budgets comes first."""
    cells: dict[str, dict[float, Place]] = {}
    for place in found:
        cells.setdefault(place.row.model, {})[place.row.budget] = place

    def order(model: str) -> tuple[int, float]:
        scores = [place.score for place in cells[model].values() if place.score is not None]
        return -len(scores), -statistics.fmean(scores) if scores else 0.0

    return {model: cells[model] for model in sorted(cells, key=order)}


def references(found: Sequence[Place]) -> list[tuple[str, list[float | None]]]:
    """The lines of floor and chance under the budgets of one task, where they are known."""
    lowest, section = floors(found), found[0].section
    lines: list[tuple[str, list[float | None]]] = []
    if lowest:
        below = [lowest.get((section.name, share)) for share in budgets(found)]
        lines.append(("floor", [place.score if place else None for place in below]))
    if chance(section) is not None:
        lines.append(("chance", [chance(section)] * len(budgets(found))))
    return lines


def _tests(pairs: Sequence[Comparison], escape: Escape) -> Table:
    header = ["budget", "first", "second", "difference", "95 % interval", "p", "adjusted p"]
    rows = []
    for pair in pairs:
        between = f"[{numbers.score(pair.low)}, {numbers.score(pair.high)}]" if numbers.known(pair.low) else "-"
        line = [numbers.percent(pair.budget), pair.first, pair.second, numbers.score(pair.difference, sign=True)]
        line += [between, numbers.probability(pair.p), numbers.probability(pair.adjusted)]
        rows.append([escape(text) for text in line])
    return [escape(name) for name in header], rows


def costs(cost: Cost) -> list[str]:
    """Every cost as it is printed, in the order of the tables."""
    return [
        numbers.count(cost.trainable),
        numbers.count(cost.total),
        numbers.flops(cost.flops),
        numbers.seconds(cost.extraction_seconds),
        numbers.seconds(cost.training_seconds),
        numbers.size(cost.peak_bytes),
        numbers.size(cost.feature_bytes),
        numbers.size(cost.checkpoint_bytes),
    ]


def deviation(estimate: Estimate | None) -> float | None:
    """The standard deviation over the seeds; None of one seed, or where one has no score."""
    return None if estimate is None else estimate.deviation


def interval(estimate: Estimate | None) -> str:
    if estimate is None or not (numbers.known(estimate.low) and numbers.known(estimate.high)):
        return "-"
    return f"[{numbers.score(estimate.low)}, {numbers.score(estimate.high)}]"


def mark(place: Place) -> str:
    """How a row stands to the highest score of its task and budget."""
    if place.leads:
        return "best" if place.best else "≈ highest" if place.close else "highest"
    return ("≈ " if place.close else "") + numbers.probability(place.p)


def _by_section(content: Content) -> list[tuple[Section, list[Place]]]:
    found = places(content)
    parts = [(section, [p for p in found if p.row.task == section.name]) for section in content.sections]
    return [(section, rows) for section, rows in parts if rows]


def _pairs(content: Content) -> list[tuple[Section, list[Comparison]]]:
    parts = [(section, [c for c in content.comparisons if c.task == section.name]) for section in content.sections]
    return [(section, sorted(pairs, key=lambda pair: pair.budget)) for section, pairs in parts if pairs]


def _tex(header: Sequence[str]) -> list[str]:
    return [rf"\textit{{{name}}}" for name in header]


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _whole(estimate: Estimate | None) -> list[Cell]:
    if estimate is None:
        return [None] * 5
    by_seed = " ".join(repr(float(value)) for value in estimate.seeds)
    return [estimate.value, estimate.low, estimate.high, deviation(estimate), by_seed]


def _plain(cell: Any) -> Cell:
    """NumPy's numbers as Python's, whose repr is the number alone; several in one cell."""
    if isinstance(cell, tuple):
        return " ".join(map(str, cell))
    value: Cell = cell.item() if hasattr(cell, "item") else cell
    return value
