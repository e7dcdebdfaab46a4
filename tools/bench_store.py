"""Speed of the feature store against the disk under it, in one run.

Writes a store of SD-2.1-sized features (21 taps, 10.5 million numbers a sample at 256 px), and reads it in order and
at random, with the system's cache emptied before every round; the disk's own rate is that of a plain file of the same
size, written and read in turn with the store. The rows "to the cpu" or "to the cuda" are what a training run reads:
there the banks are unpacked on the device. `--layouts` compares chunk and shard sizes, as Zarr itself reads them and as
we do.

    python tools/bench_store.py --folder /where/the/store/would/be
    python tools/bench_store.py --layouts
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from measuring import Results, clock, device_here

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.data.prefetch import prefetched
from satdifuser.diffusion.loading import stable_diffusion
from satdifuser.diffusion.selection import choose_taps
from satdifuser.engine.memory import keep_memory
from satdifuser.store import BackgroundWriter, FeatureStore, Form, StoredFeatures, StorePlan, StoreWriter
from satdifuser.store import layout as store_layout

TIMESTEPS = (21, 61, 161)
BLOCK = 16 * 2**20


def sd_spec(size: int) -> BankSpec:
    chosen = choose_taps(stable_diffusion("nowhere", architecture="sd21", blueprint=True), "satdifuser", size)
    taps = tuple(Tap(tap.name, t, tap.depth, tap.channels, tap.stride) for t in TIMESTEPS for tap in chosen)
    return BankSpec(taps, "sd21", "random", (size, size))


def plan_of(spec: BankSpec, form: Form, samples: int, shard_mb: float) -> StorePlan:
    ids = {"train": [f"sample-{number}" for number in range(samples)]}
    return StorePlan(
        form.spec(spec), form, ids, Labels(("a",), ("#000000",)), {"train": {}}, shard_bytes=round(shard_mb * 2**20)
    )


def write_store(path: Path, plan: StorePlan, bank: FeatureBank) -> float:
    """Seconds to write and finish a store, the same batch again and again."""
    shutil.rmtree(path, ignore_errors=True)
    os.sync()
    names = plan.ids["train"]
    began = time.perf_counter()
    with StoreWriter(path, plan) as writer, BackgroundWriter(writer) as background:
        for rows in writer.todo:
            for first in range(rows.start, rows.stop, bank.batch_size):
                chosen = names[first : min(first + bank.batch_size, rows.stop)]
                background.put(bank.samples(slice(0, len(chosen))), {"id": chosen, "label": torch.zeros(len(chosen))})
    return time.perf_counter() - began


def write_plain(path: Path, count: int) -> float:
    block = np.random.default_rng(0).integers(0, 256, BLOCK, np.uint8)
    path.unlink(missing_ok=True)
    os.sync()
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for first in range(0, count, BLOCK):
            file.write(block[: count - first].data)
        os.fsync(file.fileno())
    return time.perf_counter() - began


def read_plain(path: Path) -> float:
    block = np.empty(BLOCK, np.uint8)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(block.data):
            pass
    return time.perf_counter() - began


def forget(path: Path) -> None:
    """Take the files out of the system's cache."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def read_batches(data: StoredFeatures, batches: Iterable[list[int]], threads: int) -> float:
    began = time.perf_counter()
    for _ in prefetched(data.packed, batches, threads):
        pass
    return time.perf_counter() - began


def read_to_device(data: StoredFeatures, batch: int, threads: int, device: torch.device) -> float:
    """Seconds until every bank was unpacked on the device, as a training run takes them."""
    began = clock(device)
    for found in loader(data, OrderedBatches(len(data), batch), threads):
        to_device(found, device)
    return clock(device) - began


def cut(order: np.ndarray, batch: int) -> list[list[int]]:
    return [order[first : first + batch].tolist() for first in range(0, len(order), batch)]


def disk(args: argparse.Namespace, results: Results, spec: BankSpec, folder: Path) -> None:
    """Write and read rates, each beside the disk's own in the same round."""
    store_layout.LEAST_UNITS = 1  # as in a store of many samples
    form = Form(args.dtype)
    plan = plan_of(spec, form, args.samples, args.shard_mb)
    size, path, plain = plan.feature_bytes, folder / "bench.zarr", folder / "plain"
    bank = FeatureBank(spec, {tap: torch.randn(args.batch, *spec.shape(tap)) for tap in spec.taps})
    rates: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        rates.setdefault(name, []).append(size / 1e6 / seconds)

    write_store(path, plan_of(spec, form, 1, args.shard_mb), bank)  # imports what it needs
    random, device = np.random.default_rng(0), device_here()
    for number in range(args.rounds):
        note("disk, write", write_plain(plain, size))
        note("store, write", write_store(path, plan, bank))
        note("disk, write", write_plain(plain, size))
        data, unchecked = (FeatureStore(path, check=check).split("train", in_memory=False) for check in (True, False))
        for word, order in (("in order", np.arange(len(data))), ("at random", random.permutation(len(data)))):
            for threads in args.threads:
                forget(plain)
                note("disk, read", read_plain(plain))
                forget(path)
                note(f"store, {word}, {threads} threads", read_batches(data, cut(order, args.batch), threads))
                forget(path)
                name = f"store, {word}, {threads} threads, no checksums"
                note(name, read_batches(unchecked, cut(order, args.batch), threads))
        for threads in args.threads:
            forget(plain)
            note("disk, read", read_plain(plain))
            forget(path)
            name = f"store, to the {device.type}, {threads} threads"
            note(name, read_to_device(data, args.batch, threads, device))
        print(f"round {number + 1} of {args.rounds} done", flush=True)
    title = f"{args.samples} samples, {size / 1e9:.2f} GB in {form.dtype}, files of up to {args.shard_mb:g} MB"
    add = results.table(title, {"what": "", "MB/s": ".0f", "of the disk's own": ".2f"})
    for name, found in rates.items():
        own = statistics.median(rates["disk, write" if "write" in name else "disk, read"])
        rate = statistics.median(found)
        add(name, rate, rate / own)


def layouts(args: argparse.Namespace, results: Results, spec: BankSpec, folder: Path) -> None:
    """Chunk and shard sizes: files, and rates in order and at random, by Zarr without our code and by ours."""
    import zarr

    samples = args.samples
    few = BankSpec(spec.taps[:7], spec.encoder, spec.weights, spec.image_size)
    cases = {"maps": (few, Form("float16")), "mean": (few, Form("float32", "mean"))}
    speeds = {"Zarr, in order": ".0f", "Zarr, at random": ".0f", "ours, at random": ".0f"}
    add = results.table("chunk and shard sizes (MB/s)", {"form": "", "chunk": "", "shard": "", "files": "d", **speeds})
    for name, (kept, form) in cases.items():
        count = samples if name == "maps" else 64 * samples
        bank = FeatureBank(kept, {tap: torch.randn(args.batch, *kept.shape(tap)) for tap in kept.taps})
        for chunk, shard_mb in (
            (1, 16),
            (64 << 10, 16),
            (64 << 10, 64),
            (64 << 10, 256),
            (1 << 20, 256),
            (8 << 20, 256),
        ):
            store_layout.CHUNK_BYTES = chunk
            path = folder / "layout.zarr"
            plan = plan_of(kept, form, count, shard_mb)
            write_store(path, plan, bank)
            group, data = zarr.open_group(path, mode="r"), FeatureStore(path).split("train", in_memory=False)
            files = sum(1 for file in path.rglob("*") if file.is_file())
            names = [str(tap) for tap in kept.taps]
            order, shuffled = np.arange(count), np.random.default_rng(0).permutation(count)[: min(count, 1024)]

            def by_zarr(rows: np.ndarray, group: zarr.Group = group, names: list[str] = names) -> float:
                began = time.perf_counter()
                for batch in cut(rows, args.batch):
                    for array in names:
                        group[array].oindex[np.sort(batch)]
                return time.perf_counter() - began

            each = plan.form.bytes_per_sample(plan.spec) / 1e6
            found = []
            reads: list[tuple[np.ndarray, Callable[[np.ndarray], float]]] = [
                (order, by_zarr),
                (shuffled, by_zarr),
                (shuffled, lambda rows, data=data: read_batches(data, cut(rows, args.batch), 2)),
            ]
            for rows, read in reads:
                forget(path)
                found.append(len(rows) * each / read(rows))
            label = "a sample" if chunk == 1 else f"{chunk >> 10} kB"
            add(name, label, f"{shard_mb} MB", files, *found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--size", type=int, default=256, help="of the images, in pixels")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--shard-mb", type=float, default=256)
    parser.add_argument("--layouts", action="store_true", help="compare chunk and shard sizes instead")
    parser.add_argument("--json", type=Path, help="where the tables are kept")
    args = parser.parse_args()
    keep_memory()  # as extract and train do
    spec = sd_spec(args.size)
    results = Results(args.json)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-store-") as folder:
        (layouts if args.layouts else disk)(args, results, spec, Path(folder))


if __name__ == "__main__":
    main()
