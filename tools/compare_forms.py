"""What each form of the feature store costs and keeps: bytes, and accuracy on the built-in data.

    python tools/compare_forms.py --output runs/forms

Extracts once in float32, writes the same features in every other form, and trains a gw head with a linear decoder on
each (pooled forms for classification only). "trained on it" is the mean and standard deviation over seeds of heads
trained and tested on the form; "read from it" tests the heads that were trained on float32 on the form's features, so
that no chance of training is in the difference. Finished stores and runs are skipped: it can be stopped and restarted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.report.tables import markdown
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter

FORMS = {
    "float32": Form("float32"),
    "float16": Form("float16"),
    "bfloat16": Form("bfloat16"),
    "int8": Form("int8"),
    "grid4": Form("float16", "grid4"),
    "mean": Form("float32", "mean"),
    "max": Form("float32", "max"),
}
TASKS = {
    "segmentation": ("miou", ["trainer.epochs=4"]),
    "classification": ("accuracy", ["trainer.epochs=12"]),
}


def rewrite(source: Path, target: Path, form: Form) -> None:
    """The float32 store in another form: the same `pack` that extraction runs."""
    store = FeatureStore(source)
    splits = {name: store.split(name) for name in store.splits}
    ids = {name: data.ids for name, data in splits.items()}
    plan = StorePlan(form.spec(store.spec), form, ids, store.labels, store.data)
    rows = [(name, index) for name, data in splits.items() for index in range(len(data))]
    with StoreWriter(target, plan) as writer:
        for todo in writer.todo:
            for row in todo:
                name, index = rows[row]
                batch = splits[name].batch([index])
                writer.append(batch.pop("bank"), batch)


def scores(args: argparse.Namespace, form: str, task: str, seed: int, trained_on: str) -> float:
    """Test score of a head trained on one form and read from another (or the same)."""
    folder = Path(args.output) / f"{task}-{trained_on}-{seed}"
    metric, settings = TASKS[task]
    done = folder / "result.json"
    if not done.is_file():
        overrides = [
            f"task={task}",
            "fusion=gw",
            "fusion.projection_dim=64",
            "decoder=linear",
            "trainer=quick",
            *settings,
        ]
        overrides += [f"features={args.output}/{trained_on}.zarr", f"seed={seed}", f"run={folder}", "overwrite=true"]
        train.run(compose("train", overrides), quiet=True)
    result: dict[str, Any] = json.loads(done.read_text())
    if form != trained_on:
        result = evaluation.run(compose("eval", [f"run={folder}", f"features={args.output}/{form}.zarr"]))
    print(f"{task} seed {seed}, trained on {trained_on}, read from {form}: {result['test'][metric]:.4f}", flush=True)
    return float(result["test"][metric])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/forms")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=320)
    parser.add_argument("--val", type=int, default=64)
    parser.add_argument("--test", type=int, default=1024)
    args = parser.parse_args()
    whole = Path(args.output) / "float32.zarr"
    counts = [f"data.splits.{name}.length={getattr(args, name)}" for name in ("train", "val", "test")]
    extract.run(compose("extract", [*counts, f"store.path={whole}", "store.dtype=float32", "store.reuse=true"]))
    for name, form in FORMS.items():
        target = Path(args.output) / f"{name}.zarr"
        if not target.exists():
            rewrite(whole, target, form)
    rows = []
    exact = FORMS["float32"].bytes_per_sample(FeatureStore(whole).spec)
    for name, form in FORMS.items():
        size = form.bytes_per_sample(FeatureStore(Path(args.output) / f"{name}.zarr").spec)
        row = [form.words, f"{size / 1e3:.1f} kB", f"{size / exact:.3f}"]
        for task in TASKS:
            if form.grid is not None and task == "segmentation":
                row += ["", ""]
                continue
            own = [100 * scores(args, name, task, seed, name) for seed in range(args.seeds)]
            spread = f" ± {stdev(own):.2f}" if len(own) > 1 else ""
            row.append(f"{mean(own):.2f}{spread}")
            if form.grid is not None:
                row.append("")
                continue
            read = [100 * scores(args, name, task, seed, "float32") for seed in range(args.seeds)]
            row.append(f"{mean(read):.2f}")
        rows.append(row)
    header = ["form", "a sample", "of float32"]
    for task, (metric, _) in TASKS.items():
        header += [f"{task} ({metric}, %), trained on it", "read from it"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
