"""Work handed to Hydra's launchers, as files with its settings, and claims on it among processes that share a disk."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from satdifuser.config import config_root, explained, quoted, search_path
from satdifuser.engine.files import writing


def launch(
    files: Sequence[Path],
    overrides: Sequence[str],
    config_dirs: Sequence[str],
    logs: Path,
    job: Callable[[Any], None],
) -> None:
    """Call `job` for each of these files with the launcher that the overrides (`hydra/launcher=...`) choose."""
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks  # a launcher asks for them, and Hydra has no public way
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    with explained("launch", overrides), initialize_config_dir(version_base="1.3", config_dir=str(config_root())):
        loader = GlobalHydra.instance().config_loader()
        common = [*search_path(config_dirs), f"hydra.sweep.dir={quoted(logs)}", *overrides]
        config = loader.load_configuration("launch", common, RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
        with warnings.catch_warnings():  # joblib replaces a process that has grown, and says so
            warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
            ended = launcher.launch([[f"job={quoted(file)}"] for file in files], initial_job_idx=0)
        for one in ended:
            _ = one.return_value  # raises what a job could not note itself


@contextlib.contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process has something to itself, now or once who has it ends; a claim ends with its process."""
    from satdifuser.store.disk import locked

    while True:
        with writing(path):
            file = path.open("w")
        with file:
            if not locked(file, wait):
                yield False
                return
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return
        if not wait:  # who had it has just ended, and removed the file that was locked here
            yield False
            return
