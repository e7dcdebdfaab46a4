"""One run of the grid, in this process or in one that a launcher started, here or on another machine."""

from __future__ import annotations

import json
import logging
import shutil
import traceback
from pathlib import Path
from typing import Any

from satdifuser.compare.grid import SPLITS
from satdifuser.engine.files import DamagedError, remove_strays, write_text, writing
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError, one_line
from satdifuser.launching import claimed
from satdifuser.settings.commands import TrainSettings
from satdifuser.settings.trust import trusting
from satdifuser.yaml_file import load_yaml

FAILED = "failed.json"


def job(config: Any) -> None:
    """What Hydra's launchers call: do the run whose configuration lies in the file `config.job`."""
    from hydra.core.hydra_config import HydraConfig

    with trusting(config.trust):
        perform(Path(config.job), config.threads, HydraConfig.get().job.num)


def perform(file: Path, threads: int | None = None, number: int = 0) -> None:
    """Train and test, or note the error. The result appears last and whole, so a run is done when it has one.

    A run that was killed goes on from its last checkpoint. One that another process works on is left to it.
    """
    from satdifuser.engine.memory import give_back

    try:
        values = load_yaml(file)
        folder = Path(values["run"])
    except FileNotFoundError:  # another process has done it
        return
    except (UserError, KeyError, TypeError):  # it is damaged: the next turn writes it anew
        file.unlink(missing_ok=True)
        return
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with claimed(folder.with_suffix(".lock")) as mine:
        if not mine or result(folder) is not None:
            return
        try:
            _train(TrainSettings(**values), folder, threads, number)
        except Exception as error:
            _note_failure(folder, one_line(error), traceback.format_exc())
        file.unlink(missing_ok=True)
        give_back()


def _train(settings: TrainSettings, folder: Path, threads: int | None, number: int) -> None:
    import torch

    from satdifuser.build import build_data
    from satdifuser.commands import train

    hush()
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
    _forget_another(folder, settings)
    _wait_for(settings.init, folder)
    (folder / FAILED).unlink(missing_ok=True)
    for split in SPLITS if settings.features is None else ():
        remember = getattr(build_data(settings.data, split), "remember", None)
        if remember is not None:  # what one run of a process reads for all must not be in the first one's cost
            remember()
    try:
        train.run(settings, quiet=True, draw=False)  # the report draws
    except DamagedError as error:
        if str(folder) not in str(error):
            raise
        shutil.rmtree(folder)  # what it was begun with cannot be read, so it begins anew
        train.run(settings, quiet=True, draw=False)


def _wait_for(init: str | None, folder: Path) -> None:
    """Another process may be doing the run of the grid that this one begins with; where that failed, so does this."""
    if init is None or Path(init).parent != folder.parent or result(Path(init)) is not None:
        return
    with claimed(Path(init).with_suffix(".lock"), wait=True):
        error = failure(Path(init))
    if error is not None:
        raise UserError(f"the run that it begins with has failed: {error}")


def hush() -> None:
    """What an encoder says of itself each time it is built stands in the configuration of its run."""
    logging.getLogger("deflect").setLevel(logging.ERROR)


def _note_failure(folder: Path, error: str, trace: str) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FAILED, json.dumps({"error": error, "traceback": trace}, indent=2) + "\n")


def _forget_another(folder: Path, settings: TrainSettings) -> None:
    """Begin anew where a run was begun with other settings of no consequence, such as the place of its features."""
    begun = folder / "config.yaml"
    try:
        same = not begun.is_file() or load_yaml(begun) == settings.plain()
    except UserError:  # damaged
        same = False
    if not same:
        shutil.rmtree(folder)


def tidy(output: Path) -> None:
    """Remove what killed processes have left in a comparison's folder: claims that nobody holds, halves of files."""
    for path in [*output.glob("runs/*.lock"), *output.glob("extractions/*.lock")]:
        with claimed(path):
            pass
    kept = [folder for name in ("runs", "probes", "cka") for folder in output.glob(f"{name}/*/")]
    for folder in (output, *(output / name for name in ("encoders", "extractions", "jobs")), *kept):
        remove_strays(folder)


def result(folder: Path) -> dict[str, Any] | None:
    """What a finished run has found; None where it is not finished, or where that cannot be read any more."""
    try:
        found: dict[str, Any] = json.loads(RunFolder(folder).result.read_text(encoding="utf-8"))
        whole = all(isinstance(found[name], dict) for name in ("test", "cost", "weights"))
        score, seconds = found["test"][found["metric"]], found["cost"]["training_seconds"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if whole and all(isinstance(number, int | float) for number in (score, seconds)) else None


def failure(folder: Path) -> str | None:
    """The error that a run ended in, if it did and the note can be read."""
    try:
        error = json.loads((folder / FAILED).read_text(encoding="utf-8"))["error"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return error if isinstance(error, str) else None
