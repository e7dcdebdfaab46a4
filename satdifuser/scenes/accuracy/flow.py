"""From a map and what is known of its ground to accuracy and areas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.accuracy.estimators import Accuracy, Sample, accuracy
from satdifuser.scenes.accuracy.ground import pixel_areas
from satdifuser.scenes.accuracy.maps import ClassMap, check_same_ground
from satdifuser.scenes.accuracy.reference import Naming, Units, is_raster, units_of_objects, units_of_raster
from satdifuser.settings.scenes import EvaluateMapSettings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Evaluated:
    """What was found, and of what.

    `mapped` is the area of each class as the map has it, `whole` that of the strata that have a sample: in square
    metres (`ground`) or in pixels. `strata` are names, with their areas.
    """

    map: str
    reference: str
    design: str
    level: float
    classes: tuple[str, ...]
    found: Accuracy
    ground: bool
    mapped: Array
    whole: float
    strata: tuple[str, ...]
    areas: Array
    kind: str
    used: int
    said: tuple[str, ...]

    def area(self, square_metres: float) -> float:
        """In hectares, or in pixels where the ground is not known."""
        return square_metres / 1e4 if self.ground else square_metres

    @property
    def unit(self) -> str:
        return "ha" if self.ground else "pixels"


def evaluate(settings: EvaluateMapSettings) -> Evaluated:
    """Read the map once for its areas, and where the reference is for its classes."""
    with ClassMap(settings.map, "map") as maps:
        if settings.strata is None:
            return _evaluate(settings, maps, None)
        with ClassMap(settings.strata, "strata") as strata:
            check_same_ground(maps, strata)
            return _evaluate(settings, maps, strata)


def _evaluate(settings: EvaluateMapSettings, maps: ClassMap, strata: ClassMap | None) -> Evaluated:
    if strata is not None and settings.design == "simple":
        raise UserError("strata is set, but design=simple has none: leave one of both out")
    covered, counted = _areas(maps, strata)
    if not covered:
        raise UserError(f"{maps.where} has no pixel with a class")
    names, given = _names(settings, maps, {kind for _, kind in covered})
    naming = Naming(names, given)
    if is_raster(settings.reference):
        units = units_of_raster(settings.reference, naming, maps, strata)
    else:
        pixels = settings.units == "pixels"
        units = units_of_objects(settings.reference, settings.column, naming, maps, strata, pixels)
    rows = units.array()
    if not len(rows):
        raise UserError(
            f"reference {shown(settings.reference)} has nothing with a class on the map"
            f" ({_lost(units) or 'it is empty'}): give one that lies on it"
        )
    kinds = sorted({kind for _, kind in covered} | set(rows[:, 2:4].ravel().tolist()))
    groups = sorted({group for group, _ in covered})
    if settings.design == "simple":
        groups, rows[:, 1] = [0], 0
    areas, pixels_of = np.zeros((len(groups), len(kinds))), np.zeros(len(groups))
    for (group, kind), area in covered.items():
        place = 0 if settings.design == "simple" else groups.index(group)
        areas[place, kinds.index(kind)] += area
        pixels_of[place] += counted[group, kind]
    sample = Sample(
        cluster=rows[:, 0],
        stratum=np.searchsorted(groups, rows[:, 1]),
        mapped=np.searchsorted(kinds, rows[:, 2]),
        truth=np.searchsorted(kinds, rows[:, 3]),
        count=rows[:, 4],
    )
    found = accuracy(sample, areas, settings.level, pixels_of)
    labels = _labels(settings, groups, names, strata)
    seen = found.units > 0
    return Evaluated(
        map=str(settings.map),
        reference=str(settings.reference),
        design=settings.design,
        level=settings.level,
        classes=tuple(names.get(kind, str(kind)) for kind in kinds),
        found=found,
        ground=maps.place.crs is not None,
        mapped=areas.sum(0),
        whole=float(areas[seen].sum()),
        strata=labels,
        areas=areas.sum(1),
        kind=units.kind,
        used=int(rows[:, 4].sum()),
        said=tuple(_sentences(units, found, labels, areas, maps)),
    )


def _areas(maps: ClassMap, strata: ClassMap | None) -> tuple[dict[tuple[int, int], float], Counter[tuple[int, int]]]:
    """Area and pixels of each (stratum, class of the map)."""
    covers = pixel_areas(maps.place)
    areas: dict[tuple[int, int], float] = {}
    pixels: Counter[tuple[int, int]] = Counter()
    for part in maps.parts():
        other = part if strata is None else strata.part(part.rows, part.columns)
        valid = part.valid & other.valid
        codes, where, counts = np.unique(
            (other.numbers[valid] << 16) | part.numbers[valid], return_inverse=True, return_counts=True
        )
        ground = counts.astype(float)
        if covers is not None:
            ground = np.bincount(where, covers(part.rows, part.columns)[valid], len(codes))
        for code, count, area in zip(codes.tolist(), counts.tolist(), ground.tolist(), strict=True):
            pair = code >> 16, code & 0xFFFF
            areas[pair] = areas.get(pair, 0.0) + area
            pixels[pair] += count
    return areas, pixels


def _names(
    settings: EvaluateMapSettings, maps: ClassMap, there: set[int]
) -> tuple[dict[int, str], Mapping[str, Any] | None]:
    """What each number of the map is called, and what the user says of the reference's words."""
    if isinstance(settings.classes, list):
        names = dict(enumerate(map(str, settings.classes)))
        beyond = sorted(there - set(names))
        if beyond:
            raise UserError(
                f"classes names {len(names)} classes (0 to {len(names) - 1}), but {maps.where} has the number"
                f" {beyond[0]}: name them all, in order"
            )
        return names, None
    names = {**{number: str(number) for number in there}, **maps.names()}
    return dict(sorted(names.items())), settings.classes


def _labels(
    settings: EvaluateMapSettings, groups: list[int], names: Mapping[int, str], strata: ClassMap | None
) -> tuple[str, ...]:
    if settings.design == "simple":
        return ("the whole map",)
    called = names if strata is None else strata.names()
    return tuple(called.get(group, str(group)) for group in groups)


def _lost(units: Units) -> str:
    return ", ".join(f"{count} {why}" for why, count in units.lost.items() if count)


def _sentences(units: Units, found: Accuracy, labels: tuple[str, ...], areas: Array, maps: ClassMap) -> list[str]:
    """What a reader must know of the sample."""
    said = list(units.said)
    if _lost(units):
        said.append(f"Left out of the reference: {_lost(units)}.")
    share = areas.sum(1) / areas.sum()
    said += [
        f"Stratum {labels[stratum]} ({share[stratum]:.2%} of the map) has no sample: all estimates are of the rest"
        " of the map."
        for stratum in found.unseen
    ]
    said += [
        f"Stratum {labels[stratum]} has one sample only, of which no interval can be made: those that it matters to are"
        " left open."
        for stratum in np.flatnonzero(found.clusters == 1).tolist()
    ]
    if maps.place.crs is None:
        said.append("The map has no reference system (CRS): areas are in pixels.")
    return said
