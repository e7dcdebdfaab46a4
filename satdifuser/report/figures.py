"""The figure of a run: the learned weight of each (timestep, tap); and how taps are called anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from satdifuser.bank import BankSpec


def subplots(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """matplotlib's subplots on a canvas that needs no screen and leaves the user's backend alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=kwargs.pop("figsize"), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(*args, **kwargs)


def save_figure(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=110, format=path.suffix[1:])
    return partial.replace(path)


def draw_weights(spec: BankSpec, weights: Mapping[int, Tensor], path: Path, title: str = "") -> Path:
    """One heatmap for each stride: rows are timesteps, columns are taps in the order of computation."""
    strides = list(spec.strides)
    figure, axes = subplots(
        1, len(strides), figsize=(1.6 + 2.3 * len(strides), 1.9 + 0.42 * len(spec.timesteps)), squeeze=False
    )
    low = min(float(value.min()) for value in weights.values())
    top = max(float(value.max()) for value in weights.values())
    for axis, stride in zip(axes[0], strides, strict=True):
        axis.set_title(f"stride {stride}", fontsize=9)
        values = weights[stride].float().tolist()
        picture = heatmap(axis, values, spec.timesteps, list(map(shorten, spec.names(stride))), (low, top), "{:.3f}")
    axes[0][0].set_ylabel("timestep")
    figure.colorbar(picture, ax=axes, shrink=0.9, label="weight")
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def heatmap(
    axis: Any,
    values: Sequence[Sequence[float]],
    timesteps: Sequence[int | None],
    columns: Sequence[str],
    span: tuple[float, float],
    number: str,
) -> Any:
    """Numbers in coloured cells, each as `number` formats it: rows are timesteps, and colours run over `span`."""
    low, top = span
    picture = axis.imshow(values, cmap="cividis", vmin=low, vmax=top, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(timesteps)), ["-" if t is None else str(t) for t in timesteps], fontsize=8)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            shade = "white" if value < low + 0.6 * (top - low) else "black"
            axis.text(column, row, number.format(value), ha="center", va="center", fontsize=7, color=shade)
    return picture


def shorten(name: str) -> str:
    """A tap's name for an axis.

    >>> shorten("up_blocks.1.resnets.0.conv2")
    'up1 res0 conv2'
    >>> shorten("up_blocks.1.attentions.0.transformer_blocks.0.attn1"), shorten("up_blocks.1.attentions.0")
    ('up1 att0 self', 'up1 att0')
    """
    words = {"transformer_blocks.0.": "", "attn1": "self", "attn2": "cross", "_blocks.": ""}
    for long, short in {**words, "resnets.": "res", "attentions.": "att"}.items():
        name = name.replace(long, short)
    return name.replace(".", " ")
