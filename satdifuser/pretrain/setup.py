"""What any stage of pretraining needs besides its network: recipe, images, the run's folder, the processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from satdifuser.build import build_data
from satdifuser.data.joined import JoinedSplits
from satdifuser.engine.run import RunFolder
from satdifuser.engine.skipping import list_skipped, without_faults
from satdifuser.errors import UserError
from satdifuser.pretrain.images import Images, Kept, Source
from satdifuser.pretrain.soundness import writing
from satdifuser.pretrain.trainer import Look, Pretrainer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.settings.pretraining import PretrainSettings, Recipe


MODEL, VAE = "model", "vae"  # what a run makes, and the folder of its first stage
STAGES = (VAE, MODEL, "samples")


@dataclass
class Setup:
    """`held_out` are the sources whose images no stage trains on.

    `begin` opens the run's folder, which may replace an earlier run: once everything is built that can be refused.
    """

    settings: PretrainSettings
    folder: RunFolder
    images: Images
    held_out: list[Source]
    accelerator: Accelerator
    begin: Callable[[], None]
    quiet: bool = False
    began: float = field(default_factory=time.perf_counter)

    @property
    def recipe(self) -> Recipe:
        return self.settings.recipe

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def at_once(self) -> int:
        """How many images of a step go through a network together: a process's share of a micro-batch."""
        return self.images.total // (self.accelerator.num_processes * self.recipe.accumulate)

    @property
    def batch(self) -> int:
        """How many images go through a network at once where none is trained on: no more than where some are."""
        return max(1, min(64, self.at_once))

    @cached_property
    def unseen(self) -> list[tuple[Tensor, list[str]]]:
        """Of each held-out source some images and their ids, read once and kept on the host."""
        return [source.some(self.recipe.eval_images) for source in self.held_out]

    def look_in(self) -> None:
        """Read the images that are held out and a first one to train on: what cannot be used is named at the door."""
        for source in (*self.images.sources, *([] if self.main else self.held_out)):
            source.some(1)
        if self.main:
            self.unseen  # noqa: B018 (reads them)

    def agreed(self, word: bool) -> bool:
        """What the first process says: it alone writes, so another may see the folder as it was or will be."""
        told = torch.tensor(float(word and self.main), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum") > 0)

    def trainer(
        self, objective: nn.Module, look: Look, *, folder: RunFolder | None = None, **changes: Any
    ) -> Pretrainer:
        """The trainer of a stage, gone back to its last checkpoint if the run is resumed.

        A stage may have a folder of its own, and changes to the recipe.
        """
        folder = folder or self.folder
        recipe, seed = self.recipe.but(**changes), self.settings.seed
        trainer = Pretrainer(
            objective, self.images, recipe, folder, self.accelerator, seed, self.quiet, look, self.began
        )
        if self.settings.resume and folder.last.is_file():
            trainer.resume()
        return trainer


def set_up(settings: PretrainSettings, quiet: bool = False) -> Setup:
    """Find the images; nothing is written until `begin` is called."""
    from satdifuser.engine.trainer import make_accelerator

    folder = RunFolder(settings.run)
    folder.check(settings)
    accelerator = make_accelerator(settings.recipe.mixed_precision)
    sources, skipped = _sources(settings, "train", accelerator)
    held_out, unseen = _sources(settings, "val", accelerator)
    place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    images = Images(sources, settings.recipe.batch_size, seed=settings.seed, **place)

    def begin() -> None:
        with writing(folder, folder.path):
            if accelerator.is_main_process and settings.overwrite and not settings.resume:
                _forget(folder)
            folder.begin(settings, accelerator)
        if accelerator.is_main_process and settings.on_error == "skip":
            with writing(folder, folder.path / "skipped.json"):
                folder.write_json("skipped.json", {"skipped": skipped + unseen})
            list_skipped(skipped + unseen, str(folder.path / "skipped.json"))

    return Setup(settings, folder, images, held_out, accelerator, begin, quiet)


def _forget(folder: RunFolder) -> None:
    """Remove of an earlier run what a later one could take for its own, before the checkpoint that says it is there.

    A kill meanwhile leaves a run that is to be replaced still, and that nobody can resume.
    """
    if folder.last.is_file():
        folder.config.unlink(missing_ok=True)
        for name in STAGES:
            shutil.rmtree(folder.path / name, ignore_errors=True)


def _sources(
    settings: PretrainSettings, split: str, accelerator: Accelerator
) -> tuple[list[Source], list[dict[str, str]]]:
    """The data sets of a split, without bad images if they are to be skipped, and what was skipped."""
    from satdifuser.store import Processes

    shares = [(settings.data, 1.0)]
    if settings.mix is not None:
        shares = [(settings.data, 1 - settings.mix_share), (settings.mix, settings.mix_share)]
    processes = Processes(accelerator.process_index, accelerator.num_processes)
    found, skipped = [], []
    for part, share in shares:
        size = settings.data["size"]
        data: Any = build_data(part.but(size=size) if "size" in part else part, split)
        source = Source(data, settings.prepare.but(sensor=part.sensor).build(), size, share)
        if settings.on_error == "skip":
            workers = settings.recipe.workers
            rest, bad = without_faults(JoinedSplits({split: data}), source.check, workers, processes)
            source = Source(Kept(data, rest), source.prepare, size, share)
            skipped += bad
        if not len(source.data):
            raise UserError(f"{part.name} has no images left in its split {split}: all were skipped")
        found.append(source)
    return found, skipped
