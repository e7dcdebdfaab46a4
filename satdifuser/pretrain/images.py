"""Endless shuffled batches of prepared images, from one data set or from several at fixed shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from satdifuser.data.base import LabelledDataset
from satdifuser.data.batches import ShuffledBatches, loader
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.errors import UserError


@dataclass(frozen=True)
class Source:
    """A data set and how its images become a network's input; its labels, if any, are not looked at."""

    data: LabelledDataset
    prepare: ImageInput
    size: int
    share: float = 1.0

    @property
    def check(self) -> SampleCheck:
        remedy = "set data.size to the size of the images, or make them one size (data.fit of an image folder)"
        return SampleCheck(self.prepare, (self.size, self.size), remedy=remedy, series=False)

    def some(self, count: int) -> tuple[Tensor, list[str]]:
        """So many images, evenly spread over the data set, and their ids."""
        count = min(count, len(self.data))
        chosen = [round(place * (len(self.data) - 1) / max(count - 1, 1)) for place in range(count)]
        samples = [self.data[index] for index in chosen]
        for sample in samples:
            fault = self.check(sample)
            if fault is not None:
                raise UserError(f"sample {sample['id']} {fault}")
        ids = [sample["id"] for sample in samples]
        return self.prepare.cpu()(torch.stack([sample["image"] for sample in samples]), ids), ids


class Kept:
    """What is left of a data set without its bad images: known by its own identity, and how many are left out."""

    def __init__(self, whole: LabelledDataset, rest: LabelledDataset) -> None:
        self.rest, self.name, self.labels = rest, whole.name, whole.labels
        self.identity = {**whole.identity, "left_out": len(whole) - len(rest)}

    def sample_id(self, index: int) -> str:
        return self.rest.sample_id(index)

    def __len__(self) -> int:
        return len(self.rest)

    def __getitem__(self, index: int) -> Any:
        return self.rest[index]


class Images:
    """Batch n is a function of (seed, n): so many of each source, this process's share of them."""

    def __init__(
        self, sources: Sequence[Source], batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.sources, self.counts = list(sources), counts(batch_size, [source.share for source in sources])
        uneven = [count for count in self.counts if count % world]
        if uneven:
            raise UserError(
                f"recipe.batch_size gives {' + '.join(map(str, self.counts))} images of a step to {world} processes:"
                " choose it so that each source's share can be divided by their number"
            )
        for source, count in zip(self.sources, self.counts, strict=True):
            if len(source.data) < count:
                raise UserError(f"{source.data.name} has {len(source.data)} images, too few for {count} in a step")
        self.seed, self.rank, self.world = seed, rank, world

    @property
    def total(self) -> int:
        return sum(self.counts)

    def batches(self, start: int, workers: int, device: torch.device) -> Iterator[Tensor]:
        """From step `start` on, without end."""
        readers = [self._read(number, start, workers) for number in range(len(self.sources))]
        while True:
            parts = []
            for source, reader in zip(self.sources, readers, strict=True):
                batch = next(reader)
                images = batch["image"].to(device, non_blocking=True)
                parts.append(source.prepare.to(device)(images, batch["id"]))
            yield torch.cat(parts)

    def _read(self, number: int, start: int, workers: int) -> Iterator[Any]:
        source, count = self.sources[number], self.counts[number]
        order = ShuffledBatches(
            len(source.data), count, self.seed + number, start=start, rank=self.rank, world=self.world
        )
        return iter(loader(source.data, order, workers, source.check))


def counts(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers of images in the proportions of the shares, each at least 1; together `batch_size`.

    >>> counts(16, [0.85, 0.15])
    [14, 2]
    """
    total = sum(shares)
    if min(shares) <= 0 or len(shares) > batch_size:
        raise UserError(f"a batch of {batch_size} cannot be shared as {list(shares)}: give shares above 0")
    found = [1] * len(shares)
    for _ in range(batch_size - len(shares)):  # each goes to the source that is furthest behind
        behind = [batch_size * share / total - count for share, count in zip(shares, found, strict=True)]
        found[behind.index(max(behind))] += 1
    return found
