"""The objects that lie on one scene, in its pixels: what they label of any part of it."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SMALL = 3.0  # px: a polygon smaller than that may lie between the middles of pixels


class Drawn:
    """Geometries in pixels of a scene (`Objects.on`), their classes, and which objects of the file they are."""

    def __init__(self, shapes: Array, classes: Array, objects: Array, height: int, width: int) -> None:
        import shapely

        box = shapely.box(0, 0, width, height)
        here = shapely.intersects(shapes, box)
        here &= (shapely.get_type_id(shapes) != 0) | (
            (shapely.get_x(shapes) < width) & (shapely.get_y(shapes) < height)
        )
        self.shapes, self.classes, self.objects = shapes[here], classes[here], objects[here]
        self.height, self.width = height, width
        self.tree = shapely.STRtree(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "tree"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import shapely

        self.__dict__ |= state
        self.tree = shapely.STRtree(self.shapes)

    def mask(self, row: int, column: int, size: int, ignore: int, kept: Array | None = None) -> Array:
        """int64 `[size, size]`: the class whose object a pixel's middle is in; where there is none, or two: `ignore`.

        `kept` says of each object whether it counts (all, unless given).
        """
        import shapely
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        found = np.full((size, size), ignore, np.int64)
        near = np.sort(self.tree.query(shapely.box(column, row, column + size, row + size)))
        near = near if kept is None else near[kept[self.objects[near]]]
        times = np.zeros((size, size), np.uint16)
        for number in np.unique(self.classes[near]).tolist():
            # Shifted by ten sizes: GDAL takes the identity for no grid at all.
            moved = shapely.transform(
                self.shapes[near[self.classes[near] == number]], lambda p: p - (column, row) + 10 * size
            )
            burnt = rasterize(moved, (size, size), transform=Affine.translation(10 * size, 10 * size), dtype="uint8")
            found[burnt > 0] = number
            times += burnt > 0
        found[times > 1] = ignore
        outside = self.height - row, self.width - column
        found[max(0, outside[0]) :] = ignore
        found[:, max(0, outside[1]) :] = ignore
        return found

    def boxes_hit(self, corners: Array, size: int) -> Array:
        """Which of windows `[n, 2]` (row and column of their first pixel) have an object's bounds in them."""
        import shapely

        boxes = shapely.box(corners[:, 1], corners[:, 0], corners[:, 1] + size, corners[:, 0] + size)
        hit, _ = self.tree.query(boxes)
        return np.unique(hit)

    def centres(self) -> Array:
        """Row and column `[n, 2]` of a point that lies in each, at its middle where that is inside it."""
        import shapely

        middle = shapely.centroid(self.shapes)
        middle = np.where(shapely.intersects(middle, self.shapes), middle, shapely.point_on_surface(self.shapes))
        return np.stack([shapely.get_y(middle), shapely.get_x(middle)], 1)

    def unseen(self) -> Array:
        """Polygons in which no pixel has its middle."""
        import shapely

        low_x, low_y, high_x, high_y = shapely.bounds(self.shapes).T
        small = (shapely.get_type_id(self.shapes) != 0) & (np.maximum(high_x - low_x, high_y - low_y) < SMALL)
        found = []
        for place in np.flatnonzero(small).tolist():
            x, y = (
                np.arange(np.floor(low) + 0.5, high + 0.5)
                for low, high in ((low_x[place], high_x[place]), (low_y[place], high_y[place]))
            )
            middles = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
            if not shapely.contains_xy(self.shapes[place], middles[:, 0], middles[:, 1]).any():
                found.append(place)
        return np.array(found, np.intp)

    def clashes(self) -> tuple[Array, float]:
        """Pairs `[n, 2]` of objects of two classes that share ground, and how many pixels that is of polygons."""
        import shapely

        one, other = self.tree.query(self.shapes, predicate="intersects")
        apart = (one < other) & (self.classes[one] != self.classes[other])
        one, other = one[apart], other[apart]
        shared = shapely.area(shapely.intersection(self.shapes[one], self.shapes[other]))
        points = shapely.get_type_id(self.shapes) == 0
        real = (shared > 1e-6) | points[one] | points[other]
        return np.stack([one[real], other[real]], 1), float(shared[real].sum())
