"""Logistic probes of every map, beside one scikit-learn fit after the other, in one run on the same features.

Both sides choose among the same strengths on validation, refit the chosen one on training and validation labels, and
are scored on the test split. The scikit-learn side is what one writes by hand: for each strength a StandardScaler and a
LogisticRegression. The ratio is of the maps that both did; ours then does all of them.

    satdifuser extract data=image_folder data.root=EuroSAT_RGB store.path=probe.zarr store.keep=mean
    python tools/bench_probe.py --store probe.zarr

Without --store it extracts features itself: of the EuroSAT images in the folder that SATDIFUSER_TEST_DATA names (or of
those of --images), else of the built-in scenes.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Results, machine

from satdifuser.analysis.linear import Linear
from satdifuser.analysis.logistic import logistic
from satdifuser.analysis.strengths import strengths_of
from satdifuser.bank import Tap
from satdifuser.commands.extract import run as extract
from satdifuser.config import compose
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.store import FeatureStore

Split = tuple[np.ndarray, np.ndarray]  # rows, classes
Fit = Callable[[Split, Sequence[float]], list[Callable[[np.ndarray], np.ndarray]]]
ARCHIVE = "eurosat-rgb.tar"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store with the splits train, val and test, kept as means")
    parser.add_argument("--images", type=Path, help="a folder for each class, to extract features of")
    parser.add_argument("--samples", type=int, default=2000, help="training samples where features are extracted")
    parser.add_argument("--strengths", type=int, default=40)
    parser.add_argument("--maps", type=int, default=2, help="maps that scikit-learn does too, evenly chosen")
    parser.add_argument("--iterations", type=int, default=1000, help="max_iter of scikit-learn")
    parser.add_argument("--threads", type=int, help="of both sides (null: as many as there are cores)")
    parser.add_argument("--device", default="cpu", help="of our side")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(str(arguments.store or made(Path(folder), arguments)))
        splits = {name: rows_of(store, name) for name in ("train", "val", "test")}
    taps, strengths = list(store.spec.taps), strengths_of(arguments.strengths)
    counts = ", ".join(f"{len(classes)} of {name}" for name, (_, classes) in splits.items())
    outputs = 1 + max(int(classes.max()) for _, classes in splits.values())
    results = Results(arguments.json, features=f"{store.spec.encoder}, {len(taps)} maps: {counts}, {outputs} classes")

    def ours(known: Split, tried: Sequence[float]) -> list[Callable[[np.ndarray], np.ndarray]]:
        return [told_by(one) for one in logistic(*known, tried, outputs=outputs, device=arguments.device)]

    def theirs(known: Split, tried: Sequence[float]) -> list[Callable[[np.ndarray], np.ndarray]]:
        return [by_hand(known, strength, arguments.iterations) for strength in tried]

    both = [taps[place] for place in np.linspace(0, len(taps) - 1, arguments.maps).round().astype(int)]
    compare(results, {tap: of_tap(splits, tap) for tap in both}, strengths, ours, theirs, arguments.threads)
    walk(results, taps, splits, strengths, ours)


def compare(
    results: Results, maps: dict[Tap, dict[str, Split]], strengths: list[float], ours: Fit, theirs: Fit, threads: Any
) -> None:
    from threadpoolctl import threadpool_limits

    columns = {"map": "", "channels": "d", "ours s": ".2f", "scikit-learn s": ".1f", "ratio": ".1f"}
    columns |= {"CPU ratio": ".1f", "C": "", "test accuracy": ".4f", "scikit-learn's": ".4f"}
    columns |= {"largest difference on val": ".4f", "test answers that differ": "d"}
    add = results.table(f"{len(strengths)} strengths and a refit, {machine(threads)}", columns)
    sums = np.zeros(4)
    for tap, splits in maps.items():
        with threadpool_limits(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that scikit-learn did not reach its tolerance
            mine, others = chosen(ours, splits, strengths), chosen(theirs, splits, strengths)
        sums += [mine["seconds"], others["seconds"], mine["cpu"], others["cpu"]]
        strength = " ".join(dict.fromkeys(f"{side['strength']:.1e}" for side in (mine, others)))
        add(
            str(f"{tap.name}@{tap.timestep}"),
            tap.channels,
            *[mine["seconds"], others["seconds"], others["seconds"] / mine["seconds"], others["cpu"] / mine["cpu"]],
            *[strength, mine["accuracy"], others["accuracy"]],
            max(abs(a - b) for a, b in zip(mine["scores"], others["scores"], strict=True)),
            int((mine["answers"] != others["answers"]).sum()),
        )
    add("together", None, sums[0], sums[1], sums[1] / sums[0], sums[3] / sums[2], None, None, None, None, None)


def walk(results: Results, taps: list[Tap], splits: dict[str, Any], strengths: list[float], ours: Fit) -> None:
    """Ours of every map, with which strengths it chose: none should lie at an end."""
    columns = {"maps": "d", "seconds": ".1f", "CPU seconds": ".1f", "least C": ".1e", "largest C": ".1e"}
    add = results.table("Ours, all maps", columns | {"best test accuracy": ".4f", "of": ""})
    found = {tap: chosen(ours, of_tap(splits, tap), strengths) for tap in taps}
    best = max(taps, key=lambda tap: found[tap]["accuracy"])
    seconds, cpu = (sum(one[name] for one in found.values()) for name in ("seconds", "cpu"))
    used = [one["strength"] for one in found.values()]
    add(len(taps), seconds, cpu, min(used), max(used), found[best]["accuracy"], f"{best.name}@{best.timestep}")


def chosen(fit: Fit, splits: dict[str, Split], strengths: list[float]) -> dict[str, Any]:
    """One map, from its training rows to its score on the test split."""
    began, before = time.perf_counter(), time.process_time()
    scores = [accuracy(told, splits["val"]) for told in fit(splits["train"], strengths)]
    strength = strengths[int(np.argmax(scores))]
    known = tuple(np.concatenate(pair) for pair in zip(splits["train"], splits["val"], strict=True))
    (told,) = fit((known[0], known[1]), [strength])
    answers = told(splits["test"][0])
    took, used = time.perf_counter() - began, time.process_time() - before
    right = float((answers == splits["test"][1]).mean())
    return {
        "seconds": took, "cpu": used, "strength": strength, "scores": scores, "accuracy": right, "answers": answers,
    }  # fmt: skip


def accuracy(told: Callable[[np.ndarray], np.ndarray], split: Split) -> float:
    return float((told(split[0]) == split[1]).mean())


def told_by(probe: Linear) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: probe.logits(rows).argmax(1)


def by_hand(known: Split, strength: float, iterations: int) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations)).fit(*known).predict


def of_tap(splits: dict[str, Any], tap: Tap) -> dict[str, Split]:
    return {name: (rows[tap], classes) for name, (rows, classes) in splits.items()}


def rows_of(store: FeatureStore, name: str) -> tuple[dict[Tap, np.ndarray], np.ndarray]:
    """The mean of each map of a split, and the classes."""
    data = store.split(name)
    parts: dict[Tap, list[np.ndarray]] = {tap: [] for tap in store.spec.taps}
    classes = list[np.ndarray]()
    for batch in loader(data, OrderedBatches(len(data), 256)):
        bank = batch["bank"].unpack()
        for tap, rows in parts.items():
            rows.append(bank[tap].float().mean((-2, -1)).numpy())
        classes.append(batch["label"].numpy())
    return {tap: np.concatenate(rows) for tap, rows in parts.items()}, np.concatenate(classes)


def made(folder: Path, arguments: argparse.Namespace) -> Path:
    """A small store of means."""
    images, given = arguments.images, os.environ.get("SATDIFUSER_TEST_DATA")
    if images is None and given and (Path(given) / ARCHIVE).is_file():
        images = folder / "images"
        with tarfile.open(Path(given) / ARCHIVE) as archive:
            archive.extractall(images, filter="data")
        inside = list(images.iterdir())
        images = inside[0] if len(inside) == 1 else images
    count = arguments.samples
    parts = {"train": count, "val": count // 4, "test": count // 2}
    words = [f"data.splits.{name}.length={part}" for name, part in parts.items()]
    if images is not None:
        words = ["data=image_folder", f"data.root={images}", f"data.limit={count}"]
    store = folder / "features.zarr"
    extract(compose("extract", [f"store.path={store}", "store.keep=mean", "check_data=false", *words]))
    return store


if __name__ == "__main__":
    main()
