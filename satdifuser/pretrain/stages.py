"""The stages of a diffusion model's pretraining: the small VAE, if one is asked for, then the UNet."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.pretrain.autoencoder import Autoencoding
from satdifuser.pretrain.card import write_card
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.export import export, machine
from satdifuser.pretrain.networks import build_scheduler, build_unet, build_vae, latent_side, load_vae
from satdifuser.pretrain.samples import sample, save_grid
from satdifuser.pretrain.setting import Setting
from satdifuser.pretrain.trainer import Pretrainer

MODEL, VAE = "model", "vae"
KEPT = (
    "seed",
    "mix_share",
    "prepare",
    "schedule",
    "min_snr",
    "vae",
    "unet",
    "recipe",
    "export",
    "card",
)  # in provenance.json


def pretrain(setting: Setting) -> Path:
    """Train what is asked for and give the folder of the model, which every evaluation has written anew."""
    vae, small = _vae(setting), setting.config["vae"]["weights"] == "small"
    objective = _denoising(setting, vae)
    setting.begin()
    if small:
        objective = _denoising(setting, _trained(setting, vae))
    model = setting.folder.path / MODEL
    trainer = setting.trainer(objective, lambda: _look(setting, objective, trainer, model))
    trainer.fit()
    if setting.main and not model.is_dir():  # taken up again after its end
        _look(setting, objective, trainer, model)
    setting.accelerator.wait_for_everyone()
    return model


def _vae(setting: Setting) -> Any:
    """None for pixels, one that is given, or a small one that is not trained yet."""
    settings, channels = setting.config["vae"], setting.images.sources[0].prepare.channels
    if settings["weights"] is None:
        return None
    if settings["weights"] != "small":
        return load_vae(settings["weights"])
    if settings["steps"] <= 0 or settings["lr"] <= 0:
        raise UserError(f"vae.steps is {settings['steps']} and vae.lr {settings['lr']}: both must be above 0")
    return build_vae(settings, channels, setting.config["seed"])


def _trained(setting: Setting, vae: Any) -> Any:
    """The small VAE after its training, of which a run that is resumed has what it had."""
    folder = RunFolder(setting.folder.path / VAE)
    model = folder.path / MODEL
    if not (setting.config["resume"] and model.is_dir()):
        if setting.main and not setting.config["resume"]:
            shutil.rmtree(folder.path, ignore_errors=True)
        _train_vae(setting, vae, folder, model)
    return load_vae(str(model))


def _train_vae(setting: Setting, vae: Any, folder: RunFolder, model: Path) -> None:
    if setting.main:
        folder.open(resume=setting.config["resume"], overwrite=False)
    setting.accelerator.wait_for_everyone()
    settings, source = setting.config["vae"], setting.images.sources[0]
    objective = Autoencoding(vae.requires_grad_(True), float(settings["kl"]))
    device = setting.accelerator.device
    unseen = setting.held_out[0].some(setting.recipe.eval_images)[0].to(device)
    trainer = setting.trainer(
        objective,
        lambda: {"val/error": objective.error(unseen)},
        folder=folder,
        steps=settings["steps"],
        lr=settings["lr"],
    )
    trainer.fit()
    if setting.main:
        known = source.some(1024)[0].to(device)
        objective.vae.register_to_config(scaling_factor=round(objective.unit(known), 5))
        about = {"error_on_held_out_images": round(objective.error(unseen), 5), "vae": settings}
        export(model, {"vae": objective.vae}, setting.config["export"], about)
    setting.accelerator.wait_for_everyone()


def _denoising(setting: Setting, vae: Any) -> Denoising:
    config, source = setting.config, setting.images.sources[0]
    size, channels = source.size, source.prepare.channels
    if vae is not None:
        size, channels = latent_side(vae, size), vae.config["latent_channels"]
    unet = build_unet(config["unet"], channels, size, config["seed"])
    scheduler = build_scheduler({"clip_sample": vae is None, **config["schedule"]})  # latents have no bounds
    return Denoising(unet, scheduler, vae=vae, gamma=config["min_snr"], seed=config["seed"])


@torch.no_grad()
def _look(setting: Setting, objective: Denoising, trainer: Pretrainer, model: Path) -> dict[str, float]:
    """The loss at each level on images that are held out, a grid of samples, and the model so far."""
    losses: dict[str, float] = {}
    for number, source in enumerate(setting.held_out):
        images, ids = source.some(setting.recipe.eval_images)
        found = objective.by_level(images.to(setting.accelerator.device), ids, setting.recipe.levels)
        kind = "val" if number == 0 else f"val-{source.data.name}"
        losses |= {f"{kind}/{level}": value for level, value in found.items()}
    grid = None
    if setting.recipe.samples:
        grid = setting.folder.path / "samples" / f"step-{trainer.state.step:06d}.png"
        save_grid(sample(objective, setting.recipe.samples), grid)
    parts = {"unet": objective.unet, "scheduler": objective.scheduler}
    if objective.vae is not None:
        parts["vae"] = objective.vae
    about = _provenance(setting, trainer, losses)
    rows = [*setting.folder.rows(), {"step": trainer.state.step, **losses}]
    export(model, parts, setting.config["export"], about, lambda folder: write_card(folder, about, rows, grid))
    return losses


def _provenance(setting: Setting, trainer: Pretrainer, losses: dict[str, float]) -> dict[str, Any]:
    return {
        "command": "satdifuser pretrain",
        "data": [source.data.identity for source in setting.images.sources],
        "held_out": [source.data.identity for source in setting.held_out],
        "steps": trainer.state.step,
        "parameters": sum(p.numel() for p in trainer.trained.values()),
        "loss_on_held_out_images": {name: round(value, 5) for name, value in losses.items()},
        "minutes": round(trainer.elapsed / 60, 1),
        **{key: setting.config[key] for key in KEPT},
        **machine(setting.accelerator.num_processes),
    }
