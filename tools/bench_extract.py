"""Speed of extraction: ours against the published protocol, on one randomly initialised UNet, in one run.

The published protocol reaches its three timesteps by ten sequential DDIM-inversion calls of the whole UNet, and takes
the latents to the CPU and back (emptying the CUDA cache) at every step. Ours is `DiffusionEncoder` in each mode and
precision. Both encode the same images with the same VAE and read the same 21 taps. Figures are medians over the rounds,
in which the variants take turns.

    python tools/bench_extract.py                     # SD-2.1-sized, 256 px
    python tools/bench_extract.py --batch 16 --rounds 5
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import PRECISIONS, DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, blueprint_of, stable_diffusion
from satdifuser.diffusion.modes import MODES
from satdifuser.diffusion.selection import choose_taps, dry_call
from satdifuser.diffusion.taps import recording

TIMESTEPS = (21, 61, 161)


@dataclass
class Variant:
    """Something to time: images to latents, then latents to features."""

    name: str
    precision: str
    calls: float  # UNet calls for each image, early stops counted as their share
    to_latents: Callable[[], Tensor]
    to_features: Callable[[Tensor], Any]
    seconds: list[tuple[float, float]] = field(default_factory=list)
    peak: float = 0.0

    def run(self, device: torch.device) -> None:
        before = reset_peak(device)
        start = clock(device)
        latents = self.to_latents()
        middle = clock(device)
        self.to_features(latents)
        self.seconds.append((middle - start, clock(device) - middle))
        self.peak = max(self.peak, peak(device) - before)


def published(backbone: Backbone, names: list[str], latents: Tensor, autocast: torch.dtype | None) -> dict[str, Tensor]:
    """Ten sequential calls of the whole UNet, as the published extractor makes them."""
    kept = backbone.scheduler.alphas_cumprod.double()
    prompt = backbone.prompt.to(latents.device).expand(len(latents), -1, -1)
    path, found, device = [0, *range(1, TIMESTEPS[-1] + 1, 20)], {}, latents.device
    for level, target in zip(path, [*path[1:], path[-1] + 20], strict=True):
        at = torch.full((len(latents),), level, device=device)
        with (
            torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None),
            recording(backbone.unet, names) as read,
        ):
            noise = backbone.unet(latents, at, encoder_hidden_states=prompt).sample.float()
        if level in TIMESTEPS:
            found |= {f"{name}@{level}": value.float() for name, value in read.items()}
        clean = (latents - (1 - kept[level]).sqrt().item() * noise) / kept[level].sqrt().item()
        latents = kept[target].sqrt().item() * clean + (1 - kept[target]).sqrt().item() * noise
        latents = latents.cpu().to(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def ours(encoder: DiffusionEncoder, images: Tensor, ids: list[str], mode: str) -> tuple[Any, Any]:
    def to_latents() -> Tensor:
        return encoder.latents(encoder.prepare(images, ids), ids)  # type: ignore[misc]

    def to_features(latents: Tensor) -> Any:
        return list(MODES[mode](encoder.network, latents, ids, encoder.levels, None))

    return to_latents, to_features


def flops(backbone: Backbone, size: int, last: str | None) -> float:
    """Of one UNet call for one image, up to its last tap."""
    network = blueprint_of(backbone.unet)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        with recording(network, [last] if last else [], last=last):
            dry_call(backbone, network, size)()
        return float(counter.get_total_flops())


def vae_flops(backbone: Backbone, size: int) -> float:
    network = blueprint_of(backbone.vae)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encode(torch.zeros(1, 3, size, size, device="meta"))
        return float(counter.get_total_flops())


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product, large enough to take a quarter of a second or 8192."""
    side, best = 512, 0.0
    while True:
        a = torch.randn(side, side, device=device).to(dtype)
        a @ a
        start = clock(device)
        for _ in range(3):
            a @ a
        seconds = (clock(device) - start) / 3
        best = max(best, 2 * side**3 / seconds)
        if seconds > 0.25 or side >= 8192:
            return best
        side *= 2


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: torch.device) -> float:
    """Begin to watch memory; what is taken now, in GiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30
    Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sd21", help="sd21, sd15 (random weights)")
    parser.add_argument("--size", type=int, default=256, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, help="images at once (2 on a CPU, 32 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=list(PRECISIONS))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--attention", default="sdpa")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = args.batch or (32 if device.type == "cuda" else 2)
    torch.set_float32_matmul_precision("highest")  # float32 means float32
    torch.backends.cudnn.allow_tf32 = False
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{args.architecture} with random weights, {args.size} px, batch {batch}, {hardware}, torch {torch.__version__}"
    )
    rates = {word: matmul_rate(PRECISIONS[word], device) for word in args.precisions}
    for word, rate in rates.items():
        print(f"matmul rate in {word}: {rate / 1e12:.3f} TFLOP/s")
    slow = [word for word in rates if word != "float32" and rates[word] < 0.5 * rates.get("float32", 0.0)]
    for word in slow:
        print(f"{word} is left out: this processor has no fast kernels for it")
    with torch.inference_mode():
        variants = measure(args, device, batch, [word for word in args.precisions if word not in slow])
    report(args, variants, rates, batch)


def measure(args: argparse.Namespace, device: torch.device, batch: int, precisions: list[str]) -> list[Variant]:
    shapes = stable_diffusion("nowhere", architecture=args.architecture, blueprint=True)
    names = [tap.name for tap in choose_taps(shapes, "satdifuser", args.size)]
    share = flops(shapes, args.size, names[-1]) / flops(shapes, args.size, None)
    calls = {"noise": 3 * share, "inversion": 9 + share, "generation": 7 + share}
    prepare = ImageInput(["B04", "B03", "B02"], high=0.3)
    images = torch.rand(batch, 13, args.size, args.size).mul_(0.3).to(device)
    ids = [f"image-{i}" for i in range(batch)]
    backbone = stable_diffusion("random", architecture=args.architecture)
    assert backbone.prompt is not None
    plain = replace(backbone, unet=backbone.unet.to(device), vae=backbone.vae.to(device))
    variants: list[Variant] = []
    for precision in precisions:
        autocast = None if precision == "float32" else PRECISIONS[precision]
        cast = replace(backbone, unet=copy.deepcopy(plain.unet), vae=copy.deepcopy(plain.vae))  # encoders cast in place

        def encode(autocast: torch.dtype | None = autocast) -> Tensor:
            pixels = prepare(images, ids)
            with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                return plain.vae.encode(pixels).latent_dist.mean.float() * 0.18215

        def read(latents: Tensor, autocast: torch.dtype | None = autocast) -> Any:
            return published(plain, names, latents, autocast)

        word = "published" if autocast is None else "published, autocast"
        group = [Variant(word, precision, 10.0, encode, read)]
        for mode in args.modes:
            encoder = DiffusionEncoder(
                cast,
                prepare=prepare,
                taps="satdifuser",
                timesteps=TIMESTEPS,
                image_size=args.size,
                mode=mode,
                precision=precision,
                channels_last=args.channels_last,
                compile=args.compile,
                attention=args.attention,
            ).to(device)
            group.append(Variant(f"ours, {mode}", precision, calls[mode], *ours(encoder, images, ids, mode)))
        for number in range(args.rounds + 1):
            for variant in group:
                variant.run(device)
                if number == 0:  # the first round warms up, and finds what fits
                    variant.seconds.clear()
                print(".", end="", flush=True)
        print()
        variants += group
        del cast, group
    return variants


def report(args: argparse.Namespace, variants: list[Variant], rates: dict[str, float], batch: int) -> None:
    shapes = stable_diffusion("nowhere", architecture=args.architecture, blueprint=True)
    call, vae = flops(shapes, args.size, None), vae_flops(shapes, args.size)
    print(f"one UNet call: {call / 1e9:.0f} GFLOP an image; the VAE: {vae / 1e9:.0f} GFLOP an image\n")
    print("| what | precision | UNet GFLOP/image | UNet images/s | ratio | of matmul rate |", end=" ")
    print("with VAE images/s | ratio | GiB above the weights |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    base: dict[str, tuple[float, float]] = {}
    for variant in variants:
        unet = statistics.median(seconds for _, seconds in variant.seconds) / batch
        whole = statistics.median(sum(pair) for pair in variant.seconds) / batch
        first = base.setdefault(variant.precision, (unet, whole))
        reached = variant.calls * call / unet / rates[variant.precision]
        print(
            f"| {variant.name} | {variant.precision} | {variant.calls * call / 1e9:.0f} | {1 / unet:.3f} |"
            f" {first[0] / unet:.2f} | {reached:.0%} | {1 / whole:.3f} | {first[1] / whole:.2f} | {variant.peak:.1f} |"
        )
    single = base.get("float32")
    for variant in variants:
        if single and variant.precision != "float32" and variant.name.startswith("ours"):
            unet = statistics.median(seconds for _, seconds in variant.seconds) / batch
            print(f"\n{variant.name} in {variant.precision}: {single[0] / unet:.2f} times the published in float32")


if __name__ == "__main__":
    main()
