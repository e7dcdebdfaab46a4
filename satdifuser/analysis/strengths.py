"""The strengths that validation chooses among: scikit-learn's C, the weight of the losses beside the penalty.

The ends of the default grid: of the means of the shipped UNet's maps of EuroSAT (16 to 192 channels), learned from
180, 1,800 and 18,356 labels, the best C lay between 0.05 (few labels, many channels) and 10,000 (few channels, where
all from 1,000 on are as good); at 1e-5 every probe had lost a third of its score or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from satdifuser.errors import UserError

WEAKEST, STRONGEST = 1e-5, 1e5


def strengths_of(setting: int | Sequence[float]) -> list[float]:
    """So many strengths, evenly spaced by their logarithm between `WEAKEST` and `STRONGEST`; or those of a list.

    >>> [float(f"{strength:.3g}") for strength in strengths_of(3)], strengths_of([1, 0.1]), strengths_of(1)
    ([1e-05, 1.0, 100000.0], [0.1, 1.0], [1.0])
    """
    if not isinstance(setting, int):
        if not setting or not all(math.isfinite(each) and each > 0 for each in setting):
            raise UserError(f"strengths must be numbers above 0, at least one, not {list(setting)}")
        return sorted({float(each) for each in setting})
    if setting < 1:
        raise UserError(f"strengths must be at least 1, not {setting}")
    low, high = math.log10(WEAKEST), math.log10(STRONGEST)
    if setting == 1:
        return [10 ** ((low + high) / 2)]
    return [10 ** (low + (high - low) * number / (setting - 1)) for number in range(setting)]
