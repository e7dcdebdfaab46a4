"""Evaluation: every sample of a split once, over all processes; metrics, mean loss, and what the head did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from satdifuser.data.base import LabelledDataset
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.engine.predictions import PredictionLog, Predictions
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel

if TYPE_CHECKING:
    from accelerate import Accelerator


SHOWN = 4  # samples whose maps of weights are kept


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
    log, usage, pixels = PredictionLog(), dict[int, Tensor](), dict[int, Tensor]()
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
            for stride, value in output.fused.details.get("gate_usage", {}).items():
                usage[stride] = usage.get(stride, 0) + samples * value.float()
            for stride, value in output.fused.details.get("pixel_weights", {}).items():
                pixels.setdefault(stride, value[:SHOWN].float().cpu())
    totals = accelerator.reduce(totals, "sum")
    weights = {stride: (accelerator.reduce(value, "sum") / totals[2]).cpu() for stride, value in weights.items()}
    scores = {name: float(value) for name, value in metrics.compute().items()}
    scores["loss"] = float(totals[0] / totals[1].clamp_min(1))
    model.train(was_training)
    predictions = log.joined(accelerator.num_processes) if keep else None
    usage = {stride: value / int(totals[2]) for stride, value in _summed(usage, accelerator.num_processes).items()}
    return Evaluation(scores, int(totals[2]), weights, predictions, usage, pixels)


def _summed(sums: dict[int, Tensor], processes: int) -> dict[int, Tensor]:
    """Over all processes, of which one that saw no sample has nothing."""
    shares = [{stride: value.cpu() for stride, value in sums.items()}]
    if processes > 1:
        from accelerate.utils import gather_object

        shares = gather_object(shares)
    strides = {stride: None for share in shares for stride in share}
    return {stride: torch.stack([share[stride] for share in shares if stride in share]).sum(0) for stride in strides}
