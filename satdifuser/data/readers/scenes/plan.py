"""Which windows of which scenes show labels, and of which classes: all that is known before a split is made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Place
from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import counted
from satdifuser.data.readers.rasters.tiles import Tiling
from satdifuser.data.readers.scenes.drawn import Array, Drawn
from satdifuser.data.readers.scenes.held import Held
from satdifuser.data.splits.places import Footprint
from satdifuser.errors import UserError
from satdifuser.scenes.vector import Objects, check_crs

if TYPE_CHECKING:
    from satdifuser.scenes.scene import Scene

KEPT = 4  # plans, for the splits of one data set


class Spot(NamedTuple):
    """A window of a scene by its first pixel, which may lie outside of a small scene; and of a label the object."""

    scene: int
    row: int
    column: int
    object: int | None = None


@dataclass
class Plan:
    """Scenes and their objects, and the windows that show some."""

    names: list[str]
    """Of the scenes."""
    places: list[Place]
    drawn: list[Drawn]
    size: int
    spots: dict[str, Spot] = field(default_factory=dict)
    shows: dict[str, Array] = field(default_factory=dict)
    """Pixels of each class in a window; of an object 1 for its class."""
    called: list[str] = field(default_factory=list)
    """The objects, by their rows in the file (from 1)."""

    def footprint(self, spot: Spot) -> Footprint | None:
        """The ground of a window."""
        place = self.places[spot.scene]
        if place.crs is None:
            return None
        whole = [(0, 0), (0, place.width), (place.height, place.width), (place.height, 0)]
        a, b, c, d, e, f = place.transform
        x, y = (
            tuple(float(over * column + down * row + start) for row, column in whole)
            for over, down, start in ((a, b, c), (d, e, f))
        )
        rows, columns = (slice(first, first + self.size) for first in (spot.row, spot.column))
        return Footprint(x, y, place.crs.to_string()).part(place.height, place.width, rows, columns)

    def name(self, spot: Spot) -> str:
        """The id of a window: its first pixel, or its object."""
        scene = self.names[spot.scene]
        return f"{scene}#{spot.row},{spot.column}" if spot.object is None else f"{scene}#{self.called[spot.object]}"


_made: OrderedDict[str, Plan] = OrderedDict()


def planned(key: str, make: Callable[[], Plan]) -> Plan:
    """The plan of this key, made once in a process for all splits of a data set."""
    if key not in _made:
        _made[key] = make()
        while len(_made) > KEPT:
            _made.popitem(last=False)
    return _made[key]


def plan(
    held: Held,
    objects: Objects,
    classes: Array,
    count: int,
    *,
    kind: Literal["mask", "label"],
    size: int,
    stride: int,
    ignore: int,
) -> Plan:
    """All windows that show an object; `classes` are those of the objects, of which there are `count`."""
    found = Plan([], [], [], size)
    found.called, everywhere, seen = _called(objects), np.arange(len(objects)), set[int]()
    for number in range(len(held)):
        scene = held[number]
        check_crs(objects, scene.place, f"scene {shown(scene.name)}")
        height, width = scene.place.height, scene.place.width
        drawn = Drawn(objects.on(scene.place), classes, everywhere, height, width)
        drawn = _with_data(drawn, scene, objects)
        _say_of_scene(drawn, scene, objects, kind)
        found.names.append(scene.name)
        found.places.append(scene.place)
        found.drawn.append(drawn)
        if kind == "label":
            _objects(found, number, count)
        else:
            seen.update(drawn.objects.tolist())
            _windows(found, number, count, Tiling(size, stride, "shift"), ignore)
    seen.update(spot.object for spot in found.spots.values() if spot.object is not None)
    _check_seen(found, objects, [n for n in range(len(objects)) if n not in seen])
    return found


def _called(objects: Objects) -> list[str]:
    """A row's number; of the further points of one row with which they are."""
    times: dict[int, int] = {}
    names = []
    for row in objects.numbers:
        times[row] = times.get(row, 0) + 1
        names.append(f"row{row + 1}" + (f"-{times[row]}" if times[row] > 1 else ""))
    return names


def _windows(found: Plan, number: int, count: int, tiling: Tiling, ignore: int) -> None:
    drawn, size = found.drawn[number], found.size
    rows, columns = (tiling.starts(side) or [0] for side in (drawn.height, drawn.width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    for row, column in corners[drawn.boxes_hit(corners, size)].tolist() if len(drawn) else ():
        spot = Spot(number, row, column)
        pixels = pixels_of(drawn.mask(row, column, size, ignore), count)
        if pixels.any():
            found.spots[found.name(spot)] = spot
            found.shows[found.name(spot)] = pixels


def pixels_of(mask: Array, count: int) -> Array:
    """How many pixels each class has."""
    return np.bincount(mask[mask < count], minlength=count)[:count]


def _objects(found: Plan, number: int, count: int) -> None:
    drawn = found.drawn[number]
    for place, (row, column) in enumerate(drawn.centres().tolist() if len(drawn) else ()):
        if not (0 <= row < drawn.height and 0 <= column < drawn.width):
            continue
        top, left = (
            within(int(middle) - found.size // 2, found.size, side)
            for middle, side in ((row, drawn.height), (column, drawn.width))
        )
        spot = Spot(number, top, left, int(drawn.objects[place]))
        found.spots[found.name(spot)] = spot
        found.shows[found.name(spot)] = np.eye(count, dtype=np.int64)[drawn.classes[place]]


def within(first: int, size: int, side: int) -> int:
    """Where a window begins that is moved into a side of so many pixels, if it is as long.

    >>> within(-3, 8, 20), within(15, 8, 20), within(2, 8, 5)
    (0, 12, 0)
    """
    return min(max(first, 0), max(0, side - size))


def _with_data(drawn: Drawn, scene: Scene, objects: Objects) -> Drawn:
    """Without points on which the scene has no data."""
    points = np.flatnonzero(objects.points[drawn.objects])
    blank = []
    for place in points[np.argsort([drawn.shapes[place].y for place in points], kind="stable")].tolist():
        row, column = int(drawn.shapes[place].y), int(drawn.shapes[place].x)
        if scene.read(slice(row, row + 1), slice(column, column + 1)).blank.all():
            blank.append(place)
    if not blank:
        return drawn
    _say(objects, drawn, blank, f"points lie where {shown(scene.name)} has no data and are left out")
    kept = np.setdiff1d(np.arange(len(drawn)), blank)
    return Drawn(drawn.shapes[kept], drawn.classes[kept], drawn.objects[kept], drawn.height, drawn.width)


def _say_of_scene(drawn: Drawn, scene: Scene, objects: Objects, kind: str) -> None:
    if kind != "mask" or not len(drawn):
        return
    small = drawn.unseen()
    if len(small):
        _say(objects, drawn, small.tolist(), f"polygons have the middle of no pixel of {shown(scene.name)} in them")
    pairs, pixels = drawn.clashes()
    if len(pairs):
        rows = " and ".join(str(objects.numbers[drawn.objects[place]] + 1) for place in pairs[0])
        warn_once(
            f"{objects.where}: {len(pairs)} pairs of objects of two classes overlap on {shown(scene.name)}, rows {rows}"
            f" first: the {pixels:.0f} px that they share count nowhere"
        )


def _say(objects: Objects, drawn: Drawn, places: Sequence[int], what: str) -> None:
    rows = [f"row {objects.numbers[number] + 1}" for number in sorted(drawn.objects[list(places)].tolist())]
    warn_once(f"{objects.where}: {counted(what, rows)}")


def _check_seen(found: Plan, objects: Objects, lost: list[int]) -> None:
    if not found.spots:
        place, crs = found.places[0], found.places[0].crs
        box = ", ".join(f"{number:.6g}" for number in objects.bounds())
        own = "no CRS" if objects.crs is None else str(objects.crs.to_string())[:60]
        ground = ", ".join(f"{number:.6g}" for number in place.bounds())
        known = "no CRS" if crs is None else str(crs.to_string())[:60]
        raise UserError(
            f"{objects.where} labels no pixel of {len(found.names)} scene{'s' * (len(found.names) > 1)}: it covers"
            f" {box} ({own}; left, bottom, right, top), and {shown(found.names[0])} {ground} ({known}): give scenes of"
            " that ground, or correct the reference system"
        )
    if lost:
        rows = [f"row {objects.numbers[number] + 1}" for number in lost]
        what = f"of {len(objects)} objects lie on no scene and are left out"
        warn_once(f"{objects.where}: {counted(what, rows)}")


def key_of(held: Held, *rest: Any) -> str:
    """By what a plan is known: the scenes as they are now, and what it is made with."""
    return repr(([(scene.name, scene.identity, scene.place) for scene in (held[n] for n in range(len(held)))], rest))
