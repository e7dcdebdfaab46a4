"""A bound on how much goes through a network at once, found by running into it once and then remembered."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from satdifuser.errors import UserError

Result = TypeVar("Result")
log = logging.getLogger(__name__)
ENGINE = "unable to find an engine to execute this computation"  # cuDNN's word where its workspace does not fit


class MemoryBound:
    """Runs a function over slices of a batch; out of memory halves the slice, and later calls begin with what fitted.

    >>> bound = MemoryBound("batch", limit=3)
    >>> bound.run(lambda part: list(range(8))[part], 8)
    [[0, 1, 2], [3, 4, 5], [6, 7]]
    """

    def __init__(self, setting: str, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise UserError(f"{setting} is {limit}: give at least 1, or null to find the bound by itself")
        self.setting, self.limit = setting, limit

    def run(self, function: Callable[[slice], Result], count: int) -> list[Result]:
        results: list[Result] = []
        first = 0
        while first < count:
            size = min(self.limit or count, count - first)
            if self._attempt(function, slice(first, first + size), results):
                first += size
            elif size == 1:
                raise UserError(
                    f"out of memory with a single input: use a smaller image, fewer taps or a lower precision"
                    f" ({self.setting} cannot go below 1)"
                )
            else:
                self.limit = size // 2
                log.warning("out of memory with %d inputs at once: going on with %d", size, self.limit)
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return results

    @staticmethod
    def _attempt(function: Callable[[slice], Result], part: slice, results: list[Result]) -> bool:
        """Whether it fitted; the exception, and with it what it held in memory, is gone on return."""
        from accelerate.utils.memory import should_reduce_batch_size

        try:
            results.append(function(part))
        except (RuntimeError, MemoryError) as error:
            known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or ENGINE in str(error)
            if known or should_reduce_batch_size(error):
                return False
            raise
        return True
