"""From a data set to batches: which samples in which order, for which process, and their collation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from satdifuser.bank import FeatureBank
from satdifuser.data.base import Batch, LabelledDataset, Sample
from satdifuser.data.prefetch import prefetched
from satdifuser.errors import UserError


class ShuffledBatches(Sampler[list[int]]):
    """Endless shuffled batches of this process, beginning at any step: batch n is a function of (seed, n) alone.

    `batch_size` is the batch of one optimiser step, over all processes: each takes every `world`-th of its samples, so
    that a run with two processes sees the same batches as a run with one. The samples that do not fill an epoch's last
    batch are left out of it (others each time), or with `keep_last` make a smaller one.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        keep_last: bool = False,
    ) -> None:
        if length < 1:
            raise UserError("the training split is empty")
        self.length, self.batch_size = length, min(batch_size, length)
        if self.batch_size < world:
            raise UserError(f"trainer.batch_size is {self.batch_size}: {world} processes need at least {world}")
        self.seed, self.start, self.rank, self.world = seed, start, rank, world
        self.keep_last, left = keep_last, self.length % self.batch_size
        if keep_last and 0 < left < world:
            raise UserError(
                f"trainer.last_batch=keep leaves {left} of {length} samples for the last batch of an epoch, and {world}"
                " processes need one each: use another trainer.batch_size, or trainer.last_batch=drop"
            )

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return batches_per_epoch(self.length, self.batch_size, self.keep_last)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        epoch, order = -1, torch.empty(0)
        while True:
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = torch.randperm(
                    self.length, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                )
            first = (step % self.per_epoch) * self.batch_size
            yield order[first : first + self.batch_size][self.rank :: self.world].tolist()
            step += 1


def batches_per_epoch(length: int, batch_size: int, keep_last: bool) -> int:
    """
    >>> batches_per_epoch(2000, 32, keep_last=False), batches_per_epoch(2000, 32, keep_last=True)
    (62, 63)
    """
    size = min(batch_size, length)
    return -(-length // size) if keep_last else length // size


class OrderedBatches(Sampler[list[int]]):
    """Every sample once, over all processes together; no sample is repeated to make their shares equal."""

    def __init__(self, length: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.indices, self.batch_size = list(range(length))[rank::world], batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield self.indices[first : first + self.batch_size]


@runtime_checkable
class ReadsBatches(Protocol):
    """A data set that reads a whole batch at once, with its bank still packed: a store."""

    def packed(self, indices: Sequence[int], pin: bool = False) -> Batch: ...


class RangeBatches(Sampler[list[int]]):
    """Every sample of some ranges in order; a batch never runs over the end of its range."""

    def __init__(self, ranges: Sequence[range], batch_size: int) -> None:
        self.ranges, self.batch_size = ranges, batch_size

    def __len__(self) -> int:
        return sum(-(-len(rows) // self.batch_size) for rows in self.ranges)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.ranges:
            for first in range(rows.start, rows.stop, self.batch_size):
                yield list(range(first, min(first + self.batch_size, rows.stop)))


Check = Callable[[Sample], str | None]


class _Samples(Dataset[Any]):
    """Samples read and checked one by one; what `__getitem__` makes of a batch of them is for those who inherit."""

    def __init__(self, data: LabelledDataset, check: Check | None = None) -> None:
        self.data, self.check = data, check

    def sample(self, index: int) -> Sample:
        try:
            sample: Sample = self.data[index]
        except UserError as error:
            name = self.data.sample_id(index)
            raise UserError(str(error) if name in str(error) else f"sample {name}: {error}") from error
        fault = self.check(sample) if self.check is not None else None
        if fault is not None:
            raise UserError(f"sample {sample['id']} {fault}")
        return sample


def read_sample(data: LabelledDataset, index: int) -> Sample:
    """One sample, with an error that names it."""
    return _Samples(data).sample(index)


class _BatchReader(_Samples):
    def __getitem__(self, indices: Sequence[int]) -> Batch | UserError:
        """A batch, or the user's error as a value: raised in a worker, it would come out wrapped in a traceback."""
        try:
            return collate([self.sample(index) for index in indices])
        except UserError as error:
            return error


class _Looker(_Samples):
    """What is made of each sample, or the user's error about it as a value; images do not leave the worker."""

    def __init__(self, data: LabelledDataset, look: Callable[[Sample], Any]) -> None:
        super().__init__(data)
        self.look = look

    def __getitem__(self, indices: Sequence[int]) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for index in indices:
            try:
                found.append((index, self.look(self.sample(index))))
            except UserError as error:
                found.append((index, error))
        return found


class _FaultFinder(_Samples):
    def __getitem__(self, indices: Sequence[int]) -> list[tuple[int, str]]:
        """Samples that cannot be used, with the reason; images do not leave the worker."""
        found = []
        for index in indices:
            try:
                self.sample(index)
            except UserError as error:
                found.append((index, str(error)))
        return found


def loader(
    data: LabelledDataset,
    batches: Sampler[list[int]],
    workers: int = 0,
    check: Check | None = None,
) -> Iterable[Batch]:
    """Batches as they come; images or banks, ids and labels under their names.

    `check` says what is wrong with a sample, on the host, before it goes anywhere. A store is read by threads, which
    share its memory and copy nothing; images are read by `workers` processes.
    """
    if isinstance(data, ReadsBatches):
        pin = torch.cuda.is_available()
        return prefetched(lambda indices: data.packed(indices, pin=pin), batches, threads=max(1, workers))
    return _Batches(_in_workers(_BatchReader(data, check), batches, workers, pin=torch.cuda.is_available()))


def faults(
    data: LabelledDataset, batches: Sampler[list[int]], workers: int = 0, check: Check | None = None
) -> Iterable[list[tuple[int, str]]]:
    """Batch by batch, the samples that cannot be read or used, each with its reason."""
    return _in_workers(_FaultFinder(data, check), batches, workers)


def looked(
    data: LabelledDataset, batches: Sampler[list[int]], look: Callable[[Sample], Any], workers: int = 0
) -> Iterable[list[tuple[int, Any]]]:
    """Batch by batch, the place of each sample with what `look` makes of it, or with the error that it is."""
    return _in_workers(_Looker(data, look), batches, workers)


def _in_workers(reader: _Samples, batches: Sampler[list[int]], workers: int, pin: bool = False) -> DataLoader[Any]:
    return DataLoader(
        reader,
        batch_size=None,
        collate_fn=_as_it_is,  # torch's own conversion would take a bank apart
        sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )


class _Batches:
    """What the loader gives, with the reader's errors raised where the batches are used."""

    def __init__(self, batches: DataLoader[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch; images of different sizes are an error that names two of them."""
    batch: Batch = {"id": [sample["id"] for sample in samples]}
    _check_names(samples)
    for name, first in samples[0].items():
        if not isinstance(first, Tensor):
            continue
        values: list[Tensor] = [sample[name] for sample in samples]  # type: ignore[literal-required]
        other = next((i for i, v in enumerate(values) if v.shape != values[0].shape), None)
        if other is not None:
            series = name == "image" and values[0].ndim == 4 and values[0].shape[1:] == values[other].shape[1:]
            remedy = "as many dates: set data.dates to how many are read of each" if series else "one size"
            raise UserError(
                f"sample {batch['id'][0]} has {name} {tuple(values[0].shape)}, but sample {batch['id'][other]} has"
                f" {tuple(values[other].shape)}: samples of a data set must have {remedy}"
            )
        batch[name] = torch.stack(values)
    return batch


def _check_names(samples: Sequence[Sample]) -> None:
    """Every sample has what the first has to stack, and nothing that the first has not."""
    first = samples[0]
    stacked = {name for name, value in first.items() if isinstance(value, Tensor)}
    for sample in samples:
        odd = sorted((sample.keys() - first.keys()) | (stacked - sample.keys()))
        if odd:
            without, having = (first, sample) if odd[0] in sample else (sample, first)
            raise UserError(
                f"sample {without['id']} has no {odd[0]}, but sample {having['id']} has one: give it to all"
            )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors and banks moved, the rest as it is; a bank as it was stored travels so, and is unpacked there."""
    moved = {k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}
    return {k: v.unpack() if hasattr(v, "unpack") else v for k, v in moved.items()}


def part(batch: Batch, number: int, parts: int) -> Batch:
    """Micro-batch `number` of `parts`: every `parts`-th sample."""
    pick = slice(number, None, parts)
    cut: Batch = {}
    for name, value in batch.items():
        cut[name] = value.samples(pick) if isinstance(value, FeatureBank) else value[pick]
    return cut
