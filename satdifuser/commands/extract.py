"""`satdifuser extract`: features of a data set to a store on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from satdifuser.build import build_data, build_encoder
from satdifuser.data.base import Batch, LabelledDataset
from satdifuser.errors import UserError


def run(config: Any) -> Path:
    """Extract every split of `store.splits` (all of the data by default) and give the path of the store."""
    import torch

    from satdifuser.data.batches import OrderedBatches, loader, to_device
    from satdifuser.engine.progress import bar, console
    from satdifuser.store import FeatureStore, StoreWriter

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("extract runs in one process for now: start it without accelerate launch")
    path = Path(config.store.path)
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
    with torch.inference_mode(), writer, bar("images") as progress:
        task = progress.add_task("extracting", total=samples)
        for name, data in splits.items():
            batches = OrderedBatches(len(data), config.store.batch_size)
            for batch in loader(data, batches, config.store.workers):
                labels: Batch = {key: value for key, value in batch.items() if key != "image"}
                images = to_device({"image": batch["image"]}, device)["image"]
                writer.append(encoder(images, sample_ids=batch["id"]), labels, split=name)
                progress.advance(task, len(batch["id"]))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    console.print(f"wrote {path}: {samples} samples, {len(spec.taps)} taps, {size / 1e6:.0f} MB")
    return path


def _require_data(store: Any, config: Any) -> None:
    names = list(config.store.splits or config.data.splits)
    for name in names:
        wanted = build_data(config.data, name).identity
        if store.data.get(name) != wanted:
            raise UserError(
                f"{store.path} holds other data for {name} ({store.data.get(name)}) than asked for ({wanted}):"
                " use another store.path"
            )
