"""A split of a store in a plain loop: batches of banks and labels, epoch by epoch, in the order of the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from satdifuser.bank import FeatureBank
from satdifuser.data.base import Batch
from satdifuser.data.batches import OrderedBatches, ShuffledBatches, batches_per_epoch, loader, to_device
from satdifuser.errors import UserError


class StoreLoader:
    """Batches of a split: `batch["bank"]`, `batch["id"]` and its labels (`label`, `mask`, ...) under their names.

    Each pass through it is an epoch. Shuffled, epoch `n` is a function of (seed, n): the batches are those that
    `satdifuser train` takes from the store with this seed and batch size. `num_workers` threads read ahead; they share
    the store's memory and copy nothing. With a `device`, banks are moved as they lie on disk and unpacked there.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        num_workers: int = 1,
        drop_last: bool = False,
        seed: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name} is {value!r}: give a whole number of {least} or more")
        if not len(data):
            raise UserError(f"split {data.split} of {data.store.path} has no samples")
        self.data, self.num_workers, self.epoch = data, num_workers, 0
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.device = torch.device("cpu" if device is None else device)

    @property
    def dataset(self) -> Any:
        """The split, as torch's own loader calls it."""
        return self.data

    def __len__(self) -> int:
        return batches_per_epoch(len(self.data), self.batch_size, keep_last=not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for batch in loader(self.data, _Epoch(self, epoch), self.num_workers):
            yield to_device(batch, self.device)


class _Epoch(Sampler[list[int]]):
    """The batches of one epoch, as the indices of their samples."""

    def __init__(self, of: StoreLoader, epoch: int) -> None:
        length, count = len(of.data), len(of)
        self.count, keep, first = count, not of.drop_last, epoch * count
        size = min(of.batch_size, length)
        shuffled = ShuffledBatches(length, size, of.seed, first, keep_last=keep)
        self.batches: Sampler[list[int]] = shuffled if of.shuffle else OrderedBatches(length, size)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), self.count)


def collate(samples: Sequence[Batch]) -> Batch:
    """One batch of samples of a split: the `collate_fn` of a torch `DataLoader` over `store.split(name)`."""
    first = samples[0]
    for sample in samples:
        if sample.keys() != first.keys():
            odd = sorted(sample.keys() ^ first.keys())[0]
            raise UserError(f"sample {sample['id'][0]} and sample {first['id'][0]} differ in {odd}: only one has it")
    joined: Batch = {"id": [name for sample in samples for name in sample["id"]]}
    for name, value in first.items():
        values = [sample[name] for sample in samples]
        if isinstance(value, FeatureBank):
            joined[name] = FeatureBank.cat(values)
        elif isinstance(value, Tensor):
            joined[name] = torch.cat(values)
    return joined
