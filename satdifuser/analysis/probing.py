"""Linear probes: how much of a classification is linearly readable from each (timestep, tap) of a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.bank import Tap
    from satdifuser.store import StoredFeatures

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pooled:
    """The spatial mean of every tap for every sample, `tap -> [samples, channels]`, and the samples' classes."""

    features: dict[Tap, Floats]
    classes: NDArray[np.int64]

    def all_taps(self) -> Floats:
        """Every channel of every tap side by side."""
        return np.concatenate(list(self.features.values()), axis=1)


def pooled(data: StoredFeatures, batch_size: int = 256) -> Pooled:
    """Read a split of a store, in any form, batch by batch."""
    from satdifuser.data.batches import OrderedBatches, loader

    if data.spec.dates is not None:
        raise UserError(f"{data.store.path} holds {data.spec.dates} dates of each sample: probe features of one image")
    parts: dict[Tap, list[Floats]] = {tap: [] for tap in data.spec.taps}
    classes: list[NDArray[np.int64]] = []
    for batch in loader(data, OrderedBatches(len(data), batch_size)):
        if "label" not in batch:
            raise UserError(f"{data.store.path} has no class labels: probe features of a classification data set")
        bank = batch["bank"].unpack()
        for tap, rows in parts.items():
            rows.append(bank[tap].float().mean((2, 3)).numpy())
        classes.append(batch["label"].numpy())
    return Pooled({tap: np.concatenate(rows) for tap, rows in parts.items()}, np.concatenate(classes))


def accuracy(train: tuple[Floats, Any], test: tuple[Floats, Any], strength: float = 0.1) -> float:
    """Share of the test samples that multinomial logistic regression tells right.

    Features are standardised by the training samples' mean and deviation; `strength` is scikit-learn's C.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(*train)
    return float(probe.score(*test))


def probe_map(train: Pooled, test: Pooled, strength: float = 0.1) -> dict[Tap, float]:
    """The accuracy of a probe at each tap."""
    return {
        tap: accuracy((train.features[tap], train.classes), (test.features[tap], test.classes), strength)
        for tap in train.features
    }
