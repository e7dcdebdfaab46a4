"""L-BFGS for a smooth convex loss plus a penalty, for many penalties one after the other.

What a penalty adds to a slope is known, so that what was learned of the loss's curvature with one penalty serves the
next one too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

MEMORY = 20
STEPS = 1000  # at most, for each penalty
SUFFICIENT = 1e-4  # share of the decrease that the slope promises
NOISE = 1e-6  # losses that differ by a smaller share are told apart by their slopes
TRIES = 20


class Loss(Protocol):
    def value(self, w: Tensor) -> tuple[float, Tensor]:
        """The loss and its slope, in float64."""

    def curvature(self, w: Tensor) -> Tensor:
        """The diagonal of its second derivative, or something near to it."""


class Path:
    """Minimise `loss(w) + penalty / 2 * |w * penalised|^2` from a start, for penalties that fall."""

    def __init__(self, loss: Loss, start: Tensor, penalised: Tensor, tolerance: float) -> None:
        self.loss, self.penalised, self.tolerance = loss, penalised, tolerance
        self.w = start
        self.value, self.slope = loss.value(start)
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        self.steps = self.evaluations = 0

    def to(self, penalty: float) -> Tensor:
        """The minimum: until what another step can gain is below the tolerance."""
        pull = penalty * self.penalised
        inverse = 1 / (self.loss.curvature(self.w) + pull).clamp(min=1e-30)
        for _ in range(STEPS):
            slope = self.slope + pull * self.w
            step = self._step(slope, pull, inverse)
            promised = -float((slope * step).sum())
            if promised <= self.tolerance:
                break
            self.steps += 1
            if not self._move(step, promised, pull):
                break
        return self.w

    def _step(self, slope: Tensor, pull: Tensor, inverse: Tensor) -> Tensor:
        step, shares = -slope, []
        for moved, changed in reversed(self.pairs):
            turned = changed + pull * moved
            share = (moved * step).sum() / (moved * turned).sum()
            step = step - share * turned
            shares.append((share, moved, turned))
        step = inverse * step
        for share, moved, turned in reversed(shares):
            step = step + (share - (turned * step).sum() / (moved * turned).sum()) * moved
        return step

    def _move(self, step: Tensor, promised: float, pull: Tensor) -> bool:
        """Go as far along the step as the loss falls enough; False where rounding lets it fall no more."""
        before = self.value + 0.5 * float((pull * self.w.square()).sum())
        length = 1.0
        for _ in range(TRIES):
            w = self.w + length * step
            value, slope = self.loss.value(w)
            self.evaluations += 1
            after = value + 0.5 * float((pull * w.square()).sum())
            rising = float(((slope + pull * w) * step).sum())
            near = abs(after - before) <= NOISE * abs(before)
            if after <= before - SUFFICIENT * length * promised or (near and rising <= 0.8 * promised):
                self.pairs.append((w - self.w, slope - self.slope))
                self.w, self.value, self.slope = w, value, slope
                return True
            best = length * promised / (promised + rising) if rising > 0 else 0.5 * length
            length = min(max(best, 0.1 * length), 0.5 * length)
        return False


def along(loss: Loss, start: Tensor, penalised: Tensor, penalties: Sequence[float], tolerance: float) -> list[Tensor]:
    """The minimum for each penalty, in the order given; they are solved from the largest to the smallest."""
    path = Path(loss, start, penalised, tolerance)
    found = {penalty: path.to(penalty) for penalty in sorted(set(penalties), reverse=True)}
    return [found[penalty] for penalty in penalties]
