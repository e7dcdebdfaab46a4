"""`satdifuser demo`: extract, train three heads and a baseline for two tasks, compare. On built-in data, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from satdifuser.commands import extract, train
from satdifuser.config import compose

HEADINGS = {"segmentation": ("mIoU", "miou"), "classification": ("accuracy", "accuracy")}


def run(config: Any) -> None:
    """Everything the demo writes lies in `output`; features that are there already are used again."""
    from satdifuser.engine.progress import console
    from satdifuser.engine.run import write_text
    from satdifuser.report.tables import markdown, show

    started = time.time()
    output = Path(config.output)
    lengths = [f"data.splits.{split}.length={count}" for split, count in config.scenes.items()]
    store = output / "features.zarr"
    console.print("[bold]1. extract[/] features of the built-in scenes with the shipped diffusion UNet")
    extract.run(compose("extract", [f"store.path={store}", "store.reuse=true", *lengths]))

    results: dict[tuple[str, str], dict[str, Any]] = {}
    for number, (task, settings) in enumerate(config.tasks.items(), start=2):
        console.print(f"[bold]{number}. {task}[/]: train {', '.join(config.models)}")
        for name, model in config.models.items():
            overrides = [
                f"task={task}",
                f"run={output / task / name}",
                f"seed={config.seed}",
                "overwrite=true",
                *lengths,
            ]
            overrides += [*config.recipe, *(() if model.get("own_decoder") else settings), *model.overrides]
            if model.stored:
                overrides.append(f"features={store}")
            began = time.time()
            results[task, name] = train.run(compose("train", overrides), quiet=True)
            score = results[task, name]["test"][HEADINGS[task][1]]
            console.print(
                f"   {name:<8} {HEADINGS[task][0]} {score:.3f}   {time.time() - began:.0f} s", highlight=False
            )

    header = ["model", "trainable parameters", *(f"{task} ({HEADINGS[task][0]})" for task in config.tasks)]
    rows = []
    for name, model in config.models.items():
        sizes = [results[task, name]["trainable_parameters"] for task in config.tasks]
        scores = [f"{results[task, name]['test'][HEADINGS[task][1]]:.3f}" for task in config.tasks]
        rows.append([model.title, " / ".join(f"{size / 1e6:.2f} M" for size in sizes), *scores])
    print()
    show(f"Test scores on {config.scenes.test} scenes", header, rows)
    table = write_text(output / "results.md", markdown(header, rows) + "\n")
    figures = _figures(config, output)
    print(f"\ntable    {table}")
    for path in figures:
        print(f"figure   {path}")
    print(f"all of it lies in {output} ({time.time() - started:.0f} s)")


def _figures(config: Any, output: Path) -> list[Path]:
    """Predictions of every model beside the truth, and the weight plots that the runs have drawn."""
    import torch

    from satdifuser.build import build_data, build_model, open_split
    from satdifuser.commands.eval import load_run_config
    from satdifuser.data.batches import collate
    from satdifuser.engine.checkpoint import load_checkpoint
    from satdifuser.engine.run import RunFolder
    from satdifuser.report.figures import draw_predictions

    paths = []
    for task in config.tasks:
        predictions, batch, drawn = {}, None, None
        for name in config.models:
            folder = RunFolder(output / task / name)
            trained = load_run_config(folder.path)
            chosen = list(range(config.drawn))
            model = build_model(trained, open_split(trained, "test")).eval()
            model.load_trained_state(load_checkpoint(folder.best)[1])
            images = build_data(trained.data, "test")
            batch = collate([images[i] for i in chosen])
            source = open_split(trained, "test")
            with torch.inference_mode():
                read = getattr(source, "batch", None)
                predictions[name] = model.task.predict(model(read(chosen) if read else batch).logits)
            drawn = model.task
        assert batch is not None
        assert drawn is not None
        figure = output / f"{task}.png"
        paths.append(
            draw_predictions(drawn, batch["image"], drawn.truth(batch), predictions, figure, f"{task}: test scenes")
        )
        paths += [
            output / task / name / "figures" / "weights.png" for name, model in config.models.items() if model.stored
        ]
    return paths
