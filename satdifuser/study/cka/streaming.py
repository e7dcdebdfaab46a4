"""Rows of both sides, batch after batch, from one pass over the samples: of each batch, what pooling leaves of maps."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from satdifuser.data.base import LabelledDataset, Sample
from satdifuser.data.batches import loader, to_device
from satdifuser.data.inputs import sample_check
from satdifuser.engine.features import features
from satdifuser.errors import UserError, nearest
from satdifuser.pooling import NAMES, Pooling, is_pooling, pooling_for

if TYPE_CHECKING:
    from satdifuser.bank import BankSpec, FeatureBank
    from satdifuser.study.cka.sides import Side

FLAT = "flat"
MAP_BYTES = 2**28  # of the maps of a piece of a batch, of each side
PIECE = 32  # samples at most
LEAST = 4  # samples of a batch: the unbiased estimate divides by n - 3

Rows = list[Tensor]


class Listed(Sampler[list[int]]):
    """These numbers of samples, batch by batch."""

    def __init__(self, batches: Sequence[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches


@dataclass
class Stream:
    """`ids` are the samples that are compared, of the images and of the stores."""

    sides: Sequence[Side]
    ids: Sequence[str]
    images: LabelledDataset | None
    pool: str
    batch: int
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def batches(self) -> Iterator[tuple[list[str], list[Rows]]]:
        """The ids of a batch, and of each side its rows `[samples, channels]` of every place."""
        wholes = mixed_batches(self.ids, self.batch)
        step = min(piece_of(side.spec) for side in self.sides)
        pieces = [[part[n : n + step] for n in range(0, len(part), step)] for part in wholes]
        flat = [part for whole in pieces for part in whole]
        readers = [self._reader(side, flat) for side in self.sides]
        shown = self._images(flat)
        for whole, parts in zip(wholes, pieces, strict=True):
            found: list[list[Rows]] = [[] for _ in self.sides]
            for _ in parts:
                batch = next(shown) if shown is not None else None
                for rows, reader in zip(found, readers, strict=True):
                    rows.append(reader(batch))
            yield (
                [self.ids[n] for n in whole],
                [[torch.cat(place) for place in zip(*rows, strict=True)] for rows in found],
            )

    def bytes(self) -> int:
        """What the rows of a batch take of all sides."""
        sizes = (math.prod(side.spec.shape(tap)) for side in self.sides for tap in side.spec.taps)
        return 4 * self.batch * sum(sizes)

    def _images(self, pieces: Sequence[list[int]]) -> Iterator[Any] | None:
        encoders = [side.encoder for side in self.sides if side.encoder is not None]
        if self.images is None or not encoders:
            return None
        place = {self.images.sample_id(index): index for index in range(len(self.images))}
        where = Listed([[place[self.ids[n]] for n in piece] for piece in pieces])
        checks = [check for check in map(sample_check, encoders) if check is not None]
        return iter(loader(self.images, where, self.workers, every(checks)))

    def _reader(self, side: Side, pieces: Sequence[list[int]]) -> Callable[[Any], Rows]:
        if side.stored is None:
            encoder = side.encoder
            assert encoder is not None
            return lambda batch: self._rows(side, features(encoder, batch, self.device).select(side.spec))
        place = {name: index for index, name in enumerate(side.stored.ids)}
        where = Listed([[place[self.ids[n]] for n in piece] for piece in pieces])
        stored = iter(loader(side.stored, where, self.workers))
        return lambda _: self._rows(side, to_device(next(stored), self.device)["bank"])

    def _rows(self, side: Side, bank: FeatureBank) -> Rows:
        pooling = pooling_of(side.spec, self.pool)
        maps = (bank[tap] for tap in bank.spec.taps)
        return [(each.float() if pooling is None else pooling.maps(each)).flatten(1) for each in maps]


def pooling_of(spec: BankSpec, pool: str) -> Pooling | None:
    """What is still to be done to maps of a spec; None: nothing (they are pooled already, or compared whole)."""
    if pool != FLAT and not is_pooling(pool):
        raise UserError(f"cka.pool is {pool!r}: it can be {', '.join((*NAMES, FLAT))}{nearest(pool, (*NAMES, FLAT))}")
    before = dict(spec.settings).get("pooled")
    if before not in (None, pool):
        raise UserError(
            f"cka.pool={pool} needs maps, and those of {spec.encoder} are pooled already (store.keep={before}): set"
            f" cka.pool={before}, or extract them with store.keep=maps"
        )
    return None if pool == FLAT else pooling_for(spec, pool)


def even_batches(count: int, size: int) -> list[range]:
    """As few batches as `size` allows, all of nearly as many samples, so that none is too small.

    >>> even_batches(20, 8), even_batches(10, 4)
    ([range(0, 6), range(6, 13), range(13, 20)], [range(0, 5), range(5, 10)])
    """
    if count < LEAST:
        raise UserError(f"{count} samples: unbiased CKA needs at least {LEAST}")
    parts = max(1, min(-(-count // size), count // LEAST))
    edges = [part * count // parts for part in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def mixed_batches(ids: Sequence[str], size: int) -> list[list[int]]:
    """Numbers of samples in batches that are drawn by their ids alone, ascending in each batch.

    Splits are often sorted by class, and the likeness inside of batches of neighbours is not that of the whole.
    """
    order = sorted(range(len(ids)), key=lambda number: hashlib.sha256(ids[number].encode()).digest())
    return [sorted(order[part.start : part.stop]) for part in even_batches(len(ids), size)]


def piece_of(spec: BankSpec) -> int:
    """So many samples are encoded at once."""
    one = 4 * sum(math.prod(spec.shape(tap)) for tap in spec.taps)
    return max(1, min(PIECE, MAP_BYTES // one))


def every(checks: Sequence[Callable[[Sample], str | None]]) -> Callable[[Sample], str | None] | None:
    """A sample must pass all of these checks."""
    if not checks:
        return None
    return Checks(checks)


@dataclass
class Checks:
    """Several checks as one, which can go to another process."""

    checks: Sequence[Callable[[Sample], str | None]]

    def __call__(self, sample: Sample) -> str | None:
        return next((fault for check in self.checks if (fault := check(sample)) is not None), None)
