"""Where pixels come from: flips and quarter turns, which only change their places, and rotated or cropped images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from satdifuser.augment.draws import Numbers


def where(chosen: Numbers, device: torch.device) -> Tensor:
    """The numbers of the samples that are chosen; the copy waits for nobody."""
    return torch.from_numpy(np.flatnonzero(chosen)).to(device, non_blocking=True)


def moved(values: Tensor, horizontal: Numbers, vertical: Numbers, turns: Numbers) -> Tensor:
    """Flip left and right, flip up and down, and turn by so many quarters counter-clockwise, each where it is asked."""
    out = values.clone()
    for chosen, flipped in ((horizontal, -1), (vertical, -2)):
        if chosen.any():
            index = where(chosen, values.device)
            out[index] = out[index].flip(flipped)
    for quarters in (1, 2, 3):
        if (turns == quarters).any():
            index = where(turns == quarters, values.device)
            out[index] = torch.rot90(out[index], quarters, (-2, -1))
    return out


@dataclass(frozen=True)
class Sources:
    """For each pixel, where it comes from: `x` and `y`, 0 at the first pixel's outer edge.

    They are `[samples, H, W]`, or, where nothing is turned, `[samples, 1, W]` and `[samples, H, 1]`.
    """

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, size: tuple[int, int], angles: Numbers, parts: Numbers, like: Tensor) -> Sources:
        """Of images turned by `angles` (degrees, counter-clockwise, about the centre), of which `parts` are enlarged.

        A part is top, left, height and width as shares of the image; what is read beside the middles of its outer
        pixels is read there.
        """
        height, width = size
        turned = np.deg2rad(angles)
        columns = np.column_stack([parts * [height, width, height, width], np.cos(turned), np.sin(turned)])
        numbers = torch.from_numpy(columns).to(like)[:, :, None, None]
        top, left, tall, wide, cos, sin = numbers.unbind(1)
        x = left + (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * (wide / width)
        y = top + (torch.arange(height, device=like.device, dtype=like.dtype)[:, None] + 0.5) * (tall / height)
        x = torch.minimum(torch.maximum(x, left + 0.5), left + wide - 0.5) - width / 2
        y = torch.minimum(torch.maximum(y, top + 0.5), top + tall - 0.5) - height / 2
        if angles.any():
            x, y = cos * x - sin * y, sin * x + cos * y
        return cls(x + width / 2, y + height / 2)

    def repeated(self, times: int) -> Sources:
        """The same for each of so many images of a sample, one after the other."""
        return Sources(self.x.repeat_interleave(times, 0), self.y.repeat_interleave(times, 0))

    def nearest(self, values: Tensor, fill: float) -> Tensor:
        """The pixels of `[samples, channels, H, W]` that lie nearest; `fill` where there is none."""
        height, width = values.shape[-2:]
        inside = (self.x >= 0) & (self.x < width) & (self.y >= 0) & (self.y < height)
        column, row = self.x.floor().long().clamp(0, width - 1), self.y.floor().long().clamp(0, height - 1)
        index = (row * width + column).flatten(1)[:, None].expand(-1, values.shape[1], -1)
        found = values.flatten(2).gather(2, index).view_as(values)
        return torch.where(inside[:, None], found, torch.as_tensor(fill, dtype=values.dtype, device=values.device))

    def bilinear(self, images: Tensor, alone: Sequence[int] = ()) -> Tensor:
        """Between the four nearest pixels, of those that have data; 0 where the nearest one has none.

        Bands that are `alone` each have their own pixels without data (`Sensor.alone`).
        """
        from kornia.geometry.transform import remap

        data, bands = has_data(images, alone), images.shape[1]
        x, y = torch.broadcast_tensors(self.x - 0.5, self.y - 0.5)
        sampled = remap(torch.cat([images, data.to(images)], 1), x, y, mode="bilinear", align_corners=True)
        weights = sampled[:, bands:].clamp_min(0.1)  # the nearest of four counts for a quarter or more
        mean = sampled[:, :bands] / weights
        return torch.where(self.nearest(data, False), mean, mean.new_zeros(()))


def has_data(images: Tensor, alone: Sequence[int] = ()) -> Tensor:
    """`[samples, 1, H, W]`: a pixel that is 0 in all bands has no data. With bands `alone`, of each band its own."""
    here = images != 0
    if not alone:
        return here.any(1, keepdim=True)
    rest = [band for band in range(images.shape[1]) if band not in alone]
    if rest:
        here[:, rest] = here[:, rest].any(1, keepdim=True)
    return here
