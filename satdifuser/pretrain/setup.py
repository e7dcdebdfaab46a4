"""What any stage of pretraining needs besides its network: recipe, images, the run's folder, the processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from satdifuser.build import build_data, make
from satdifuser.data.joined import JoinedSplits
from satdifuser.engine.run import RunFolder
from satdifuser.engine.skipping import list_skipped, skips, without_faults
from satdifuser.errors import UserError
from satdifuser.pretrain.images import Images, Kept, Source
from satdifuser.pretrain.recipe import Recipe
from satdifuser.pretrain.soundness import writing
from satdifuser.pretrain.trainer import Look, Pretrainer

if TYPE_CHECKING:
    from accelerate import Accelerator


MODEL, VAE = "model", "vae"  # what a run makes, and the folder of its first stage
STAGES = (VAE, MODEL, "samples")


@dataclass
class Setup:
    """`config` is the command's, as plain values; `held_out` are the sources whose images no stage trains on.

    `begin` opens the run's folder, which may replace an earlier run: once everything is built that can be refused.
    """

    config: dict[str, Any]
    recipe: Recipe
    folder: RunFolder
    images: Images
    held_out: list[Source]
    accelerator: Accelerator
    begin: Callable[[], None]
    quiet: bool = False
    began: float = field(default_factory=time.perf_counter)

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def batch(self) -> int:
        """How many images go through a network at once where none is trained on: no more than where some are."""
        return max(1, min(64, self.images.total // (self.accelerator.num_processes * self.recipe.accumulate)))

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
        recipe = replace(self.recipe, **changes)
        trainer = Pretrainer(
            objective, self.images, recipe, folder, self.accelerator, self.config["seed"], self.quiet, look, self.began
        )
        if self.config["resume"] and folder.last.is_file():
            trainer.resume()
        return trainer


def set_up(config: Any, quiet: bool = False) -> Setup:
    """Read the configuration; nothing is written until `begin` is called."""
    from omegaconf import OmegaConf

    from satdifuser.engine.trainer import make_accelerator

    folder = RunFolder(config.run)
    folder.check(config)
    skip = skips(config.on_error)
    recipe = make({"_target_": "satdifuser.pretrain.recipe.Recipe", **config.recipe})
    accelerator = make_accelerator(recipe.mixed_precision)
    sources, skipped = _sources(config, "train", skip, recipe, accelerator)
    held_out, unseen = _sources(config, "val", skip, recipe, accelerator)
    place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    images = Images(sources, recipe.batch_size, seed=config.seed, **place)

    def begin() -> None:
        with writing(folder, folder.path):
            if accelerator.is_main_process and config.overwrite and not config.resume:
                _forget(folder)
            folder.begin(config, accelerator)
        if accelerator.is_main_process and skip:
            with writing(folder, folder.path / "skipped.json"):
                folder.write_json("skipped.json", {"skipped": skipped + unseen})
            list_skipped(skipped + unseen, str(folder.path / "skipped.json"))

    plain: Any = OmegaConf.to_container(config, resolve=True)
    return Setup(plain, recipe, folder, images, held_out, accelerator, begin, quiet)


def _forget(folder: RunFolder) -> None:
    """Remove of an earlier run what a later one could take for its own, before the checkpoint that says it is there.

    A kill meanwhile leaves a run that is to be replaced still, and that nobody can resume.
    """
    if folder.last.is_file():
        folder.config.unlink(missing_ok=True)
        for name in STAGES:
            shutil.rmtree(folder.path / name, ignore_errors=True)


def _sources(
    config: Any, split: str, skip: bool, recipe: Recipe, accelerator: Accelerator
) -> tuple[list[Source], list[dict[str, str]]]:
    """The data sets of a split, without bad images if they are to be skipped, and what was skipped."""
    from omegaconf import OmegaConf

    from satdifuser.store import Processes

    shares = [("data", 1.0)]
    if config.get("mix") is not None:
        shares = [("data", 1 - config.mix_share), ("mix", config.mix_share)]
    processes = Processes(accelerator.process_index, accelerator.num_processes)
    found, skipped = [], []
    for name, share in shares:
        node, size = config[name], config.data.size
        sized = OmegaConf.merge(node, {"size": size}) if "size" in node else node
        data: Any = build_data(sized, split, name)
        source = Source(data, make({**config.prepare, "sensor": node.sensor}), size, share)
        if skip:
            rest, bad = without_faults(JoinedSplits({split: data}), source.check, recipe.workers, processes)
            source = Source(Kept(data, rest), source.prepare, size, share)
            skipped += bad
        if not len(source.data):
            raise UserError(f"{name} has no images left in its split {split}: all were skipped")
        found.append(source)
    return found, skipped
