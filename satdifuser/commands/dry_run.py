"""What an extraction would take, from a few real batches and a write to the real disk; nothing of it is kept."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from satdifuser.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from satdifuser.data.joined import JoinedSplits
    from satdifuser.store import StorePlan

BATCHES, SECONDS = 3, 60.0  # measured after one to warm up; fewer where they take longer


def show(
    plan: StorePlan,
    encoder: nn.Module,
    data: JoinedSplits,
    path: str,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> None:
    """Print samples, bytes of each form, time and space; end in an error where it would not fit."""
    from satdifuser.report.tables import show as show_table
    from satdifuser.store.disk import existing, sustained_write
    from satdifuser.store.forms import alternatives, bytes_text
    from satdifuser.store.place import place_of

    folder = existing(place_of(path).partial.parent)
    counts = ", ".join(f"{name} {len(ids)}" for name, ids in plan.ids.items())
    print(f"{plan.samples} samples ({counts}), {len(plan.spec.taps)} taps of {plan.spec.encoder}")
    free = shutil.disk_usage(folder).free
    each = plan.form.bytes_per_sample(plan.spec)
    sizes = {plan.form: each, **alternatives(plan.form, plan.spec, plan.latents)}
    rows = [
        [form.words, bytes_text(size), bytes_text(size * plan.samples), "yes" if size * plan.samples < free else "no"]
        for form, size in sizes.items()
    ]
    show_table(f"{folder} has {bytes_text(free)} free", ["form", "a sample", "all", "fits"], rows)
    if plan.feature_bytes > free:
        raise UserError(f"it does not fit into {folder}: {plan.cheaper(free)}")
    images = _images_per_second(plan, encoder, data, batch_size, workers, device)
    write = sustained_write(folder)
    disk = write.rate / each
    seconds = plan.samples / min(images, disk)
    print(f"computing: {images:.2f} images/s on {device} ({bytes_text(images * each)}/s of features); loading is in it")
    slower = ""
    if write.last < 0.7 * write.first:
        slower = f", at first {bytes_text(write.first)}/s and at last {bytes_text(write.last)}/s: it may become slower"
    print(f"writing: {bytes_text(write.rate)}/s over {bytes_text(write.written)}{slower}")
    bound = "computing" if images < disk else "writing"
    print(f"estimated time: {duration(seconds)} in one process, bound by {bound}")


def _images_per_second(
    plan: StorePlan, encoder: nn.Module, data: JoinedSplits, batch_size: int, workers: int, device: torch.device
) -> float:
    """Over a few batches from the middle of the data, after one that warms up."""
    import torch

    from satdifuser.data.batches import RangeBatches, loader
    from satdifuser.data.inputs import sample_check
    from satdifuser.engine.features import features

    first = max(0, (len(data) - (BATCHES + 1) * batch_size) // 2)
    rows = range(first, min(len(data), first + (BATCHES + 1) * batch_size))
    began, images = time.perf_counter(), 0
    with torch.inference_mode():
        for number, batch in enumerate(loader(data, RangeBatches([rows], batch_size), workers, sample_check(encoder))):
            plan.form.pack(features(encoder, batch, device, latents=plan.form.latents)).to("cpu")
            if number == 0 and len(rows) > batch_size:
                began = time.perf_counter()
                continue
            images += len(batch["id"])
            if time.perf_counter() - began > SECONDS:
                break
    return images / (time.perf_counter() - began)


def duration(seconds: float) -> str:
    """
    >>> duration(95), duration(7300)
    ('1 min 35 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
