"""The folder of a run: resolved configuration, environment, metrics as JSON lines, checkpoints, figures, result."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.engine.carried import with_carried
from satdifuser.engine.commit import commit
from satdifuser.engine.files import GOES_ON, DamagedError, json_text, read_json, remove_strays, write_text, writing
from satdifuser.errors import UserError
from satdifuser.yaml_file import load_yaml

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from satdifuser.bank import BankSpec
    from satdifuser.settings.base import RunSettings
    from satdifuser.settings.commands import TrainSettings

# Settings that say where and how fast, and not what comes out.
PASSING = (
    *("run", "resume", "overwrite", "features", "check_features", "trainer.workers", "trainer.tensorboard"),
    *("recipe.workers", "recipe.tensorboard", "recipe.save_every", "recipe.samples", "recipe.minutes"),
)
SPEC, SEEN, LABELS, START = "spec.json", "training-samples.json", "labels.json", "start.json"
ANEW = "remove that folder, and train it again"
TRAINING = ("data", "encoder", "fusion", "decoder", "task", "trainer", "features", "select", "seed", "overwrite")
LIBRARIES = "diffusers accelerate timm peft torchgeo torchmetrics zarr numpy hydra-core xformers"
PACKAGES = ("satdifuser", "torch", *LIBRARIES.split())


class RunFolder:
    """One training run on disk. `open` refuses to mix two runs in one folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes the folder meanwhile: two runs in one would mix. Of several processes the first asks."""
        from satdifuser.store.disk import locked

        if int(os.environ.get("RANK", "0")) or os.name == "nt":  # there a folder cannot be locked
            yield
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        try:
            if not locked(handle):
                raise UserError(f"another process is writing {self.path}: wait for it, or use another run=")
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # unless something came of it
                    self.path.rmdir()
        finally:
            os.close(handle)

    def open(self, *, resume: bool, overwrite: bool) -> RunFolder:
        """Make the folder, or take it up again: an earlier run in it is resumed, replaced, or an error."""
        self._refuse(resume, overwrite)
        with writing(self.path):
            if self.last.is_file() and not resume:
                for file in (self.result, self.config):  # first: a kill must leave no result of a run that is gone
                    file.unlink(missing_ok=True)
                shutil.rmtree(self.last.parent)  # without it there is no run to go on with
                for part in self.path.iterdir():  # the folder itself is locked
                    shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self.figures.mkdir(exist_ok=True)
        for folder in (self.path, self.last.parent):
            remove_strays(folder)
        return self

    def _refuse(self, resume: bool, overwrite: bool) -> None:
        if self.last.is_file() and not resume and not overwrite:
            raise UserError(
                f"{self.path} holds a run: add resume=true to go on, overwrite=true to start anew, or another run="
            )

    def check(self, settings: RunSettings) -> None:
        """Refuse to mix two runs; nothing is written. A run that is resumed goes on with the settings it began with."""
        self._refuse(settings.resume, settings.overwrite)
        if not settings.resume or not (self.config.is_file() or self.last.is_file()):
            return
        if not self.config.is_file():
            raise UserError(f"{self.path} has lost {self.config.name}, so nobody knows what it was begun with: {ANEW}")
        plain = settings.plain()
        begun = self._record([name for name in TRAINING if name in plain])
        ours, theirs, usual = dotted(plain), dotted(begun), dotted(settings.usual())
        changed = [key for key, value in theirs.items() if ours.get(key) != value]
        # what a version did not know, when the run was begun, was as it is where nothing is said
        changed += [key for key, value in ours.items() if key not in theirs and value != usual.get(key, ...)]
        changed = [key for key in changed if key not in PASSING]
        if changed:
            raise UserError(
                f"{self.path} was begun with another {', '.join(changed[:4])}: resume it with the same settings, or"
                " use another run="
            )

    def begin(self, settings: RunSettings, accelerator: Accelerator) -> None:
        """Open it for a command's run, with its configuration and environment; all processes go on together."""
        self.check(settings)
        accelerator.wait_for_everyone()  # nobody writes before everybody has looked
        if accelerator.is_main_process:
            self.open(resume=settings.resume, overwrite=settings.overwrite)
            write_text(self.config, settings.yaml())
            self.write_json("environment.json", environment(accelerator.num_processes))
        accelerator.wait_for_everyone()

    def settings(self) -> TrainSettings:
        """Those that `satdifuser train` was run with; they name no class that the user does not trust."""
        from satdifuser.settings.commands import TrainSettings
        from satdifuser.settings.trust import UntrustedError

        try:
            there = self.config.is_file()
        except OSError:  # a name that is too long
            there = False
        if not there:
            raise UserError(f"no run at {self.path}: give a folder that satdifuser train wrote")
        try:
            return TrainSettings(**with_carried(self.path, self._record(TRAINING)))
        except UntrustedError as error:
            raise UserError(f"{self.config}: {error}") from error
        except UserError as error:
            raise DamagedError(f"{self.config}: {error}: mend it, or {ANEW}") from error

    def _record(self, names: Sequence[str]) -> dict[str, Any]:
        """The configuration that the run was begun with, in which these settings must be."""
        config: dict[str, Any] = load_yaml(self.config, ANEW)
        lacks = [name for name in names if name not in config]
        if lacks:
            raise DamagedError(f"{self.config} has no {lacks[0]}: it is damaged or of another command: {ANEW}")
        return config

    def spec(self) -> BankSpec:
        """The features that its head was built for."""
        from satdifuser.bank import BankError, BankSpec

        path = self._of_training(SPEC)
        values = read_json(path, dict, ANEW)
        try:
            return BankSpec.from_dict(values)
        except (BankError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error}): {ANEW}") from None

    def seen(self) -> list[str]:
        """Ids of the samples that it has learned from, and those that the run has which it began with."""
        path = self._of_training(SEEN)
        ids: list[str] = read_json(path, list, ANEW)
        if not all(isinstance(name, str) for name in ids):
            raise DamagedError(f"{path} is damaged (an id that is no text): {ANEW}")
        return ids

    def _of_training(self, name: str) -> Path:
        if not (self.path / name).is_file():
            raise UserError(
                f"{self.path} has no {name}: it was not trained by this version of satdifuser, train it again"
            )
        return self.path / name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        """Written last: a run is done when it has one."""
        return self.path / "result.json"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def predictions(self, split: str) -> Path:
        """What every sample of a split was taken for."""
        return self.path / f"predictions-{split}.zarr"

    def insight(self, split: str) -> Path:
        """What the head did on a split: use of experts, weights of pixels."""
        return self.path / f"insight-{split}.safetensors"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def log(self, row: Mapping[str, Any]) -> None:
        with writing(self.metrics, GOES_ON), self.metrics.open("a") as file:
            file.write(json_text(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The logged rows; a line that a kill cut short is left out."""
        found = []
        for line in self.metrics.read_text(errors="replace").splitlines() if self.metrics.is_file() else []:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                found.append(row)
        return found

    def keep_start(self, weights: Mapping[int, Tensor]) -> None:
        """Keep what a head's readable weights are before its first step, on its first batch."""
        self.write_json(START, {str(stride): value.float().tolist() for stride, value in weights.items()})

    def forget_after(self, step: int) -> None:
        """Drop rows logged after the checkpoint that a resume starts from: they will be logged again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_text(self.metrics, "".join(json_text(row) + "\n" for row in rows))

    def write_json(self, name: str, values: Mapping[str, Any] | Sequence[str]) -> Path:
        return write_text(self.path / name, json_text(values, indent=2) + "\n")


def same_features(run: str, trained: BankSpec, given: BankSpec) -> None:
    """A head reads features by their meaning: those of another encoder would pass through it and mean nothing."""
    different = trained.differences(given)
    if different:
        raise UserError(
            f"{run} was trained on other features than these (trained on and given): {'; '.join(different[:4])}"
        )


def dotted(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    if not isinstance(values, dict) or not values:
        return {prefix.removesuffix("."): values}
    return {key: v for name, value in values.items() for key, v in dotted(value, f"{prefix}{name}.").items()}


def environment(processes: int = 1) -> dict[str, Any]:
    """Versions and machine, to be kept with a result."""
    import torch

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
