"""`satdifuser extract`: features of a data set to a store on disk, by one process or several, resumable at any time."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from satdifuser.build import build_data, build_encoder, of_series, series_of
from satdifuser.engine.skipping import list_skipped, without_faults
from satdifuser.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from satdifuser.data.joined import JoinedSplits
    from satdifuser.settings.commands import ExtractSettings, StoreSettings
    from satdifuser.settings.part import DataPart
    from satdifuser.store import FeatureStore, Form, Processes, StorePlan

LONG = 500  # samples, from which on some are looked at before
# What says where and how fast, and not which features: it may change between a run and the one that goes on with it.
PASSING = ("path", "batch_size", "workers", "reuse", "overwrite")


def run(settings: ExtractSettings) -> str:
    """Extract every split of `store.splits` (all of the data by default) and give the path of the store."""
    from satdifuser.data.inputs import sample_check
    from satdifuser.data.policy import resolved
    from satdifuser.engine.memory import keep_memory
    from satdifuser.engine.progress import say
    from satdifuser.store import FeatureStore, Form, Processes
    from satdifuser.store.place import place_of

    keep_memory()
    settings = settings.but(encoder=resolved(settings.encoder, settings.data))
    store, path, form = settings.store, settings.store.path, Form(settings.store.dtype, settings.store.keep)
    processes = Processes.launched()
    names = list(store.splits or settings.data.splits)
    encoder = build_encoder(settings.encoder)
    adapter: Any = getattr(encoder, "adapter", None)
    if adapter is not None and any(p.requires_grad for p in encoder.parameters()):
        raise UserError(
            f"adapter={adapter.name} would be stored untrained: extract with adapter=frozen (and"
            " patch_embedding=repeat), or train on the images"
        )
    if store.reuse and place_of(path).exists():
        there = FeatureStore(path)  # of its dates, as of all that is read, the data set's identity tells
        _same(there, of_series(_kept_spec(encoder, form), there.spec.dates), form, settings.data, names)
        if processes.main:
            say(f"{path} already holds these features")
        return path
    from satdifuser.data.joined import JoinedSplits

    data = JoinedSplits({name: build_data(settings.data, name) for name in names})
    device = _device(processes)
    encoder = encoder.to(device).eval()
    workers = _workers(store.workers, device, processes)
    skipped: list[dict[str, str]] = []
    if settings.on_error == "skip":
        data, skipped = without_faults(data, sample_check(encoder), workers, processes)
    if settings.check_data and len(data) >= LONG and not place_of(path).partial.exists():
        from satdifuser.commands.data import look_first

        look_first(data, sample_check(encoder), workers, processes.main)
    plan = _plan(settings, encoder, form, data, skipped)
    if settings.dry_run:
        from satdifuser.commands.dry_run import show

        if processes.main:
            show(plan, encoder, data, path, store.batch_size, workers, device)
        return path
    try:
        _extract(store, plan, encoder, data, workers, device, processes)
    except KeyboardInterrupt:
        say(f"what is written stays in {place_of(path).partial}: the same command goes on from there")
        raise
    if processes.main:
        size = sum(size for size, _ in FeatureStore(path).manifest.files.values())
        say(f"wrote {path}: {plan.samples} samples, {len(plan.spec.taps)} taps, {size / 1e6:.0f} MB")
        list_skipped(skipped, "the store's attribute 'skipped'")
    return path


def _extract(
    settings: StoreSettings,
    plan: StorePlan,
    encoder: nn.Module,
    data: JoinedSplits,
    workers: int,
    device: torch.device,
    processes: Processes,
) -> None:
    """Read, compute, pack and write, all at the same time: workers, this thread, the device and the writer's thread."""
    import torch

    from satdifuser.data.batches import RangeBatches, loader
    from satdifuser.data.inputs import sample_check
    from satdifuser.engine.features import features
    from satdifuser.engine.progress import ExtractProgress, say
    from satdifuser.store import BackgroundWriter, StoreWriter

    with _interruptible(), StoreWriter(settings.path, plan, processes, overwrite=settings.overwrite) as store:
        if store.rows_done and processes.main:
            there = f"{store.rows_done} of {plan.samples} samples are there"
            say(f"going on with {settings.path}: {there}")
        mine = sum(len(rows) for rows in store.todo)
        alone = processes.world == 1
        total, done = (plan.samples, store.rows_done) if alone else (mine, 0)
        share = "" if alone else f" (process {processes.rank + 1} of {processes.world})"
        batches = RangeBatches(store.todo, settings.batch_size)
        sample_bytes = plan.form.bytes_per_sample(plan.spec)
        progress = ExtractProgress(total, done, sample_bytes, store.place.partial, share if processes.main else None)
        with torch.inference_mode(), progress, BackgroundWriter(store) as background:
            for batch in loader(data, batches, workers, sample_check(encoder)):
                background.put(features(encoder, batch, device, latents=plan.form.latents), batch)
                progress.advance(len(batch["id"]))


def _plan(
    settings: ExtractSettings, encoder: nn.Module, form: Form, data: JoinedSplits, skipped: Sequence[dict[str, str]]
) -> StorePlan:
    from satdifuser.data.check.where import boxes_of
    from satdifuser.store import StorePlan

    kept = settings.plain()
    kept["store"] = {key: value for key, value in kept["store"].items() if key not in PASSING}
    del kept["dry_run"], kept["check_data"]
    sensor = getattr(next(iter(data.splits.values())), "sensor", None)
    dates, latents, ids = series_of(data).dates, getattr(encoder, "latent_spec", None), data.ids()
    return StorePlan(
        form.spec(of_series(_kept_spec(encoder, form), dates)),
        form,
        ids=ids,
        labels=data.labels,
        identity=data.identity,
        config=kept,
        skipped=skipped,
        bands=() if sensor is None else sensor.names,
        latents=None if latents is None else of_series(latents, dates),
        shard_bytes=round(settings.store.shard_mb * 2**20),
        places=lambda: {name: boxes_of(split, ids[name]) for name, split in data.splits.items()},
    )


def _kept_spec(encoder: nn.Module, form: Form) -> Any:
    """The spec of what the encoder gives of an image for the store, before it is pooled."""
    if not form.latents:
        return encoder.spec
    if not hasattr(encoder, "latent_spec"):
        raise UserError("store.keep=latents needs a diffusion encoder: this one has no latents")
    return encoder.latent_spec


def _device(processes: Processes) -> torch.device:
    import torch

    if processes.world > 1:
        from accelerate import PartialState

        return torch.device(PartialState().device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _workers(wanted: int | None, device: torch.device, processes: Processes) -> int:
    """Beside a GPU the processors are free to load images; on a CPU they have enough to do."""
    if wanted is not None:
        return wanted
    return min(8, max(1, (os.cpu_count() or 1) // processes.world)) if device.type == "cuda" else 0


def _same(store: FeatureStore, spec: Any, form: Form, data: DataPart, names: Sequence[str]) -> None:
    """Raise unless a store holds just what would be extracted."""
    remedy = "use another store.path, or store.overwrite=true"
    if store.form != form:
        raise UserError(f"{store.path} holds {store.form.words}, and asked for is {form.words}: {remedy}")
    store.require(spec)
    for name in names:
        wanted = build_data(data, name).identity
        if store.data.get(name) != wanted:
            raise UserError(
                f"{store.path} holds other data for {name} ({store.data.get(name)}) than asked for ({wanted}): {remedy}"
            )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM (a batch system that wants its machine back) ends a run as Ctrl-C does: what is done is kept."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
