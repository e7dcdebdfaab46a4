"""The stages of a diffusion model's pretraining: the small VAE, if one is asked for, then the UNet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from satdifuser.build import build_encoder
from satdifuser.data.policy import resolved
from satdifuser.engine.progress import say
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.pretrain.alignment import Teacher, align
from satdifuser.pretrain.autoencoder import Autoencoding
from satdifuser.pretrain.card import write_card
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.export import export, exported_step, machine
from satdifuser.pretrain.networks import build_scheduler, build_unet, build_vae, latent_side, load_unet, load_vae
from satdifuser.pretrain.samples import sample, save_grid
from satdifuser.pretrain.setup import MODEL, VAE, Setup
from satdifuser.pretrain.soundness import writing
from satdifuser.pretrain.trainer import Pretrainer

LEAST = 2  # images that two views need beside them to vary
KNOWN = 512  # images of which a teacher's channels are standardised, or a VAE's latents measured
KEPT = (
    "seed",
    "mix_share",
    "prepare",
    "schedule",
    "min_snr",
    "level_power",
    "align",
    "teacher",
    "vae",
    "unet",
    "init",
    "recipe",
    "export",
    "card",
)  # in provenance.json


def pretrain(setup: Setup) -> tuple[Path, str | None]:
    """Train what is asked for: the folder of the model, which every evaluation has written anew, and how far it is.

    The latter is None once all steps are done; `recipe.minutes` may end it before, even before there is a model.
    Nothing of an earlier run is replaced before all is built and the first images are read.
    """
    vae, small = _vae(setup), setup.settings.vae.weights == "small"
    objective = _denoising(setup, vae)
    teacher = _teacher(setup)
    whole = _aligned(setup, objective, teacher)
    setup.look_in()
    setup.begin()
    model = setup.folder.path / MODEL
    if small:
        done, unfinished = _trained(setup, vae)
        if unfinished:
            return model, unfinished
        objective = _denoising(setup, done)
        whole = _aligned(setup, objective, teacher)
    trainer = setup.trainer(whole, lambda: _look(setup, objective, trainer, model))
    if setup.agreed(trainer.finished and _complete(setup, model)):
        if setup.main and not setup.quiet:
            say(f"{setup.folder.path} was finished before, at step {trainer.state.step}: its model stays as it is")
        return model, None
    trainer.fit()
    if setup.main and trainer.finished and exported_step(model) != trainer.state.step:  # a checkpoint without its row
        _look(setup, objective, trainer, model)
    setup.accelerator.wait_for_everyone()
    return model, _unfinished(trainer, "")


def _complete(setup: Setup, model: Path) -> bool:
    """Whether the model of the last step is there, and its row in the log."""
    rows = setup.folder.rows()
    return bool(rows) and rows[-1]["step"] == exported_step(model) == setup.recipe.steps


def _unfinished(trainer: Pretrainer, stage: str) -> str | None:
    return None if trainer.finished else f"step {trainer.state.step} of {trainer.recipe.steps}{stage}"


def _vae(setup: Setup) -> Any:
    """None for pixels, one that is given, or a small one that is not trained yet."""
    settings, channels = setup.settings.vae, setup.images.sources[0].prepare.channels
    if settings.weights is None:
        return None
    if settings.weights != "small":
        return load_vae(settings.weights)
    return build_vae(settings, channels, setup.settings.seed)


def _trained(setup: Setup, vae: Any) -> tuple[Any, str | None]:
    """The small VAE after its training, of which a run that is resumed has what it had; or how far that is."""
    folder = RunFolder(setup.folder.path / VAE)
    model = folder.path / MODEL
    if not (setup.settings.resume and model.is_dir()):
        unfinished = _train_vae(setup, vae, folder, model)
        if unfinished:
            return None, unfinished
    return load_vae(str(model)), None


def _train_vae(setup: Setup, vae: Any, folder: RunFolder, model: Path) -> str | None:
    if setup.main:
        folder.open(resume=setup.settings.resume, overwrite=setup.settings.overwrite)
    setup.accelerator.wait_for_everyone()
    settings, source = setup.settings.vae, setup.images.sources[0]
    objective = Autoencoding(vae.requires_grad_(True), settings.kl)
    unseen = setup.unseen[0][0]
    trainer = setup.trainer(
        objective,
        lambda: {"val/error": objective.error(unseen, setup.batch)},
        folder=folder,
        steps=settings.steps,
        lr=settings.lr,
    )
    trainer.fit()
    if not trainer.finished:
        return _unfinished(trainer, " of the VAE")
    if setup.main:
        known, _ = source.some(1024)
        factor = objective.unit(known, setup.batch)
        if not math.isfinite(factor):
            raise UserError("the VAE gives all images the same latents: look at the images, or train it longer")
        objective.vae.register_to_config(scaling_factor=round(factor, 5))
        about = {"error_on_held_out_images": round(objective.error(unseen, setup.batch), 5), "vae": settings.plain()}
        with writing(folder, model):
            export(model, {"vae": objective.vae}, setup.settings.export, about)
    setup.accelerator.wait_for_everyone()
    setup.accelerator.free_memory()  # the optimiser of this stage
    return None


def _denoising(setup: Setup, vae: Any) -> Denoising:
    settings, source = setup.settings, setup.images.sources[0]
    size, channels = source.size, source.prepare.channels
    if vae is not None:
        if channels != vae.config["in_channels"]:
            raise UserError(
                f"the VAE reads {vae.config['in_channels']} bands, and the images have {channels}: set prepare.bands,"
                " or another vae.weights"
            )
        size, channels = latent_side(vae, size), vae.config["latent_channels"]
    if settings.init is not None:
        unet = load_unet(settings.init, size, channels, source.prepare.bands if vae is None else None)
    else:
        unet = build_unet(settings.unet, channels, size, settings.seed)
    bounds = {"clip_sample": vae is None, "clip_sample_range": source.prepare.limit}  # latents have none
    scheduler = build_scheduler({**bounds, **settings.schedule.plain()})
    return Denoising(unet, scheduler, vae=vae, gamma=settings.min_snr, power=settings.level_power, seed=settings.seed)


def _teacher(setup: Setup) -> Teacher | None:
    """The frozen encoder that `teacher` asks for, on the scale of its maps of some training images."""
    part, source = setup.settings.teacher, setup.images.sources[0]
    if part is None:
        return None
    images, _ = source.some(KNOWN)
    encoder, components = build_encoder(resolved(part, setup.settings.data)), setup.settings.align.components
    return Teacher(encoder, source.prepare, images, components=components, batch=setup.batch)


def _aligned(setup: Setup, objective: Denoising, teacher: Teacher | None) -> nn.Module:
    """The objective, with what the UNet learns beside denoising, if anything."""
    settings, source = setup.settings.align, setup.images.sources[0]
    if teacher is None and settings.views is None:
        return objective
    if settings.views is not None and setup.at_once < LEAST:
        raise UserError(
            f"align.views compares images that go through the network at once, and there is {setup.at_once}: raise"
            " recipe.batch_size, or lower recipe.accumulate"
        )
    side = source.size if objective.vae is None else latent_side(objective.vae, source.size)
    return align(objective, settings, teacher, side, setup.settings.seed)


@torch.no_grad()
def _look(setup: Setup, objective: Denoising, trainer: Pretrainer, model: Path) -> dict[str, float]:
    """The loss at each level on images that are held out, a grid of samples, and the model so far."""
    losses: dict[str, float] = {}
    for number, (source, (images, ids)) in enumerate(zip(setup.held_out, setup.unseen, strict=True)):
        found = objective.by_level(images, ids, setup.recipe.levels, setup.batch)
        kind = "val" if number == 0 else f"val-{source.data.name}"
        losses |= {f"{kind}/{level}": value for level, value in found.items()}
    wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(f"at step {trainer.state.step} the loss {wrong[0]} on held-out images: lower recipe.lr")
    grid = None
    if setup.recipe.samples:
        grid = setup.folder.path / "samples" / f"step-{trainer.state.step:06d}.png"
        prepare = setup.images.sources[0].prepare
        images = prepare.undo(sample(objective, setup.recipe.samples))
        with writing(setup.folder, grid):
            save_grid(images, grid)
    parts = {"unet": objective.unet, "scheduler": objective.scheduler}
    if objective.vae is not None:
        parts["vae"] = objective.vae
    about = _provenance(setup, trainer, objective, losses)
    rows = [*setup.folder.rows(), {"step": trainer.state.step, **losses}]
    with writing(setup.folder, model):
        export(model, parts, setup.settings.export, about, lambda folder: write_card(folder, about, rows, grid))
    return losses


def _provenance(setup: Setup, trainer: Pretrainer, objective: Denoising, losses: dict[str, float]) -> dict[str, Any]:
    return {
        "command": "satdifuser pretrain",
        "data": [{**source.data.identity, "images": len(source.data)} for source in setup.images.sources],
        "held_out": [{**source.data.identity, "images": len(source.data)} for source in setup.held_out],
        "steps": trainer.state.step,
        "parameters": sum(p.numel() for p in objective.unet.parameters()),
        "loss_on_held_out_images": {name: round(value, 5) for name, value in losses.items()},
        "minutes": round(trainer.elapsed / 60, 1),
        **{key: value for key, value in setup.settings.plain().items() if key in KEPT},
        **machine(setup.accelerator.num_processes),
    }
