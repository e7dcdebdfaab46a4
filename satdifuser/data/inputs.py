"""From reflectance to a network's input: bands, range and size, declared once and recorded in the bank's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Len
from torch import Tensor, nn

from satdifuser.data.bands import SENTINEL2, Band, Sensor, SensorName, find_sensor
from satdifuser.data.dates import NO_DATE, dates_fault, day_text
from satdifuser.errors import UserError
from satdifuser.kinds import Positive, Side, checked

RGB = ("B04", "B03", "B02")
Policy = Literal["declared", "percentiles", "standardise"]
Percentile = Annotated[float, Ge(0), Le(100)]
RESIZE = "set encoder.image_size (of a ViT: encoder.backbone.image_size), or resize with encoder.prepare.size"


class ImageInput(nn.Module):
    """Choose bands by name, map [low, high] to [-1, 1] (clipped), and resize if a size is given.

    `low` and `high` are one number or one for each band, in the band's unit; null is where its values usually are:
    0 to 0.3 of reflectance, 0 to 1 of pictures, -25 to 0 dB of radar. With `mean` and `std` [low, high] becomes [0, 1],
    clipped, and then `(x - mean) / std`, of one number or one for each band: what an encoder that was pretrained on
    standardised images expects. Where a band in dB or kelvin is 0 it has no data: `low`, or, with `mean` and `std`, the
    mean (0).

    `policy` says where the numbers come from: as they are declared (those of an encoder's pretraining stand in its
    YAML), or from the training images (`satdifuser/data/policy.py` fills them in before an encoder is built):
    `percentiles` are their `low` and `high`, `standardise` their `mean` and `std`, clipped only where `low` or `high`
    is given.

    >>> prepare = ImageInput(["red", "green", "blue"], high=0.3)
    >>> prepare(torch.full((1, 13, 8, 8), 0.15)).unique().tolist()
    [0.0]
    """

    _lows: Tensor
    _highs: Tensor
    _means: Tensor
    _stds: Tensor
    _blanks: Tensor

    @checked("encoder.prepare")
    def __init__(
        self,
        bands: Annotated[Sequence[str], Len(1)] | None = None,
        *,
        low: float | Sequence[float] | None = None,
        high: float | Sequence[float] | None = None,
        size: Side | None = None,
        sensor: SensorName = SENTINEL2,
        mean: float | Sequence[float] = 0.5,
        std: Positive | Sequence[Positive] = 0.5,
        policy: Policy = "declared",
        percentiles: Annotated[Sequence[Percentile], Len(2, 2)] = (1.0, 99.0),
    ) -> None:
        super().__init__()
        if unfilled(policy, low, high, mean, std):
            raise UserError(
                f"encoder.prepare.policy={policy} takes its numbers from the training images, which are not given here:"
                " fill them in (satdifuser.data.policy.resolved(encoder, data)), or use policy=declared"
            )
        self.sensor, self.size = find_sensor(sensor), size
        self._index = self._asked(bands)
        chosen = [self.sensor.bands[place] for place in self._index]
        self.bands = tuple(band.name for band in chosen)
        self.lows = self._each("low", [band.usual[0] for band in chosen] if low is None else low)
        self.highs = self._each("high", [band.usual[1] for band in chosen] if high is None else high)
        for name, least, most in zip(self.bands, self.lows, self.highs, strict=True):
            if not most > least:
                raise UserError(f"input range: high ({most:g}) must be above low ({least:g}), of {name}")
        self.mean, self.std = self._each("mean", mean), self._each("std", std)
        alone = [band.zero_is_blank for band in chosen]
        self._has_blanks = any(alone)
        for name, numbers in (("_lows", self.lows), ("_highs", self.highs), ("_means", self.mean), ("_stds", self.std)):
            self.register_buffer(name, torch.tensor(numbers).view(-1, 1, 1), persistent=False)
        self.register_buffer("_blanks", torch.tensor(alone).view(-1, 1, 1), persistent=False)

    def _asked(self, bands: Sequence[str] | None) -> list[int]:
        """Where the bands are that are asked for, all of them where none are."""
        try:
            return list(self.sensor.index(self.sensor.names if bands is None else bands))
        except UserError as error:
            raise UserError(
                f"{error}{'' if str(error).endswith('?') else ';'} encoder.prepare.bands asks for them: choose an"
                " encoder for these bands, or set encoder.prepare.bands to some of these"
            ) from None

    def _each(self, name: str, value: float | Sequence[float]) -> tuple[float, ...]:
        """One number for each band."""
        given = [value] * self.channels if isinstance(value, (int, float)) else list(value)
        if len(given) != self.channels:
            raise UserError(f"input range: {len(given)} numbers of {name} for {self.channels} bands: give one for each")
        return tuple(float(number) for number in given)

    @property
    def channels(self) -> int:
        return len(self._index)

    @property
    def inputs(self) -> tuple[Band, ...]:
        """What each channel of the input is."""
        return tuple(self.sensor.bands[place] for place in self._index)

    @property
    def low(self) -> float | tuple[float, ...]:
        """One number where all bands have the same."""
        return self.lows[0] if len({*self.lows}) == 1 else self.lows

    @property
    def high(self) -> float | tuple[float, ...]:
        return self.highs[0] if len({*self.highs}) == 1 else self.highs

    @property
    def limit(self) -> float:
        """The largest magnitude that an input can have."""
        edges = [(edge - mean) / std for edge in (0.0, 1.0) for mean, std in zip(self.mean, self.std, strict=True)]
        return max(map(abs, edges))

    def undo(self, inputs: Tensor) -> Tensor:
        """Inputs, or what a network made to be like them, as [0, 1] of [low, high]."""
        return inputs * self._stds.to(inputs) + self._means.to(inputs)

    def sensed(self, inputs: Tensor) -> Tensor:
        """Inputs as the sensor's image that they were made from, as far as they tell: bands that they lack are 0."""
        lows, highs = self._lows.to(inputs), self._highs.to(inputs)
        image = inputs.new_zeros(len(inputs), len(self.sensor), *inputs.shape[-2:])
        image[:, list(self._index)] = self.undo(inputs) * (highs - lows) + lows
        return image

    @property
    def settings(self) -> Mapping[str, object]:
        """What a bank's spec records of the input: two banks made from other bands or ranges are not exchangeable."""
        known = {"sensor": self.sensor.name, "bands": ",".join(self.bands), "low": self.low, "high": self.high}
        return known if self._plain else {**known, "mean": self.mean, "std": self.std}

    def fault(self, image: Tensor, expect: tuple[int, int] | None = None, remedy: str = RESIZE) -> str | None:
        """Why an image `[bands, height, width]` cannot be used, with a remedy; None if it can."""
        if image.ndim != 3 or image.shape[0] != len(self.sensor) or not image.numel():
            return (
                f"has the shape {tuple(image.shape)}, but {self.sensor.name} gives [{len(self.sensor)}, height, width]"
                f" ({', '.join(self.sensor.names)}): set data.sensor to the sensor of the images"
            )
        low, high = (float(value) for value in torch.aminmax(image))  # NaN if there is one
        if not bool(torch.isfinite(image.new_tensor([low, high])).all()):
            count = int((~image.isfinite()).any(0).sum())
            return f"has NaN or infinite values in {count} pixels: mask them as no-data (0) or leave the sample out"
        limits = self.sensor.limits
        for number, (least, most) in enumerate(limits) if len({*limits}) > 1 else ((None, limits[0]),):
            if number is not None:
                low, high = (float(value) for value in torch.aminmax(image[number]))
            if low < least - 1e-6 or high > most + 1e-6:  # a bound in float32 is not the bound in float64
                what = self.sensor.name if number is None else f"{self.sensor.names[number]} of {self.sensor.name}"
                return (
                    f"has values from {low:.4g} to {high:.4g}, but {what} is declared as {least:g} to {most:g}:"
                    " scale digital numbers to reflectance (data.scaling), or declare the sensor's range (Sensor.valid)"
                )
        side = (self.size, self.size) if self.size is not None else tuple(image.shape[-2:])
        if expect is not None and side != expect:
            return f"is {side[0]} x {side[1]} px, but the network was built for {expect[0]} x {expect[1]}: {remedy}"
        return None

    def forward(
        self, images: Tensor, sample_ids: Sequence[str] | None = None, expect: tuple[int, int] | None = None
    ) -> Tensor:
        """The input of a network built for images of the size `expect`; ids are for naming a bad sample.

        Images on the CPU are checked here. Looking at pixels on a GPU would wait for it: there the shape alone is
        checked, and the loader has looked at the pixels before they left the host.
        """
        if images.ndim != 4 or images.shape[1] != len(self.sensor):
            raise UserError(
                f"images have the shape {tuple(images.shape)}, but {self.sensor.name} gives"
                f" [batch, {len(self.sensor)}, height, width] ({', '.join(self.sensor.names)})"
            )
        here = images.device.type == "cpu"
        for number, image in enumerate(images if here else _blank(images, self.sensor)):
            fault = self.fault(image, expect)
            if fault is not None:
                name = sample_ids[number] if sample_ids is not None else f"number {number} of the batch"
                raise UserError(f"sample {name} {fault}")
        scaled = self._scaled(images[:, self._index])
        if self.size is not None and tuple(scaled.shape[-2:]) != (self.size, self.size):
            scaled = F.interpolate(scaled, (self.size, self.size), mode="bilinear", antialias=True)
        return scaled

    @property
    def _plain(self) -> bool:
        return {*self.mean, *self.std} == {0.5}

    def _scaled(self, chosen: Tensor) -> Tensor:
        low, high = self._lows.to(chosen), self._highs.to(chosen)
        if self._plain:
            return self._filled(chosen, ((chosen - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0), -1.0)
        unit = ((chosen - low) / (high - low)).clamp(0.0, 1.0)
        return self._filled(chosen, (unit - self._means.to(unit)) / self._stds.to(unit), 0.0)

    def _filled(self, chosen: Tensor, inputs: Tensor, blank: float | Tensor) -> Tensor:
        """Inputs with `blank` where a band has no data: 0 dB would be the brightest radar, and 0 kelvin is far off."""
        if not self._has_blanks:
            return inputs
        return torch.where((chosen == 0) & self._blanks, blank, inputs)


def unfilled(policy: str, low: Any, high: Any, mean: Any, std: Any) -> bool:
    """Whether a policy lacks what it takes from the training images."""
    if policy == "percentiles":
        return low is None or high is None
    return policy == "standardise" and not (isinstance(mean, Sequence) and isinstance(std, Sequence))


@dataclass(frozen=True)
class SampleCheck:
    """What an encoder needs of a sample, asked on the host, where the sample is read."""

    prepare: ImageInput
    size: tuple[int, int]
    metadata: int = 0
    remedy: str = RESIZE  # for an image of another size
    series: bool = True  # whether samples may have several dates

    def __call__(self, sample: Mapping[str, Any]) -> str | None:
        """Why the sample cannot be used; None if it can."""
        image, dates = sample["image"], sample.get("dates")
        fault = self._of_dates(image, dates) if image.ndim == 4 else self._of_image(image)
        if fault is not None or not self.metadata:
            return fault
        given = sample.get("metadata")
        remedy = f"set encoder.metadata=none, or to a list of {self.metadata} numbers"
        if given is None:
            return f"has no metadata, but encoder.metadata is samples: {remedy}"
        if tuple(given.shape) not in ((self.metadata,), (*image.shape[:-3], self.metadata)):
            return f"has metadata of the length {given.numel()}, but the UNet reads {self.metadata} numbers: {remedy}"
        if not bool(given.isfinite().all()):
            return f"has metadata that is not known ({given.tolist()}): fill it in, or {remedy}"
        return None

    def _of_image(self, image: Tensor) -> str | None:
        return self.prepare.fault(image, self.size, self.remedy)

    def _of_dates(self, images: Tensor, dates: Tensor | None) -> str | None:
        """As `_of_image`, for each date that is there."""
        if not self.series:
            return f"has {len(images)} dates, and here samples of one image are read: give each date as a sample"
        fault = dates_fault(images, dates)
        for number, image in enumerate(images if fault is None else ()):
            day = None if dates is None else int(dates[number])
            found = None if day == NO_DATE else self._of_image(image)
            if found is not None:
                return f"at {f'image {number + 1} of its series' if day is None else day_text(day)} {found}"
        return fault


def sample_check(encoder: nn.Module) -> SampleCheck | None:
    """The check that an encoder states, or that its declared input implies."""
    stated = getattr(encoder, "check", None)
    if isinstance(stated, SampleCheck):
        return stated
    prepare: Any = getattr(encoder, "prepare", None)
    spec: Any = getattr(encoder, "spec", None)
    return SampleCheck(prepare, spec.image_size) if isinstance(prepare, ImageInput) else None


def _blank(images: Tensor, sensor: Sensor) -> Tensor:
    """A valid image of the same shape, for the checks that need no pixels."""
    least = torch.tensor([max(0.0, low) for low, _ in sensor.limits])
    return least.view(1, -1, 1, 1).expand(1, *images.shape[1:])
