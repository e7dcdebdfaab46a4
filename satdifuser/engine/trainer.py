"""The trainer: one loop for fusion heads on frozen features and for encoders trained from end to end."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.augment import Augmentation
from satdifuser.data.base import Batch, LabelledDataset
from satdifuser.data.batches import ShuffledBatches, loader, part, to_device
from satdifuser.engine.checkpoint import TrainState, restore_optimizer, save_checkpoint, take_up
from satdifuser.engine.evaluate import at_least_something, evaluate
from satdifuser.engine.log import check_loss, check_scores, logged
from satdifuser.engine.memory import keep_memory
from satdifuser.engine.progress import TrainProgress
from satdifuser.engine.run import RunFolder
from satdifuser.engine.schedule import Rates, build_optimizer, set_rate
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel
from satdifuser.settings.trainer import TrainerConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(mixed_precision: str, sparse: bool = False) -> Accelerator:
    """Accelerate's view of the machine; a head that skips parameters in a step needs them looked for."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    keep_memory()
    AcceleratorState._reset_state()  # one process may train several runs, each with a precision of its own
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=sparse)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = launched and not torch.cuda.is_available()  # else each process takes itself to be alone
    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UserError("mixed_precision=fp16 needs a GPU, and this machine has none: set it to bf16, or to no")
    try:
        return Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[kwargs])
    except ValueError as error:  # a precision that this machine does not have
        reason = " ".join(str(error).split())
        raise UserError(f"mixed_precision={mixed_precision} is not to be had on this machine: {reason}") from error


@dataclass
class Trainer:
    """Trains `model` on `train`, chooses by `val`, and keeps everything in `run`.

    Step n is a function of (weights, seed, n): its batch, its dropout and its learning rate need no state, so a resumed
    run continues the same curve, and runs with one and with two processes see the same batches.
    """

    model: FeatureModel
    train: LabelledDataset
    val: LabelledDataset
    config: TrainerConfig
    run: RunFolder
    accelerator: Accelerator
    seed: int = 0
    quiet: bool = False
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        self.state = TrainState(task=self.model.task.name)
        self.model.to(self.accelerator.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        encoder = {id(p) for p in self.model.encoder.parameters()} if self.model.encoder is not None else set()
        self.optimizer = build_optimizer(
            [p for p in self.parameters if id(p) in encoder],
            [p for p in self.parameters if id(p) not in encoder],
            self.config,
        )
        self.batches = ShuffledBatches(
            len(self.train),
            self.config.batch_size,
            self.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            keep_last=self.config.last_batch == "keep",
        )
        self.rates = Rates(self.config, self.batches.per_epoch)
        self.total = self.rates.total
        self.eval_every = self.config.eval_every or self.batches.per_epoch

    def resume(self) -> None:
        """Go on from the last checkpoint of the run."""
        self.state, optimizer = take_up(self.run.last, self.model)
        restore_optimizer(self.optimizer, optimizer)
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)

    def fit(self) -> TrainState:
        """Train to the end or until it stops getting better; the best checkpoint is then the one to test."""
        self.batches.start = self.state.step
        self._since = time.perf_counter()
        wrapped = self.accelerator.prepare_model(self.model)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        progress = TrainProgress(self.total, self.state.step, quiet=self.quiet or not self.accelerator.is_main_process)
        main, tensorboard = self.accelerator.is_main_process, self.config.tensorboard
        with progress, logged(self.run, self.state.step, main=main, tensorboard=tensorboard) as write:
            for batch in loader(self.train, self.batches, self.config.workers, self.model.check):
                if self.state.step >= self.total or self._stale():
                    break
                wrapped.train()
                row = self._step(wrapped, to_device(batch, self.accelerator.device))
                progress.step(self.state.step, row["loss"])
                looks = self.state.step % self.eval_every == 0 or self.state.step == self.total
                if looks:
                    row |= self._evaluate()
                    progress.say(self.state.step, row)
                write(row)
                if looks:
                    self._save()  # after its row: what a checkpoint knows is in the log, whenever a kill comes
        self._count_time()
        return self.state

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._since
        self._since = now

    def _step(self, wrapped: torch.nn.Module, batch: Batch) -> dict[str, Any]:
        """One optimiser step; the loss is the mean over the whole batch, however it is cut."""
        accelerator = self.accelerator
        torch.manual_seed((self.seed * 1_000_003 + self.state.step) * 1009 + accelerator.process_index)
        rate = self.rates.at(self.state.step)
        set_rate(self.optimizer, rate)
        self.model.task.check(batch)
        batch = batch if self.augment is None else self.augment(batch, self.state.step)
        world, parts = accelerator.num_processes, min(self.config.accumulate, len(batch["id"]))
        count = at_least_something(accelerator.reduce(self.model.count(batch).float(), "sum"))
        total = torch.zeros((), device=accelerator.device)
        for number in range(parts):
            micro = part(batch, number, parts) if parts > 1 else batch
            wait = accelerator.no_sync(wrapped) if number < parts - 1 else contextlib.nullcontext()
            with wait:
                with accelerator.autocast():
                    output = wrapped(micro)
                # DDP averages gradients over processes, so each share of the sum is multiplied by their number.
                loss = (self.model.loss_sum(output.logits, micro) * (world / count)).sum()
                if output.fused.aux_loss is not None:
                    loss = loss + output.fused.aux_loss * (len(micro["id"]) / len(batch["id"]))
                accelerator.backward(loss)
            total += loss.detach() / world
        if self.state.step == 0 and accelerator.is_main_process:
            self.run.keep_start(output.fused.weights)
        norm = accelerator.clip_grad_norm_(self.parameters, self.config.clip_norm) if self.config.clip_norm else None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.fusion.step_done()
        self.state.step += 1
        row: dict[str, Any] = {"step": self.state.step, "loss": float(accelerator.reduce(total, "sum")), "lr": rate}
        check_loss(row["loss"], self.state.step, "lower trainer.lr or set trainer.clip_norm=1")
        return row if norm is None else {**row, "grad_norm": float(norm)}

    def _evaluate(self) -> dict[str, float]:
        """Score the validation split, and remember whether it got better."""
        result = evaluate(self.model, self.val, self.accelerator, self.config.batch_size, self.config.workers)
        score = result.scores[self.model.task.monitor]
        check_scores(result.scores, self.model.task.monitor, f"on the validation split at step {self.state.step}")
        if self.state.best is None or score > self.state.best:
            self.state.best, self.state.best_step, self.state.stale = score, self.state.step, 0
        else:
            self.state.stale += 1
        return {f"val/{name}": value for name, value in result.scores.items()}

    def _save(self) -> None:
        """Write the checkpoints: the last, and the best if this is it."""
        self._count_time()
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        if self.accelerator.is_main_process:
            weights = self.model.trained_state()
            if self.state.best_step == self.state.step:
                save_checkpoint(self.run.best, self.state, weights)
            save_checkpoint(self.run.last, self.state, weights, self.optimizer)
        self.accelerator.wait_for_everyone()

    @property
    def ended(self) -> str:
        """Why training ended: validation got no better for long (`patience`), or all steps were done (`max_steps`)."""
        return "patience" if self._stale() else "max_steps"

    def _stale(self) -> bool:
        return self.config.patience is not None and self.state.stale >= self.config.patience
