"""The trainer: one loop for fusion heads on frozen features and for encoders trained from end to end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.augment import Augmentation
from satdifuser.data.base import Batch, LabelledDataset
from satdifuser.data.batches import ShuffledBatches, loader, part, to_device
from satdifuser.engine.checkpoint import TrainState, restore_optimizer, save_checkpoint, take_up
from satdifuser.engine.evaluate import at_least_something, evaluate
from satdifuser.engine.interrupt import Interrupted, Stop
from satdifuser.engine.log import Row, check_loss, check_scores, logged
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
        self._stop, self._stopping, self._saved = Stop(), False, 0

    def resume(self) -> None:
        """Go on from the last checkpoint of the run."""
        self.state, optimizer = take_up(self.run.last, self.model)
        restore_optimizer(self.optimizer, optimizer)
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)

    def fit(self) -> TrainState:
        """Train to the end or until it stops getting better; the best checkpoint is then the one to test.

        A signal ends it after the step that is going on, or in an evaluation at once, with a checkpoint to go on from.
        """
        self.batches.start = self._saved = self.state.step
        self._since = time.perf_counter()
        wrapped = self.accelerator.prepare_model(self.model)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        main, tensorboard = self.accelerator.is_main_process, self.config.tensorboard
        quiet = self.quiet or not main
        self._stop, self._stopping = Stop("" if quiet else "stopping after this step; once more stops at once"), False
        progress = TrainProgress(self.total, self.state.step, quiet=quiet)
        logged_until = self.state.step - (self.state.row is not None)
        with self._stop, progress, logged(self.run, logged_until, main=main, tensorboard=tensorboard) as write:
            try:
                self._train(wrapped, progress, write)
            except Interrupted as stopped:
                if not stopped.whole:
                    raise self._interrupted(f"in step {self.state.step + 1} of {self.total}") from None
            except UserError:
                raise
            except Exception as error:  # the signal has ended another process before this one
                if self._stop.number is None:
                    raise
                raise self._interrupted(f"in step {self.state.step + 1} of {self.total}") from error
            if self._stop.number is not None or self._stopping:
                raise self._kept()
        self._count_time()
        return self.state

    def _train(self, wrapped: torch.nn.Module, progress: TrainProgress, write: Callable[[Row], None]) -> None:
        if self.state.row is not None:  # of a step that was done when its evaluation was interrupted
            self._finish(self.state.row, progress, write)
        batches = loader(self.train, self.batches, self.config.workers, self.model.check)
        for batch in self._stop.reading(batches, alone=self.accelerator.num_processes == 1):
            if self.state.step >= self.total or self._stale():
                break
            wrapped.train()
            row = self._step(wrapped, to_device(batch, self.accelerator.device))
            progress.step(self.state.step, row["loss"])
            self._finish(row, progress, write)
            if self._stopping:
                break

    def _finish(self, row: Row, progress: TrainProgress, write: Callable[[Row], None]) -> None:
        """Log a step, and after some of them look at the validation split and write the checkpoints."""
        looks = self.state.step % self.eval_every == 0 or self.state.step == self.total
        if looks:
            self.state.row = dict(row)  # a checkpoint that is written from here on begins with the look
            row = {**row, **self._evaluate()}
            self.state.row = None
            progress.say(self.state.step, row)
        write(row)
        if looks:
            self._save()  # after its row: what a checkpoint knows is in the log, whenever a kill comes

    def _kept(self) -> Interrupted:
        """Keep what is done; nobody waits for the other processes, which may have ended."""
        if self.state.step > self._saved or self.state.row is not None:
            self._count_time()
            self._save_last()
        kept = f"at step {self.state.step} of {self.total}, which {self.run.path} keeps"
        return self._interrupted(kept if self.state.step else "before its first step")

    def _interrupted(self, text: str) -> Interrupted:
        number = self._stop.number or signal.SIGTERM  # which another process was sent
        return Interrupted(text if self.accelerator.is_main_process else "", number)

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
        asked = total.new_tensor(float(self._stop.number is not None))
        value, stopping = accelerator.reduce(torch.stack([total, asked]), "sum").tolist()
        self._stopping = stopping > 0  # all processes stop after the same step
        row: dict[str, Any] = {"step": self.state.step, "loss": value, "lr": rate}
        check_loss(row["loss"], self.state.step, "lower trainer.lr or set trainer.clip_norm=1")
        return row if norm is None else {**row, "grad_norm": float(norm)}

    def _evaluate(self) -> dict[str, float]:
        """Score the validation split, and remember whether it got better."""
        if self._stopping:
            raise Interrupted(whole=True)
        with self._stop.at_once():
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
        self._save_last(best=self.state.best_step == self.state.step)
        self.accelerator.wait_for_everyone()

    def _save_last(self, best: bool = False) -> None:
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        self._saved = self.state.step
        if self.accelerator.is_main_process:
            weights = self.model.trained_state()
            if best:
                save_checkpoint(self.run.best, self.state, weights)
            save_checkpoint(self.run.last, self.state, weights, self.optimizer)

    @property
    def ended(self) -> str:
        """Why training ended: validation got no better for long (`patience`), or all steps were done (`max_steps`)."""
        return "patience" if self._stale() else "max_steps"

    def _stale(self) -> bool:
        return self.config.patience is not None and self.state.stale >= self.config.patience
