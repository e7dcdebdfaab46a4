"""Whether a classifier is as sure as it is right: expected calibration error, and the temperature that mends it.

Of classes (truth of one number for each sample) the confidence is the largest probability, and it is right where its
class is. Of labels (truth of 0 or 1 for each sample and label) each probability is a confidence that the label holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Slope = Callable[[Floats, NDArray[Any], float], tuple[float, float]]

CHUNK = 2**22  # numbers at a time
COLDEST, HOTTEST = 1e-3, 1e3
TOLERANCE = 1e-10  # of the logarithm of a temperature


class CalibrationCounts:
    """Bins of confidence of equal width, filled part by part: pixels of a test set, say.

    A bin has its lower end and not its upper one; a confidence of exactly 1 has a bin of its own, as in torchmetrics.
    """

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"bins must be 1 or more, not {bins}")
        self.bins = bins
        self.counts = np.zeros(bins + 1, np.int64)
        self.sure, self.right = np.zeros(bins + 1), np.zeros(bins + 1)  # sums in each bin

    def add(self, probabilities: ArrayLike, truth: ArrayLike) -> None:
        """Take `[N, K]` and `[N]` classes; or labels, `[N, K]` and `[N, K]`, or `[N]` and `[N]`."""
        confidence, right = _confidence(np.asarray(probabilities), np.asarray(truth))
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("probabilities must lie between 0 and 1")
        where = np.searchsorted(np.linspace(0, 1, self.bins + 1), confidence, side="right") - 1
        self.counts += np.bincount(where, minlength=self.bins + 1)
        self.sure += np.bincount(where, confidence, self.bins + 1)
        self.right += np.bincount(where, right, self.bins + 1)

    @property
    def error(self) -> float:
        """Expected calibration error: how far mean confidence and share of right answers are apart, over the bins."""
        total = int(self.counts.sum())
        return float(np.abs(self.sure - self.right).sum() / total) if total else math.nan


def calibration_error(probabilities: ArrayLike, truth: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of all at once (CalibrationCounts says what the arguments are); NaN of none."""
    counts = CalibrationCounts(bins)
    counts.add(probabilities, truth)
    return counts.error


def temperature(logits: ArrayLike, truth: ArrayLike) -> float:
    """The number to divide logits by so that `truth` is most likely: softmax of classes, sigmoid of labels.

    The likelihood has one maximum over 1 / temperature, where its slope is 0; the search is between 0.001 and 1000, and
    ends there if the logits are never wrong or worse than none. A sample whose true class has a logit of -inf says
    nothing of the temperature. NaN of no samples.
    """
    values, answers = np.asarray(logits), np.asarray(truth)
    if answers.shape == values.shape:
        slope: Slope = _labels_slope
    elif values.ndim == 2 and answers.shape == values.shape[:1]:
        slope = _classes_slope
        possible = values[np.arange(len(values)), answers] > -np.inf
        values, answers = values[possible], answers[possible]
    else:
        raise ValueError(f"truth {answers.shape} belongs to no logits {values.shape}")
    if not len(values):
        return math.nan
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("logits must be finite, or -inf for what is never predicted")
    return _zero(lambda sharp: _total(slope, values, answers, sharp))


def _zero(slope: Callable[[float], tuple[float, float]]) -> float:
    """The temperature where the slope changes its sign: Newton's steps in the logarithm, halves where they leave."""
    cold, hot = -math.log(COLDEST), -math.log(HOTTEST)
    if slope(math.exp(hot))[0] >= 0:
        return HOTTEST
    if slope(math.exp(cold))[0] <= 0:
        return COLDEST
    place, before = 0.0, math.inf
    while abs(place - before) > TOLERANCE:
        before = place
        value, bend = slope(math.exp(place))
        cold, hot = (place, hot) if value > 0 else (cold, place)
        step = value / (math.exp(place) * bend) if bend > 0 else math.inf
        place = place - step if hot < place - step < cold else (hot + cold) / 2
    return math.exp(-place)


def _total(slope: Slope, logits: NDArray[Any], truth: NDArray[Any], sharp: float) -> tuple[float, float]:
    """The slope of the loss over 1 / temperature, and the slope's own."""
    step = max(1, CHUNK // max(1, logits[0].size))
    parts = [
        slope(logits[first : first + step].astype(np.float64), truth[first : first + step], sharp)
        for first in range(0, len(logits), step)
    ]
    return sum(value for value, _ in parts), sum(bend for _, bend in parts)


def _classes_slope(logits: Floats, truth: NDArray[Any], sharp: float) -> tuple[float, float]:
    """Expected minus true logit, and the variance of the logit, summed."""
    gaps = logits - logits[np.arange(len(logits)), truth][:, None]
    shares = np.exp(sharp * (gaps - gaps.max(1, keepdims=True)))
    shares /= shares.sum(1, keepdims=True)
    gaps[shares == 0] = 0
    means = (shares * gaps).sum(1)
    return float(means.sum()), float((shares * (gaps - means[:, None]) ** 2).sum())


def _labels_slope(logits: Floats, truth: NDArray[Any], sharp: float) -> tuple[float, float]:
    """The same of one logit against 0."""
    gaps = np.where(truth > 0, -logits, logits)  # of the answer that is not true
    shares = np.exp(-np.logaddexp(0, -sharp * gaps))
    gaps[shares == 0] = 0
    return float((shares * gaps).sum()), float((shares * (1 - shares) * gaps**2).sum())


def _confidence(probabilities: NDArray[Any], truth: NDArray[Any]) -> tuple[Floats, Floats]:
    if probabilities.shape == truth.shape:
        return probabilities.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"truth {truth.shape} belongs to no probabilities {probabilities.shape}")
    confidence = probabilities.max(1).astype(np.float64)
    return confidence, (probabilities.argmax(1) == truth).astype(np.float64)
