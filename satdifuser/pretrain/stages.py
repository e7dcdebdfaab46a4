"""The stages of a pretraining run and what is seen of them: the small VAE, if one is asked for, then the diffusion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.engine.run import RunFolder
from satdifuser.pretrain.autoencoder import Autoencoding
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.export import export, machine
from satdifuser.pretrain.images import Images, Source
from satdifuser.pretrain.networks import build_scheduler, build_unet, build_vae, latent_side, load_vae
from satdifuser.pretrain.samples import sample, save_grid
from satdifuser.pretrain.settings import Recipe
from satdifuser.pretrain.trainer import Pretrainer

if TYPE_CHECKING:
    from accelerate import Accelerator

MODEL, VAE = "model", "vae"


@dataclass
class Stages:
    """One run: `config` is that of the command, `held_out` the images that no stage trains on."""

    config: Any
    recipe: Recipe
    folder: RunFolder
    images: Images
    held_out: list[Source]
    accelerator: Accelerator
    quiet: bool = False

    def run(self) -> Path:
        """Train what is asked for and give the folder of the model."""
        vae = self._vae()
        objective = self._denoising(vae)
        trainer = Pretrainer(
            objective, self.images, self.recipe, self.folder, self.accelerator, self.config.seed, self.quiet
        )
        trainer.look = lambda: self._look(objective, trainer)
        if self.config.resume and self.folder.last.is_file():
            trainer.resume()
        trainer.fit()
        result = self.folder.path / MODEL
        if self.accelerator.is_main_process and not result.is_dir():  # resumed after its last step
            self._look(objective, trainer)
        self.accelerator.wait_for_everyone()
        return result

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The configuration as plain values, which libraries can write to JSON."""
        from omegaconf import OmegaConf

        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    def _vae(self) -> Any:
        """None for pixels, one that is given, or one trained now (or in the run that is resumed)."""
        settings = self.config.vae
        if settings.weights is None:
            return None
        if settings.weights != "small":
            return load_vae(settings.weights)
        folder = RunFolder(self.folder.path / VAE)
        if not (folder.path / MODEL).is_dir():
            self._train_vae(folder)
        return load_vae(str(folder.path / MODEL))

    def _train_vae(self, folder: RunFolder) -> None:
        if self.accelerator.is_main_process:
            folder.open(resume=self.config.resume, overwrite=self.config.overwrite)
        self.accelerator.wait_for_everyone()
        settings = self.config.vae
        channels = self.images.sources[0].prepare.channels
        objective = Autoencoding(build_vae(self._settings["vae"], channels, self.config.seed), float(settings.kl))
        recipe = replace(self.recipe, steps=settings.steps, lr=settings.lr)
        trainer = Pretrainer(objective, self.images, recipe, folder, self.accelerator, self.config.seed, self.quiet)
        device = self.accelerator.device
        seen = self.held_out[0].some(recipe.eval_images)[0].to(device)
        trainer.look = lambda: {"val/error": objective.error(seen)}
        if self.config.resume and folder.last.is_file():
            trainer.resume()
        trainer.fit()
        if self.accelerator.is_main_process:
            known = self.images.sources[0].some(1024)[0].to(device)
            objective.vae.register_to_config(scaling_factor=round(objective.unit(known), 5))
            about = {
                "error": round(objective.error(seen), 5),
                "steps": recipe.steps,
                "scaled by": "the latents of training images",
            }
            export(folder.path / MODEL, {"vae": objective.vae}, self.config.export, about)
        self.accelerator.wait_for_everyone()

    def _denoising(self, vae: Any) -> Denoising:
        size, channels = self.images.sources[0].size, self.images.sources[0].prepare.channels
        if vae is not None:
            size, channels = latent_side(vae, size), vae.config["latent_channels"]
        unet = build_unet(self._settings["unet"], channels, size, self.config.seed)
        scheduler = build_scheduler(self._settings["schedule"])
        return Denoising(unet, scheduler, vae=vae, gamma=self.config.min_snr, seed=self.config.seed)

    @torch.no_grad()
    def _look(self, objective: Denoising, trainer: Pretrainer) -> dict[str, float]:
        """The loss at each level on held-out images, a grid of samples, and the model so far."""
        losses: dict[str, float] = {}
        for number, source in enumerate(self.held_out):
            images, ids = source.some(self.recipe.eval_images)
            found = objective.by_level(images.to(self.accelerator.device), ids, self.recipe.levels)
            kind = "val" if number == 0 else f"val-{source.data.name}"
            losses |= {f"{kind}/{level}": value for level, value in found.items()}
        if self.recipe.samples:
            save_grid(
                sample(objective, self.recipe.samples),
                self.folder.path / "samples" / f"step-{trainer.state.step:06d}.png",
            )
        parts = {"unet": objective.unet, "scheduler": objective.scheduler}
        if objective.vae is not None:
            parts["vae"] = objective.vae
        export(self.folder.path / MODEL, parts, self.config.export, self._provenance(trainer, losses))
        return losses

    def _provenance(self, trainer: Pretrainer, losses: dict[str, float]) -> dict[str, Any]:
        config = self._settings
        kept = {key: config[key] for key in ("seed", "mix_share", "prepare", "schedule", "min_snr", "vae", "recipe")}
        return {
            "command": "satdifuser pretrain",
            "data": [source.data.identity for source in self.images.sources],
            "steps": trainer.state.step,
            "parameters": sum(p.numel() for p in trainer.trained.values()),
            "loss_on_held_out_images": {name: round(value, 5) for name, value in losses.items()},
            "minutes": round(trainer.elapsed / 60, 1),
            **kept,
            **machine(self.accelerator.num_processes),
        }
