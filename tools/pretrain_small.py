"""Train the small diffusion UNet that the package ships, on the built-in scenes' RGB. Anyone can rerun it:

    python tools/pretrain_small.py --output my-weights

About half an hour on two CPU cores. The result is a folder in diffusers' own layout (EMA weights in 16 bits), with
provenance.json beside it: seed, data, recipe, versions, and the denoising loss at each noise level on unseen scenes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel, compute_snr

from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.data.synthetic import SyntheticScenes

LEVELS = (21, 61, 161, 301, 501, 801)


def build() -> tuple[UNet2DModel, DDPMScheduler]:
    """Four scales, most of the parameters where maps are small; Stable Diffusion's noise schedule with v-prediction."""
    unet = UNet2DModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 96, 144),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=16,
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    return unet, scheduler


def load_images(split: str, length: int, seed: int) -> torch.Tensor:
    """RGB of the split in [-1, 1], in 16 bits: the renderer runs once, the training loop reads memory."""
    scenes = SyntheticScenes(split=split, length=length, seed=seed)
    prepare = ImageInput(RGB)
    return torch.cat([prepare(scenes[i]["image"][None]).half() for i in range(length)])


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the eight symmetries of the square for the whole batch."""
    turn, mirror = torch.randint(4, (1,), generator=generator), torch.randint(2, (1,), generator=generator)
    images = torch.rot90(images, int(turn), (2, 3))
    return images.flip(3) if mirror else images


def losses(
    unet: UNet2DModel, scheduler: DDPMScheduler, images: torch.Tensor, steps: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Squared error of the predicted v, one number for each image."""
    noisy = scheduler.add_noise(images, noise, steps)
    target = scheduler.get_velocity(images, noise, steps)
    return (unet(noisy, steps).sample - target).square().mean((1, 2, 3))


@torch.no_grad()
def loss_by_level(unet: UNet2DModel, scheduler: DDPMScheduler, images: torch.Tensor) -> dict[str, float]:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for level in LEVELS:
        steps = torch.full((len(images),), level)
        found[str(level)] = round(float(losses(unet, scheduler, images, steps, noise).mean()), 5)
    return found


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    started = time.time()
    unet, scheduler = build()
    images = load_images("pretrain", args.scenes, args.data_seed)
    unseen = load_images("val", 64, args.data_seed).float()
    print(
        f"{unet.num_parameters() / 1e6:.2f} M parameters, {len(images)} scenes, {time.time() - started:.0f} s to render"
    )
    optimizer = torch.optim.AdamW(unet.parameters(), lr=args.lr, weight_decay=1e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, args.steps // 20, args.steps)
    ema = EMAModel(unet.parameters(), decay=0.998, use_ema_warmup=True, power=0.75)
    started, curve = time.time(), []
    for step in range(1, args.steps + 1):
        chosen = torch.randint(len(images), (args.batch_size,), generator=generator)
        batch = flip(images[chosen].float(), generator)
        steps = torch.randint(1000, (args.batch_size,), generator=generator)
        noise = torch.randn(batch.shape, generator=generator)
        snr = compute_snr(scheduler, steps)
        weight = snr.clamp(max=5.0) / (snr + 1.0)  # min-SNR-5 for v-prediction
        loss = (losses(unet, scheduler, batch, steps, noise) * weight).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(unet.parameters())
        curve.append(float(loss.detach()))
        if step % 100 == 0 or step == args.steps:
            recent = sum(curve[-100:]) / len(curve[-100:])
            print(f"step {step}/{args.steps}  loss {recent:.4f}  {time.time() - started:.0f} s", flush=True)
        if step % 500 == 0 or step == args.steps:
            ema.store(unet.parameters())
            ema.copy_to(unet.parameters())
            save(args, unet, scheduler, loss_by_level(unet, scheduler, unseen), step, time.time() - started)
            ema.restore(unet.parameters())


def save(
    args: argparse.Namespace,
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    by_level: dict[str, float],
    step: int,
    seconds: float,
) -> None:
    config = dict(unet.config)
    half = UNet2DModel.from_config(config)
    half.load_state_dict(unet.state_dict())
    pipeline = DDPMPipeline(unet=half.half(), scheduler=scheduler)
    pipeline.save_pretrained(args.output, safe_serialization=True)
    provenance = {
        "data": f"built-in scenes, split 'pretrain', seed {args.data_seed}, {args.scenes} of 64 px, bands B04 B03 B02",
        "input": "reflectance 0 to 0.3 mapped to [-1, 1]",
        "command": "python tools/pretrain_small.py",
        "seed": args.seed,
        "steps": step,
        "batch_size": args.batch_size,
        "learning_rate": args.lr,
        "ema": 0.998,
        "weighting": "min-SNR-5, v-prediction",
        "validation_loss_by_timestep": by_level,
        "minutes": round(seconds / 60, 1),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__, "numpy": np.__version__},
        "machine": f"{torch.get_num_threads()} CPU threads, {platform.machine()}",
        "licence": "Apache-2.0",
    }
    (Path(args.output) / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    print(f"wrote {args.output}; validation loss by timestep {by_level}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="small-diffusion", help="folder to write (diffusers' layout)")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--scenes", type=int, default=6144)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
