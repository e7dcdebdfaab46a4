"""Which tiles lie near others: distances from edge to edge between four-sided tiles, for many tiles at once.

Tiles are corners in metres, `[n, 4, 3]`: in the plane of a map (z is 0), or on the ellipsoid (from the earth's centre).
Two tiles of the earth are compared in the plane that touches it between them: distances there are never too long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.errors import UserError

Floats = NDArray[np.float64]
TOUCH = 1e-3  # of the smaller tile's radius: what tiles overlap by less, they touch by
ROWS = 2048  # tiles whose neighbours are asked for at once


@dataclass(frozen=True)
class Tiles:
    """Corners in order around each tile, in metres; `flat` says that they lie in the plane of a map."""

    corners: Floats
    flat: bool

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, which: Any) -> Tiles:
        return Tiles(self.corners[which], self.flat)

    @cached_property
    def centres(self) -> Floats:
        return self.corners.mean(1)

    @cached_property
    def outer(self) -> Floats:
        """From the centre to the farthest corner."""
        return np.linalg.norm(self.corners - self.centres[:, None], axis=-1).max(1)

    @cached_property
    def inner(self) -> Floats:
        """From the centre to the nearest edge."""
        return _to_edges(self.centres[:, None], self.corners).min((1, 2))


def near(mine: Tiles, others: Tiles, apart: float) -> NDArray[np.bool_]:
    """Which of `mine` are nearer than `apart` metres to one of the others, or overlap one."""
    found = np.zeros(len(mine), bool)
    for bucket in _of_one_size(others):
        tree = _tree(bucket)
        asked = np.flatnonzero(~found)
        distance, nearest = tree.query(mine.centres[asked])
        # Two discs within the tiles are that near: so are the tiles, whatever their corners.
        sure = distance < apart + (1 - TOUCH) * (mine.inner[asked] + bucket.inner[nearest])
        found[asked[sure]] = True
        unsure = asked[~sure & (distance < apart + mine.outer[asked] + bucket.outer.max())]
        for i, j in _candidates(mine, unsure, bucket, tree, apart):
            far, overlap = between(mine[i], bucket[j])
            deep = overlap > TOUCH * np.minimum(mine.outer[i], bucket.outer[j])
            found[i[(far < apart) | deep]] = True
    return found


def closest(mine: Tiles, others: Tiles) -> tuple[float, int, int]:
    """The least distance from edge to edge between one of `mine` and one of the others, and which two they are."""
    best = (np.inf, -1, -1)
    for bucket, places in zip(_of_one_size(others), _sizes(others), strict=True):
        tree = _tree(bucket)
        nearest = tree.query(mine.centres)[1]
        reach = float(between(mine, bucket[nearest])[0].min())
        for i, j in _candidates(mine, np.arange(len(mine)), bucket, tree, min(reach, best[0]) * (1 + 1e-9) + 1e-6):
            far, _ = between(mine[i], bucket[j])
            at = int(far.argmin())
            if far[at] < best[0]:
                best = (float(far[at]), int(i[at]), int(places[j[at]]))
    return best


def between(mine: Tiles, others: Tiles) -> tuple[Floats, Floats]:
    """Pair by pair: the distance from edge to edge (0 where they overlap), and how deep they overlap (0 if not).

    >>> two = Tiles(np.array([[[0, 0, 0], [0, 2, 0], [2, 2, 0], [2, 0, 0]]]) * 1.0, flat=True)
    >>> [part.tolist() for part in between(two, Tiles(two.corners + [5, 6, 0], flat=True))]
    [[5.0], [0.0]]
    """
    a, b = _in_plane(mine, others)
    gaps = np.stack([_gaps(a, a, b), _gaps(b, a, b)], 1).reshape(len(a), -1)
    apart = gaps.max(1)  # of the line that parts them best; no line parts tiles that overlap
    edges = np.minimum(_to_edges(a, b).min((1, 2)), _to_edges(b, a).min((1, 2)))
    overlap = np.where(np.isfinite(apart), np.maximum(-apart, 0), 0)
    return np.where(overlap > 0, 0, edges), overlap


def _in_plane(mine: Tiles, others: Tiles) -> tuple[Floats, Floats]:
    """Both tiles of each pair `[pairs, 4, 2]`, about the middle between them."""
    middle = (mine.centres + others.centres) / 2
    a, b = mine.corners - middle[:, None], others.corners - middle[:, None]
    if mine.flat:
        return a[..., :2], b[..., :2]
    up = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    axis = np.eye(3)[np.abs(up).argmin(1)]
    east = np.cross(axis, up)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    plane = np.stack([east, np.cross(up, east)], -1)
    return a @ plane, b @ plane


def _gaps(edges: Floats, a: Floats, b: Floats) -> Floats:
    """How far the tiles are apart across each edge of one of them; less than 0: they overlap as seen along it."""
    along = np.roll(edges, -1, 1) - edges
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    length = np.linalg.norm(across, axis=-1, keepdims=True)
    across = across / np.where(length > 0, length, 1)
    a, b = across @ a.swapaxes(1, 2), across @ b.swapaxes(1, 2)  # [pairs, edges, corners]
    gaps = np.maximum(b.min(2) - a.max(2), a.min(2) - b.max(2))
    return np.where(length[..., 0] > 0, gaps, -np.inf)


def _to_edges(points: Floats, tiles: Floats) -> Floats:
    """From each point to each edge of its tile, `[tiles, points, edges]`."""
    along = np.roll(tiles, -1, 1) - tiles
    square = (along**2).sum(-1)
    to = points[:, :, None] - tiles[:, None]
    place = ((to * along[:, None]).sum(-1) / np.where(square > 0, square, 1)[:, None]).clip(0, 1)
    return np.linalg.norm(to - place[..., None] * along[:, None], axis=-1)


def _candidates(
    mine: Tiles, which: NDArray[np.intp], others: Tiles, tree: Any, apart: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs that may be nearer than `apart`, some rows at a time."""
    for first in range(0, len(which), ROWS):
        rows = which[first : first + ROWS]
        lists = tree.query_ball_point(mine.centres[rows], apart + mine.outer[rows] + others.outer.max())
        i = np.repeat(rows, [len(one) for one in lists])
        j = np.fromiter((place for one in lists for place in one), np.intp, len(i))
        distance = np.linalg.norm(mine.centres[i] - others.centres[j], axis=1)
        keep = distance <= apart + mine.outer[i] + others.outer[j]
        if keep.any():
            yield i[keep], j[keep]


def _of_one_size(tiles: Tiles) -> list[Tiles]:
    """One large tile must not make neighbours of all small ones: tiles of about one size are asked together."""
    return [tiles[places] for places in _sizes(tiles)]


def _sizes(tiles: Tiles) -> list[NDArray[np.intp]]:
    power = np.ceil(np.log2(np.maximum(tiles.outer, 1.0))).astype(int)
    return [np.flatnonzero(power == each) for each in np.unique(power)]


def _tree(tiles: Tiles) -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise UserError("blocks in space need scipy, which is not installed: pip install scipy") from error
    return cKDTree(tiles.centres)
