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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bench_extract import TIMESTEPS, published, random_backbone
from measuring import Results, device_here, exact_float32, matmul_rate, timed
from torch.utils.flop_counter import FlopCounterMode

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Labels
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.data.inputs import ImageInput
from satdifuser.decoders import LinearDecoder
from satdifuser.diffusion.encoder import PRECISIONS, DiffusionEncoder
from satdifuser.diffusion.taps import as_map
from satdifuser.engine.memory import keep_memory
from satdifuser.fusion import GlobalWeighted
from satdifuser.model import FeatureModel
from satdifuser.store import BackgroundWriter, FeatureStore, Form, StorePlan, StoreWriter
from satdifuser.tasks import Classification

EPOCHS = 40
COLUMNS = {
    **{"width of the head": "d", "an epoch from the store (ms/image)": ".2f", "GFLOP/image": ".1f"},
    **{
        "of matmul rate": ".0%",
        f"{EPOCHS} epochs, published (s/image)": ".2f",
        f"{EPOCHS} epochs, ours (s/image)": ".2f",
    },
    "published / ours": ".1f",
}
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
    parser.add_argument("--precision", default="float32", help="of the encoder and of the published autocast")
    parser.add_argument("--json", type=Path, help="where the tables are kept")
    args = parser.parse_args()
    device = device_here()
    kept = not args.give_back and keep_memory()
    if args.precision == "float32":
        exact_float32()
    with torch.no_grad():
        backbone = random_backbone(args.architecture, device)
    prepare = ImageInput(["B04", "B03", "B02"], high=0.3)
    encoder = DiffusionEncoder(
        backbone,
        prepare=prepare,
        taps="satdifuser",
        timesteps=TIMESTEPS,
        image_size=args.size,
        precision=args.precision,
        output_precision="float32",
    ).to(device)
    autocast = None if args.precision == "float32" else PRECISIONS[args.precision]
    images = torch.rand(max(args.images, args.live), 13, args.size, args.size).mul_(0.3)
    spec = encoder.spec

    def live(model: FeatureModel, optimizer: torch.optim.Optimizer, count: int) -> None:
        for batch in batches(images[:count], args.batch):
            batch = to_device(batch, device)
            with torch.inference_mode():
                pixels = prepare(batch["image"], batch["id"])
                latents = backbone.vae.encode(pixels).latent_dist.mean.float() * 0.18215
                found = published(backbone, encoder.network.names, latents, autocast)
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

    about = {"encoder": args.precision, "heads": "bfloat16 autocast" if args.autocast else "float32"}
    results = Results(args.json, what=f"{args.architecture} with random weights", **about, memory_kept=kept)
    rate = matmul_rate(torch.bfloat16 if args.autocast else torch.float32, device)
    print(f"matmul rate for the heads: {rate / 1e12:.3f} TFLOP/s")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-training-") as folder:
        path = Path(folder) / "bench.zarr"
        with torch.inference_mode():
            encoder(images[: args.batch].to(device), sample_ids=[str(n) for n in range(args.batch)])  # warms up
        extraction = timed(device, lambda: extract(path)) / args.images
        print(f"extraction to the store: {extraction:.3f} s an image", flush=True)
        first = model_of(spec, args.projection[0], device)
        live(*first, min(args.batch, args.live))  # warms up
        published_s = timed(device, lambda: live(*first, args.live)) / args.live
        title = (
            f"gw and a linear decoder, {args.size} px, batch {args.head_batch or args.batch}: extraction takes"
            f" {extraction * 1e3:.2f} ms an image, a published live step {published_s * 1e3:.2f}"
        )
        add = results.table(title, COLUMNS)
        for projection in args.projection:
            model, optimizer = model_of(spec, projection, device)
            data = FeatureStore(path).split("train")
            batch = to_device(data.batch(range(min(args.batch, args.images))), device)
            with FlopCounterMode(display=False) as counter:
                step(model, optimizer, batch, args.autocast)
            flops = counter.get_total_flops() / len(batch["id"])
            stored(path, model, optimizer)  # forty epochs: the first is not what counts
            head = timed(device, lambda path=path, m=model, o=optimizer: stored(path, m, o)) / args.epochs / args.images
            if projection == args.projection[0]:
                only_features = published_s - head
            alone, ours = EPOCHS * (only_features + head), extraction + EPOCHS * head
            add(projection, head * 1e3, flops / 1e9, flops / head / rate, alone, ours, alone / ours)


if __name__ == "__main__":
    main()
