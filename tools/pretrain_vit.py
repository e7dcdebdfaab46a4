"""Pretrain the small ViT that ships with deflect: masked autoencoding (He et al. 2022) of the built-in scenes' RGB.

A quarter of the patches is seen by the encoder (a timm ViT), and a narrow decoder says what the others look like, each
patch standardised. Minutes on two CPU cores; writes config.json, model.safetensors (16 bits) and provenance.json.

    python tools/pretrain_vit.py --output deflect/weights/small
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import timm
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from pretrain_small import flip, load_images
from safetensors.torch import save_file
from torch import nn

from satdifuser.engine.memory import keep_memory

MODEL, PATCH, SIZE = "vit_tiny_patch16_224", 8, 64
OPTIONS = {"embed_dim": 192, "depth": 6, "num_heads": 3}
DECODER = {"embed_dim": 96, "depth": 2, "num_heads": 3}
SEEN = 0.25


def vit(**options: object) -> nn.Module:
    return timm.create_model(MODEL, img_size=SIZE, patch_size=PATCH, num_classes=0, **options)


class MaskedAutoencoder(nn.Module):
    """The encoder on the patches that are seen, the decoder on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = vit(**OPTIONS), vit(**DECODER)
        self.decoder.patch_embed = nn.Identity()
        self.bridge = nn.Linear(OPTIONS["embed_dim"], DECODER["embed_dim"])
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DECODER["embed_dim"]))
        self.pixels = nn.Linear(DECODER["embed_dim"], PATCH * PATCH * 3)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """The loss; `order` `[batch, patches]` says which patches are seen: its first quarter."""
        count = int(order.shape[1] * SEEN)
        seen = order[:, :count]
        x = self.encoder.patch_embed(images)
        width = x.shape[-1]
        places = self.encoder.pos_embed
        x = (x + places[:, 1:]).gather(1, seen[..., None].expand(-1, -1, width))
        first = (self.encoder.cls_token + places[:, :1]).expand(len(x), -1, -1)
        x = self.encoder.norm(self.encoder.blocks(torch.cat((first, x), dim=1)))
        y = self.bridge(x)
        full = self.mask_token.repeat(len(x), order.shape[1], 1)
        full = full.scatter(1, seen[..., None].expand(-1, -1, y.shape[-1]), y[:, 1:])
        full = torch.cat((y[:, :1], full), dim=1) + self.decoder.pos_embed
        found = self.pixels(self.decoder.norm(self.decoder.blocks(full))[:, 1:])
        hidden = order[:, count:, None].expand(-1, -1, found.shape[-1])
        return (found.gather(1, hidden) - patches(images).gather(1, hidden)).square().mean()


def patches(images: torch.Tensor) -> torch.Tensor:
    """Each patch's pixels, standardised: `[batch, patches, pixels]`."""
    grid = SIZE // PATCH
    x = (
        images.unflatten(3, (grid, PATCH))
        .unflatten(2, (grid, PATCH))
        .permute(0, 2, 4, 1, 3, 5)
        .flatten(3)
        .flatten(1, 2)
    )
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-4).sqrt()


def orders(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, (SIZE // PATCH) ** 2, generator=generator).argsort(1)


@torch.no_grad()
def validate(model: MaskedAutoencoder, images: torch.Tensor) -> float:
    return float(model(images, orders(len(images), torch.Generator().manual_seed(0))))


def train(args: argparse.Namespace) -> None:
    keep_memory()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    began = time.time()
    images = load_images("pretrain", args.scenes, args.data_seed)
    unseen = load_images("val", 256, args.data_seed).float()
    model = MaskedAutoencoder()
    count = sum(p.numel() for p in model.encoder.parameters())
    print(f"{count / 1e6:.2f} M parameters, {len(images)} scenes, {time.time() - began:.0f} s to render", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05, betas=(0.9, 0.95))
    schedule = get_cosine_schedule_with_warmup(optimizer, args.steps // 20, args.steps)
    before, began, curve = validate(model, unseen), time.time(), []
    for step in range(1, args.steps + 1):
        chosen = torch.randint(len(images), (args.batch_size,), generator=generator)
        loss = model(flip(images[chosen].float(), generator), orders(args.batch_size, generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        curve.append(float(loss.detach()))
        if step % 250 == 0 or step == args.steps:
            recent = sum(curve[-250:]) / len(curve[-250:])
            print(f"step {step}/{args.steps}  loss {recent:.4f}  unseen {validate(model, unseen):.4f}", flush=True)
            save(args, model.encoder, (before, validate(model, unseen)), step, time.time() - began)


def save(args: argparse.Namespace, encoder: nn.Module, losses: tuple[float, float], step: int, seconds: float) -> None:
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in encoder.state_dict().items()}, folder / "model.safetensors"
    )
    config = {"model": MODEL, "patch_size": PATCH, "image_size": SIZE, "options": OPTIONS}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    provenance = {
        "data": f"built-in scenes, split 'pretrain', seed {args.data_seed}, {args.scenes} of 64 px, bands B04 B03 B02",
        "input": "reflectance 0 to 0.3 mapped to [-1, 1]",
        "command": "python tools/pretrain_vit.py",
        "method": f"masked autoencoding, {SEEN:.0%} of the patches seen, patches standardised",
        "seed": args.seed,
        "steps": step,
        "batch_size": args.batch_size,
        "learning_rate": args.lr,
        "validation_loss": {"before": round(losses[0], 4), "after": round(losses[1], 4)},
        "minutes": round(seconds / 60, 1),
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__},
        "machine": f"{torch.get_num_threads()} CPU threads, {platform.machine()}",
        "licence": "Apache-2.0",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="small-vit", help="folder to write")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--scenes", type=int, default=6144)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
