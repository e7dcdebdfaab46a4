"""Doing the runs through Hydra's launchers: one after the other, in several processes, or on a cluster's nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from satdifuser.compare.plan import Planned
from satdifuser.compare.worker import FAILED, failure, job, result
from satdifuser.engine.progress import Watch
from satdifuser.errors import UserError, one_line
from satdifuser.launching import launch
from satdifuser.settings.trust import trusted

LOOK_SECONDS = 0.5


def do(
    planned: Sequence[Planned],
    jobs: Path,
    launcher: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
    threads: int | None = None,
) -> str | None:
    """Hand the missing runs to the launcher, each as a file with its configuration in the folder `jobs`.

    Gives the error that the launcher itself ended in, if it did (a worker that was killed, a job that ran out of time).
    """
    from satdifuser.engine.files import write_text

    runs = {run.folder: run.cell for run in planned if run.folder is not None and run.missing}
    if not runs:
        return None
    jobs.mkdir(parents=True, exist_ok=True)
    files = []
    for folder, cell in runs.items():
        (folder / FAILED).unlink(missing_ok=True)  # what failed is tried again
        files.append(write_text(jobs / f"{folder.name}.yaml", cell.config.yaml()))
    with Runs({folder: str(cell) for folder, cell in runs.items()}):
        try:
            known = [f"threads={'null' if threads is None else threads}", f"trust=[{','.join(trusted())}]"]
            launch(files, [*launcher, *known], config_dirs, jobs, job)
        except UserError:
            raise
        except Exception as error:
            return one_line(error)
    return None


class Runs(Watch):
    """Of runs, wherever they are done: it looks at their folders."""

    def __init__(self, runs: Mapping[Path, str]) -> None:
        super().__init__("runs", "comparing", len(runs), LOOK_SECONDS)
        self._open = dict(runs)

    def look(self) -> None:
        for folder, name in list(self._open.items()):
            found, error = result(folder), failure(folder)
            if found is None and error is None:
                continue
            del self._open[folder]
            if found is not None:
                score = found["test"][found["metric"]]
                self.ended(f"{name}: {found['metric']} {score:.3f}, {found['cost']['training_seconds']:.0f} s")
            else:
                self.ended(f"{name}: FAILED: {error}")
