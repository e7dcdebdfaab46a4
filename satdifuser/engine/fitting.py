"""Fitting: what stands in the trainer's place where a decoder is fitted to all training samples at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from satdifuser.data.base import LabelledDataset
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.decoders.fitted import Fitted, Rows
from satdifuser.engine.checkpoint import TrainState, save_checkpoint, take_up
from satdifuser.engine.evaluate import evaluate
from satdifuser.engine.log import check_scores, logged
from satdifuser.engine.progress import TrainProgress
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.fusion.plain import Plain
from satdifuser.model import FeatureModel
from satdifuser.settings.commands import TrainSettings
from satdifuser.settings.trainer import TrainerConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Fitter:
    """As `Trainer` is to the command, in one step: features of all samples, one fit, one look at validation."""

    model: FeatureModel
    train: LabelledDataset
    val: LabelledDataset
    config: TrainerConfig
    run: RunFolder
    accelerator: Accelerator
    quiet: bool = False
    state: TrainState = field(init=False)
    ended = "fitted"

    def __post_init__(self) -> None:
        decoder = self.decoder
        if self.accelerator.num_processes > 1:
            raise UserError(
                f"decoder={decoder.name} is fitted by one process, and there are {self.accelerator.num_processes}: run"
                " satdifuser train without torchrun"
            )
        if not len(self.train) or not len(self.val):
            raise UserError("the training split or the validation split is empty")
        decoder.check_samples(len(self.train))
        self.state = TrainState(task=self.model.task.name)
        self.model.to(self.accelerator.device)
        self.parameters = list(decoder.parameters())

    @property
    def decoder(self) -> Fitted:
        assert isinstance(self.model.decoder, Fitted)
        return self.model.decoder

    @property
    def also_seen(self) -> list[str]:
        """Ids of the samples beside the training ones that it learns from."""
        return [self.val.sample_id(index) for index in range(len(self.val))] if self.decoder.refit else []

    def resume(self) -> None:
        """Take up what was fitted before; there is nothing to go on with."""
        self.state, _ = take_up(self.run.last, self.model)

    def fit(self) -> TrainState:
        """Fit, score the validation split, and keep it as the best and the last checkpoint."""
        if self.state.step:
            return self.state
        since, model, task = time.perf_counter(), self.model.eval(), self.model.task
        with logged(self.run, 0, main=True, tensorboard=self.config.tensorboard) as write:
            with torch.no_grad():
                found = self.decoder.fit(self.rows(self.train), self.rows(self.val), task)
                if found.importance is not None and isinstance(model.fusion, Plain):
                    model.fusion.weigh(found.importance.to(model.fusion.shares))
            scores = evaluate(model, self.val, self.accelerator, self.config.batch_size, self.config.workers).scores
            check_scores(scores, task.monitor, "on the validation split")
            self.state.step = self.state.best_step = 1
            self.state.best = scores[task.monitor]
            row: dict[str, Any] = {"step": 1, **found.log, **{f"val/{name}": v for name, v in scores.items()}}
            write(row)
        with TrainProgress(1, 1, quiet=self.quiet) as progress:
            progress.say(1, row)
        self.state.seconds += time.perf_counter() - since
        for path in (self.run.best, self.run.last):
            save_checkpoint(path, self.state, model.trained_state())
        return self.state

    def rows(self, data: LabelledDataset) -> Rows:
        """What the decoder gets of each sample, and the truth; nothing else is kept."""
        model, features, truths = self.model, [], []
        batches = OrderedBatches(len(data), self.config.batch_size)
        for batch in loader(data, batches, self.config.workers, model.check):
            batch = to_device(batch, self.accelerator.device)
            model.task.check(batch)
            with self.accelerator.autocast():
                maps = model.fusion(model.bank(batch)).maps
            features.append(self.decoder.rows(maps).cpu().numpy())
            truths.append(model.task.truth(batch).cpu().numpy())
        return Rows(np.concatenate(features), np.concatenate(truths))


def check_fitted(model: FeatureModel, settings: TrainSettings, augmented: bool) -> None:
    """Refuse settings that mean nothing where nothing is trained by steps."""
    if not isinstance(model.decoder, Fitted):
        return
    name = f"decoder={model.decoder.name}"
    if augmented:
        raise UserError(f"{name} is fitted once, to images as they are: leave augmentation out")
    if settings.init is not None:
        raise UserError(f"{name} is fitted anew, and begins with nothing that another run has trained: leave init out")
    if settings.loss is not None:
        raise UserError(f"{name} has its own objective, and is not trained by steps on another: set loss=own")
