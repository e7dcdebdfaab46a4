"""Speed of extraction: ours against the published protocol, on one randomly initialised UNet, in one run.

The published protocol reaches its three timesteps by ten sequential DDIM-inversion calls of the whole UNet, and takes
the latents to the CPU and back (emptying the CUDA cache) at every step; it was released in float16 autocast, with the
VAE in float32. Ours is `DiffusionEncoder` in each mode and precision. Both encode the same images with the same VAE and
read the same 21 taps. Figures are medians over the rounds; ratios are to the first published row of the same table. A
batch that does not fit ends the published row, and larger ones are not tried; ours goes through in parts, and says so.
float32 is without TF32; beside 16 bits the VAE has PyTorch's default, in which a GPU's convolutions use it.

    python tools/bench_extract.py                     # SD-2.1-sized, 256 px
    python tools/bench_extract.py --size 256 512 --batch 8 32 128 --precisions float32 float16 bfloat16 --compile
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from measuring import Results, clock, device_here, exact_float32, idle_share, matmul_rate, peak, reset_peak
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import PRECISIONS, DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, blueprint_of, cast, stable_diffusion
from satdifuser.diffusion.modes import MODES
from satdifuser.diffusion.selection import choose_taps, dry_call
from satdifuser.diffusion.taps import recording

TIMESTEPS = (21, 61, 161)
COMPILED = ", compiled"
COLUMNS = {
    **{"what": "", "precision": "", "batch": "d", "UNet GFLOP/image": ".0f", "UNet images/s": ".3f", "ratio": ".2f"},
    **{"of matmul rate": ".0%", "between kernels": ".0%", "with VAE images/s": ".3f", "with VAE ratio": ".2f"},
    "GiB above the weights": ".1f",
}


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
    idle: float | None = None
    failed: str = ""
    bound: Callable[[], int | None] = lambda: None  # how many inputs go through at once, where not all fit

    def run(self, device: torch.device) -> None:
        before = reset_peak(device)
        start = clock(device)
        latents = self.to_latents()
        middle = clock(device)
        self.to_features(latents)
        self.seconds.append((middle - start, clock(device) - middle))
        self.peak = max(self.peak, peak(device) - before)

    def watch(self, device: torch.device) -> None:
        """Where the time goes on a GPU, in a run of its own, which the profiler slows down."""
        try:
            latents = self.to_latents()
            self.idle = idle_share(device, lambda: self.to_features(latents))
        except Exception as error:  # not every machine lets its counters be read: the speeds are there all the same
            print(f"{self.name}: no profile ({type(error).__name__}: {' '.join(str(error).split())[:120]})")

    def attempt(self, device: torch.device, work: Callable[[torch.device], None]) -> None:
        """Do it unless it failed before; what fails is said in its row, and the others go on."""
        if self.failed:
            return
        try:
            work(device)
        except torch.OutOfMemoryError:
            self.failed = "out of memory"
        except Exception as error:  # a compiler's, say: it is this row's result
            self.failed = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        if self.failed:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def random_backbone(architecture: str, device: torch.device) -> Backbone:
    """A text-to-image model whose weights are drawn where they are used: on a CPU that would take half a minute."""
    found = stable_diffusion("nowhere", architecture=architecture, blueprint=True)
    torch.manual_seed(0)
    for model in (found.unet, found.vae):
        model.to_empty(device=device).requires_grad_(False)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # as deviant as torch's own layers make them
                parameter.normal_(0.0, (3 * parameter[0].numel()) ** -0.5)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return replace(found, fingerprint="random", blueprint=False)


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


class Bench:
    """The variants for one size of images, on one set of weights."""

    def __init__(self, args: argparse.Namespace, backbone: Backbone, size: int, device: torch.device) -> None:
        self.args, self.size, self.device = args, size, device
        shapes = stable_diffusion("nowhere", architecture=args.architecture, blueprint=True)
        self.names = [tap.name for tap in choose_taps(shapes, "satdifuser", size)]
        self.call = flops(shapes, size, None)
        share = flops(shapes, size, self.names[-1]) / self.call
        self.calls = {"noise": 3 * share, "inversion": 9 + share, "generation": 7 + share}
        self.prepare = ImageInput(["B04", "B03", "B02"], high=0.3)
        self.plain = backbone

    def variants(self, precision: str, batch: int) -> Iterator[Variant]:
        """The published protocol and ours; the latter's weights are let go once all of them are done with."""
        images = torch.rand(batch, 13, self.size, self.size).mul_(0.3).to(self.device)
        ids = [f"image-{i}" for i in range(batch)]
        autocast = None if precision == "float32" else PRECISIONS[precision]

        def encode() -> Tensor:
            return self.plain.vae.encode(self.prepare(images, ids)).latent_dist.mean.float() * 0.18215

        word = "published" if autocast is None else "published, autocast"
        yield Variant(
            word, precision, 10.0, encode, lambda latents: published(self.plain, self.names, latents, autocast)
        )
        unet = cast(self.plain.unet, PRECISIONS[precision])
        own = replace(self.plain, unet=copy.deepcopy(unet) if unet is self.plain.unet else unet)
        for mode in self.args.modes:
            encoder = self.encoder(own, mode, precision)
            yield Variant(
                f"ours, {mode}", precision, self.calls[mode], *ours(encoder, images, ids, mode), bound=bound_of(encoder)
            )
        if self.args.compile:
            mode, apart = self.args.modes[0], replace(own, unet=copy.deepcopy(own.unet))  # its taps stay set
            encoder = self.encoder(apart, mode, precision, compile=True)
            work = ours(encoder, images, ids, mode)
            yield Variant(f"ours, {mode}{COMPILED}", precision, self.calls[mode], *work, bound=bound_of(encoder))

    def encoder(self, backbone: Backbone, mode: str, precision: str, compile: bool = False) -> DiffusionEncoder:
        return DiffusionEncoder(
            backbone,
            prepare=self.prepare,
            taps="satdifuser",
            timesteps=TIMESTEPS,
            image_size=self.size,
            mode=mode,
            precision=precision,
            channels_last=self.args.channels_last,
            compile=compile,
            attention=self.args.attention,
        ).to(self.device)


def bound_of(encoder: DiffusionEncoder) -> Callable[[], int | None]:
    return lambda: encoder.network.memory.limit


def measure(bench: Bench, precision: str, batch: int, skipped: set[str]) -> Iterator[Variant]:
    """Variants with their times: on a CPU in turns, since it is noisy; on a GPU one after the other.

    There each begins with memory of its own, which the published way has emptied, and is given as soon as it is done.
    """
    torch._dynamo.reset()  # else graphs of other batches and precisions count against its limit
    torch.backends.cudnn.allow_tf32 = precision != "float32"  # of the VAE in float32; PyTorch's default, as released
    found = (variant for variant in bench.variants(precision, batch) if variant.name not in skipped)
    if bench.device.type == "cuda":
        for variant in found:
            times(bench, [variant])
            yield variant
        return
    group = list(found)
    times(bench, group)
    yield from group


def times(bench: Bench, group: list[Variant]) -> None:
    """Rounds in which the variants take turns, after one that warms up (two that compile) and finds what fits."""
    for variant in group:
        for _ in range(2 if variant.name.endswith(COMPILED) else 1):
            variant.attempt(bench.device, variant.run)
        variant.seconds.clear()
    for _ in range(bench.args.rounds):
        for variant in group:
            variant.attempt(bench.device, variant.run)
    for variant in group:
        if not variant.failed:
            variant.watch(bench.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sd21", help="sd21, sd15, tiny (random weights)")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="of the images, in pixels")
    parser.add_argument("--batch", type=int, nargs="+", help="images at once, rising (2 on a CPU, 32 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=list(PRECISIONS))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true", help="the first of the modes compiled, too")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--json", type=Path, help="where the tables are kept")
    args = parser.parse_args()
    device = device_here()
    batches = args.batch or [32 if device.type == "cuda" else 2]
    exact_float32()
    results = Results(args.json, what=f"{args.architecture} with random weights")
    rates = {word: matmul_rate(PRECISIONS[word], device) for word in args.precisions}
    for word, rate in rates.items():
        print(f"matmul rate in {word}: {rate / 1e12:.3f} TFLOP/s")
    results.about["matmul TFLOP/s"] = {word: round(rate / 1e12, 3) for word, rate in rates.items()}
    slow = [word for word in rates if word != "float32" and rates[word] < 0.5 * rates.get("float32", 0.0)]
    for word in slow:
        print(f"{word} is left out: this processor has no fast kernels for it")
    with torch.inference_mode():
        backbone = random_backbone(args.architecture, device)
        for size in args.size:
            bench = Bench(args, backbone, size, device)
            report(bench, results, {word: rate for word, rate in rates.items() if word not in slow}, batches)


def report(bench: Bench, results: Results, rates: dict[str, float], batches: list[int]) -> None:
    work = (
        f"one UNet call {bench.call / 1e9:.0f} GFLOP an image, the VAE {vae_flops(bench.plain, bench.size) / 1e9:.0f}"
    )
    add = results.table(f"{bench.args.architecture}, {bench.size} px: {work}", COLUMNS)
    base: tuple[float, float] | None = None
    skipped: dict[str, set[str]] = {word: set() for word in rates}
    for batch in batches:
        for precision in rates:
            for variant in measure(bench, precision, batch, skipped[precision]):
                work_each = variant.calls * bench.call
                if variant.failed:
                    skipped[precision].add(variant.name)
                    words = f"{variant.name}: {variant.failed}"
                    add(words, precision, batch, work_each / 1e9, *[None] * (len(COLUMNS) - 4))
                    continue
                unet = statistics.median(seconds for _, seconds in variant.seconds) / batch
                whole = statistics.median(sum(pair) for pair in variant.seconds) / batch
                if base is None and variant.name.startswith("published"):
                    base = (unet, whole)
                ratios = (None, None) if base is None else (base[0] / unet, base[1] / whole)
                reached = work_each / unet / rates[precision]
                speeds = (1 / unet, ratios[0], reached, variant.idle, 1 / whole, ratios[1], variant.peak)
                limit = variant.bound()
                add(
                    f"{variant.name}{f', {limit} inputs at once' if limit else ''}",
                    *(precision, batch, work_each / 1e9),
                    *speeds,
                )
            variant = None  # its encoder is let go; there may have been none
            gc.collect()


if __name__ == "__main__":
    main()
