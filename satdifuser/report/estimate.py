"""A score and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A score: the mean over the seeds, its bootstrap 95 % interval over test samples, and each seed's own value."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None of a single one, or where a seed has no score."""
        known = len(self.seeds) > 1 and bool(np.isfinite(self.seeds).all())
        return float(np.std(self.seeds, ddof=1)) if known else None
