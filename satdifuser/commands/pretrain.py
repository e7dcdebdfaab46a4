"""`satdifuser pretrain`: a small diffusion model on unlabelled images, as an encoder loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from satdifuser.errors import UserError


def run(config: Any, quiet: bool = False) -> Path:
    """Train, keep everything in the run's folder, and give the folder of the model."""
    from satdifuser.engine.progress import say
    from satdifuser.engine.run import RunFolder
    from satdifuser.pretrain.export import check_precision, loaded_by
    from satdifuser.pretrain.setup import set_up
    from satdifuser.pretrain.stages import pretrain

    check_precision(config.export)
    beyond = [level for level in config.recipe.levels if level >= config.schedule.num_train_timesteps]
    if beyond:
        raise UserError(
            f"recipe.levels has {beyond[0]}, but schedule.num_train_timesteps is {config.schedule.num_train_timesteps}:"
            " give levels below it"
        )
    with RunFolder(config.run).alone():  # before it looks at all images
        setup = set_up(config, quiet)
        model, unfinished = pretrain(setup)
    if setup.main and unfinished and not quiet:
        minutes = f"{setup.recipe.minutes:g} minutes"
        say(f"stopped after {minutes} at {unfinished}: the same command with resume=true goes on")
    if setup.main and not quiet and model.is_dir():
        say(f"wrote {model}: load it with {loaded_by('unconditional', model, setup.config['prepare'])}")
    return model
