"""Of the runs' own notes: where and when they were made, and how they trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from satdifuser.compare.results import Done
from satdifuser.engine.files import read_json
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.report.content import Curve, Made

POINTS = 60  # of a curve of losses


def environments(done: Iterable[Done]) -> list[dict[str, Any]]:
    """The distinct environments of the runs, apart from when they were begun."""
    found: list[dict[str, Any]] = []
    for values in _notes(done):
        values.pop("time", None)
        if values and values not in found:
            found.append(values)
    return found


def made(done: Iterable[Done]) -> Made:
    """The days and commits of the runs."""
    notes = list(_notes(done))
    days = sorted(str(one["time"])[:10] for one in notes if one.get("time"))
    versions = dict.fromkeys(str((one.get("packages") or {}).get("satdifuser") or "") for one in notes)
    commits = tuple(dict.fromkeys(str(one["commit"]) for one in notes if one.get("commit")))
    return Made(days[0] if days else "", days[-1] if days else "", commits, tuple(filter(None, versions)))


def curves(done: Iterable[Done]) -> list[Curve]:
    """How each run trained that logged its steps; runs of folds are one curve each."""
    return [curve for run in done for part in run.parts if (curve := _curve(part)) is not None]


def _curve(run: Done) -> Curve | None:
    rows, metric = RunFolder(run.folder).rows(), f"val/{run.result['metric']}"
    scores = [(row["step"], float(row[metric])) for row in rows if _number(row.get(metric))]
    losses = [(row["step"], float(row["loss"])) for row in rows if _number(row.get("loss"))]
    if len(losses) < 2:
        return None
    cell, size = run.cell, -(-len(losses) // POINTS)
    means = [
        (part[-1][0], math.fsum(loss for _, loss in part) / len(part))
        for part in (losses[n : n + size] for n in range(0, len(losses), size))
    ]
    ended = str(run.result.get("ended", ""))
    return Curve(cell.model, cell.task, cell.budget, cell.seed, means, scores, ended, cell.fold)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _notes(done: Iterable[Done]) -> Iterable[dict[str, Any]]:
    for run in done:
        for part in run.parts:
            try:
                yield dict(read_json(part.folder / "environment.json", dict, ""))
            except (OSError, UserError):  # the run is none the worse for it
                continue
