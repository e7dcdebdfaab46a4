"""`satdifuser pretrain`: a small diffusion model on unlabelled images, as an encoder loads it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.build import build_data, make
from satdifuser.commands.skipping import list_skipped, skips, without_faults

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.pretrain.images import Source


def run(config: Any, quiet: bool = False) -> Path:
    """Train, keep everything in the run's folder, and give the folder of the model."""
    from omegaconf import OmegaConf

    from satdifuser.engine.progress import console
    from satdifuser.engine.run import RunFolder, environment, write_text
    from satdifuser.engine.trainer import make_accelerator
    from satdifuser.pretrain.export import check_precision
    from satdifuser.pretrain.images import Images
    from satdifuser.pretrain.stages import Stages

    recipe = make({"_target_": "satdifuser.pretrain.settings.Recipe", **config.recipe})
    check_precision(config.export)
    skip = skips(config.on_error)
    accelerator = make_accelerator(recipe.mixed_precision)
    place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    sources, skipped = _sources(config, "train", skip, accelerator)
    images = Images(sources, recipe.batch_size, seed=config.seed, **place)
    held_out, _ = _sources(config, "val", skip, accelerator)
    folder = RunFolder(config.run)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    if accelerator.is_main_process:
        folder.open(resume=config.resume, overwrite=config.overwrite)
        write_text(folder.config, OmegaConf.to_yaml(config))
        folder.write_json("environment.json", environment(accelerator.num_processes))
        folder.write_json("skipped.json", {"skipped": skipped})
        list_skipped(skipped, say, str(folder.path / "skipped.json"))
    accelerator.wait_for_everyone()
    model = Stages(config, recipe, folder, images, held_out, accelerator, quiet).run()
    if accelerator.is_main_process and not quiet:
        say(f"wrote {model}: load it with encoder=unconditional encoder.backbone.weights={model}")
    return model


def _sources(
    config: Any, split: str, skip: bool, accelerator: Accelerator
) -> tuple[list[Source], list[dict[str, str]]]:
    """The data sets of a split, without bad images if they are to be skipped, and what was skipped."""
    from satdifuser.data.joined import JoinedSplits
    from satdifuser.pretrain.images import Source
    from satdifuser.store import Processes

    shares = [(config.data, 1.0)]
    if config.get("mix") is not None:
        shares = [(config.data, 1 - config.mix_share), (config.mix, config.mix_share)]
    processes = Processes(accelerator.process_index, accelerator.num_processes)
    found, skipped = [], []
    for node, share in shares:
        data: Any = build_data(node, split)
        source = Source(data, make({**config.prepare, "sensor": node.sensor}), config.data.size, share)
        if skip:
            joined, bad = without_faults(JoinedSplits({split: data}), source.check, config.recipe.workers, processes)
            source = Source(joined, source.prepare, source.size, share)
            skipped += bad
        found.append(source)
    return found, skipped
