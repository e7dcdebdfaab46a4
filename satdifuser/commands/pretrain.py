"""`satdifuser pretrain`: a small diffusion model on unlabelled images, as an encoder loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.settings.pretraining import PretrainSettings


def run(settings: PretrainSettings, quiet: bool = False) -> Path:
    """Train, keep everything in the run's folder, and give the folder of the model."""
    from satdifuser.data.policy import resolved_input
    from satdifuser.engine.progress import say
    from satdifuser.engine.run import RunFolder
    from satdifuser.pretrain.export import loaded_by
    from satdifuser.pretrain.setup import set_up
    from satdifuser.pretrain.stages import pretrain

    with RunFolder(settings.run).alone():  # before it looks at all images
        settings = settings.but(prepare=resolved_input(settings.prepare, settings.data))
        setup = set_up(settings, quiet)
        model, unfinished = pretrain(setup)
    if setup.main and unfinished and not quiet:
        minutes = f"{setup.recipe.minutes:g} minutes"
        say(f"stopped after {minutes} at {unfinished}: the same command with resume=true goes on")
    if setup.main and not quiet and model.is_dir():
        say(f"wrote {model}: load it with {loaded_by('unconditional', model, settings.prepare.settings)}")
    return model
