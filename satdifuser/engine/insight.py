"""What a fusion head did on a split, beyond its mean weights: how experts were used, which pixel listened to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satdifuser.engine.checkpoint import sealed
from satdifuser.engine.files import DamagedError, aside
from satdifuser.engine.predictions import gathered
from satdifuser.fusion.base import Fused

SHOWN = 4  # samples whose maps of weights are kept

ByStride = dict[int, Tensor]


class InsightLog:
    """Collects the batches of one process, and joins those of all."""

    def __init__(self) -> None:
        self._usage: list[tuple[int, ByStride]] = []
        self._pixels: list[tuple[int, ByStride]] = []

    def add(self, indices: Sequence[int], fused: Fused) -> None:
        usage = {stride: value.float().cpu() for stride, value in fused.details.get("gate_usage", {}).items()}
        self._usage.append((len(indices), usage))
        for place, index in enumerate(indices):
            if index < SHOWN:
                maps = fused.details.get("pixel_weights", {})
                self._pixels.append((index, {stride: value[place].float().cpu() for stride, value in maps.items()}))

    def usage(self, processes: int = 1) -> ByStride:
        """Stride -> [timesteps, experts], the mean over samples."""
        parts = gathered(self._usage, processes)
        samples = sum(count for count, _ in parts)
        return {s: sum(count * part[s] for count, part in parts) / samples for s in parts[0][1]}

    def pixels(self, processes: int = 1) -> ByStride:
        """Stride -> [samples, timesteps, taps, height, width] of the first samples of the split."""
        parts = sorted(gathered(self._pixels, processes), key=lambda part: part[0])
        return {stride: torch.stack([maps[stride] for _, maps in parts]) for stride in parts[0][1]}


def save_insight(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`usage/<stride>` and `pixels/<stride>`, with a checksum, in a file that appears whole."""
    from safetensors.torch import save

    with aside(path, path.with_suffix(".partial")) as partial:
        partial.write_bytes(save(dict(tensors), metadata=sealed({}, tensors)))


def load_insight(path: Path) -> dict[str, dict[int, Any]]:
    """Part -> stride -> numbers as `save_insight` wrote them; nothing where it wrote none."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, dict[int, Any]] = {"usage": {}, "pixels": {}}
    if not path.is_file():
        return found
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata is not None and metadata != sealed({}, tensors):  # earlier versions wrote none
            raise ValueError("its checksum is not that of its contents")
        for name, value in tensors.items():
            part, _, stride = name.partition("/")
            found[part][int(stride)] = value.numpy()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path} is damaged ({reason}): remove its run, and make it again") from None
    return found
