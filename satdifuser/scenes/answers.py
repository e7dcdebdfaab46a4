"""What windows are answered with: a model's logits or values for each pixel of a window, or one for all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from satdifuser.errors import UserError
from satdifuser.scenes.windows import Windows, suited


class Answers(Protocol):
    """Of images `[n, bands, size, size]` and ids, `[n, channels, size/step, size/step]`, or `[n, channels, 1, 1]`.

    `size` is a window's side and `step` the side of an answer, both in px of the scene. `needed` are the bands that are
    looked at (None: all). An answer may have a `grain`: by how many px a window moves and is answered the same.
    """

    size: int
    step: int

    @property
    def needed(self) -> Sequence[str] | None: ...

    @property
    def channels(self) -> int: ...

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor: ...


class ModelAnswers:
    """What a run's model says of windows: logits of classes, or what a regression is of.

    `size` is the side of a window, `stride` of a task with one answer an image how many px one answer stands for.
    """

    def __init__(
        self, model: Any, device: torch.device, *, size: int, stride: int | None = None, precision: str = "no"
    ) -> None:
        self.model, self.device, self.size, self.precision = model.to(device).eval(), device, size, precision
        self.single = not model.task.dense
        self.step = (stride or size) if self.single else 1
        if self.step > size:
            raise UserError(f"stride is {stride}, and a window has {size} px: give {size} or less")
        self.needed = bands_of(model.encoder)
        spec = model.fusion.spec
        self.grain = max(1, max(spec.strides) * size // max(spec.image_size))
        self.values = model.task.name in ("regression", "pixel_regression")
        self.channels = int(model.task.outputs)

    def windows(self, margin: int | None, overlap: int | None) -> Windows:
        if not self.single:
            return suited(self.size, 1, self.grain, margin=margin, overlap=overlap)
        if margin or overlap:
            raise UserError(
                f"task={self.model.task.name} has one answer for a window: leave window.margin and window.overlap out"
                " (stride says how near to each other answers are)"
            )
        return Windows(self.size, step=self.step, single=True)

    def batch(self, images: Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """What the model is given of windows."""
        return {"image": images.to(self.device, non_blocking=True), "id": list(ids)}

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        with torch.inference_mode(), self._precision():
            logits: Tensor = self.model(self.batch(images, ids), size=(self.size, self.size)).logits
            found = self.model.task.predict(logits).unsqueeze(1) if self.values else logits
        found = found.float()
        return found if found.ndim == 4 else found.flatten(1)[..., None, None]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision not in ("bf16", "fp16"):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)


def bands_of(encoder: Any) -> tuple[str, ...] | None:
    """The bands that an encoder looks at, by whatever way; None: all of its sensor's.

    An adapter of spectra (DEFLECT) gets every band beside the input. A finest band is always among them: it makes the
    grid that the images of training had.
    """
    prepare = getattr(encoder, "prepare", None)
    if prepare is None or getattr(getattr(encoder, "adapter", None), "spectra", False):
        return None
    finest = min(prepare.sensor, key=lambda band: band.gsd)
    own: tuple[str, ...] = tuple(prepare.bands)
    there = min(band.gsd for band in prepare.sensor if band.name in own)
    return own if there <= finest.gsd else (*own, finest.name)


def window_size(encoder: Any, asked: int | None, trained: Any = None) -> int:
    """The side of a window: what the encoder was built for; one that resizes its images takes what it is asked for.

    `trained` is the side of the training images, if that is known.
    """
    height, width = encoder.spec.image_size
    resizes = getattr(getattr(encoder, "prepare", None), "size", None) is not None
    if height != width:
        raise UserError(f"{encoder.spec.encoder} takes images of {height} x {width} px: windows are square")
    if resizes:
        return asked or (trained if isinstance(trained, int) else int(height))
    if asked not in (None, height):
        raise UserError(
            f"window.size is {asked}, and {encoder.spec.encoder} was built for {height} px: leave it out, or train with"
            f" data.size={asked} or with encoder.prepare.size, which resizes images"
        )
    return int(height)
