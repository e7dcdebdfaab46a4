"""`satdifuser extract`: features of a data set to a store on disk."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from satdifuser.build import build_data, build_encoder
from satdifuser.data.base import LabelledDataset
from satdifuser.errors import UserError


def run(config: Any) -> Path:
    """Extract every split of `store.splits` (all of the data by default) and give the path of the store."""
    import torch

    from satdifuser.data.batches import OrderedBatches, loader, to_device
    from satdifuser.data.inputs import sample_check
    from satdifuser.engine.progress import bar, console
    from satdifuser.store import BackgroundWriter, FeatureStore, StoreWriter

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("extract runs in one process for now: start it without accelerate launch")
    path, skip = Path(config.store.path), _on_error(config.on_error)
    if path.exists() and config.store.reuse:
        encoder = build_encoder(config.encoder)
        store = FeatureStore(path)
        store.require(encoder.spec)  # type: ignore[arg-type]
        _require_data(store, config)
        console.print(f"{path} already holds these features")
        return path
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = list(config.store.splits or config.data.splits)
    splits: dict[str, LabelledDataset] = {name: build_data(config.data, name) for name in names}
    samples = sum(len(data) for data in splits.values())
    encoder = build_encoder(config.encoder).to(device).eval()
    spec: Any = encoder.spec
    first = splits[names[0]]
    writer = StoreWriter(
        path,
        spec,
        samples=samples,
        labels=first.labels,
        identity={name: data.identity for name, data in splits.items()},
        dtype=config.store.dtype,
    )
    workers = config.store.workers
    if workers is None:  # beside a GPU the processors are free
        workers = min(8, os.cpu_count() or 1) if device.type == "cuda" else 0
    with torch.inference_mode(), writer, bar("images") as progress, BackgroundWriter(writer) as background:
        task = progress.add_task("extracting", total=samples)
        for name, data in splits.items():
            batches = OrderedBatches(len(data), config.store.batch_size)
            for batch in loader(data, batches, workers, sample_check(encoder), skip):
                left_out = batch.pop("skipped", [])
                writer.skip(left_out)
                if batch["id"]:
                    inputs = to_device({key: batch.pop(key) for key in ("image", "metadata") if key in batch}, device)
                    bank = encoder(inputs["image"], sample_ids=batch["id"], metadata=inputs.get("metadata"))
                    background.put(bank, batch, split=name)
                progress.advance(task, len(batch["id"]) + len(left_out))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    kept = samples - len(writer.skipped)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)  # ids may have brackets
    say(f"wrote {path}: {kept} samples, {len(spec.taps)} taps, {size / 1e6:.0f} MB")
    _list_skipped(writer.skipped, say)
    return path


def _on_error(word: str) -> bool:
    """Whether bad samples are skipped."""
    if word not in ("stop", "skip"):
        raise UserError(f"on_error is {word!r}: it can be stop or skip")
    return word == "skip"


def _list_skipped(skipped: list[dict[str, str]], say: Callable[[str], None]) -> None:
    shown = 20
    if skipped:
        say(f"skipped {len(skipped)} samples (all of them in the store's attribute 'skipped'):")
    for sample in skipped[:shown]:
        say(f"  {sample['reason']}")
    if len(skipped) > shown:
        say(f"  and {len(skipped) - shown} more")


def _require_data(store: Any, config: Any) -> None:
    names = list(config.store.splits or config.data.splits)
    for name in names:
        wanted = build_data(config.data, name).identity
        if store.data.get(name) != wanted:
            raise UserError(
                f"{store.path} holds other data for {name} ({store.data.get(name)}) than asked for ({wanted}):"
                " use another store.path"
            )
