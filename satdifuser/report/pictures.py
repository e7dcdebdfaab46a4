"""Pictures inside a page, within a limit of bytes: as PNG in `data:` addresses."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.tasks.base import Task

SIDE = 128  # pixels; larger pictures are shown smaller


class Pictures:
    """Makes pictures until `limit` bytes are spent, and counts what it left out."""

    def __init__(self, limit: int) -> None:
        self.limit, self.spent, self.left_out = limit, 0, 0

    def take(self, addresses: list[str]) -> bool:
        """Whether these pictures, all or none, still fit."""
        need = sum(map(len, addresses))
        if self.spent + need > self.limit:
            self.left_out += len(addresses)
            return False
        self.spent += need
        return True


def png(pixels: NDArray[Any]) -> str:
    """The address of a picture (uint8 [H, W, 3]); one of few colours is kept with a palette, which is smaller."""
    from PIL import Image

    flat = np.ascontiguousarray(pixels[..., :3]).reshape(-1, 3)
    colours, index = np.unique(flat, axis=0, return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
        image.putpalette(colours.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def shrink(pixels: NDArray[Any], side: int = SIDE) -> NDArray[Any]:
    """A picture no larger than `side`, each new pixel the mean of a block of old ones.

    >>> shrink(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 1).tolist()
    [[[4, 5, 6]]]
    """
    step = -(-max(pixels.shape[:2]) // side)
    if step <= 1:
        return pixels
    high, wide = (max(length // step, 1) for length in pixels.shape[:2])
    cut = pixels[: high * step, : wide * step].astype(np.float64)
    return cut.reshape(high, step, wide, step, -1).mean((1, 3)).astype(np.uint8)


def drawn(task: Task, value: Any, side: int = SIDE) -> NDArray[Any]:
    """A map (truth or prediction) as the task draws it, a pixel for a pixel, or every n-th of a large one."""
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    array = np.asarray(value)
    step = -(-max(array.shape[-2:]) // side)
    array = np.ascontiguousarray(array[..., ::step, ::step])
    array = array.astype(np.int64) if array.dtype.kind in "iu" else array
    high, wide = array.shape[-2:]
    figure = Figure(figsize=(wide / 100, high / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    task.draw(axes, torch.from_numpy(array))
    axes.set_aspect("auto")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def shaded(values: NDArray[Any], low: float, high: float, blank: tuple[int, int, int] | None = None) -> NDArray[Any]:
    """A map of numbers in cividis, from dark blue (`low`) to yellow (`high`); NaN is `blank`, or `low`."""
    import matplotlib

    share = (np.asarray(values, dtype=np.float64) - low) / ((high - low) or 1.0)
    picture: NDArray[Any] = matplotlib.colormaps["cividis"](np.clip(np.nan_to_num(share), 0, 1), bytes=True)[..., :3]
    if blank is not None:
        picture[np.isnan(share)] = blank
    return picture
