"""Embeddings that somebody else has made, as an encoder: an image of vectors is the feature bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.inputs import ImageInput, Percentile
from satdifuser.data.sensors import EMBEDDING
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Positive, Side, checked


class VectorInput(ImageInput):
    """Vectors as they are, whatever numbers they have: `((x - low) / (high - low) - mean) / std`, and nothing clipped.

    With what stands where nothing is said, -1 to 1 and 0.5, that is x itself. A pixel that is 0 in all numbers has no
    vector, and stays 0.

    >>> VectorInput(sensor="EMBEDDING:2")(torch.tensor([7.0, -0.1]).view(1, 2, 1, 1)).flatten().tolist()
    [7.0, -0.10000000149011612]
    """

    @checked("encoder.prepare")
    def __init__(
        self,
        bands: Annotated[Sequence[str], Len(1)] | None = None,
        *,
        low: float | Sequence[float] | None = None,
        high: float | Sequence[float] | None = None,
        sensor: SensorName = EMBEDDING,
        mean: float | Sequence[float] = 0.5,
        std: Positive | Sequence[Positive] = 0.5,
        policy: Literal["declared", "standardise"] = "declared",
        percentiles: Annotated[Sequence[Percentile], Len(2, 2)] = (1.0, 99.0),
    ) -> None:
        given = find_sensor(sensor)
        if bands is None:
            bands = [band.name for band in given if band.unit == "embedding"]
        if not bands:
            raise UserError(
                f"encoder=embedding takes vectors, and {given.name} has no vectors: set data.sensor=EMBEDDING:64 (or as"
                " many numbers as they have)"
            )
        super().__init__(
            bands, low=low, high=high, sensor=given, mean=mean, std=std, policy=policy, percentiles=percentiles
        )
        other = [band for band in self.inputs if band.unit != "embedding"]
        if other:
            raise UserError(
                f"encoder=embedding takes vectors, and {other[0].name} of {self.sensor.name} is {other[0].unit}: set"
                " data.sensor=EMBEDDING:64 (or as many numbers as they have)"
            )
        # In float64: limits far from the vectors would cost digits.
        low64, high64, mean64, std64 = (torch.tensor(n).double() for n in (self.lows, self.highs, self.mean, self.std))
        self._unchanged = bool((low64 == -1).all() and (high64 == 1).all()) and self._plain
        self._centre = (low64 + mean64 * (high64 - low64)).float().view(-1, 1, 1)
        self._scale = (std64 * (high64 - low64)).float().view(-1, 1, 1)

    def undo(self, inputs: Tensor) -> Tensor:
        raise UserError("encoder=embedding has no picture to go back to")

    @property
    def settings(self) -> Mapping[str, object]:
        return {**super().settings, "clipped": False}

    def _scaled(self, chosen: Tensor) -> Tensor:
        if self._unchanged:
            return chosen
        there = (chosen != 0).any(1, keepdim=True)
        return torch.where(there, (chosen - self._centre.to(chosen)) / self._scale.to(chosen), 0.0)


class Embedding(nn.Module):
    """An image of vectors `[C, H, W]` as one tap: as it is, or the mean of `stride` x `stride` pixels.

    `origin` says what has made the vectors, and takes the place of a fingerprint of weights: a head that is trained on
    those of one origin refuses others. Nothing trains.
    """

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: ImageInput,
        image_size: Side = 64,
        stride: Count = 1,
        origin: Annotated[str, Len(1)] = "unknown",
    ) -> None:
        super().__init__()
        if image_size % stride:
            raise UserError(f"encoder.image_size is {image_size}: use a multiple of encoder.stride={stride}")
        self.prepare, self.stride = prepare, stride
        self.spec = BankSpec(
            taps=(Tap("vectors", None, 0, prepare.channels, stride),),
            encoder="embedding",
            weights=origin,
            image_size=(image_size, image_size),
            settings=tuple(sorted(prepare.settings.items())),
        )

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        x = self.prepare(images, sample_ids, expect=self.spec.image_size)
        return FeatureBank(self.spec, {self.spec.taps[0]: x if self.stride == 1 else self._mean(x)})

    def _mean(self, x: Tensor) -> Tensor:
        """Of those of `stride` x `stride` pixels that have a vector."""
        share = F.avg_pool2d((x != 0).any(1, keepdim=True).to(x), self.stride)
        return torch.where(share > 0, F.avg_pool2d(x, self.stride) / share, 0.0)
