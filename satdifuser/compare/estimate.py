"""What a grid would take, from a few real steps of each model on each task; nothing of it is kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.build import assemble, build_data, build_encoder
from satdifuser.compare.grid import Cell
from satdifuser.compare.plan import Planned
from satdifuser.compare.shared import Shared, stores_to_make
from satdifuser.compare.worker import failure, result
from satdifuser.data.batches import batches_per_epoch
from satdifuser.data.splits.budgets import budget_size
from satdifuser.decoders.fitted import Fitted, is_fitted
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.store import Form

CALLS, SECONDS = 3, 20.0  # measured after one to warm up; fewer where they take longer
FEW = 16  # images of which an encoder's time is measured


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step, of scoring a sample, and of one image's features (0 where they come with a step)."""

    step: float
    sample: float
    image: float


Paces = dict[tuple[str, str], Pace | UserError]


def show(planned: Sequence[Planned], shared: Shared, threads: int | None = None) -> None:
    """Print the runs, what each needs, and the time that they may take one after the other."""
    import torch

    from satdifuser.commands.dry_run import duration
    from satdifuser.engine.memory import keep_memory
    from satdifuser.report.tables import show as show_table

    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    stores = stores_to_make(shared, [run.cell for run in planned if run.missing])
    numbers = {path: number for number, path in enumerate(stores, start=1)}
    paces: Paces = {}
    rows, total = [], 0.0
    folds = any(run.cell.fold is not None for run in planned)
    for run in planned:
        cell, store = run.cell, run.cell.config.features
        needs = "images" if store is None else f"features {numbers.get(Path(store), '')}"
        took, state = "", _state(run)
        if run.missing:
            try:
                seconds = seconds_of(cell, _pace_of(cell, shared, paces), shared.lengths(cell))
                total, took = total + seconds, duration(seconds)
            except UserError as error:
                state = f"cannot run: {error}"
        fold = [] if not folds else [""] if cell.fold is None else [f"{cell.fold} of {cell.folds}"]
        rows.append([cell.model, cell.task, f"{cell.budget:g} %", str(cell.seed), *fold, needs.strip(), took, state])
    header = ["model", "task", "labels", "seed", *(["fold"] if folds else []), "needs", "about", "state"]
    show_table(f"{len(planned)} runs", header, rows)
    for path, cell in stores.items():
        print(f"features {numbers[path]}: {_store_line(path, cell, shared, paces)}")
    missing = sum(run.missing for run in planned)
    print(f"{missing} runs to do: at most about {duration(total)} beside that, one after the other; no run was made")


def _store_line(path: Path, cell: Cell, shared: Shared, paces: Paces) -> str:
    from satdifuser.bank import BankSpec
    from satdifuser.build import of_series, series_of
    from satdifuser.commands.dry_run import duration
    from satdifuser.store.forms import bytes_text

    if path.is_dir():
        return f"{path} is there"
    samples, form = sum(shared.lengths(cell).values()), _form(shared)
    series = series_of(build_data(cell.config.data, "train"))
    spec = of_series(BankSpec.from_dict(shared.facts(cell).spec), series.dates)
    size = bytes_text(samples * form.bytes_per_sample(form.spec(spec)))
    try:
        about = f"about {duration(_pace_of(cell, shared, paces).image * samples)}"
    except UserError as error:
        about = f"but: {error}"
    return f"{path} to be extracted: {samples} samples, {size}, {about}"


def _state(run: Planned) -> str:
    if run.folder is None:
        return f"cannot run: {run.error}"
    if result(run.folder) is not None:
        return "done"
    error = failure(run.folder)
    return "to do" if error is None else f"to do again, failed: {error}"


def _pace_of(cell: Cell, shared: Shared, paces: Paces) -> Pace:
    """Measured once for each model and task; an error that stood in its way stands in all their ways."""
    key = (cell.model, cell.task)
    if key not in paces:
        try:
            form = _form(shared)
            paces[key] = pace(cell, form if shared.stored(cell) and not form.latents else None)
        except UserError as error:
            paces[key] = error
    found = paces[key]
    if isinstance(found, UserError):
        raise UserError(str(found))
    return found


def _form(shared: Shared) -> Form:
    from satdifuser.store import Form

    return Form(shared.store.dtype, shared.store.keep)


def pace(cell: Cell, form: Form | None) -> Pace:
    """Of a model on real samples of its task: of its head alone where it reads features, in the form that is kept."""
    import torch

    from satdifuser.bank import FeatureBank
    from satdifuser.build import build_augmentation, build_task, check_series, of_series, series_of
    from satdifuser.data.batches import collate, to_device
    from satdifuser.data.policy import resolved
    from satdifuser.temporal import read

    config, device = cell.config, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = build_data(config.data, "train")
    series = series_of(data)
    check_series(config.temporal, series, data.name)
    samples = min(len(data), config.trainer.batch_size)
    batch = to_device(collate([data[index] for index in range(samples)]), device)
    encoder: Any = build_encoder(resolved(config.encoder, config.data)).to(device)
    image = 0.0
    spec: Any = of_series(config.select.of(encoder.spec), series.dates)
    if form is not None:
        encoder.eval()
        few = min(samples, FEW)
        some = {name: value[:few] for name, value in batch.items()}
        with torch.inference_mode():
            image = _seconds(lambda: read(encoder, some)) / few
        with torch.no_grad():
            bank = form.pack(read(encoder, some)).unpack()
        spec = config.select.of(bank.spec)
        numbers = torch.arange(samples, device=device) % few  # a head's time is that of its batch, whatever is in it
        batch["bank"] = FeatureBank(spec, {tap: bank[tap][numbers] for tap in spec.taps})
    task = build_task(config.task, data)
    model = assemble(config, None if form is not None else encoder, spec, task).to(device)
    if isinstance(model.decoder, Fitted):
        with torch.inference_mode():
            features = _seconds(lambda: model.fusion(model.bank(batch))) / samples
        return Pace(0.0, features, image)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.0)
    augment = build_augmentation(config, data.labels.ignore_index)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.trainer.mixed_precision)

    def step() -> None:
        seen = batch if augment is None else augment(batch, 0)
        with torch.autocast(device.type, half, enabled=half is not None):
            logits = model(seen).logits
        (model.loss_sum(logits, seen).sum() / samples).backward()
        optimizer.step()
        optimizer.zero_grad()

    train = _seconds(step)
    with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
        score = _seconds(lambda: model(batch)) / samples
    return Pace(train, score, image)


def _seconds(function: Callable[[], Any]) -> float:
    """Of one call, after one to warm up: the middle of a few."""
    import torch

    function()
    times: list[float] = []
    while len(times) < CALLS and sum(times) < SECONDS:
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def seconds_of(cell: Cell, pace: Pace, lengths: Mapping[str, int]) -> float:
    """Of a whole run, if it does not stop early: its steps, its evaluations on the way, and its test.

    Of one that is fitted, what the features take that it is fitted to and tested on; the fit itself is not in it.
    """
    settings = cell.config.trainer
    samples = budget_size(lengths["train"], cell.budget)
    per_epoch = batches_per_epoch(samples, settings.batch_size, settings.last_batch == "keep")
    if is_fitted(cell.config.decoder.target):  # features of all, and validation's once more for its score
        return (samples + 2 * lengths["val"] + lengths["test"]) * pace.sample
    steps = settings.total_steps(per_epoch)
    evaluations = -(-steps // (settings.eval_every or per_epoch))
    return steps * pace.step + (evaluations * lengths["val"] + lengths["test"]) * pace.sample
