"""CKA of all pairs of maps: one Gram matrix for each map and one product for all pairs, against pair after pair.

Times batches of 36 maps (as many as four timesteps of a Stable Diffusion UNet with nine taps have) against 60 (a ViT of
twelve blocks with five modules each). "pair after pair" makes both Gram matrices of a pair anew, as a function of two
maps does; "kept Gram matrices" makes each once and takes the inner products one by one. The share is that of a square
product's float64 rate, with every Gram matrix counted whole: on a CPU half of them is left out, so that it may be over
100 %. The second table runs more and more batches, and says the most memory that the process had meanwhile.

    python tools/bench_cka.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from measuring import Results, clock, device_here, matmul_rate, peak, reset_peak
from torch import Tensor

from satdifuser.analysis.cka import MinibatchCKA, grams

Side = list[Tensor]


def side(channels: list[int], samples: int, device: torch.device) -> Side:
    return [torch.randn(samples, count, device=device) for count in channels]


def together(first: Side, second: Side) -> Tensor:
    counter = MinibatchCKA(len(first), len(second))
    counter.add(first, second)
    return torch.from_numpy(counter.value)


def alone(first: Side, second: Side) -> Tensor:
    return torch.tensor([[ratio(*grams([a]), *grams([b])) for b in second] for a in first])


def kept(first: Side, second: Side) -> Tensor:
    rows, columns = grams(first), grams(second)
    return torch.tensor([[ratio(a, b) for b in columns] for a in rows])


def ratio(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a * a).sum().sqrt() / (b * b).sum().sqrt())


def batches(first: list[int], second: list[int], args: argparse.Namespace, count: int) -> Iterator[tuple[Side, Side]]:
    device = device_here()
    for _ in range(count):
        yield side(first, args.batch, device), side(second, args.batch, device)


def speed(first: list[int], second: list[int], args: argparse.Namespace, results: Results) -> None:
    device = device_here()
    ways = {"all at once": together, "kept Gram matrices": kept, "pair after pair": alone}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for a, b in batches(first, second, args, args.rounds):
        found = []
        for name, way in ways.items():
            began = clock(device)
            found.append(way(a, b))
            took[name].append(clock(device) - began)
        apart = max(float((each - found[0]).abs().max()) for each in found)
        if not apart < 1e-6:
            raise SystemExit(f"the ways differ by {apart}")
    columns = {"way": "", "seconds a batch": ".3f", "times as long": ".1f", "of a product's own rate": ".0%"}
    add = results.table(f"{len(first)} x {len(second)} maps, batches of {args.batch}", columns)
    rate = matmul_rate(torch.float64, device)
    work = 2 * args.batch**2 * (sum(first) + sum(second))  # of the Gram matrices
    work += len(first) * len(second) * args.batch**2
    best = statistics.median(took["all at once"])
    for name, seconds in took.items():
        middle = statistics.median(seconds)
        add(name, middle, middle / best, work / middle / rate if name == "all at once" else None)


def memory(first: list[int], second: list[int], args: argparse.Namespace, results: Results) -> None:
    device = device_here()
    add = results.table("memory", {"batches": "d", "samples": "d", "MiB": ".0f"})
    for count in args.batches:
        counter = MinibatchCKA(len(first), len(second))
        reset_peak(device)
        for a, b in batches(first, second, args, count):
            counter.add(a, b)
        _ = counter.error
        add(count, counter.samples, 1024 * peak(device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 16, 128], help="of the table of memory")
    parser.add_argument("--threads", type=int, help="of the processor; all, if it is left out")
    parser.add_argument("--json", type=Path, help="where the tables are kept")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    first = [width for width in (1280, 1280, 1280, 640, 640, 640, 320, 320, 320) for _ in range(4)]
    second = [width for width in (2304, 768, 3072, 768, 768) for _ in range(12)]
    results = Results(args.json)
    together(*next(batches(first, second, args, 1)))  # what is slow the first time
    speed(first, second, args, results)
    memory(first, second, args, results)


if __name__ == "__main__":
    main()
