"""Windows of whole scenes, labelled by polygons and points that somebody has drawn."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Len
from torch import Tensor

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.classes import ClassTable, ClassWords
from satdifuser.data.files.contents import LOOKED_AT
from satdifuser.data.files.names import name_bytes, shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import counted
from satdifuser.data.readers.base import Raw, Reader, _listed
from satdifuser.data.readers.scenes.drawn import Array
from satdifuser.data.readers.scenes.held import Held
from satdifuser.data.readers.scenes.plan import Plan, Spot, key_of, plan, planned
from satdifuser.data.readers.scenes.sampling import Repeats, apart_from_others, balanced, show_as
from satdifuser.data.readers.scenes.splitting import Divided, ScenesWords, divided
from satdifuser.data.scaling import Scaling, ScalingWords
from satdifuser.data.splits.evenly import evenly
from satdifuser.data.splits.places import Footprint
from satdifuser.data.splits.rules import Blocks
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Place, Seed, Side, checked
from satdifuser.scenes.scene import Reading
from satdifuser.scenes.vector import Objects, read_objects

SceneWords = Place | Annotated[list[Place], Len(1)]
BandWords = Annotated[list[str], Len(1)] | dict[str, str]


class SceneLabels(Reader):
    """Windows of `size` px of one or many scenes that show labels (`mask`), or one around each object (`label`).

    An id is `scene#row,column` of a window's first pixel, or `scene#row7` of an object that is row 7 of its file. What
    lies beyond the edge of a scene is no data, and what nobody has drawn counts nowhere.
    """

    name = "scene"
    places: tuple[str, ...] = ("scenes", "labels")

    @checked("data")
    def __init__(
        self,
        scenes: SceneWords,
        split: str = "train",
        *,
        labels: Place,
        sensor: SensorName,
        size: Side,
        column: str | None = None,
        layer: str | None = None,
        label: Literal["mask", "label"] = "mask",
        classes: ClassWords | None = None,
        ignore: list[int] | int | None = None,
        stride: Side | None = None,
        split_by: ScenesWords = "blocks",
        sampling: Literal["class", "all"] = "class",
        repeats: Count = 8,
        seed: Seed = 0,
        bands: BandWords | None = None,
        scaling: ScalingWords = "auto",
        nodata: list[float] | float | None = None,
        nan: Literal["error", "nodata"] = "error",
        resampling: Literal["bilinear", "nearest"] = "bilinear",
        limit: Count | None = None,
    ) -> None:
        from satdifuser.scenes.find import find_scenes

        known = find_sensor(sensor)
        worth = Scaling.of(scaling)
        worth.check_bands(known)
        self.split, self.sampling, self.repeats, self.seed = split, sampling, Repeats(repeats, seed), seed
        self.reading = Reading(known, tuple(known.names), worth, bands, tuple(_listed(nodata)), nan, resampling)
        self.stride = size if stride is None else stride
        objects = read_objects(labels, layer=layer)
        for line in objects.said:
            warn_once(line)
        words = objects.column(column, "data.column")
        given = classes if classes is not None else _names(words)
        self.objects, numbers = _of_classes(objects, words, ClassTable(given, _listed(ignore)))
        self.drawn = self.objects.digest(numbers.tolist())
        self.held = Held(find_scenes(scenes), self.reading)
        super().__init__(
            [],
            sensor=known,
            size=size,
            label=label,
            classes=given,
            ignore=ignore,
            scaling=scaling,
            nodata=nodata,
            nan=nan,
        )
        count, outside = len(self.labels.classes), self.labels.ignore_index
        self.plan: Plan = planned(
            key_of(self.held, self.drawn, count, label, size, self.stride, outside),
            lambda: plan(
                self.held,
                self.objects,
                numbers,
                count,
                kind=label,
                size=size,
                stride=self.stride,
                ignore=outside,
            ),
        )
        self.divided: Divided = divided(
            self.plan, split_by, split, self.objects, count=count, ignore=outside, names=self.labels.classes
        )
        self.kept = self.divided.kept.get(split)
        self.spots = self._sampled(count, outside)
        self.names = evenly(list(self.spots), limit)

    def _sampled(self, count: int, outside: int) -> dict[str, Spot]:
        names, parted = sorted(self.divided.splits[self.split]), self.divided
        if self.split != "train" or self.sampling == "all":
            return {name: self.plan.spots[name] for name in names}
        apart = parted.rule.apart if isinstance(parted.rule, Blocks) else 0.0
        free = parted.rule.by in ("scene", "column")  # whose splits may share ground
        return balanced(
            self.plan,
            names,
            parted.shows,
            self.repeats,
            pixels=show_as(self.plan, parted.shows, count, outside, self.kept),
            allowed=set if free else apart_from_others(self.plan, parted.splits, apart),
        )

    # Where a sample lies.

    def footprint(self, name: str) -> Footprint | None:
        return self.plan.footprint(self.spots[name])

    def where(self, name: str) -> str:
        spot = self.spots[name]
        return f"{shown(self.held.found[spot.scene].words)} ({shown(name.rpartition('#')[2])})"

    # Reading.

    def read(self, name: str) -> Raw:
        spot, size = self.spots[name], self.size
        scene = self.held[spot.scene]
        rows, columns = (
            slice(first, min(first + size, side))
            for first, side in ((spot.row, scene.place.height), (spot.column, scene.place.width))
        )
        pixels = scene.read(rows, columns)
        height, width = pixels.blank.shape
        image = np.zeros((len(self.sensor), size, size), np.float32)
        image[:, :height, :width] = pixels.image
        answer = self.answer(name)
        if self.label == "mask":
            answer[:height, :width][torch.from_numpy(pixels.blank)] = self.labels.ignore_index
        return Raw(list(image), answer)

    def answer(self, name: str) -> Any:
        spot = self.spots[name]
        if spot.object is not None:
            (place,) = np.flatnonzero(self.plan.drawn[spot.scene].objects == spot.object)
            return self.labels.classes[int(self.plan.drawn[spot.scene].classes[place])]
        drawn = self.plan.drawn[spot.scene]
        return torch.from_numpy(drawn.mask(spot.row, spot.column, self.size, self.labels.ignore_index, self.kept))

    def _image(self, raw: Raw) -> Tensor:
        return torch.from_numpy(np.stack(raw.bands))  # a scene gives the sensor's units

    # What a store knows it by.

    @property
    def about(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "scenes": self.plan.names,
            "objects": self.drawn,
            "stride": self.stride,
            "split by": self.divided.rule.to_dict(),
            "sampling": {"by": self.sampling, "repeats": self.repeats.most, "seed": self.seed},
            "in the files": self.reading.bands,
            "resampling": self.reading.resampling,
        }

    def fingerprint(self) -> str:
        """What some of the windows show, as they are read."""
        found = hashlib.blake2b(digest_size=8)
        for name in evenly(self.names, LOOKED_AT):
            with self._naming(name):
                found.update(name_bytes(name))
                found.update(np.stack(self.read(name).bands).tobytes())
        return found.hexdigest()


def _names(words: list[str | None]) -> list[str]:
    """The classes of a column whose names nobody gives: its words, in their order."""
    there = {word for word in words if word is not None}
    return sorted(
        there, key=lambda word: (not word.lstrip("-").isdigit(), int(word) if word.lstrip("-").isdigit() else 0, word)
    )


def _of_classes(objects: Objects, words: list[str | None], table: ClassTable) -> tuple[Objects, Array]:
    """The objects that have a class, and which; what has none is left out and said."""
    places = [None if word is None else table.place(word) for word in words]
    silent = [
        word is not None and place is None and _ignored(word, table) for word, place in zip(words, places, strict=True)
    ]
    nameless = [f"row {objects.numbers[n] + 1}" for n, word in enumerate(words) if word is None]
    others = [
        shown(str(word))
        for word, place, known in zip(words, places, silent, strict=True)
        if word is not None and place is None and not known
    ]
    if nameless:
        warn_once(
            f"{objects.where}: {counted('objects have an empty cell for their class and are left out', nameless)}"
        )
    kept = [n for n, place in enumerate(places) if place is not None]
    if not kept:
        raise UserError(
            f"{objects.where} has no object of data.classes ({', '.join(table.labels.classes[:8])}): its column has"
            f" {', '.join(map(shown, _names(words)[:8])) or 'nothing'}; name these"
        )
    if others:
        some = ", ".join(sorted(set(others))[:8])
        warn_once(
            f"{objects.where}: {len(others)} objects are of a class that data.classes does not name ({some}) and are"
            " left out"
        )
    return objects.only(kept), np.array([places[n] for n in kept], np.int64)


def _ignored(word: str, table: ClassTable) -> bool:
    """Whether the class table says that this value counts nowhere."""
    return word.lstrip("-").isdigit() and int(word) in table.numbers
