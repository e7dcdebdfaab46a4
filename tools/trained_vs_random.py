"""What the training of the shipped encoder is worth: its heads against the same heads on random weights, over seeds.

    python tools/trained_vs_random.py --output runs/trained-vs-random

Extracts both sets of features, trains gw, lw and moe for segmentation and classification with three seeds each, and
prints mean and standard deviation over seeds. Finished runs are skipped, so it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.report.tables import markdown

TASKS = {  # metric, settings; whole images need longer training
    "segmentation": ("miou", ["decoder=linear", "trainer.epochs=5"]),
    "classification": ("accuracy", ["decoder=linear", "trainer.epochs=15"]),
}
HEADS = {"gw": [], "lw": [], "moe": ["fusion.warmup_steps=30"]}
WEIGHTS = ("small", "random")


def features(args: argparse.Namespace, weights: str, seed: int) -> Path:
    """The store of an encoder; every seed of a random encoder is another encoder."""
    path = Path(args.output) / f"{weights}-{seed}.zarr"
    counts = [f"data.splits.{name}.length={getattr(args, name)}" for name in ("train", "val", "test")]
    chosen = [f"encoder.backbone.weights={weights}", f"encoder.backbone.seed={seed}"]
    extract.run(compose("extract", [*counts, *chosen, f"store.path={path}", "store.reuse=true"]))
    return path


def one_run(args: argparse.Namespace, store: Path, weights: str, task: str, head: str, seed: int) -> float:
    metric, settings = TASKS[task]
    folder = Path(args.output) / f"{task}-{weights}-{head}-{seed}"
    overrides = [f"task={task}", f"fusion={head}", "fusion.projection_dim=64", *HEADS[head], "trainer=quick", *settings]
    overrides += [f"features={store}", f"seed={seed}", f"run={folder}", "overwrite=true"]
    done = folder / "result.json"
    result: dict[str, Any] = (
        json.loads(done.read_text()) if done.is_file() else train.run(compose("train", overrides), quiet=True)
    )
    score = float(result["test"][metric])
    print(f"{task} {head} {weights} seed {seed}: {metric} {score:.4f}", flush=True)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/trained-vs-random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=192)
    parser.add_argument("--val", type=int, default=48)
    parser.add_argument("--test", type=int, default=192)
    args = parser.parse_args()
    scores: dict[tuple[str, str, str], list[float]] = {}
    for weights in WEIGHTS:
        for seed in range(args.seeds):
            store = features(args, weights, seed if weights == "random" else 0)
            for task in TASKS:
                for head in HEADS:
                    found = one_run(args, store, weights, task, head, seed)
                    scores.setdefault((task, head, weights), []).append(found)
    rows = []
    for task, (metric, _) in TASKS.items():
        for head in HEADS:
            cells = [scores[task, head, weights] for weights in WEIGHTS]
            shown = [f"{mean(cell):.3f} ± {stdev(cell):.3f}" if len(cell) > 1 else f"{cell[0]:.3f}" for cell in cells]
            rows.append([f"{task} ({metric})", head, *shown, f"{min(cells[0]) - max(cells[1]):+.3f}"])
    print(markdown(["task", "head", "trained encoder", "random encoder", "worst trained - best random"], rows))


if __name__ == "__main__":
    main()
