"""`satdifuser probe`: how much of a task can be read at each place of a network, live or from a store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.report.content import Estimate
    from satdifuser.report.depth.content import Point, Probed
    from satdifuser.settings.studies import ProbeSettings

SHOWN = 20  # places, of all views, probes and budgets together, but three of each at least


def run(settings: ProbeSettings, command: str = "") -> Probed:
    """Probe, print the best places, and write the page with its tables and figures; `command` is what was typed."""
    from satdifuser.engine.memory import keep_memory
    from satdifuser.engine.progress import say
    from satdifuser.report.depth.content import Depths
    from satdifuser.report.depth.page import write_page
    from satdifuser.study.probe import probed

    keep_memory()
    found = probed(settings)
    show(found)
    folder = Path(settings.output).expanduser()
    title = f"{found.model} probed on {found.task}"
    write_page(Depths(probes=(found,)), folder, title, command)
    say(f"wrote {folder}: probe.json, report.html, tables and figures")
    return found


def show(found: Probed) -> None:
    """The best places of each view, probe and budget."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    seeds = f" over {len(found.seeds)} seeds" if len(found.seeds) > 1 else ""
    guess = "" if found.chance is None else f"; guessing scores {found.chance:.4f}"
    header = f"{found.metric} on {found.split} ({found.samples} samples){seeds}, with 95 % intervals{guess}"
    console.print(header, highlight=False, soft_wrap=True)
    kinds = dict.fromkeys((point.budget, point.view, point.probe) for point in found.points)
    most = max(3, SHOWN // len(kinds))
    for budget, view, probe in kinds:
        points = [p for p in found.points if (p.budget, p.view, p.probe) == (budget, view, probe)]
        points.sort(key=lambda point: -_value(point, found.metric))
        errors = ("ECE", "scaled") if any(point.calibration for point in points) else ()
        table = Table(f"{probe} of {view}", found.metric, "95 %", "p", *errors, box=None, header_style="bold")
        for point in points[:most]:
            table.add_row(str(point.place), *_score(point.scores[found.metric]), *_tests(point))
        taught = f"\n{budget:g} % of the labels, {points[0].training} learned from"
        best = f": the best {most} of {len(points)} places" if len(points) > most else ""
        console.print(taught + best, highlight=False)
        console.print(table)


def _value(point: Point, metric: str) -> float:
    value = point.scores[metric].value
    return -math.inf if math.isnan(value) else value


def _score(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"


def _tests(point: Point) -> tuple[str, ...]:
    """The test against the best, and the errors of calibration where there are any."""
    p = "best" if point.p is None else f"{point.p:.3f}"
    return (p, *(f"{error:.3f}" for error in point.calibration or ()))
