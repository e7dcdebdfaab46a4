"""The report's content, from the runs of a grid and the configuration that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from satdifuser.compare.baseline import chance, floor
from satdifuser.compare.folds import pooled
from satdifuser.compare.grid import Cell
from satdifuser.compare.made import curves, environments, made
from satdifuser.compare.plan import Planned
from satdifuser.compare.results import Done, Results
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import failure, result
from satdifuser.report.content import Content, Failure, Section
from satdifuser.settings.commands import CompareSettings


def content_of(config: CompareSettings, planned: Sequence[Planned], shared: Shared, command: str) -> Content:
    """Everything that the report shows of the runs that are done, and the errors of those that failed."""
    done = [
        Done(run.cell, run.folder, shared.extraction(run.cell), shared.facts(run.cell).parameters)
        for run in planned
        if run.folder is not None and result(run.folder) is not None
    ]
    missing = len(planned) - len(done) - len(failures := _failures(planned))
    whole, partial = pooled(done, [run.cell for run in planned])
    results = Results(whole, config.resamples)
    failures += [_failure(run.cell, error) for run, error in results.leave_out_unreadable()]
    done = list(results.done)
    configurations: dict[tuple[str, str], str] = {}
    for one in done:
        configurations.setdefault((one.cell.model, one.cell.task), one.cell.config.yaml())
    return Content(
        title=config.title or "Comparison",
        command=command,
        sections=[_section(results, task, config.shown) for task in results.tasks],
        rows=results.rows(),
        comparisons=results.comparisons(),
        failures=failures,
        missing=missing,
        partial=partial,
        environments=environments(done),
        configurations=configurations,
        settings=config.plain(),
        floor=floor(config.floor, done),
        curves=curves(done),
        made=made(done),
    )


def _section(results: Results, task: str, shown: int) -> Section:
    truth = results.of(task)[0].predictions().truth
    return replace(results.section(task, shown), chance=chance(results.task(task), truth))


def _failures(planned: Sequence[Planned]) -> list[Failure]:
    found = []
    for run in planned:
        error = run.error if run.folder is None else failure(run.folder) if result(run.folder) is None else None
        if error is not None:
            found.append(_failure(run.cell, error))
    return found


def _failure(cell: Cell, error: str) -> Failure:
    fold = "" if cell.fold is None else f"fold {cell.fold} of {cell.folds}: "
    return Failure(cell.model, cell.task, cell.budget, cell.seed, fold + error)
