"""Evaluation: every sample of a split once, over all processes; metrics, mean loss, and what the head did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from satdifuser.data.base import LabelledDataset
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.engine.insight import InsightLog
from satdifuser.engine.predictions import PredictionLog, Predictions
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Evaluation:
    """Scores by name, how many samples they are over, and stride -> [timesteps, taps] mean weights of the head.

    Where they were to be kept: the predictions; stride -> [timesteps, experts] mean use of experts (moe); and of the
    first samples stride -> [samples, timesteps, taps, height, width] weights of each pixel (lw).
    """

    scores: dict[str, float]
    samples: int
    weights: dict[int, Tensor]
    predictions: Predictions | None = None
    usage: dict[int, Tensor] = field(default_factory=dict)
    pixels: dict[int, Tensor] = field(default_factory=dict)


def at_least_something(count: Tensor) -> Tensor:
    """What a sum is divided by: of nothing the sum is 0, and so is its mean."""
    return torch.where(count > 0, count, 1.0)


@torch.no_grad()
def evaluate(
    model: FeatureModel,
    data: LabelledDataset,
    accelerator: Accelerator,
    batch_size: int,
    workers: int = 0,
    keep: bool = False,
) -> Evaluation:
    """Score the unwrapped model; each process takes its own samples and the sums are joined at the end."""
    if len(data) == 0:
        raise UserError("the split to evaluate is empty")
    task, head = model.task, model.fusion
    was_training = model.training
    model.eval()
    metrics = task.metrics().to(accelerator.device)
    steps = len(head.spec.timesteps)
    weights = {s: torch.zeros(steps, len(names), device=accelerator.device) for s, names in head.names.items()}
    # samples, and of the loss (or of each of its parts) the sum and what it counts
    parts = 1 if model.loss is None else model.loss.parts
    totals = torch.zeros(1 + 2 * parts, device=accelerator.device, dtype=torch.float64)
    batches = OrderedBatches(len(data), batch_size, accelerator.process_index, accelerator.num_processes)
    log, insight = PredictionLog(), InsightLog()
    for indices, batch in zip(batches, loader(data, batches, workers, model.check), strict=True):
        batch = to_device(batch, accelerator.device)
        task.check(batch)
        with accelerator.autocast():
            output = model(batch)
        task.update(metrics, output.logits, batch)
        samples = len(batch["id"])
        sums = (torch.tensor(samples), model.loss_sum(output.logits, batch), model.count(batch))
        totals += torch.cat([value.to(totals).view(-1) for value in sums])
        for stride, value in output.fused.weights.items():
            weights[stride] += samples * value.float()
        if keep:
            log.add(indices, batch["id"], task.predict(output.logits), task.truth(batch), output.logits)
            insight.add(indices, output.fused)
    totals = accelerator.reduce(totals, "sum")
    weights = {stride: (accelerator.reduce(value, "sum") / totals[0]).cpu() for stride, value in weights.items()}
    scores = {name: float(value) for name, value in metrics.compute().items()}
    scores["loss"] = float((totals[1 : 1 + parts] / at_least_something(totals[1 + parts :])).sum())
    model.train(was_training)
    if not keep:
        return Evaluation(scores, int(totals[0]), weights)
    world = accelerator.num_processes
    return Evaluation(scores, int(totals[0]), weights, log.joined(world), insight.usage(world), insight.pixels(world))
