"""L-BFGS for a smooth convex loss plus a penalty, for many penalties one after the other.

What a penalty adds to a slope is known, so that what was learned of the loss's curvature with one penalty serves the
next one too, and the minima themselves lie on a smooth curve, whose next point is guessed from the last three. Where
steps are many, they begin anew from the second derivative, of some of the rows: it need not be exact, as it changes how
soon a minimum is found and not which.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from satdifuser.analysis.linear import Floats

MEMORY = 100  # pairs of a step and the change of the slope along it
STEPS = 1000  # at most, for each penalty
TRIES = 10  # at most, for each step
FEW, AGAIN = 10, 120  # steps of a penalty, and evaluations since the last time, from which on to begin anew
SUFFICIENT = 1e-4  # share of the gain that the slope promises
NOISE = 1e-5  # losses that differ by a smaller share are told apart by their slopes
NEAR = 1.0  # a penalty whose minimum is near to no weights at all, of standardised features and a mean loss
APART = 10.0  # the most between a penalty and the next
TINY, GROWTH = 1e-12, 1e-6  # of a diagonal: the least, and what is added as a share


class Loss(Protocol):
    def value(self, w: Floats) -> tuple[float, Floats]:
        """The loss and its slope."""

    def curvature(self, w: Floats) -> Floats:
        """The diagonal of its second derivative, or something near to it."""

    def bent(self, w: Floats) -> Floats | None:
        """Blocks [B, D, D] of something near to its second derivative, if they are not too large.

        The weights, flattened, are the B blocks' D weights one after the other.
        """


@dataclass(frozen=True)
class Pair:
    """A step, the change of the penalised slope along it, and one over their product (0: rounding hides it)."""

    step: Floats
    change: Floats
    weight: float


class Path:
    """Minimise `loss(w) + penalty / 2 * |w * penalised|^2` from a start, for one penalty after the other."""

    def __init__(self, loss: Loss, start: Floats, penalised: Floats) -> None:
        self.loss, self.penalised = loss, penalised
        self.w = start
        self.value, self.slope = loss.value(start)
        self.seen: deque[tuple[Floats, Floats]] = deque(maxlen=MEMORY)
        self.evaluations, self.since = 1, 0
        self.factors: list[Any] = []

    def guess(self, w: Floats, penalty: float) -> None:
        """Go on from there, if it is better than where the last minimum was."""
        value, slope = self.loss.value(w)
        self.evaluations += 1
        pull = penalty * self.penalised
        if value + 0.5 * _dot(pull * w, w) < self.value + 0.5 * _dot(pull * self.w, self.w):
            self._go(w, value, slope)

    def to(self, penalty: float, tolerance: float) -> Floats:
        """The minimum for a penalty: where the next step promises to gain no more than the tolerance."""
        pull = penalty * self.penalised
        diagonal = self.loss.curvature(self.w) + pull
        memory = self._remembered(pull)
        for step_number in range(STEPS):
            if step_number >= FEW and self.evaluations - self.since >= AGAIN and self._anew(pull):
                memory.clear()
            slope = self.slope + pull * self.w
            step = _towards(-slope, self._solver(diagonal), memory)
            promised = -_dot(slope, step)
            if promised <= tolerance or not self._move(step, promised, pull):
                break
            moved, changed = self.seen[-1]
            memory.append(_pair(moved, changed + pull * moved))
        return self.w

    def _remembered(self, pull: Floats) -> deque[Pair]:
        known = (_pair(step, change + pull * step) for step, change in self.seen)
        return deque((pair for pair in known if pair.weight > 0), maxlen=MEMORY)

    def _anew(self, pull: Floats) -> bool:
        """Begin from the second derivative here, and forget all steps; False if there is none."""
        blocks = self.loss.bent(self.w)
        self.since = self.evaluations
        if blocks is None:
            return False
        self.factors = [_factor(block, own) for block, own in zip(blocks, pull.reshape(len(blocks), -1), strict=True)]
        self.seen.clear()
        return True

    def _solver(self, diagonal: Floats) -> Callable[[Floats], Floats]:
        """What is known of the inverse of the second derivative, without the memory."""
        if not self.factors:
            return lambda slope: slope / np.maximum(diagonal, TINY)
        return self._solved

    def _solved(self, slope: Floats) -> Floats:
        from scipy.linalg import cho_solve

        parts = slope.reshape(len(self.factors), -1)
        found = [cho_solve(one, part, check_finite=False) for one, part in zip(self.factors, parts, strict=True)]
        return np.stack(found).reshape(slope.shape)

    def _move(self, step: Floats, promised: float, pull: Floats) -> bool:
        """Go as far along the step as the loss falls enough; False where rounding lets it fall no more."""
        before = self.value + 0.5 * _dot(pull * self.w, self.w)
        length = 1.0
        for _ in range(TRIES):
            w = self.w + length * step
            value, slope = self.loss.value(w)
            self.evaluations += 1
            after = value + 0.5 * _dot(pull * w, w)
            rising = _dot(slope + pull * w, step)
            near = abs(after - before) <= NOISE * before and rising <= 0.8 * promised
            if rising > -promised and (near or after <= before - SUFFICIENT * length * promised):
                self._go(w, value, slope)
                return True
            best = length * promised / (promised + rising) if rising > 0 else 0.5 * length
            length = min(max(best, 0.1 * length), 0.5 * length)
        return False

    def _go(self, w: Floats, value: float, slope: Floats) -> None:
        self.seen.append((w - self.w, slope - self.slope))
        self.w, self.value, self.slope = w, value, slope


def along(loss: Loss, start: Floats, penalised: Floats, penalties: Sequence[float], tolerance: float) -> list[Floats]:
    """The minimum for each penalty, in the order given.

    They are solved from the largest to the smallest, by way of others where the next is far.
    """
    path = Path(loss, start, penalised)
    found, passed = dict[float, Floats](), deque[tuple[float, Floats]](maxlen=3)
    for penalty, wanted in _stops(penalties):
        if len(passed) > 1:
            path.guess(_beyond(passed, math.log(penalty)), penalty)
        w = path.to(penalty, tolerance)
        passed.append((math.log(penalty), w))
        if wanted:
            found[penalty] = w
    return [found[penalty] for penalty in penalties]


def _stops(penalties: Sequence[float]) -> list[tuple[float, bool]]:
    """Penalties that fall by no more than `APART` each, and whether they are asked for."""
    found, last = list[tuple[float, bool]](), max(NEAR, *penalties)
    for penalty in sorted(set(penalties), reverse=True):
        steps = math.ceil(math.log(last / penalty) / math.log(APART))
        found += [(last * (penalty / last) ** (step / steps), False) for step in range(1, steps)]
        found.append((penalty, True))
        last = penalty
    return found


def _beyond(passed: Sequence[tuple[float, Floats]], at: float) -> Floats:
    """The polynomial through points (place, value), further on."""
    found = np.zeros_like(passed[0][1])
    for place, value in passed:
        others = [other for other, _ in passed if other != place]
        found += value * math.prod((at - other) / (place - other) for other in others)
    return found


def _factor(block: Floats, pull: Floats) -> Any:
    """Cholesky's factor of a block and its penalties; the diagonal grows a little, as far as rounding asks for it."""
    from scipy.linalg import LinAlgError, cho_factor

    own = np.arange(len(block))
    block[own, own] += pull
    growth = GROWTH * (block[own, own] + TINY)
    while True:
        block[own, own] += growth
        try:
            return cho_factor(block, lower=True, check_finite=False)
        except LinAlgError:
            growth *= 10


def _towards(against: Floats, solve: Callable[[Floats], Floats], memory: Sequence[Pair]) -> Floats:
    """The slope's opposite, turned and scaled by what is known of the curvature (the two loops of L-BFGS)."""
    step, shares = against, []
    for pair in reversed(memory):
        share = pair.weight * _dot(pair.step, step)
        step = step - share * pair.change
        shares.append(share)
    step = solve(step)
    for pair, share in zip(memory, reversed(shares), strict=True):
        step += (share - pair.weight * _dot(pair.change, step)) * pair.step
    return step


def _pair(step: Floats, change: Floats) -> Pair:
    bent = _dot(step, change)
    return Pair(step, change, 1 / bent if bent > 0 else 0.0)


def _dot(a: Floats, b: Floats) -> float:
    return float(np.vdot(a, b))
