"""What augmentation takes: CPU seconds for a batch as a share of a ResNet-18 forward pass on it, with one thread.

python tools/bench_augment.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from satdifuser.augment import RandomAugmentation
from satdifuser.config import compose
from satdifuser.data.bands import SENTINEL2_RGB


def seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    from torchvision.models import resnet18

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count, size = arguments.batch, arguments.size
    batch = {
        "id": [f"tile-{number}" for number in range(count)],
        "image": 0.01 + 0.3 * torch.rand(count, 3, size, size),
        "mask": torch.randint(5, (count, size, size)),
    }
    net = resnet18().eval()
    augments = {"flips and turns": RandomAugmentation(horizontal=0.5, vertical=0.5, turn=0.75)}
    for name in ("segmentation", "classification", "satdifuser"):
        part = compose("train", [f"augmentation={name}"]).augmentation
        augments[name] = part.build(sensor=SENTINEL2_RGB)
    shares: dict[str, list[float]] = {name: [] for name in augments}
    with torch.no_grad():
        net(batch["image"][:2])
        for step in range(arguments.rounds):
            whole = seconds(lambda: net(batch["image"]))
            for name, augment in augments.items():
                took = seconds(lambda augment=augment, step=step: augment(batch, step))  # type: ignore[misc]
                shares[name].append(took / whole)
    for name, found in shares.items():
        print(f"{name:<16} {statistics.median(found):.3f} of a ResNet-18 forward pass")


if __name__ == "__main__":
    main()
