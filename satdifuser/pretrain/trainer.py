"""The loop of pretraining: any objective on unlabelled images, through accelerate, with exact resume."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from satdifuser.engine.checkpoint import TrainState, load_checkpoint, restore_optimizer, save_checkpoint
from satdifuser.engine.log import check_loss, logged
from satdifuser.engine.progress import TrainProgress
from satdifuser.engine.run import RunFolder
from satdifuser.engine.schedule import learning_rate
from satdifuser.errors import UserError
from satdifuser.pretrain.draws import Draws, any_side_up
from satdifuser.pretrain.images import Images
from satdifuser.pretrain.soundness import unsound, writing
from satdifuser.settings.pretraining import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

NET, EMA = "net/", "ema/"
Look = Callable[[], Mapping[str, float]]


@dataclass
class Pretrainer:
    """Trains what trains of `objective`, whose `forward(images, draws)` gives a loss for each image.

    Step n is a function of (weights, seed, n) and, dropout aside, of nothing else: not of the number of processes or
    micro-batches, nor of when the run was interrupted. `look()` is called at every evaluation, while the objective has
    its averaged weights.
    """

    objective: nn.Module
    images: Images
    recipe: Recipe
    run: RunFolder
    accelerator: Accelerator
    seed: int = 0
    quiet: bool = False
    look: Look = lambda: {}
    began: float | None = None  # when the time of `recipe.minutes` began; None: with `fit`

    def __post_init__(self) -> None:
        self.state, self._since = TrainState(task="pretrain"), time.perf_counter()
        self.objective.to(self.accelerator.device)
        self.trained = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        self.optimizer: Any = torch.optim.AdamW(
            list(self.trained.values()),
            lr=self.recipe.lr,
            betas=(self.recipe.betas[0], self.recipe.betas[1]),
            weight_decay=self.recipe.weight_decay,
        )
        self.ema = None if self.recipe.ema is None else self._average(self.recipe.ema)

    def _average(self, decay: float) -> Any:
        from diffusers.training_utils import EMAModel

        many = self.accelerator.device.type == "cuda"  # one kernel for all tensors, and not one for each
        return EMAModel(self.trained.values(), decay=decay, use_ema_warmup=True, power=0.75, foreach=many)

    def resume(self) -> None:
        """Go on from the last checkpoint of the run."""
        self.state, tensors, optimizer = load_checkpoint(self.run.last)
        expected = {prefix + name for prefix in (NET, *((EMA,) if self.ema else ())) for name in self.trained}
        if tensors.keys() != expected:
            odd = sorted(tensors.keys() ^ expected)[0]
            raise UserError(f"{self.run.last} is of another configuration: {odd} is in one of the two alone")
        with torch.no_grad():
            for name, parameter in self.trained.items():
                if parameter.shape != tensors[NET + name].shape:
                    raise UserError(f"{self.run.last} is of another configuration: {name} has another shape")
                parameter.copy_(tensors[NET + name])
        if self.ema is not None:
            device = self.accelerator.device
            self.ema.shadow_params = [tensors[EMA + name].to(device) for name in self.trained]
            self.ema.optimization_step = self.state.step
        restore_optimizer(self.optimizer, optimizer)
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)

    @property
    def finished(self) -> bool:
        """Whether all steps are done: `recipe.minutes` may end it before."""
        return self.state.step >= self.recipe.steps

    @property
    def elapsed(self) -> float:
        """Seconds spent on this run, over all the times it was taken up."""
        return self.state.seconds + time.perf_counter() - self._since

    def fit(self) -> TrainState:
        """Train to the end; the objective is left with its averaged weights."""
        recipe, total = self.recipe, self.recipe.steps
        self._since = time.perf_counter()
        self._began = self._since if self.began is None else self.began
        self._late = False
        wrapped = self.accelerator.prepare_model(self.objective)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        batches = self.images.batches(self.state.step, recipe.workers, self.accelerator.device)
        main, save_every = self.accelerator.is_main_process, recipe.save_every or recipe.eval_every
        progress = TrainProgress(total, self.state.step, quiet=self.quiet or not main)
        kept = self.state.step - (self.state.row is not None)
        log = logged(self.run, kept, main=main, tensorboard=recipe.tensorboard)
        with progress, contextlib.ExitStack() as stack:
            with writing(self.run, self.run.metrics):
                write = stack.enter_context(log)

            def finish(row: Mapping[str, Any]) -> None:
                step = self.state.step
                if step % recipe.eval_every == 0 or step == total or self._late:
                    row = {**row, **self._evaluate()}
                    progress.say(step, row)
                with writing(self.run, self.run.metrics):
                    write(row)

            if self.state.row is not None:  # a kill may have come between the checkpoint and this
                finish(self.state.row)
            while self.state.step < total and not self._late:
                self.state.row = row = self._step(wrapped, next(batches))
                step = self.state.step
                progress.step(step, row["loss"])
                if step % save_every == 0 or step == total or self._late:
                    self._save()  # before a look, so that a look that fails loses nothing
                finish(row)
        if self.ema is not None:
            self.ema.copy_to(self.trained.values())
        return self.state

    def _step(self, wrapped: nn.Module, images: Tensor) -> dict[str, Any]:
        accelerator, step = self.accelerator, self.state.step
        wrapped.train()
        warmup = min(self.recipe.warmup, self.recipe.steps // 4)  # a short run is not all warm-up
        rate = learning_rate(step, self.recipe.steps, warmup, self.recipe.lr, self.recipe.min_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((self.seed * 1_000_003 + step) * 1009 + accelerator.process_index)  # of dropout, if any
        rank, world, parts = accelerator.process_index, accelerator.num_processes, self.recipe.accumulate
        total = torch.zeros((), device=accelerator.device)
        for number in range(parts):
            every = {"rank": rank + world * number, "world": world * parts}
            draws = Draws(self.seed, step, self.images.total, **every, device=accelerator.device)
            micro = images[number::parts]
            micro = any_side_up(micro, draws) if self.recipe.augment else micro
            wait = accelerator.no_sync(wrapped) if number < parts - 1 else contextlib.nullcontext()
            with wait:
                with accelerator.autocast():
                    # DDP averages gradients over processes, so each share of the sum is multiplied by their number.
                    loss = wrapped(micro, draws).sum() * (world / self.images.total)
                accelerator.backward(loss)
            total += loss.detach() / world
        norm = None
        if self.recipe.clip_norm is not None:
            norm = accelerator.clip_grad_norm_(self.trained.values(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self.trained.values())
        self.state.step += 1
        sums = accelerator.reduce(torch.stack([total, total.new_tensor(float(self._out_of_time()))]), "sum")
        value, self._late = float(sums[0]), bool(sums[1] > 0)  # if one process's time is over, all of them stop
        check_loss(value, self.state.step, "lower recipe.lr, or raise recipe.warmup")
        row: dict[str, Any] = {"step": self.state.step, "loss": value, "lr": rate}
        return row if norm is None else {**row, "grad_norm": float(norm)}

    def _out_of_time(self) -> bool:
        minutes = self.recipe.minutes
        return minutes is not None and time.perf_counter() - self._began >= 60 * minutes

    def _save(self) -> None:
        """Write the checkpoint that a resume goes on from, unless it would be worse than the one before it."""
        self._check()
        if self.accelerator.is_main_process:
            self.state.seconds, self._since = self.elapsed, time.perf_counter()
            if self.accelerator.scaler is not None:
                self.state.scaler = self.accelerator.scaler.state_dict()
            save_checkpoint(self.run.last, self.state, self._tensors(), self.optimizer)
        self.accelerator.wait_for_everyone()

    def _evaluate(self) -> dict[str, float]:
        """Look at the averaged weights."""
        self._check()
        self.objective.eval()
        found: Mapping[str, float] = {}
        if self.accelerator.is_main_process:
            with self.averaged():
                found = self.look()
        self.accelerator.wait_for_everyone()
        return dict(found)

    def _check(self) -> None:
        """Refuse weights that are no numbers: a loss that is one can come before them."""
        name = unsound(self._tensors())
        if name is not None:
            raise UserError(
                f"the weights became NaN or infinite at step {self.state.step} ({name}): lower recipe.lr, or raise"
                " recipe.warmup"
            )

    def _tensors(self) -> dict[str, Tensor]:
        held: dict[str, Tensor] = {NET + name: parameter for name, parameter in self.trained.items()}
        if self.ema is not None:
            held |= {EMA + name: value for name, value in zip(self.trained, self.ema.shadow_params, strict=True)}
        return held

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the objective has the weights that will be the result."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained.values())
        self.ema.copy_to(self.trained.values())
        try:
            yield
        finally:
            self.ema.restore(self.trained.values())
