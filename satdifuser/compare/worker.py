"""One run of the grid, in this process or in one that a launcher started, here or on another machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError

FAILED = "failed.json"


def job(config: Any) -> None:
    """What Hydra's launchers call: do the run whose configuration lies in the file `config.job`."""
    from hydra.core.hydra_config import HydraConfig

    perform(Path(config.job), config.threads, HydraConfig.get().job.num)


def perform(file: Path, threads: int | None = None, number: int = 0) -> None:
    """Train and test, or note the error. The result appears last and whole, so a run is done when it has one.

    A run that was killed goes on from its last checkpoint. One that another process works on is left to it.
    """
    import torch
    from omegaconf import OmegaConf

    from satdifuser.commands import train
    from satdifuser.engine.memory import give_back

    try:
        config: Any = OmegaConf.load(file)
    except FileNotFoundError:  # another process has done it
        return
    folder = Path(config.run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with claimed(folder.with_suffix(".lock")) as mine:
        if not mine or result(folder) is not None:
            return
        hush()
        if threads is not None:
            torch.set_num_threads(threads)
        if torch.cuda.device_count() > 1:
            torch.cuda.set_device(number % torch.cuda.device_count())
        _forget_another(folder, config)
        (folder / FAILED).unlink(missing_ok=True)
        try:
            train.run(config, quiet=True)
        except Exception as error:
            expected = isinstance(error, UserError) or type(error).__name__ == "BankError"
            said = " ".join(str(error).split()) if expected else f"{type(error).__name__}: {error}".splitlines()[0]
            _note_failure(folder, said, traceback.format_exc())
        file.unlink(missing_ok=True)
        give_back()


def hush() -> None:
    """What an encoder says of itself each time it is built stands in the configuration of its run."""
    logging.getLogger("deflect").setLevel(logging.ERROR)


def _note_failure(folder: Path, error: str, trace: str) -> None:
    from satdifuser.engine.run import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FAILED, json.dumps({"error": error, "traceback": trace}, indent=2) + "\n")


def _forget_another(folder: Path, config: Any) -> None:
    """Begin anew where a run was begun with other settings of no consequence, such as the place of its features."""
    from omegaconf import OmegaConf

    begun = folder / "config.yaml"
    if begun.is_file() and OmegaConf.load(begun) != config:
        shutil.rmtree(folder)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the run to itself; the claim ends with the process, however it ends."""
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except (ImportError, OSError):  # a system or a disk without locks
            pass
        if not (path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino):
            yield False  # who had it has just ended, and removed the file that is locked here
            return
        yield True
        path.unlink(missing_ok=True)


def result(folder: Path) -> dict[str, Any] | None:
    """What a finished run has found; None where it is not finished."""
    file = folder / "result.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found


def failure(folder: Path) -> str | None:
    """The error that a run ended in, if it did."""
    file = folder / FAILED
    return json.loads(file.read_text())["error"] if file.is_file() else None
