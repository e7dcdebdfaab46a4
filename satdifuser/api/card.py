"""The card of a run that is given away: what it takes, what it answers, how well, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from satdifuser.engine.files import read_json
from satdifuser.report.tables import markdown, markdown_text

PIPELINES = {
    "segmentation": "image-segmentation",
    "classification": "image-classification",
    "multilabel": "image-classification",
}

CARD = """\
---
{head}---
# {title}

A head on frozen or adapted features of {encoder}, trained with satdifuser for {task}.

## How to load it
```python
import satdifuser

run = satdifuser.TrainedRun.from_pretrained("FOLDER or OWNER/NAME")
classes = run.predict(images)       # float tensor [B, {channels}, H, W]
bank = run.features(images)         # the maps that the head reads
```
`satdifuser predict run=FOLDER scene=SCENE.tif out=map.tif` maps a whole scene with it.

## Input
{channels} bands of {sensor}: {bands}. {unit}
{size} px a side{resized}.

## Output
{output}

## Scores
{scores}

## What it was made of
* encoder: {encoder} (weights {weights})
* fusion: {fusion}, decoder: {decoder}, task: {task}
* trained on the data set {data}{samples}
{away}
`config.yaml` has every setting, `spec.json` the features that the head was built for. An encoder that gives others is
refused when the run is loaded.
"""


def card(run: Any, folder: Path, *, title: str | None, licence: str | None, away: Iterable[str]) -> str:
    """The text of README.md for the run (a `TrainedRun`) in `folder`."""
    model, settings = run.model, run.settings
    spec, task = model.fusion.spec, model.task
    result = read_json(folder / "result.json", dict, "save the run again") if (folder / "result.json").is_file() else {}
    prepare: Any = getattr(model.encoder, "prepare", None)
    height, width = spec.image_size
    optical = all(band.usual[0] >= 0 for band in run.sensor)
    values = {
        "head": _head(task.name, licence),
        "title": markdown_text(title or f"{settings.fusion.label} on {spec.encoder} for {settings.data.label}"),
        "encoder": spec.encoder,
        "weights": spec.weights or "none",
        "task": task.name,
        "channels": len(run.bands),
        "sensor": run.sensor.name,
        "bands": ", ".join(run.bands),
        "unit": "Numbers are as the sensor's reader gives them (reflectance is 0 to 1); 0 is no data."
        if optical
        else "Numbers are as the sensor's reader gives them (radar in dB); 0 is no data.",
        "size": f"{height} x {width}",
        "resized": " (images of other sizes are resized)" if getattr(prepare, "size", None) is not None else "",
        "output": _output(task),
        "scores": _scores(result),
        "fusion": settings.fusion.label,
        "decoder": settings.decoder.label,
        "data": settings.data.label,
        "samples": f", {result['training_samples']} samples" if "training_samples" in result else "",
        "away": "".join(
            f"* encoder.{name} is not in this folder: it must lie where config.yaml says\n" for name in away
        ),
    }
    return CARD.format(**values)


def _head(task: str, licence: str | None) -> str:
    lines = ["library_name: satdifuser", "tags: [remote-sensing, earth-observation]"]
    if task in PIPELINES:
        lines.append(f"pipeline_tag: {PIPELINES[task]}")
    if licence is not None:
        lines.append(f"license: {json.dumps(licence)}")
    return "".join(f"{line}\n" for line in lines)


def _output(task: Any) -> str:
    each = "each pixel" if task.dense else "each image"
    names = task.labels.classes
    if task.name in ("regression", "pixel_regression"):
        return f"One value for {each}."
    return f"One of {len(names)} classes for {each}: {', '.join(map(markdown_text, names))}." if names else each


def _scores(result: dict[str, Any]) -> str:
    found = result.get("test")
    if not isinstance(found, dict) or not found:
        return "None are known of these weights."
    rows = [[name, f"{value:.4f}"] for name, value in found.items() if isinstance(value, int | float)]
    return f"On the test split ({result.get('samples', '?')} samples):\n\n{markdown(['metric', 'value'], rows)}"
