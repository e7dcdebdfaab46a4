"""Scoring probes of pixels on every pixel of the test split, batch by batch; no map is kept.

A linear probe and bilinear interpolation may change places: the probe is applied to the map, and its logits are brought
to the label's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.analysis.calibration import CalibrationCounts
from satdifuser.analysis.linear import Linear
from satdifuser.bank import FeatureBank
from satdifuser.decoders.base import resize
from satdifuser.study.probe.learning import Learned
from satdifuser.study.probe.pixels import Ints, kinds
from satdifuser.study.probe.questions import Question
from satdifuser.study.probe.scoring import guessed
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.watch import Watch
from satdifuser.tasks.base import Task


@dataclass
class Scored:
    """A learned probe, and what it has answered so far."""

    learned: Learned
    bins: int
    rows: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before, self.after = CalibrationCounts(self.bins), CalibrationCounts(self.bins)

    @property
    def statistics(self) -> NDArray[Any]:
        return np.concatenate(self.rows)

    @property
    def calibration(self) -> tuple[float, float] | None:
        return None if self.learned.temperature is None else (self.before.error, self.after.error)

    def logits(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, outputs, *size], float32; the products are in float64, for the standardisation inside is large."""
        model = self.learned.model
        assert isinstance(model, Linear)
        weight, bias = (torch.from_numpy(part).to(maps.device) for part in (model.weight, model.bias))
        small = weight @ maps.double().flatten(2) + bias[:, None]
        return resize(small.float().unflatten(2, maps.shape[-2:]), size)

    def calibrate(self, logits: Tensor, there: Tensor, truth: Tensor) -> None:
        """Take the pixels that are `there` [B, H, W]."""
        heat = self.learned.temperature
        if heat is None:
            return
        most = logits.amax(1, keepdim=True)
        right = (logits.argmax(1) == truth)[there].cpu().numpy()
        for found, warmth in ((self.before, 1.0), (self.after, heat)):
            sure = 1 / ((logits - most).double() / warmth).exp().sum(1)
            found.add(sure[there].cpu().numpy(), right)


def score(source: Source, probes: Mapping[Question, Scored], known: Ints) -> float:
    """One pass over the test split for all probes; gives what guessing would score, who knows the training classes."""
    task, taps = source.task, list(dict.fromkeys(question.column.tap for question in probes))
    numbers, sums, middle = task.label == "target", [], None
    with Watch("scoring", "samples", len(source.splits["test"])) as watch:
        for some, bank, labels in source.batches("test", taps):
            truth = task.truth(labels)
            if numbers:
                middle = _middle(truth[0]) if middle is None else middle  # of whatever batch size
            else:
                said = np.broadcast_to(guessed(task, known, 1), tuple(truth.shape))
                sums.append(task.statistics(said, truth.numpy()).sum(0))
            _score(task, probes, bank, truth, middle)
            watch.step(len(some))
    return 0.0 if numbers else float(task.scores(np.sum(sums, axis=0))[task.monitor])


def _score(
    task: Task, probes: Mapping[Question, Scored], bank: FeatureBank, truth: Tensor, middle: float | None
) -> None:
    on_device = truth.to(bank.device)
    there = torch.from_numpy(kinds(task, truth.numpy()) >= 0).to(bank.device)
    more = {} if middle is None else {"middle": middle}
    for question, probe in probes.items():
        logits = probe.logits(bank[question.column.tap], (truth.shape[-2], truth.shape[-1]))
        probe.rows.append(task.statistics(task.predict(logits).cpu().numpy(), truth.numpy(), **more))
        probe.calibrate(logits, there, on_device)


def _middle(truth: Tensor) -> float:
    """What squares are taken around: any number near the targets will do, but it must be one for all probes.

    Tests between places put samples of one probe among those of another, which another process may have scored.
    """
    found = truth[truth.isfinite()]
    return float(found.double().mean()) if found.numel() else 0.0
