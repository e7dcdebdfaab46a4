"""Which runs there are, where each one is kept, and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from satdifuser.compare.grid import Cell
from satdifuser.compare.shared import Shared, stores_to_make
from satdifuser.compare.worker import result
from satdifuser.errors import one_line


@dataclass(frozen=True)
class Planned:
    """A run of the grid: its folder; or why it has none, where its encoder, data or features cannot be made."""

    cell: Cell
    folder: Path | None
    error: str | None = None

    @property
    def missing(self) -> bool:
        """Whether it is to be done."""
        return self.folder is not None and result(self.folder) is None


def plan(cells: Sequence[Cell], shared: Shared) -> list[Planned]:
    """The folder of each run, named by what the run is, and the store that it reads."""
    planned = []
    for cell in cells:
        try:
            folder, features = shared.output / "runs" / shared.key(cell), shared.features(cell)
        except Exception as error:  # of whatever kind, it is this run's and no other's
            planned.append(Planned(cell, None, one_line(error)))
            continue
        config = cell.config.copy()
        config.run, config.resume = str(folder), True
        config.features = None if features is None else str(features)
        planned.append(Planned(replace(cell, config=config), folder))
    return planned


def with_features(planned: Sequence[Planned], shared: Shared) -> list[Planned]:
    """Extract what the missing runs read; where that fails, so do they."""
    from satdifuser.engine.progress import say

    failed: dict[str, str] = {}
    for path, cell in stores_to_make(shared, [run.cell for run in planned if run.missing]).items():
        try:
            shared.extract(cell)
        except Exception as error:
            failed[str(path)] = one_line(error)
            say(f"FAILED: {failed[str(path)]}")
    return [
        replace(run, folder=None, error=failed[run.cell.config.features])
        if run.missing and run.cell.config.features in failed
        else run
        for run in planned
    ]
