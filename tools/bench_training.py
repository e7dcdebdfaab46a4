"""Forty epochs of head training: from a store (extraction included) against the live encoder in the published way.

One randomly initialised SD-2.1-sized UNet and VAE. The published way runs the VAE and ten sequential UNet calls for
every image of every epoch; its epoch is measured on a few batches and multiplied. Ours extracts once to a store on disk
and trains from it; extraction and epochs are measured on the same images. Both train the same head (gw, 21 taps) with a
linear decoder for classification, in float32 unless --autocast is given.

    python tools/bench_training.py --batch 4 --projection 384 256 128
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_extract import TIMESTEPS, clock, matmul_rate, published
from torch.utils.flop_counter import FlopCounterMode

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Labels
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.data.inputs import ImageInput
from satdifuser.decoders import LinearDecoder
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import stable_diffusion
from satdifuser.diffusion.taps import as_map
from satdifuser.engine.memory import keep_memory
from satdifuser.fusion import GlobalWeighted
from satdifuser.model import FeatureModel
from satdifuser.store import BackgroundWriter, FeatureStore, Form, StorePlan, StoreWriter
from satdifuser.tasks import Classification

EPOCHS = 40
LABELS = Labels(tuple("abcdefghij"), ("#000000",) * 10)


def model_of(spec: BankSpec, projection: int, device: torch.device) -> tuple[FeatureModel, torch.optim.Optimizer]:
    fusion = GlobalWeighted(spec, projection)
    task = Classification(LABELS)
    model = FeatureModel(None, fusion, LinearDecoder(fusion.pyramid, task.outputs, dense=False), task).to(device)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def step(model: FeatureModel, optimizer: torch.optim.Optimizer, batch: dict[str, Any], autocast: bool) -> None:
    device = next(model.parameters()).device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        output = model(batch)
    model.task.loss_sum(output.logits, batch).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def batches(images: torch.Tensor, size: int) -> Iterator[dict[str, Any]]:
    for first in range(0, len(images), size):
        part = images[first : first + size]
        names = [f"image-{number}" for number in range(first, first + len(part))]
        yield {"id": names, "image": part, "label": torch.arange(first, first + len(part)) % 10}


def timed(device: torch.device, work: Callable[[], None]) -> float:
    began = clock(device)
    work()
    return clock(device) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sd21")
    parser.add_argument("--size", type=int, default=256, help="of the images, in pixels")
    parser.add_argument("--images", type=int, default=16, help="extracted, and in an epoch from the store")
    parser.add_argument("--live", type=int, default=8, help="images that the published way is measured on")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--projection", type=int, nargs="+", default=[384])
    parser.add_argument("--epochs", type=int, default=3, help="from the store that are measured")
    parser.add_argument("--autocast", action="store_true", help="the heads in bfloat16")
    parser.add_argument("--head-batch", type=int, help="from the store (default: as --batch)")
    parser.add_argument("--give-back", action="store_true", help="leave freed memory to the system's ways")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the store is written")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kept = not args.give_back and keep_memory()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    backbone = stable_diffusion("random", architecture=args.architecture)
    prepare = ImageInput(["B04", "B03", "B02"], high=0.3)
    encoder = DiffusionEncoder(
        backbone, prepare=prepare, taps="satdifuser", timesteps=TIMESTEPS, image_size=args.size
    ).to(device)
    plain = replace(backbone, unet=encoder.network.unet, vae=encoder.latents.vae)  # type: ignore[union-attr]
    images = torch.rand(max(args.images, args.live), 13, args.size, args.size).mul_(0.3)
    spec = encoder.spec

    def live(model: FeatureModel, optimizer: torch.optim.Optimizer, count: int) -> None:
        for batch in batches(images[:count], args.batch):
            batch = to_device(batch, device)
            with torch.inference_mode():
                pixels = prepare(batch["image"], batch["id"])
                latents = plain.vae.encode(pixels).latent_dist.mean.float() * 0.18215
                found = published(plain, encoder.network.names, latents, None)
            maps = {tap: as_map(found[str(tap)], encoder.network.sizes[tap.name]).clone() for tap in spec.taps}
            step(model, optimizer, {**batch, "bank": FeatureBank(spec, maps)}, args.autocast)

    def extract(path: Path) -> None:
        names = [f"image-{number}" for number in range(args.images)]
        form = Form("float16")
        plan = StorePlan(spec, form, {"train": names}, LABELS, {"train": {}})
        with torch.inference_mode(), StoreWriter(path, plan) as store, BackgroundWriter(store) as background:
            for batch in batches(images[: args.images], args.batch):
                inputs = to_device(batch, device)
                background.put(encoder(inputs["image"], sample_ids=batch["id"]), batch)

    def stored(path: Path, model: FeatureModel, optimizer: torch.optim.Optimizer) -> None:
        data = FeatureStore(path).split("train")
        for _ in range(args.epochs):
            for batch in loader(data, OrderedBatches(len(data), args.head_batch or args.batch)):
                step(model, optimizer, to_device(batch, device), args.autocast)

    memory = ", memory kept" if kept else ""
    print(f"{args.architecture}, {args.size} px, batch {args.batch}, {device}, torch {torch.__version__}{memory}")
    rate = matmul_rate(torch.float32, device)
    print(f"matmul rate in float32: {rate / 1e12:.3f} TFLOP/s")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-training-") as folder:
        path = Path(folder) / "bench.zarr"
        with torch.inference_mode():
            encoder(images[: args.batch].to(device), sample_ids=[str(n) for n in range(args.batch)])  # warms up
        extraction = timed(device, lambda: extract(path)) / args.images
        print(f"extraction to the store: {extraction:.3f} s an image", flush=True)
        first = model_of(spec, args.projection[0], device)
        published_s = timed(device, lambda: live(*first, args.live)) / args.live
        print(f"published, live, with a head of {args.projection[0]}: {published_s:.3f} s an image", flush=True)
        for projection in args.projection:
            model, optimizer = model_of(spec, projection, device)
            data = FeatureStore(path).split("train")
            batch = to_device(data.batch(range(args.batch)), device)
            with FlopCounterMode(display=False) as counter:
                step(model, optimizer, batch, args.autocast)
            flops = counter.get_total_flops() / args.batch
            stored(path, model, optimizer)  # forty epochs: the first is not what counts
            head = timed(device, lambda path=path, m=model, o=optimizer: stored(path, m, o)) / args.epochs / args.images
            if projection == args.projection[0]:
                only_features = published_s - head
            alone = EPOCHS * (only_features + head)
            ours = extraction + EPOCHS * head
            work = f"{flops / 1e9:.1f} GFLOP, {flops / head / rate:.0%} of the matmul rate"
            print(f"projection {projection}: an epoch from the store {head:.3f} s an image ({work})")
            times = f"published {alone:.0f} s, ours {ours:.1f} s an image: {alone / ours:.1f} times less"
            print(f"    {EPOCHS} epochs: {times}", flush=True)


if __name__ == "__main__":
    started = time.time()
    main()
    print(f"({time.time() - started:.0f} s)")
