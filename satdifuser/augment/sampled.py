"""The built-in augmentation: flips, quarter turns, rotation, a resized crop, and photometric jitter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Len
from torch import Tensor

from satdifuser.augment.base import Augmentation
from satdifuser.augment.colour import OPERATIONS, jittered
from satdifuser.augment.draws import Draws, Numbers, boxes
from satdifuser.augment.geometry import Sources, moved, where
from satdifuser.data.bands import Sensor
from satdifuser.data.base import Batch
from satdifuser.errors import UserError
from satdifuser.kinds import Positive, Seed, Share, Unit, checked

Degrees = Annotated[float, Ge(0), Le(180), Unit("degrees")]
Hue = Annotated[float, Ge(0), Le(0.5)]
Part = Annotated[float, Gt(0), Le(1)]
LIGHT = ("reflectance", "colour")  # units that are brighter times a factor; dB, kelvin and metres are not
MAPS = ("mask", "target")  # of the truth, which move with the image


class RandomAugmentation(Augmentation):
    """In this order: flips, quarter turns, rotation, crop, jitter. Without settings it leaves a batch as it is.

    All dates of a sample are changed alike: the same pixels go to the same places, and colours by the same factors.
    Jitter is of light: bands in dB, kelvin and metres have none.
    """

    @checked("augmentation")
    def __init__(
        self,
        *,
        probability: Share = 1.0,
        horizontal: Share = 0.0,
        vertical: Share = 0.0,
        turn: Share = 0.0,
        rotation: Degrees = 0.0,
        crop: Share = 0.0,
        scale: Annotated[Sequence[Part], Len(2, 2)] = (0.25, 1.0),
        ratio: Annotated[Sequence[Positive], Len(2, 2)] = (0.75, 1.3333),
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        brightness: Share = 0.0,
        contrast: Share = 0.0,
        saturation: Share = 0.0,
        hue: Hue = 0.0,
        unit: Positive | None = None,
        seed: Seed = 0,
        ignore_index: int = 255,
        sensor: Sensor | None = None,
    ) -> None:
        super().__init__(seed=seed, ignore_index=ignore_index, sensor=sensor)
        self.probability, self.horizontal, self.vertical = probability, horizontal, vertical
        self.turn, self.rotation, self.crop, self.interpolation = turn, rotation, crop, interpolation
        self.scale, self.ratio = _range("scale", scale), _range("ratio", ratio)
        given = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self.jitter = {name: given[name] for name in OPERATIONS if given[name]}
        self.unit = unit
        self.light, self.rgb = self._lit() if self.jitter else ((), ())
        if not self.light:
            self.jitter = {}
        self.alone = sensor.alone if sensor is not None else ()
        self._needs_kornia()

    def _lit(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which bands are of light, and where among these red, green and blue are.

        These are none where the sensor has not all of them and nobody asks for colours.
        """
        if self.sensor is None:
            raise UserError(f"augmentation.{next(iter(self.jitter))} needs to know the bands: set data.sensor")
        light = self.sensor.of([band.name for band in self.sensor if band.unit in LIGHT])
        there = {band.common for band in light}
        colours = ("red", "green", "blue")
        asked = next((name for name in ("saturation", "hue") if name in self.jitter), None)
        if asked is not None and not there.issuperset(colours):
            raise UserError(
                f"augmentation.{asked} is of red, green and blue, and {self.sensor.name} has the bands"
                f" {', '.join(self.sensor.names)}: set augmentation.{asked}=0"
            )
        if self.unit is None and "hue" in self.jitter:
            raise UserError(
                "augmentation.hue needs the reflectance that is white: give augmentation.unit, as"
                " augmentation.unit=0.4095"
            )
        return self.sensor.index(light.names), light.index(colours) if there.issuperset(colours) else ()

    def _needs_kornia(self) -> None:
        """Where kornia is missing, say so before any work."""
        if self.active and ("hue" in self.jitter or (self._warps and self.interpolation == "bilinear")):
            import kornia.enhance
            import kornia.geometry  # noqa: F401

    @property
    def _warps(self) -> bool:
        return bool(self.rotation or self.crop)

    @property
    def active(self) -> bool:
        places = self.horizontal or self.vertical or self.turn or self._warps
        return bool(self.probability and (places or self.jitter))

    @torch.no_grad()
    def __call__(self, batch: Batch, step: int) -> Batch:
        if not self.active:
            return batch
        draws = Draws.of(self.seed, step, batch["id"])
        chosen = draws["augmented"] < self.probability
        images, truth = batch["image"], {name: batch[name] for name in MAPS if name in batch and batch[name].ndim == 3}
        if self.jitter or (self._warps and self.alone):
            self._check_bands(images, batch["id"])
        size = (int(images.shape[-2]), int(images.shape[-1]))
        images, truth = self._moved(images, truth, chosen, draws, square=size[0] == size[1])
        images, truth = self._warped(images, truth, chosen, draws, size)
        return {**batch, "image": self._jittered(images, chosen, draws), **truth}

    def _check_bands(self, images: Tensor, ids: Sequence[str]) -> None:
        assert self.sensor is not None
        if images.shape[-3] != len(self.sensor):
            raise UserError(
                f"sample {ids[0]} has {images.shape[-3]} bands, but {self.sensor.name} has {len(self.sensor)}: set"
                " data.sensor to the sensor of the images"
            )

    def _moved(
        self, images: Tensor, truth: dict[str, Tensor], chosen: Numbers, draws: Draws, square: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Flips and turns; an image that is not square is turned by a half, so that it keeps its shape."""
        horizontal = chosen & (draws["horizontal"] < self.horizontal)
        vertical = chosen & (draws["vertical"] < self.vertical)
        quarters = 1 + np.floor(3 * draws["turn"]) if square else 2
        turns = np.where(chosen & (draws["turned"] < self.turn), quarters, 0)
        if not (turns.any() or horizontal.any() or vertical.any()):
            return images, truth
        new = {name: moved(maps, horizontal, vertical, turns) for name, maps in truth.items()}
        return moved(images, horizontal, vertical, turns), new

    def _warped(
        self, images: Tensor, truth: dict[str, Tensor], chosen: Numbers, draws: Draws, size: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rotation and crop, in one go, so that images are interpolated once."""
        cropped = chosen & (draws["cropped"] < self.crop)
        warped = chosen if self.rotation else cropped
        if not warped.any():
            return images, truth
        angles = draws.between("angle", -self.rotation, self.rotation)[warped]
        height, width = size
        found = np.where(cropped[:, None], boxes(draws, size, self.scale, self.ratio), [0, 0, height, width])
        parts = found[warped] / [height, width, height, width]
        index = where(warped, images.device)
        sources = Sources.of(size, angles, parts, images)
        images = images.index_copy(0, index, self._taken(images[index], sources))
        new = {}
        for name, maps in truth.items():
            same = tuple(maps.shape[-2:]) == size
            of_map = sources if same else Sources.of((maps.shape[-2], maps.shape[-1]), angles, parts, images)
            blank: float = self.ignore_index if name == "mask" else math.nan
            new[name] = maps.index_copy(0, index, of_map.nearest(maps[index][:, None], blank)[:, 0])
        return images, new

    def _taken(self, images: Tensor, sources: Sources) -> Tensor:
        """Images of a sample, one or several, from where they come from; where one has no data is its own."""
        if images.ndim == 5:
            each = sources.repeated(images.shape[1])
            return self._taken(images.flatten(0, 1), each).unflatten(0, images.shape[:2])
        bilinear = self.interpolation == "bilinear"
        return sources.bilinear(images, self.alone) if bilinear else sources.nearest(images, 0.0)

    def _jittered(self, images: Tensor, chosen: Numbers, draws: Draws) -> Tensor:
        """Brightness, contrast, saturation and hue of light, in random order."""
        if not self.jitter or not chosen.any():
            return images
        assert self.sensor is not None
        factors = {
            name: draws.between(name, -most, most) if name == "hue" else draws.between(name, 1 - most, 1 + most)
            for name, most in self.jitter.items()
        }
        index = where(chosen, images.device)
        old, times = images[index], images.shape[1] if images.ndim == 5 else 1
        flat, light = old.reshape(-1, *old.shape[-3:]), list(self.light)
        new = flat.clone()
        new[:, light] = jittered(
            flat[:, light],
            {name: factor[chosen].repeat(times) for name, factor in factors.items()},
            draws.order(list(self.jitter))[chosen].repeat(times, 0),
            self.rgb,
            self.unit,
            [self.sensor.limits[band] for band in light],
        )
        return images.index_copy(0, index, new.reshape(old.shape))


def _range(name: str, ends: Sequence[float]) -> tuple[float, float]:
    low, high = ends
    if low > high:
        raise UserError(f"augmentation.{name} is [{low:g}, {high:g}]: give the lower end first")
    return float(low), float(high)
