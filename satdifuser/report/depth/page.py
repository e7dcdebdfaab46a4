"""The folder of a probe or a likeness: one HTML file that loads nothing, its tables, and its figures for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satdifuser.engine.files import write_text
from satdifuser.report import numbers
from satdifuser.report.depth import exports
from satdifuser.report.depth.content import Depths, Likeness, Probed
from satdifuser.report.depth.drawing import write_figures
from satdifuser.report.depth.sections import OPENED, Part, figures, parts
from satdifuser.report.glossary import GLOSSARY, OF_DEPTH
from satdifuser.report.rendering import rendered, shown

NAMES = {"explain": "scores", "splits": "samples"}  # of what a study says of itself, in a reader's words


def write_page(depths: Depths, folder: Path, title: str, command: str) -> list[Path]:
    """Write report.html, the tables (CSV and Markdown) and figures/*.svg and *.pdf; gives their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = parts(depths)
    tables = exports.tables(depths)
    texts = {"report.html": page(depths, found, title, command, [*tables, "figures/"]), **tables}
    paths = [write_text(folder / name, text) for name, text in texts.items()]
    return [*paths, *write_figures(figures(found), folder / "figures")]


def page(depths: Depths, found: Sequence[Part], title: str, command: str, files: Sequence[str] = ()) -> str:
    """The report as HTML: ASCII alone."""
    content = {"title": title, "command": command, "environments": [], "configurations": {}}
    return rendered(
        "depth_page.html",
        content=content,
        parts=found,
        opened=OPENED,
        nav=[
            *([("reading", "How to read this")] if found else []),
            *((part.id, part.name) for part in found),
            ("repeat", "To repeat it"),
        ],
        about=[*map(_of_probe, depths.probes), *map(_of_likeness, depths.likeness)],
        in_short=_in_short(found),
        settings=_settings(depths),
        glossary={word: GLOSSARY[word] for word in OF_DEPTH},
        environments=[],
        files=files,
    )


def _in_short(found: Sequence[Part]) -> list[tuple[str, str]]:
    """The sentence of each block; of what is shown in two parts, that of the first."""
    said: dict[str, str] = {}
    for part in found:
        for block in part.blocks:
            said.setdefault(block.title, block.sentence)
    return list(said.items())


def _of_probe(one: Probed) -> str:
    budgets = sorted({point.budget for point in one.points})
    shares = ", ".join(map(numbers.percent, budgets))
    return (
        f"Probes of {one.model} on {one.task}: {numbers.metric_name(one.metric)} on"
        f" {numbers.plural(one.samples, 'sample')} of the split {one.split}, learned from {shares} of the training"
        f" labels, {numbers.plural(len(one.seeds), 'seed')}. Scores are means over the seeds; intervals are 95 %"
        " bootstrap intervals over the samples, and say nothing of other training sets."
    )


def _of_likeness(one: Likeness) -> str:
    return (
        f"Linear CKA of {one.first} ({numbers.plural(len(one.rows), 'place')}) and {one.second}"
        f" ({numbers.plural(len(one.columns), 'place')}): {one.pool} of each map, on"
        f" {numbers.plural(one.samples, 'sample')} of the split {one.split} in batches of {one.batch}."
    )


def _settings(depths: Depths) -> list[tuple[str, str]]:
    """What a study says of itself, each fact once."""
    found: dict[str, str] = {}
    several: list[Mapping[str, Any]] = [one.about for one in depths.probes] + [one.about for one in depths.likeness]
    for number, about in enumerate(several, 1):
        for key, value in about.items():
            if key in ("spec", "key"):  # the taps are what the page is about, and a key is for the next call
                continue
            if key == "settings" and value.get("features"):  # of a store: no encoder ran, on no data
                value = {name: one for name, one in value.items() if name not in ("encoder", "adapter", "data")}
            named = NAMES.get(key, str(key))
            name = f"{named} ({number})" if len(several) > 1 else named
            found[name] = _explained(value) if key == "explain" else shown(value)
    return list(found.items())


def _explained(scores: Mapping[str, str]) -> str:
    """What each score is, a sentence of each."""
    return "\n".join(f"{numbers.metric_name(name)} {text}" for name, text in scores.items())
