"""`satdifuser train`: a fusion head and decoder on live or stored features, or an encoder from end to end."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from satdifuser.build import build_augmentation, build_model, build_task, open_split

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.data.base import LabelledDataset
    from satdifuser.engine.cost import PeakMemory
    from satdifuser.engine.run import RunFolder
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import TrainSettings


def run(settings: TrainSettings, typed: str = "", *, quiet: bool = False, draw: bool = True) -> dict[str, Any]:
    """Train, test the best checkpoint, write the run's folder, and give its result; `typed` is the user's command."""
    from satdifuser.engine.run import RunFolder

    run_folder = RunFolder(settings.run)
    with run_folder.alone(), _told_how_to_go_on(run_folder, typed, settings.resume):
        return _train(settings, run_folder, quiet, draw)


@contextlib.contextmanager
def _told_how_to_go_on(run_folder: RunFolder, typed: str, resumed: bool) -> Iterator[None]:
    """Who interrupts a run that has a checkpoint by then is told the command that goes on from it."""
    from satdifuser.engine.interrupt import Interrupted

    def written() -> int:
        return run_folder.last.stat().st_mtime_ns if run_folder.last.is_file() else 0

    before = 0 if resumed else written()  # of a run that is still to be replaced
    try:
        yield
    except KeyboardInterrupt as stopped:
        if not typed or int(os.environ.get("RANK", "0")) or written() in (0, before):
            raise
        told = Interrupted(f"{str(stopped) or 'after its last checkpoint'}: go on with  {_going_on(typed)}")
        told.code = getattr(stopped, "code", told.code)
        raise told from stopped


def _going_on(typed: str) -> str:
    words = [word for word in shlex.split(typed) if word.partition("=")[0] not in ("resume", "overwrite")]
    world, here = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    launch = [] if world == "1" else ["torchrun", "--nproc_per_node", here, "-m"]
    return shlex.join([*launch, *words, "resume=true"])


def _train(settings: TrainSettings, run_folder: RunFolder, quiet: bool, draw: bool) -> dict[str, Any]:
    from satdifuser.commands.eval import score_split
    from satdifuser.data.policy import resolved
    from satdifuser.data.splits.budgets import label_batches, within_budget
    from satdifuser.decoders.fitted import Fitted
    from satdifuser.engine.begin import begin_with
    from satdifuser.engine.checkpoint import load_checkpoint
    from satdifuser.engine.cost import PeakMemory
    from satdifuser.engine.files import writing
    from satdifuser.engine.fitting import Fitter, check_fitted
    from satdifuser.engine.known import Known, same_data, try_sample
    from satdifuser.engine.progress import say
    from satdifuser.engine.run import LABELS, SEEN, SPEC
    from satdifuser.engine.trainer import Trainer, make_accelerator
    from satdifuser.optional import without
    from satdifuser.report.figures import draw_weights

    if settings.features is None:  # the run knows the numbers of its input, wherever they came from
        settings = settings.but(encoder=resolved(settings.encoder, settings.data))
    run_folder.check(settings)
    memory = PeakMemory()
    whole = open_split(settings, "train")
    val, test = (open_split(settings, split, beside=whole) for split in ("val", "test"))
    task = build_task(settings.task, whole)
    drawn_by, workers = settings.data.get("seed", 0), settings.trainer.workers
    train = within_budget(whole, task, settings.budget, drawn_by, workers=workers)
    augment = build_augmentation(settings, whole.labels.ignore_index)
    model = build_model(settings, train)
    check_fitted(model, settings, augmented=augment is not None)
    ids = [train.sample_id(index) for index in range(len(train))]
    given = Known.of({"train": train, "val": val, "test": test})
    resuming, begins = settings.resume and run_folder.last.is_file(), settings.init is not None
    if resuming:
        same_data(run_folder, given, model.fusion.spec, ids, begins)
    elif settings.init is not None:
        others = (data.sample_id(i) for data in (whole, val, test) for i in range(len(data)))
        ids = sorted({*ids, *begin_with(model, settings.init, set(others) - set(ids))})
    model.learn(lambda: label_batches(train, task, workers))
    accelerator = make_accelerator(settings.trainer.mixed_precision, sparse=model.sparse)
    trainer: Trainer | Fitter
    if isinstance(model.decoder, Fitted):
        trainer = Fitter(model, train, val, settings.trainer, run_folder, accelerator, quiet)
        ids = sorted({*ids, *trainer.also_seen})
    else:
        trainer = Trainer(model, train, val, settings.trainer, run_folder, accelerator, settings.seed, quiet, augment)
    if resuming:
        trainer.resume()
    for data in (train, val, test):
        try_sample(data, task, model.check)
    run_folder.begin(settings, accelerator)
    if accelerator.is_main_process:
        given.write(run_folder)
        run_folder.write_json(SPEC, model.fusion.spec.to_dict())
        run_folder.write_json(LABELS, whole.labels.to_dict())
        if not resuming:
            run_folder.write_json(SEEN, ids)
    state = trainer.fit()

    model.load_trained_state(load_checkpoint(run_folder.best)[1])
    found = score_split(model, test, accelerator, settings.trainer, "test")
    result = {
        "run": str(run_folder.path),
        "task": model.task.name,
        "seed": settings.seed,
        "budget": settings.budget,
        "training_samples": len(train),
        "steps": state.step,
        "best_step": state.best_step,
        "ended": trainer.ended,
        "trainable_parameters": sum(p.numel() for p in trainer.parameters),
        "encoder_parameters": _encoder_parameters(model),
        "metric": model.task.monitor,
        "validation": state.best,
        "cost": _cost(run_folder, model, val, accelerator, state.seconds, memory),
        **found.to_dict(model),
    }
    if accelerator.is_main_process:
        found.save(run_folder, found.split)
        run_folder.write_json(run_folder.result.name, result)  # last: a run is done when it has one
        drawn = draw and not without("matplotlib", "the learned weights are not drawn")
        if drawn:
            with writing(run_folder.figures, "the rest of the run is written"):
                draw_weights(model.fusion.spec, found.evaluation.weights, run_folder.figures / "weights.png")
        if not quiet:
            scores = "  ".join(f"{name} {value:.4f}" for name, value in result["test"].items())
            say(f"test ({found.evaluation.samples} samples)  {scores}")
            figure = "figures/weights.png, " if drawn else ""
            say(f"wrote {run_folder.path}: result.json, metrics.jsonl, {figure}checkpoints/, predictions-test.zarr")
    return result


def _encoder_parameters(model: FeatureModel) -> dict[str, int] | None:
    """How many of a live encoder's parameters train, and how many it has."""
    from satdifuser.engine.cost import parameter_count

    if model.encoder is None:
        return None
    return {"trainable": parameter_count(model.encoder, trainable=True), "total": parameter_count(model.encoder)}


def _cost(
    run_folder: RunFolder,
    model: FeatureModel,
    data: LabelledDataset,
    accelerator: Accelerator,
    seconds: float,
    memory: PeakMemory,
) -> dict[str, Any]:
    """What the run took, and what its model takes for an image (without an encoder that had done its work before)."""
    from satdifuser.data.batches import OrderedBatches, loader, to_device
    from satdifuser.engine.cost import flops, parameter_count

    one = next(iter(loader(data, OrderedBatches(1, 1), check=model.check)))
    return {
        "parameters": parameter_count(model),
        "flops": flops(model.eval(), to_device(one, accelerator.device)),
        "training_seconds": round(seconds, 3),
        "peak_bytes": memory.bytes,
        "checkpoint_bytes": run_folder.best.stat().st_size if run_folder.best.is_file() else None,
    }
