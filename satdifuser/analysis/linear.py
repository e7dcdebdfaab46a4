"""A linear function of features, as a probe has learned it, and what every probe asks of its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NEVER = -1e6  # the logit of a class that did not occur; minus it, of a label that every sample had
CHUNK = 2**14  # rows


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`, of features as they are: the standardisation is inside. Weight [K, C], bias [K]."""

    weight: Floats
    bias: Floats

    def logits(self, x: ArrayLike) -> Floats:
        """[N, K] of features [N, C], some rows at a time."""
        rows = np.asarray(x)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise ValueError(f"features are {rows.shape}, and the probe learned from [N, {self.weight.shape[1]}]")
        found = np.empty((len(rows), len(self.bias)))
        for first in range(0, len(rows), CHUNK):
            part = slice(first, first + CHUNK)
            found[part] = rows[part].astype(np.float64) @ self.weight.T + self.bias
        return found


def features_of(x: ArrayLike, least: int = 1) -> NDArray[Any]:
    """Features [N, C] as float32 or float64; anything else, or a value that is not finite, is an error."""
    rows = np.asarray(x)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"features must be [samples, channels], neither of them 0, not {rows.shape}")
    if len(rows) < least:
        raise ValueError(f"a probe needs {least} samples or more, not {len(rows)}")
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float64)
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        if not np.isfinite(part).all():
            row, channel = np.argwhere(~np.isfinite(part))[0]
            raise ValueError(f"features hold {part[row, channel]} in sample {first + row}, channel {channel}")
    return rows


def answers_of(y: ArrayLike, samples: int) -> NDArray[Any]:
    """Answers [N] or [N, K], one for each sample."""
    answers = np.asarray(y)
    if answers.ndim not in (1, 2) or len(answers) != samples:
        raise ValueError(f"there are {samples} samples, and answers {answers.shape}: each needs one")
    return answers


def classes_of(y: ArrayLike, samples: int, outputs: int) -> NDArray[np.int64]:
    """Classes [N] from 0 to `outputs` - 1, or labels [N, outputs] of 0 and 1."""
    answers = answers_of(y, samples)
    whole = answers.astype(np.int64)
    if not (whole == answers).all():
        raise ValueError("classes and labels are whole numbers")
    top = outputs - 1 if answers.ndim == 1 else 1
    if whole.min() < 0 or whole.max() > top:
        what = f"classes lie between 0 and {top}" if answers.ndim == 1 else "labels are 0 or 1"
        raise ValueError(f"{what}, not {whole.min() if whole.min() < 0 else whole.max()}")
    if answers.ndim == 2 and answers.shape[1] != outputs:
        raise ValueError(f"labels are {answers.shape}, and there are {outputs} of them")
    return whole
