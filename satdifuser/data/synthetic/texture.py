"""Random fields for the built-in scenes, from exactly rounded arithmetic only (see scenes.py for why)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Stream:
    """Random numbers that depend on (seed, index) alone, drawn from the raw 64-bit output of PCG64."""

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, index]))

    def uniform(self, shape: int | tuple[int, ...]) -> Array:
        """Uniform on [0, 1): the upper 53 bits of each draw."""
        raw = self._bits.random_raw(int(np.prod(shape))).reshape(shape)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Nearly normal: the sum of four 16-bit uniforms, centred and scaled to unit variance (integer sums: exact)."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        parts = raw.view(np.uint16).reshape(-1, 4).astype(np.int64)
        total = parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3] - 2 * 65535
        return (total.astype(np.float64) / 37837.05).reshape(shape)

    def integers(self, count: int, below: int) -> NDArray[np.int64]:
        return (self.uniform(count) * below).astype(np.int64)

    def integer(self, below: int) -> int:
        return int(self.integers(1, below)[0])


def smooth(stream: Stream, size: int, cells: float) -> Array:
    """Value noise on [0, 1] with about `cells` bumps across the image, stretched to have contrast."""
    knots = int(cells) + 3
    grid = stream.uniform((knots, knots))
    shift = stream.uniform(2)
    rows, row_part = _positions(size, cells, shift[0])
    columns, column_part = _positions(size, cells, shift[1])
    top = grid[rows][:, columns] * (1 - column_part) + grid[rows][:, columns + 1] * column_part
    bottom = grid[rows + 1][:, columns] * (1 - column_part) + grid[rows + 1][:, columns + 1] * column_part
    part = row_part[:, None]
    return stretch(top * (1 - part) + bottom * part, 0.12, 0.88)


def _positions(size: int, cells: float, shift: float) -> tuple[NDArray[np.int64], Array]:
    place = np.arange(size, dtype=np.float64) * cells / size + shift
    knot = place.astype(np.int64)
    part = place - knot
    return knot, part * part * (3.0 - 2.0 * part)


def stretch(values: Array, low: float, high: float) -> Array:
    """Map [low, high] to [0, 1] and clip."""
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def regions(stream: Stream, size: int, least: int, most: int) -> tuple[NDArray[np.int64], int]:
    """A Voronoi mosaic with bent borders: the region number of every pixel, and how many regions there are."""
    count = least + stream.integer(most - least + 1)
    points = stream.uniform((count, 2)) * size
    bend = size / 5.0
    rows = np.arange(size, dtype=np.float64)[:, None] + bend * (smooth(stream, size, 5) - 0.5)
    columns = np.arange(size, dtype=np.float64)[None, :] + bend * (smooth(stream, size, 5) - 0.5)
    best = np.full((size, size), np.inf)
    nearest = np.zeros((size, size), dtype=np.int64)
    for number, (row, column) in enumerate(points):
        distance = (rows - row) * (rows - row) + (columns - column) * (columns - column)
        closer = distance < best
        nearest = np.where(closer, number, nearest)
        best = np.where(closer, distance, best)
    return nearest, count


def field_grid(
    stream: Stream, region: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
    """Parcels: a rotated grid with its own angle and mesh in every region.

    Gives the parcel number, a stripe pattern along the parcel (0 to 1), and where streets run between parcels.
    """
    count = int(region.max()) + 1
    across, along = (stream.uniform(count) * 2 - 1 for _ in range(2))
    length = np.sqrt(across * across + along * along) + 1e-9
    c, s = (across / length)[region], (along / length)[region]
    width, height = (6.0 + 10.0 * stream.uniform(count))[region], (6.0 + 14.0 * stream.uniform(count))[region]
    period = (2.6 + 2.4 * stream.uniform(count))[region]
    rows = np.arange(size, dtype=np.float64)[:, None] + 4.0 * size
    columns = np.arange(size, dtype=np.float64)[None, :] + 4.0 * size
    u, v = c * columns + s * rows, c * rows - s * columns
    i, j = np.floor(u / width), np.floor(v / height)
    parcel = (i.astype(np.int64) * 73 + j.astype(np.int64) * 179 + region * 283) % 100003
    phase = u / period - np.floor(u / period)
    stripe = np.abs(2.0 * phase - 1.0)
    street = ((u - i * width) < 1.6) | ((v - j * height) < 1.6)
    return parcel, stripe, street


def blur(image: Array) -> Array:
    """The optics: a 3 x 3 binomial filter, edges repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return 0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:]


def at_resolution(band: Array, factor: int) -> Array:
    """Average over factor x factor pixels and repeat the mean, as a coarser band looks on the fine grid."""
    if factor == 1:
        return band
    size = band.shape[0]
    extra = -size % factor
    padded = np.pad(band, (0, extra), mode="edge")
    total = np.zeros((padded.shape[0] // factor,) * 2)
    for row in range(factor):
        for column in range(factor):
            total = total + padded[row::factor, column::factor]
    return (total / (factor * factor)).repeat(factor, 0).repeat(factor, 1)[:size, :size]
