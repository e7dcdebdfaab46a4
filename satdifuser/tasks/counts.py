"""Counts by class, added up over samples: what scores of classes are functions of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def class_counts(prediction: Array, truth: Array, classes: int) -> Array:
    """For each sample and class how often it was found rightly, said, and true: `[samples, 3 * classes]`.

    Elements whose truth is no class (ignored pixels) count nowhere.

    >>> class_counts(np.array([[0, 1, 1]]), np.array([[0, 0, 255]]), 2)
    array([[1., 0., 1., 1., 2., 0.]])
    """
    samples = len(truth)
    said, true = prediction.reshape(samples, -1).astype(np.int64), truth.reshape(samples, -1).astype(np.int64)
    valid = (true >= 0) & (true < classes)
    row = np.broadcast_to(np.arange(samples)[:, None], true.shape)

    def count(where: Array, which: Array) -> Array:
        index = (row * classes + which)[where]
        return np.bincount(index, minlength=samples * classes).reshape(samples, classes).astype(np.float64)

    return np.concatenate([count(valid & (said == true), true), count(valid, said), count(valid, true)], axis=1)


def by_class(sums: Array) -> tuple[Array, Array, Array]:
    """Right, said and true of each class, from sums of `class_counts`."""
    right, said, true = np.split(sums, 3, axis=-1)
    return right, said, true


def share(part: Array, whole: Array) -> Array:
    """part / whole, 0 where there is nothing of the whole."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)


def mean_of_seen(values: Array, seen: Array) -> Array:
    """The mean over the classes that there is anything of."""
    return share((values * seen).sum(-1), seen.sum(-1))


def mean_iou(right: Array, said: Array, true: Array, counts: Array, zero: bool = False) -> Array:
    """The mean of intersection / union over the classes that `counts` names, with or without those that are nowhere.

    >>> right, said, true = (np.array(row) for row in ([2, 1, 0], [2, 2, 0], [3, 1, 0]))
    >>> both = [mean_iou(right, said, true, np.full(3, True), zero) for zero in (False, True)]
    >>> [round(float(value), 3) for value in both]
    [0.583, 0.389]
    """
    union = said + true - right
    return mean_of_seen(share(right, union), ((union > 0) | zero) & counts)


def released_f1(right: Array, said: Array, true: Array) -> Array:
    """The harmonic mean of macro precision and macro recall, means over all classes, with 0 of one never said or true.

    >>> said = np.array([[1, 3, 2], [3, 3, 0], [1, 4, 1]])  # of each true class (row)
    >>> right, said, true = said.diagonal(), said.sum(0), said.sum(1)
    >>> round(float(released_f1(right, said, true)), 3), round(float(np.mean(2 * right / (said + true))), 3)
    (0.278, 0.26)
    """
    precision, recall = share(right, said).mean(-1), share(right, true).mean(-1)
    return share(2 * precision * recall, precision + recall)
