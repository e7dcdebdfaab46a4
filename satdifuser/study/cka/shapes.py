"""The shape of each place's vectors: intrinsic dimension and effective rank of some rows that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from satdifuser.analysis.dimension import effective_rank, two_nn
from satdifuser.data.splits.evenly import evenly
from satdifuser.pooling import WHOLE
from satdifuser.report.depth.content import Shape
from satdifuser.study.cka.streaming import Rows, Stream

SAMPLES = 2000  # of which rows are kept, evenly chosen of those compared
BYTES = 2**30  # of the rows of a side


class Shapes:
    """Rows are kept as they are compared; of whole maps and of grids, which are large, what is over their cells.

    What is kept does not grow with the samples.
    """

    def __init__(self, stream: Stream, wanted: bool) -> None:
        self.kept: list[list[list[Tensor]]] = [[[] for _ in side.spec.taps] for side in stream.sides]
        self.means = stream.pool not in WHOLE
        self.channels = [[tap.channels for tap in side.spec.taps] for side in stream.sides]
        times = WHOLE.get(stream.pool, 1)
        one = 4 * times * max(sum(channels) for channels in self.channels)
        self.ids = set(evenly(stream.ids, max(1, min(SAMPLES, BYTES // one)))) if wanted else set()

    def add(self, ids: Sequence[str], sides: Sequence[Rows]) -> None:
        where = torch.tensor([n for n, name in enumerate(ids) if name in self.ids], dtype=torch.long)
        if not len(where):
            return
        for kept, rows, channels in zip(self.kept, sides, self.channels, strict=True):
            for place, each, width in zip(kept, rows, channels, strict=True):
                some = each[where.to(each.device)]
                place.append((some.unflatten(1, (width, -1)).mean(2) if self.means else some).cpu())

    def found(self) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
        """Of the rows and of the columns; of one side alone the same for both."""
        if not self.ids:
            return (), ()
        each = [tuple(_shape(torch.cat(place)) for place in side) for side in self.kept]
        return each[0], each[-1]


def _shape(rows: Tensor) -> Shape:
    return Shape(two_nn(rows), effective_rank(rows))
