"""What an image must be like, asked of its header: how many bands, of which size, and how much is read of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from satdifuser.data.bands import Sensor

Fit = Literal["none", "crop", "pad", "resize"]
MOST = 2**26
"""How many numbers (pixels times bands) are read at once; a larger image is refused before any is."""
SKIP = "(extract and pretrain can leave it out: on_error=skip)"
AGAIN = "download the set again"


class BadImageError(Exception):
    """What is wrong with an image and what to do, to follow its name in a sentence."""


@dataclass(frozen=True)
class Fitting:
    """The bands and the size that images are to have, and what is done with those of another size.

    `crop` keeps the middle. `pad` does so too, and adds pixels without data below and to the right of what is smaller.
    """

    sensor: Sensor
    size: int
    fit: Fit
    tiles: bool = False
    """Whether larger images could be cut into tiles, which is then offered."""

    def check(self, bands: int, height: int, width: int) -> None:
        """Refuse an image that cannot be used, by what its header says."""
        wanted = len(self.sensor)
        if bands != wanted:
            raise BadImageError(
                f"has {bands} band{'s' * (bands != 1)}, but {self.sensor.name} has {wanted}"
                f" ({', '.join(self.sensor.names)}): set data.sensor to the sensor of the images"
            )
        self.check_size(height, width)

    def check_size(self, height: int, width: int) -> None:
        bands, size = len(self.sensor), self.size
        if self.fit == "none" and (height, width) != (size, size):
            other = f", or data.size={height}" if height == width and bands * height * width <= MOST else ""
            tiles = f"data.tile={size}, or " if self.tiles and min(height, width) >= size else ""
            raise BadImageError(
                f"is {height} x {width} px, but data.size is {size}: set {tiles}data.fit=crop, pad or resize{other}"
            )
        if self.fit == "crop" and min(height, width) < size:
            raise BadImageError(
                f"is {height} x {width} px, too small to cut {size} x {size} from it: set data.fit=pad or resize, or a"
                " smaller data.size"
            )

    def check_room(self, numbers: int, height: int, width: int) -> None:
        """Refuse an image of which so many numbers would have to be decoded at once."""
        if numbers > max(MOST, len(self.sensor) * self.size**2):
            raise BadImageError(
                f"is {height} x {width} px, and reading it would decode {numbers:,} numbers at once, more than"
                f" {MOST:,}: cut it into smaller images, or save it as a GeoTIFF in tiles and set data.fit=crop"
            )

    def part(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns that are read: the middle, if that is all that is kept."""
        if self.fit not in ("crop", "pad"):
            return slice(0, height), slice(0, width)
        top, left = (max(0, (side - self.size) // 2) for side in (height, width))
        return slice(top, min(height, top + self.size)), slice(left, min(width, left + self.size))

    def padded(self, image: Tensor, value: float) -> Tensor:
        """What was read, with `value` below and to the right where it is smaller."""
        height, width = image.shape[-2:]
        if self.fit != "pad" or (height, width) == (self.size, self.size):
            return image
        return F.pad(image, (0, self.size - width, 0, self.size - height), value=value)
