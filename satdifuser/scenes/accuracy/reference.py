"""What is known of the ground, laid on a map: units with the map's class and the true one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError, nearest
from satdifuser.scenes.accuracy.maps import ClassMap, check_same_ground
from satdifuser.scenes.vector import Objects, check_crs, read_objects

Array = np.ndarray[Any, Any]
RASTERS = (".tif", ".tiff", ".vrt", ".img", ".jp2", ".png")
Kinds = Callable[[str], int | None]
"""From a word of the reference to the class of the map; None of one that is left out."""


@dataclass
class Units:
    """Rows of [cluster, stratum, map, truth] with how many units are so, and what was left out, in words."""

    rows: Counter[tuple[int, int, int, int]] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    kind: str = "points"

    def array(self) -> Array:
        """As numbers [rows, 5]."""
        return np.array([(*row, count) for row, count in self.rows.items()], np.int64).reshape(-1, 5)


def is_raster(path: str) -> bool:
    """Whether a reference is a raster, by its ending."""
    return Path(path).suffix.lower() in RASTERS


class Naming:
    """Classes of the map by what the reference calls them.

    >>> naming = Naming({0: "bare_soil", 1: "Water"}, {"lake": "water", "cloud": None})
    >>> [naming("Bare soil"), naming("lake"), naming("cloud"), naming("1")]
    [0, 1, None, 1]
    """

    def __init__(self, names: Mapping[int, str], given: Mapping[str, Any] | None = None) -> None:
        self.names = dict(names)
        self._known = {_plain(name): number for number, name in names.items()}
        self._given: dict[str, int | None] = {}
        for word, kind in (given or {}).items():
            if kind is not None and self._number(str(kind)) is None:
                raise UserError(
                    f"classes.{word} is {kind}, no class of the map: it has {self._listed()}"
                    f"{nearest(str(kind), self.names.values())}"
                )
            self._given[_plain(str(word))] = None if kind is None else self._number(str(kind))

    def _number(self, word: str) -> int | None:
        plain = _plain(word)
        if plain in self._known:
            return self._known[plain]
        try:
            number = int(plain)
        except ValueError:
            return None
        return number if number in self.names else None

    def _listed(self) -> str:
        said = [f"{number} ({name})" if str(number) != name else name for number, name in self.names.items()]
        more = f" and {len(said) - 20} more" if len(said) > 20 else ""
        return ", ".join(said[:20]) + more

    def knows(self, word: str) -> bool:
        return _plain(word) in self._given or self._number(word) is not None

    def __call__(self, word: str) -> int | None:
        if _plain(word) in self._given:
            return self._given[_plain(word)]
        return self._number(word)

    def check(self, words: set[str], where: str) -> None:
        """Refuse words that are no class of the map."""
        unknown = sorted(word for word in words if not self.knows(word))
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UserError(
                f"{where} has classes that the map has not ({', '.join(map(shown, unknown[:5]))}{more}): the map has"
                f" {self._listed()}; say which is which, as classes={{{shown(unknown[0])}: NAME}} (null: left"
                f" out){nearest(unknown[0], self.names.values())}"
            )


def _plain(word: str) -> str:
    return " ".join(word.replace("_", " ").casefold().split())


def units_of_objects(
    path: str, column: str | None, naming: Naming, maps: ClassMap, strata: ClassMap | None, pixels: bool
) -> Units:
    """Points are units; polygons are one each, or clusters of `pixels`."""
    objects = read_objects(path, setting="reference")
    check_crs(objects, maps.place, maps.where)
    words = _words(objects, column, naming)
    naming.check({word for word in words if word is not None}, objects.where)
    points = objects.points
    units = Units(said=list(objects.said), kind=_kind(points, pixels))
    for number, (shape, word) in enumerate(zip(objects.on(maps.place), words, strict=True)):
        truth = None if word is None else naming(word)
        if truth is None:
            units.lost["without a class" if word is None else "of classes that are left out"] += 1
            continue
        seen, why = _under(shape, bool(points[number]), maps, strata)
        if why is not None:
            units.lost[why] += 1
        elif pixels:
            units.rows.update({(number, stratum, kind, truth): n for (stratum, kind), n in seen.items()})
        else:
            stratum = min(_sums(seen, 0).items(), key=lambda one: (-one[1], one[0]))[0]
            kind = min(_sums(seen, 1).items(), key=lambda one: (-one[1], one[0]))[0]
            units.rows[number, stratum, kind, truth] += 1
    return units


def _kind(points: Array, pixels: bool) -> str:
    if points.all():
        return "points"
    polygons = "pixels of polygons" if pixels else "polygons"
    return polygons if not points.any() else f"points and {polygons}"


def _words(objects: Objects, column: str | None, naming: Naming) -> list[str | None]:
    if column is None and len(objects.cells) > 1:
        fitting = [name for name in objects.cells if _fits(objects.column(name, "column"), naming)]
        column = fitting[0] if len(fitting) == 1 else None
    return objects.column(column, "column")


def _fits(words: list[str | None], naming: Naming) -> bool:
    """Whether a column holds names of classes: numbers alone may be anything."""
    there = {word for word in words if word is not None}
    return bool(there) and all(map(naming.knows, there)) and not all(word.lstrip("-").isdigit() for word in there)


def _sums(seen: Counter[tuple[int, int]], axis: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for pair, count in seen.items():
        found[pair[axis]] += count
    return found


def _under(
    shape: Any, point: bool, maps: ClassMap, strata: ClassMap | None
) -> tuple[Counter[tuple[int, int]], str | None]:
    """(stratum, map class) of the pixels under a geometry, or why there is none."""
    import shapely

    left, top, right, bottom = shapely.bounds(shape).tolist()
    if not np.isfinite([left, top, right, bottom]).all():
        return Counter(), "outside the map"
    around = maps.around((left, top), (right, bottom))
    if around is None:
        return Counter(), "outside the map"
    rows, columns = around
    size = rows.stop - rows.start, columns.stop - columns.start
    inside = np.ones(size, bool) if point else _inside(shape, rows, columns)
    if inside is None:
        return Counter(), "outside the map"
    part = maps.part(rows, columns)
    kept = inside & part.valid
    numbers = part.numbers
    if strata is not None:
        other = strata.part(rows, columns)
        kept &= other.valid
        numbers = other.numbers
    if not kept.any():
        return Counter(), "where the map has no data"
    return Counter(zip(numbers[kept].tolist(), part.numbers[kept].tolist(), strict=True)), None


def _inside(shape: Any, rows: slice, columns: slice) -> Array | None:
    """Pixels whose middle lies in a polygon; of one so small that none does, the pixel that it lies in."""
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    size = rows.stop - rows.start, columns.stop - columns.start
    found = rasterize([(shape, 1)], size, transform=Affine.translation(columns.start, rows.start), dtype="uint8") > 0
    if not found.any():
        middle = shape.representative_point()
        row, column = int(np.floor(middle.y)) - rows.start, int(np.floor(middle.x)) - columns.start
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            return None
        found[row, column] = True
    return np.asarray(found)


def units_of_raster(path: str, naming: Naming, maps: ClassMap, strata: ClassMap | None) -> Units:
    """All pixels that a raster has a class for; those that touch each other are one cluster."""
    from scipy.ndimage import label

    units, clusters = Units(kind="pixels of a raster"), 0
    with ClassMap(path, "reference") as reference:
        check_same_ground(maps, reference)
        names = reference.names()
        table: dict[int, int | None] = {}
        for truth, part, other in _three(reference, maps, strata):
            new = [number for number in np.unique(truth.numbers[truth.valid]).tolist() if number not in table]
            words = {number: names.get(number, str(number)) for number in new}
            naming.check(set(words.values()), reference.where)
            table.update({number: naming(word) for number, word in words.items()})
            out = [number for number, kind in table.items() if kind is None]
            wanted = truth.valid & ~np.isin(truth.numbers, out)
            kept = wanted & part.valid & other.valid
            units.lost["of classes that are left out"] += int((truth.valid & ~wanted).sum())
            units.lost["where the map has no data"] += int((wanted & ~kept).sum())
            groups, number = label(kept, np.ones((3, 3)))
            rows = np.stack([groups[kept] + clusters, other.numbers[kept], part.numbers[kept], truth.numbers[kept]], 1)
            found, counts = np.unique(rows, axis=0, return_counts=True)
            for (cluster, stratum, kind, true), count in zip(found.tolist(), counts.tolist(), strict=True):
                units.rows[cluster, stratum, kind, table[true]] += count  # type: ignore[index]
            clusters += int(number)
    return units


def _three(reference: ClassMap, maps: ClassMap, strata: ClassMap | None) -> Iterator[tuple[Any, Any, Any]]:
    for truth in reference.parts():
        part = maps.part(truth.rows, truth.columns)
        yield truth, part, part if strata is None else strata.part(truth.rows, truth.columns)
