"""What each adapter makes of the shipped ViT: scores on the built-in scenes, over seeds, and what of it trains.

    python tools/compare_adapters.py --output runs/adapters

Every method trains the same gw head over four depths with a linear decoder, for segmentation and classification.
DEFLECT's model sees RGB and the 13 bands enter beside it; for the other methods they enter by the patch embedding
(random filters beside those of RGB, which train), and `rgb` methods see RGB alone. One learning rate for all. Finished
runs are skipped, so it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.report.tables import markdown

BANDS = ["encoder.prepare.bands=null", "encoder.patch_embedding=random"]
METHODS = {
    "frozen, RGB": ["adapter=frozen"],
    "lora, RGB": ["adapter=lora"],
    "frozen": ["adapter=frozen", *BANDS],
    "norm": ["adapter=norm", *BANDS],
    "bitfit": ["adapter=bitfit", *BANDS],
    "lora": ["adapter=lora", *BANDS],
    "slr": ["adapter=slr", *BANDS],
    "full": ["adapter=full", *BANDS],
    "deflect": ["adapter=deflect"],
    "deflect, MLP on both": ["adapter=deflect", "encoder.adapter.mlp_on_auxiliary=true"],
    "deflect, norm=bound": ["adapter=deflect", "encoder.adapter.norm=bound"],
    "deflect, norm=none": ["adapter=deflect", "encoder.adapter.norm=none"],
}
TASKS = {
    "segmentation": ("miou", ["trainer.epochs=5"]),
    "classification": ("accuracy", ["trainer.epochs=10"]),
}


def one_run(args: argparse.Namespace, method: str, task: str, seed: int) -> dict[str, Any]:
    folder = Path(args.output) / f"{task}-{method.replace(' ', '-').replace(',', '').replace('=', '-')}-{seed}"
    done = folder / "result.json"
    if not done.is_file():
        counts = [f"data.splits.{name}.length={getattr(args, name)}" for name in ("train", "val", "test")]
        overrides = ["encoder=small_vit", "encoder.blocks=four", *METHODS[method], f"task={task}", *TASKS[task][1]]
        overrides += ["fusion=gw", "fusion.projection_dim=64", "decoder=linear", *counts, f"seed={seed}"]
        train.run(
            compose("train", [*overrides[:3], "trainer=quick", *overrides[3:], f"run={folder}", "overwrite=true"]),
            quiet=True,
        )
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/adapters")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=320)
    parser.add_argument("--val", type=int, default=64)
    parser.add_argument("--test", type=int, default=256)
    args = parser.parse_args()
    rows = []
    for method in args.methods:
        cells, trained = [], {}
        for task in args.tasks:
            found = [one_run(args, method, task, seed) for seed in range(args.seeds)]
            scores = [float(result["test"][TASKS[task][0]]) for result in found]
            cells.append(f"{mean(scores):.3f} ± {stdev(scores):.3f}" if len(scores) > 1 else f"{scores[0]:.3f}")
            trained = found[0]["encoder_parameters"]
        share = f"{trained['trainable']:,} ({trained['trainable'] / trained['total']:.2%})"
        rows.append([method, share, *cells])
        print(" | ".join(rows[-1]), flush=True)
    header = ["method", "trains of the ViT", *(f"{task} ({TASKS[task][0]})" for task in args.tasks)]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
