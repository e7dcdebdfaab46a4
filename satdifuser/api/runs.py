"""A trained run as a module: images in, predictions or features out. The model is the one that `predict` maps with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from satdifuser.api.sharing import Shared
from satdifuser.data.bands import Sensor, find_sensor
from satdifuser.errors import UserError
from satdifuser.settings.trust import trusting

if TYPE_CHECKING:
    from satdifuser.bank import FeatureBank
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import TrainSettings

SAME = "image"  # so that the noise of a diffusion encoder depends on nothing but the seed


class TrainedRun(Shared, nn.Module):
    """The best checkpoint of a run, in evaluation mode; its weights are frozen (`requires_grad_()` lets them train).

    Images are float tensors `[B, C, H, W]` with all bands of `sensor`, in the numbers that the run's data set gives:
    reflectance from 0 to 1 (Sentinel-2's integers divided by 10000), dB of radar; 0 is no data. `ids` name the images
    for encoders that add noise; without them all images get the same.
    """

    def __init__(self, folder: Path, model: FeatureModel, settings: TrainSettings) -> None:
        super().__init__()
        self.folder, self.model, self.settings = folder, model.eval(), settings

    @property
    def sensor(self) -> Sensor:
        """The bands of the images that the model takes."""
        prepare: Any = getattr(self.model.encoder, "prepare", None)
        known = getattr(prepare, "sensor", None)
        return known if isinstance(known, Sensor) else find_sensor(str(self.settings.data.sensor))

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels of an image, in their order."""
        return tuple(self.sensor.names)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.model.task.labels.classes)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, images: Tensor, *, ids: Sequence[str] | None = None) -> Tensor:
        """Logits: `[B, classes]`, or `[B, classes, H, W]` where the task has an answer for each pixel."""
        batch = self._batch(images, ids)
        with self._precision():
            logits = self.model(batch, size=(images.shape[-2], images.shape[-1])).logits
        return logits.float()

    def predict(self, images: Tensor, *, ids: Sequence[str] | None = None) -> Tensor:
        """Class numbers, 0 or 1 of several labels, or the values of a regression."""
        with torch.no_grad():
            return self.model.task.predict(self(images, ids=ids))

    def features(self, images: Tensor, *, ids: Sequence[str] | None = None) -> FeatureBank:
        """The bank that the head reads: the encoder's maps, as far as the run uses them."""
        batch = self._batch(images, ids)
        with self._precision():
            return self.model.bank(batch)

    def _batch(self, images: Tensor, ids: Sequence[str] | None) -> dict[str, Any]:
        names = [SAME] * len(images) if ids is None else list(ids)
        if images.ndim != 4 or not len(images):
            raise UserError(
                f"images have the shape {tuple(images.shape)}: give [B, {len(self.bands)}, H, W], one image as"
                " image[None]"
            )
        if len(names) != len(images):
            raise UserError(f"{len(names)} ids for {len(images)} images: give one for each")
        moved, check = images.to(self.device, torch.float32), self.model.check
        for number, image in enumerate(moved if check is not None else ()):
            fault = check({"id": names[number], "image": image})  # type: ignore[misc]
            if fault is not None:
                raise UserError(f"image {number} of the batch {fault}")
        return {"id": names, "image": moved}

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.trainer.mixed_precision)
        return contextlib.nullcontext() if kind is None else torch.autocast(self.device.type, kind)

    @classmethod
    def of_folder(cls, folder: str | Path, trust: Iterable[str] = ()) -> TrainedRun:
        from satdifuser.scenes.predict.trained import read_run

        path = Path(folder).expanduser()
        with trusting(trust):
            found = read_run(str(path))
        return cls(path, found.model, found.settings)


def load_run(folder: str | Path, *, trust: Iterable[str] = ()) -> TrainedRun:
    """The model of a folder that `satdifuser train` or `save_pretrained` wrote.

    A configuration may name classes of satdifuser, deflect and the packages in `trust`, as `--trust` on the command
    line; nothing is loaded by pickle.
    """
    return TrainedRun.of_folder(folder, trust)
