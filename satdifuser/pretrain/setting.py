"""What any stage of pretraining needs besides its network: settings, images, the run's folder, the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from satdifuser.engine.run import RunFolder
from satdifuser.pretrain.images import Images, Source
from satdifuser.pretrain.settings import Recipe
from satdifuser.pretrain.trainer import Look, Pretrainer

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Setting:
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

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    def trainer(
        self, objective: nn.Module, look: Look, *, folder: RunFolder | None = None, **changes: Any
    ) -> Pretrainer:
        """The trainer of a stage, gone back to its last checkpoint if the run is resumed.

        A stage may have a folder of its own, and changes to the recipe.
        """
        folder = folder or self.folder
        recipe = replace(self.recipe, **changes)
        trainer = Pretrainer(
            objective, self.images, recipe, folder, self.accelerator, self.config["seed"], self.quiet, look
        )
        if self.config["resume"] and folder.last.is_file():
            trainer.resume()
        return trainer
