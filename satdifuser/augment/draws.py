"""All chance of an augmentation: numbers that are a function of (seed, step, sample id), and what they decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[Any]
TRIES = 10  # boxes that are drawn before the middle of the image is taken
PLACES = (
    *("augmented", "horizontal", "vertical", "turned", "turn", "angle", "cropped", "top", "left"),
    *("brightness", "contrast", "saturation", "hue"),
    *("brightness order", "contrast order", "saturation order", "hue order"),
)


def uniforms(seed: int, step: int, sample_ids: Sequence[str], count: int) -> Numbers:
    """Numbers in [0, 1), `[samples, count]`: of each sample its own, the same in any batch, process or resumed run.

    >>> a, b = uniforms(0, 7, ["x", "y"], 3)
    >>> bool((b == uniforms(0, 7, ["y"], 3)[0]).all()), bool((a == b).any())
    (True, False)
    """
    rows = np.empty((len(sample_ids), count))
    for row, sample_id in zip(rows, sample_ids, strict=True):
        key = f"augment\x00{seed}\x00{step}\x00{sample_id}"
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random(out=row)
    return rows


@dataclass(frozen=True)
class Draws:
    """The numbers of a batch. Each decision has a place of its own, so that no setting changes what others draw."""

    numbers: Numbers

    @classmethod
    def of(cls, seed: int, step: int, sample_ids: Sequence[str]) -> Draws:
        return cls(uniforms(seed, step, sample_ids, len(PLACES) + 2 * TRIES))

    def __getitem__(self, place: str) -> Numbers:
        return self.numbers[:, PLACES.index(place)]

    @property
    def tries(self) -> tuple[Numbers, Numbers]:
        """For the area and for the ratio of each box that is tried, `[samples, tries]`."""
        rest = self.numbers[:, len(PLACES) :]
        return rest[:, :TRIES], rest[:, TRIES:]

    def order(self, names: Sequence[str]) -> Numbers:
        """Which of some operations comes first, second, ... for each sample: any order is as likely as any other."""
        return np.argsort(np.stack([self[f"{name} order"] for name in names], 1), 1)

    def between(self, place: str, low: float, high: float) -> Numbers:
        return low + self[place] * (high - low)


def boxes(draws: Draws, size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]) -> Numbers:
    """Top, left, height and width of a part of each image, in whole pixels, `[samples, 4]`.

    Its area is a share of the image's, uniform in `scale`; its width over its height is log-uniform in `ratio`. Where
    none of ten fits into the image, it is the largest in the middle whose ratio is allowed.
    """
    height, width = size
    of_area, of_ratio = draws.tries
    area = height * width * (scale[0] + of_area * (scale[1] - scale[0]))
    low, high = np.log(ratio)
    shape = np.exp(low + of_ratio * (high - low))
    wide, tall = np.rint(np.sqrt(area * shape)), np.rint(np.sqrt(area / shape))
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    first, rows = fits.argmax(1), np.arange(len(fits))
    wide, tall = wide[rows, first], tall[rows, first]
    top, left = np.floor(draws["top"] * (height - tall + 1)), np.floor(draws["left"] * (width - wide + 1))
    middle_wide, middle_tall = width, height
    if width / height < ratio[0]:
        middle_tall = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        middle_wide = max(1, round(height * ratio[1]))
    middle = [(height - middle_tall) // 2, (width - middle_wide) // 2, middle_tall, middle_wide]
    return np.where(fits.any(1)[:, None], np.stack([top, left, tall, wide], 1), middle)
