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
    totals = torch.zeros(3, device=accelerator.device, dtype=torch.float64)  # loss sum, elements, samples
    batches = OrderedBatches(len(data), batch_size, accelerator.process_index, accelerator.num_processes)
    log, insight = PredictionLog(), InsightLog()
    for indices, batch in zip(batches, loader(data, batches, workers, model.check), strict=True):
        batch = to_device(batch, accelerator.device)
        task.check(batch)
        with accelerator.autocast():
            output = model(batch)
        task.update(metrics, output.logits, batch)
        samples = len(batch["id"])
        sums = (task.loss_sum(output.logits, batch), task.count(batch), torch.tensor(samples))
        totals += torch.stack([value.to(totals) for value in sums])
        for stride, value in output.fused.weights.items():
            weights[stride] += samples * value.float()
        if keep:
            log.add(indices, batch["id"], task.predict(output.logits), task.truth(batch), output.logits)
            insight.add(indices, output.fused)
    totals = accelerator.reduce(totals, "sum")
    weights = {stride: (accelerator.reduce(value, "sum") / totals[2]).cpu() for stride, value in weights.items()}
    scores = {name: float(value) for name, value in metrics.compute().items()}
    scores["loss"] = float(totals[0] / totals[1].clamp_min(1))
    model.train(was_training)
    if not keep:
        return Evaluation(scores, int(totals[2]), weights)
    world = accelerator.num_processes
    return Evaluation(scores, int(totals[2]), weights, log.joined(world), insight.usage(world), insight.pixels(world))
