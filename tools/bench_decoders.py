"""Decoders beside UPerNet: parameters, and the time of a training step (forward and backward), on the same pyramids.

The decoders take turns, round after round, so that a slow minute of the machine falls on all of them; a time is the
median of the rounds, and its ratio that to UPerNet's. On a CPU it is the time that the process had of it. Each has its
own defaults, for segmentation (UPerNet gives nothing else). What is on top of a pyramid's maps is the decoder, the neck
of one stride with it; fusion is left out.

    python tools/bench_decoders.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from measuring import Results, clock, device_here

from satdifuser.decoders import (
    ConvDecoder,
    Decoder,
    DPTDecoder,
    FPNDecoder,
    LightDecoder,
    LinearDecoder,
    SingleLevel,
    UNetDecoder,
    UPerNet,
)
from satdifuser.engine.memory import keep_memory
from satdifuser.fusion import PyramidSpec

DECODERS: dict[str, type[Decoder]] = {
    "upernet": UPerNet,
    "unet": UNetDecoder,
    "dpt": DPTDecoder,
    "fpn": FPNDecoder,
    "conv": ConvDecoder,
    "light": LightDecoder,
    "single": SingleLevel,
    "linear": LinearDecoder,
}
PYRAMIDS = {
    "one map of a ViT (stride 16)": (16,),
    "levels of a ViT (strides 4, 8, 16, 32)": (4, 8, 16, 32),
    "scales of a latent diffusion UNet (strides 8, 16, 32, 64)": (8, 16, 32, 64),
}
COLUMNS = {
    **{"decoder": "", "parameters": ",d", "fewer than upernet": ".1%", "step (ms/image)": ".1f"},
    **{"time": ".3f"},
}


def step(decoder: Decoder, maps: dict[int, torch.Tensor], truth: torch.Tensor, device: torch.device) -> float:
    began = now(device)
    logits = decoder(maps, (truth.shape[-2], truth.shape[-1]))
    torch.nn.functional.cross_entropy(logits, truth).backward()
    decoder.zero_grad(set_to_none=True)
    return now(device) - began


def now(device: torch.device) -> float:
    return clock(device) if device.type == "cuda" else time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, nargs="+", default=[224, 224, 256], help="of the image, for each pyramid")
    parser.add_argument("--width", type=int, default=384, help="channels of each map, as fusion.projection_dim")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    device = device_here()
    results = Results(
        args.json, width=f"{args.width} channels", batch=f"batch {args.batch}", rounds=f"{args.rounds} rounds"
    )
    for (title, strides), side in zip(PYRAMIDS.items(), args.side, strict=True):
        pyramid = PyramidSpec(strides, args.width, (side, side))
        torch.manual_seed(0)
        maps = {s: torch.randn(args.batch, args.width, side // s, side // s, device=device) for s in strides}
        maps = {s: value.requires_grad_() for s, value in maps.items()}
        truth = torch.randint(args.classes, (args.batch, side, side), device=device)
        made = {name: kind(pyramid, args.classes, True).to(device) for name, kind in DECODERS.items()}
        took: dict[str, list[float]] = {name: [] for name in made}
        for number in range(args.rounds + 1):
            for name, decoder in made.items():
                seconds = step(decoder, maps, truth, device)
                if number:  # the first warms up
                    took[name].append(seconds)
        add = results.table(f"{title}, {side} px", COLUMNS)
        counts = {name: sum(p.numel() for p in decoder.parameters()) for name, decoder in made.items()}
        times = {name: statistics.median(rounds) for name, rounds in took.items()}
        for name, count in counts.items():
            fewer = None if name == "upernet" else 1 - count / counts["upernet"]
            add(name, count, fewer, 1000 * times[name] / args.batch, times[name] / times["upernet"])


if __name__ == "__main__":
    main()
