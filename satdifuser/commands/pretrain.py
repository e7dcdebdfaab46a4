"""`satdifuser pretrain`: a small diffusion model on unlabelled images, as an encoder loads it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.build import build_data, make
from satdifuser.commands.skipping import list_skipped, skips, without_faults
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.pretrain.images import Source
    from satdifuser.pretrain.setting import Setting


def run(config: Any, quiet: bool = False) -> Path:
    """Train, keep everything in the run's folder, and give the folder of the model."""
    from satdifuser.engine.progress import console
    from satdifuser.pretrain.export import check_precision
    from satdifuser.pretrain.stages import pretrain

    check_precision(config.export)
    beyond = [level for level in config.recipe.levels if level >= config.schedule.num_train_timesteps]
    if beyond:
        raise UserError(
            f"recipe.levels has {beyond[0]}, but schedule.num_train_timesteps is {config.schedule.num_train_timesteps}:"
            " give levels below it"
        )
    setting = set_up(config, quiet)
    model = pretrain(setting)
    if setting.main and not quiet:
        words = f"wrote {model}: load it with encoder=unconditional encoder.backbone.weights={model}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    return model


def set_up(config: Any, quiet: bool = False) -> Setting:
    """Everything but the network: processes, images (without bad ones, if so configured), the run's folder."""
    from omegaconf import OmegaConf

    from satdifuser.engine.progress import console
    from satdifuser.engine.run import RunFolder, environment
    from satdifuser.engine.trainer import make_accelerator
    from satdifuser.pretrain.images import Images
    from satdifuser.pretrain.setting import Setting

    skip = skips(config.on_error)
    recipe = make({"_target_": "satdifuser.pretrain.settings.Recipe", **config.recipe})
    accelerator = make_accelerator(recipe.mixed_precision)
    sources, skipped = _sources(config, "train", skip, accelerator)
    held_out, unseen = _sources(config, "val", skip, accelerator)
    skipped += unseen
    place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    images = Images(sources, recipe.batch_size, seed=config.seed, **place)
    folder = RunFolder(config.run)

    def begin() -> None:
        if accelerator.is_main_process:
            folder.open(resume=config.resume, overwrite=config.overwrite)
            folder.keep_configuration(config)
            folder.write_json("environment.json", environment(accelerator.num_processes))
            folder.write_json("skipped.json", {"skipped": skipped})
            say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
            list_skipped(skipped, say, str(folder.path / "skipped.json"))
        accelerator.wait_for_everyone()

    plain: Any = OmegaConf.to_container(config, resolve=True)
    return Setting(plain, recipe, folder, images, held_out, accelerator, begin, quiet)


def _sources(
    config: Any, split: str, skip: bool, accelerator: Accelerator
) -> tuple[list[Source], list[dict[str, str]]]:
    """The data sets of a split, without bad images if they are to be skipped, and what was skipped."""
    from omegaconf import OmegaConf

    from satdifuser.data.joined import JoinedSplits
    from satdifuser.pretrain.images import Kept, Source
    from satdifuser.store import Processes

    shares = [(config.data, 1.0)]
    if config.get("mix") is not None:
        shares = [(config.data, 1 - config.mix_share), (config.mix, config.mix_share)]
    processes = Processes(accelerator.process_index, accelerator.num_processes)
    found, skipped = [], []
    for node, share in shares:
        data: Any = build_data(OmegaConf.merge(node, {"size": config.data.size}) if "size" in node else node, split)
        source = Source(data, make({**config.prepare, "sensor": node.sensor}), config.data.size, share)
        if skip:
            rest, bad = without_faults(JoinedSplits({split: data}), source.check, config.recipe.workers, processes)
            source = Source(Kept(data, rest), source.prepare, source.size, share)
            skipped += bad
        found.append(source)
    return found, skipped
