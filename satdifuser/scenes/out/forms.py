"""What is kept of a model's numbers: classes, probabilities, logits, values or vectors, in numbers that files hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Array, Form, Kind

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

OUTPUTS: dict[str, tuple[Kind, ...]] = {
    "segmentation": ("classes", "probabilities", "logits"),
    "classification": ("classes", "probabilities", "logits"),
    "multilabel": ("probabilities", "logits"),
    "regression": ("values",),
    "pixel_regression": ("values",),
}
"""What each task can be asked for; the first is what it gives unless asked."""
DTYPES: dict[Kind, tuple[str, ...]] = {
    "classes": ("uint8", "uint16"),
    "probabilities": ("uint8", "uint16", "float32"),
    "logits": ("float32",),
    "values": ("float32",),
    "embedding": ("float16", "float32", "int8"),
}
MOST = {"uint8": 254, "uint16": 65534}
"""The largest number that is data; the next is no data."""
LEVELS = 127


def form_of(task: Task, output: str | None = None, dtype: str | None = None, *, table: bool = False) -> Form:
    """What a task's numbers become, as it was asked for or as suits it; a `table` saves nothing by coarse numbers."""
    offered = OUTPUTS[task.name]
    if output is not None and output not in offered:
        why = ": an image may have several of its classes, or none" if task.name == "multilabel" else ""
        raise UserError(f"output={output} does not go with task={task.name}{why}; it gives {', '.join(offered)}")
    kind = next(one for one in offered if output in (None, one))
    names = ("value",) if kind == "values" else task.labels.classes
    few = len(names) <= MOST["uint8"] + 1
    usual = DTYPES[kind][-1 if table and kind != "classes" else 0]
    kept = dtype or (usual if kind != "classes" or few else "uint16")
    if kept not in DTYPES[kind]:
        raise UserError(f"dtype={kept} cannot hold {kind}: give {' or '.join(DTYPES[kind])}")
    if kind == "classes" and len(names) > MOST[kept] + 1:
        wider = ": give dtype=uint16" if kept == "uint8" else ""
        raise UserError(f"dtype={kept} holds {MOST[kept] + 1} classes, and there are {len(names)}{wider}")
    colours = task.labels.colours if kind != "values" else ()
    return Form(kind, kept, names, colours, several=task.name == "multilabel", dense=task.dense)


def nodata_of(form: Form) -> float:
    """The number that says that there is none.

    >>> nodata_of(Form("classes", "uint8", ("a",))), nodata_of(Form("embedding", "int8", ("a",), scales=(1.0,)))
    (255, -128)
    """
    if form.dtype == "int8":
        return -LEVELS - 1
    return MOST[form.dtype] + 1 if form.dtype in MOST else math.nan


def bands_of(form: Form) -> tuple[str, ...]:
    """The names of what is kept: one band of classes, else one a channel."""
    return ("class",) if form.kind == "classes" else form.names


def scales_of(form: Form) -> tuple[float, ...]:
    """What one step of each band is worth; none where numbers are what they are."""
    if form.kind == "probabilities" and form.dtype in MOST:
        return (1.0 / MOST[form.dtype],) * len(form.names)
    return form.scales if form.dtype == "int8" else ()


def encode(form: Form, values: Array, valid: Array) -> tuple[Array, float]:
    """Numbers `[K, h, w]` as they are written, `[bands, h, w]`, and the one that is no data."""
    nodata = nodata_of(form)
    there: Any = valid[None]
    if form.kind == "classes":
        found = values.argmax(0)[None]
    elif form.kind == "probabilities":
        safe = np.where(there, values, 0.0).astype(np.float32)
        found = _sigmoid(safe) if form.several else _softmax(safe)
        if form.dtype in MOST:
            found = np.rint(found * MOST[form.dtype])
    elif form.dtype == "int8":
        steps = np.where(there, values, 0.0) / np.asarray(form.scales, np.float64)[:, None, None]
        found = np.rint(steps).clip(-LEVELS, LEVELS)
    elif form.dtype == "float16":
        most = np.finfo(np.float16).max
        found = np.where(there, values, 0.0).clip(-most, most)
    else:
        found = values
    return np.where(there, found, nodata).astype(form.dtype), nodata


def _softmax(logits: Array) -> Array:
    raised: Array = np.exp(logits - logits.max(0))
    return raised / raised.sum(0)


def _sigmoid(logits: Array) -> Array:
    away = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, away) / (1.0 + away))
