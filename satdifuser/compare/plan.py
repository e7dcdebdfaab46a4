"""Which runs there are, where each one is kept, and what it reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from satdifuser.compare.grid import Cell, file_digest
from satdifuser.compare.shared import Shared, stores_to_make
from satdifuser.compare.worker import failure, result
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError, nearest, one_line


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
    """The folder of each run, named by what the run is, and what it reads: features, and a run that it begins with."""
    names = _Names(cells, shared)
    planned = []
    for cell in cells:
        try:
            folder, features = names.folder(cell), shared.features(cell)
            init = names.begins_with(cell)
        except Exception as error:  # of whatever kind, it is this run's and no other's
            planned.append(Planned(cell, None, one_line(error)))
            continue
        config = cell.config.but(
            run=str(folder),
            resume=True,
            features=None if features is None else str(features),
            init=None if init is None else str(init),
        )
        planned.append(Planned(replace(cell, config=config), folder))
    return planned


class _Names:
    """The folders of runs, of which some begin with another: `init` names a model of the grid, or a run's folder."""

    def __init__(self, cells: Sequence[Cell], shared: Shared) -> None:
        self.cells = {(cell.model, cell.task, cell.budget, cell.seed, cell.fold): cell for cell in cells}
        self.shared = shared

    def folder(self, cell: Cell) -> Path:
        return self.shared.output / "runs" / self._key(cell)

    def begins_with(self, cell: Cell) -> Path | None:
        first = self._first(cell)
        if first is not None:
            return self.folder(first)
        return None if cell.config.init is None else Path(cell.config.init).resolve()

    def _first(self, cell: Cell) -> Cell | None:
        """The run of the same task, budget, seed and fold of the model that `init` names.

        Where a sweep on the command line made several of each model, that of the same choice.
        """
        init, rest = cell.config.init, (cell.task, cell.budget, cell.seed, cell.fold)
        if init is None:
            return None
        if (init, *rest) in self.cells:
            return self.cells[(init, *rest)]
        for model in (model for model, *others in self.cells if tuple(others) == rest):
            choice = model.removeprefix(init)
            if model.startswith(init) and choice.startswith(" ") and cell.model.endswith(choice):
                return self.cells[(model, *rest)]
        return None

    def _key(self, cell: Cell, behind: tuple[Cell, ...] = ()) -> str:
        """`behind` are the runs that begin with this one."""
        first, init = self._first(cell), cell.config.init
        if any(cell is other for other in behind):
            raise UserError(f"init={init} of {cell.model}: a model cannot begin with itself")
        if first is not None:
            return self.shared.key(cell, self._key(first, (*behind, cell)))
        return self.shared.key(cell, None if init is None else self._trained(init))

    def _trained(self, init: str) -> str:
        """What another run has trained, wherever it lies."""
        best = RunFolder(init).best
        if not best.is_file() or result(Path(init)) is None:
            models = list(dict.fromkeys(model for model, *_ in self.cells))
            raise UserError(
                f"init={init} is neither a model of this grid nor the folder of a finished run: the models are"
                f" {', '.join(models)}{nearest(init, models)}"
            )
        return file_digest(str(best))


def in_turn(planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """The missing runs in the order in which they can be done: what begins with another run comes after it.

    What another process had, and has left undone since, is tried once more.
    """
    rest, left = [run for run in planned if run.missing], list[Planned]()
    while rest:
        folders = {str(run.folder) for run in rest}
        ready = [run for run in rest if run.cell.config.init not in folders]
        rest = [run for run in rest if run.cell.config.init in folders]
        yield [*left, *ready]
        left = [run for run in (*left, *ready) if run.missing and run.folder and failure(run.folder) is None]


def with_features(planned: Sequence[Planned], shared: Shared) -> list[Planned]:
    """Extract what the missing runs read; where that fails, so do they and those that begin with them."""
    from satdifuser.engine.progress import say

    failed: dict[str, str] = {}
    for path, cell in stores_to_make(shared, [run.cell for run in planned if run.missing]).items():
        try:
            shared.extract(cell)
        except Exception as error:
            failed[str(path)] = one_line(error)
            say(f"FAILED: {failed[str(path)]}")
    for run in itertools.chain.from_iterable(in_turn(planned)):
        cause = failed.get(str(run.cell.config.features)) or failed.get(str(run.cell.config.init))
        if cause is not None:
            failed[str(run.folder)] = cause
    return [replace(r, folder=None, error=failed[str(r.folder)]) if str(r.folder) in failed else r for r in planned]
