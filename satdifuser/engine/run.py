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

from satdifuser.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.bank import BankSpec

# Settings that say where and how fast, and not what comes out.
PASSING = (
    *("run", "resume", "overwrite", "features", "trainer.workers", "trainer.tensorboard"),
    *("recipe.workers", "recipe.tensorboard", "recipe.save_every", "recipe.samples", "recipe.minutes"),
)
SEEN = "training-samples.json"
LIBRARIES = "diffusers accelerate timm peft torchgeo torchmetrics zarr numpy hydra-core xformers"
PACKAGES = ("satdifuser", "torch", *LIBRARIES.split())


class RunFolder:
    """One training run on disk. `open` refuses to mix two runs in one folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes the folder meanwhile: two runs in one would mix. Of several processes the first asks."""
        from satdifuser.store.disk import locked

        if int(os.environ.get("RANK", "0")) or os.name == "nt":  # there a folder cannot be locked
            yield
            return
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
        if self.last.is_file() and not resume:
            if not overwrite:
                raise UserError(
                    f"{self.path} holds a run: add resume=true to go on, overwrite=true to start anew, or another run="
                )
            for part in self.path.iterdir():  # the folder itself is locked
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.figures.mkdir(exist_ok=True)
        return self

    def begin(self, config: Any, accelerator: Accelerator) -> None:
        """Open it for a command's run, with its configuration and environment; all processes go on together."""
        if accelerator.is_main_process:
            self.open(resume=config.resume, overwrite=config.overwrite)
            self._keep(config)
            self.write_json("environment.json", environment(accelerator.num_processes))
        accelerator.wait_for_everyone()

    def _keep(self, config: Any) -> None:
        """Write the configuration down; a run that is resumed must go on with the one that it began with."""
        from omegaconf import OmegaConf

        if config.resume and self.config.is_file():
            ours, theirs = (_dotted(OmegaConf.to_container(c)) for c in (config, OmegaConf.load(self.config)))
            changed = [key for key, value in theirs.items() if key not in PASSING and ours.get(key) != value]
            if changed:
                raise UserError(
                    f"{self.path} was begun with another {', '.join(changed[:4])}: resume it with the same settings, or"
                    " use another run="
                )
        write_text(self.config, OmegaConf.to_yaml(config))

    def load_config(self) -> Any:
        """The configuration that its command was run with."""
        from omegaconf import OmegaConf

        if not self.config.is_file():
            raise UserError(f"no run at {self.path}: give a folder that satdifuser train wrote")
        return OmegaConf.load(self.config)

    def spec(self) -> BankSpec:
        """The features that its head was built for."""
        from satdifuser.bank import BankSpec

        return BankSpec.from_dict(json.loads(self._of_training("spec.json").read_text()))

    def seen(self) -> list[str]:
        """Ids of the samples that it has learned from, and those that the run has which it began with."""
        ids: list[str] = json.loads(self._of_training(SEEN).read_text())
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
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The logged rows; a line that a kill cut short is left out."""
        found = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def forget_after(self, step: int) -> None:
        """Drop rows logged after the checkpoint that a resume starts from: they will be logged again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def write_json(self, name: str, values: Mapping[str, Any] | Sequence[str]) -> Path:
        return write_text(self.path / name, json.dumps(values, indent=2) + "\n")


def same_features(run: str, trained: BankSpec, given: BankSpec) -> None:
    """A head reads features by their meaning: those of another encoder would pass through it and mean nothing."""
    different = trained.differences(given)
    if different:
        raise UserError(
            f"{run} was trained on other features than these (trained on and given): {'; '.join(different[:4])}"
        )


def _dotted(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    if not isinstance(values, dict) or not values:
        return {prefix.removesuffix("."): values}
    return {key: v for name, value in values.items() for key, v in _dotted(value, f"{prefix}{name}.").items()}


def write_text(path: Path, text: str) -> Path:
    """Write aside, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write the same
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


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
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
