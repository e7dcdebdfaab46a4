"""Pretrain the small ViT that ships with deflect: masked autoencoding (He et al. 2022) on any data set's RGB.

A quarter of the patches is seen by the encoder (a timm ViT), and a narrow decoder says what the others look like, each
patch standardised. Data, batches, recipe and resume are those of `satdifuser pretrain`, and so are the overrides:

    python tools/pretrain_vit.py run=runs/vit data=image_folder data.root=EuroSAT_RGB data@mix=synthetic

Writes RUN/model: config.json, model.safetensors (16 bits) and provenance.json. docs/pretraining.md has the line that
made the shipped one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.pretrain.draws import Draws
from satdifuser.pretrain.export import loaded_by, machine, put_in_place
from satdifuser.pretrain.setup import Setup, set_up

MODEL, PATCH = "vit_tiny_patch16_224", 8
OPTIONS = {"embed_dim": 256, "depth": 8, "num_heads": 4}
DECODER = {"embed_dim": 128, "depth": 2, "num_heads": 4}
SEEN = 0.25
RECIPE = ("recipe.lr=0.001", "recipe.weight_decay=0.05", "recipe.betas=[0.9,0.95]", "recipe.ema=null")


class MaskedAutoencoder(nn.Module):
    """The encoder on the patches that are seen, the decoder on all of them."""

    def __init__(self, size: int, channels: int = 3) -> None:
        super().__init__()
        self.encoder, self.decoder = vit(size, channels, OPTIONS), vit(size, channels, DECODER)
        self.decoder.patch_embed = nn.Identity()
        self.decoder.cls_token.requires_grad_(False)  # the encoder's is decoded
        self.bridge = nn.Linear(OPTIONS["embed_dim"], DECODER["embed_dim"])
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DECODER["embed_dim"]))
        self.pixels = nn.Linear(DECODER["embed_dim"], PATCH * PATCH * channels)
        nn.init.normal_(self.mask_token, std=0.02)
        self.patches = (size // PATCH) ** 2

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """The loss of each image, of which the first quarter of the patches in a drawn order is seen."""
        return self.error(images, draws.uniform((self.patches,)).argsort(1))

    def error(self, images: Tensor, order: Tensor) -> Tensor:
        count = int(self.patches * SEEN)
        seen = order[:, :count]
        x = self.encoder.patch_embed(images)
        places = self.encoder.pos_embed
        x = (x + places[:, 1:]).gather(1, seen[..., None].expand(-1, -1, x.shape[-1]))
        first = (self.encoder.cls_token + places[:, :1]).expand(len(x), -1, -1)
        y = self.bridge(self.encoder.norm(self.encoder.blocks(torch.cat((first, x), dim=1))))
        full = self.mask_token.to(y.dtype).repeat(len(x), self.patches, 1)
        full = full.scatter(1, seen[..., None].expand(-1, -1, y.shape[-1]), y[:, 1:])
        full = torch.cat((y[:, :1], full), dim=1) + self.decoder.pos_embed
        found = self.pixels(self.decoder.norm(self.decoder.blocks(full))[:, 1:]).float()
        hidden = order[:, count:, None].expand(-1, -1, found.shape[-1])
        return (found.gather(1, hidden) - standardised(images).gather(1, hidden)).square().mean((1, 2))

    @torch.no_grad()
    def unseen(self, images: Tensor) -> float:
        """The loss on held-out images, with an order that is always the same."""
        draws = Draws(0, 0, len(images), device=images.device)
        return float(self.forward(images, draws).mean())


def vit(size: int, channels: int, options: dict[str, int]) -> Any:
    return timm.create_model(MODEL, img_size=size, patch_size=PATCH, num_classes=0, in_chans=channels, **options)


def standardised(images: Tensor) -> Tensor:
    """Each patch's pixels with mean 0 and variance 1: `[batch, patches, pixels]`."""
    x = rearrange(images.float(), "b c (h p) (w q) -> b (h w) (p q c)", p=PATCH, q=PATCH)
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-4).sqrt()


def main(overrides: Sequence[str]) -> Path:
    settings = compose("pretrain", [*RECIPE, *overrides])
    with RunFolder(settings.run).alone():
        return train(set_up(settings))


def train(setup: Setup) -> Path:
    source = setup.images.sources[0]
    torch.manual_seed(setup.settings.seed)
    model = MaskedAutoencoder(source.size, source.prepare.channels)
    setup.begin()
    unseen = setup.unseen[0][0].to(setup.accelerator.device)
    before = model.to(unseen.device).unseen(unseen)
    trainer = setup.trainer(model, lambda: {"val/error": model.unseen(unseen)})
    trainer.fit()
    if setup.main and not trainer.finished:
        print(f"stopped at step {trainer.state.step} of {trainer.recipe.steps}: resume=true goes on")
    folder = setup.folder.path / "model"
    if setup.main:
        loss = {"before": round(before, 4), "after": round(model.unseen(unseen), 4)}
        save(folder, model.encoder, setup, loss, trainer.state.seconds)
        print(f"wrote {folder}: load it with {loaded_by('small_vit', folder, setup.settings.prepare.settings)}")
    return folder


def save(folder: Path, encoder: nn.Module, setup: Setup, loss: dict[str, float], seconds: float) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().half().cpu().contiguous() for name, value in encoder.state_dict().items()}
    save_file(weights, partial / "model.safetensors")
    source = setup.images.sources[0]
    config = {"model": MODEL, "patch_size": PATCH, "image_size": source.size, "options": OPTIONS}
    known = setup.settings.plain()
    provenance = {
        "command": "python tools/pretrain_vit.py",
        "method": f"masked autoencoding, {SEEN:.0%} of the patches seen, patches standardised, decoder {DECODER}",
        "data": [source.data.identity for source in setup.images.sources],
        "parameters": sum(value.numel() for value in weights.values()),
        "validation_loss": loss,
        "minutes": round(seconds / 60, 1),
        "licence": known["card"]["licence"],
        **{key: known[key] for key in ("seed", "mix_share", "prepare", "recipe")},
        **machine(setup.accelerator.num_processes),
    }
    provenance["versions"]["timm"] = metadata.version("timm")
    for name, values in (("config", config), ("provenance", provenance)):
        (partial / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")
    put_in_place(partial, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
