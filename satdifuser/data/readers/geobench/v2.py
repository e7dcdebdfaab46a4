"""GEO-Bench-2: a tortilla of samples, each of which is a tortilla of parts: an image of a sensor, a mask."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.files.contents import LOOKED_AT, LOOKED_AT_BYTES
from satdifuser.data.files.fitting import AGAIN, BadImageError
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.readers.base import Answer, Raw, Reader
from satdifuser.data.readers.geobench.moments import Moment, moments
from satdifuser.data.readers.geobench.parts import Array, layers, polygons
from satdifuser.data.readers.geobench.tortilla import SPLIT, Entry, index_of
from satdifuser.data.splits.evenly import evenly
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Above, Count, Place, Word, checked

SPLITS = {"train": "train", "val": "validation", "test": "test"}
REST = "..."  # at the end of a part's bands: what follows is not read
BandsOfParts = Annotated[dict[Any, Any], Word("a part's id -> its bands in order, null for one that is not read")]
Frame = tuple[int, int | None, int]  # which part, which of its dates, which of its layers


class GeoBench2(Reader):
    """The samples of a split, in the order of the files' index; a sample's id is its id there.

    `bands` says which parts of a sample hold which bands; a band that several parts have, or a part of several dates,
    makes a series. `when` is the column of the index that tells their dates; where a part has no image of a date that
    another has, there is no data.
    """

    name = "geobench2"

    @checked("data")
    def __init__(
        self,
        root: Place,
        task: Annotated[str, Len(1)],
        split: str = "train",
        *,
        files: Annotated[list[str], Len(1)],
        label: Answer | None,
        answer: Annotated[str, Len(1)],
        sensor: SensorName,
        bands: BandsOfParts,
        layer: Count | None = None,
        when: str | None = None,
        valid: str | None = None,
        **above: Above,
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"GEO-Bench-2 has no split {split!r}: it has {', '.join(SPLITS)}{nearest(split, SPLITS)}")
        self.task, self.split, self.label = task, split, label
        self.column, self.layer, self.when, self.valid = answer, layer, when, valid
        self.bands = {str(part): _band_names(part, names) for part, names in bands.items()}
        known = find_sensor(sensor)
        named = sorted({name for names in self.bands.values() for name in names if name not in (None, REST)})
        lacking = [name for name in known.names if name not in named]
        if lacking:
            raise UserError(
                f"data.bands has no {', '.join(lacking)}, which {known.name} has: it has {', '.join(named)}; set"
                " data.sensor to some of these bands, or name the others in data.bands"
            )
        self.entries: dict[str, Entry] = {}
        for file in tortillas(Path(root), task, files):
            self._take(file)
        if not self.entries:
            raise UserError(f"{task} has no samples for {split} in {', '.join(files)}: {AGAIN}")
        super().__init__(list(self.entries), sensor=known, label=label, **above)

    def _take(self, file: Path) -> None:
        """The samples of this split that a file's index has."""
        asked = [self.column] if self.label in ("label", "multilabel") else []
        try:
            rows = index_of(file, columns=asked)
        except BadImageError as fault:
            raise UserError(f"{shown(file)} {fault}: {AGAIN}") from fault
        for entry in rows:
            if entry.said.get(SPLIT) != SPLITS[self.split]:
                continue
            wrong = name_fault(entry.id) or ("is there twice" if entry.id in self.entries else None)
            if wrong:
                raise UserError(f"{shown(file)} has a sample {shown(entry.id)} that {wrong}: {AGAIN}")
            if asked and self.column not in entry.said:
                raise UserError(f"{shown(file)} has no {self.column!r} in its index: set data.answer to the labels'")
            self.entries[entry.id] = entry

    @property
    def about(self) -> dict[str, Any]:
        read = {part: names for part, names in self.bands.items() if set(names) & set(self.sensor.names)}
        more = {"answer": self.column, "layer": self.layer, "when": self.when, "valid": self.valid}
        said = {name: value for name, value in more.items() if value is not None}
        return {"task": self.task, "split": self.split, "in the files": read, **said}

    def files(self, name: str) -> list[Path]:
        return [self.entries[name].file]

    def where(self, name: str) -> str:
        return f"{shown(name)} in {shown(self.entries[name].file)}"

    def fingerprint(self) -> str:
        """What is in the middle of some of the samples, wherever in a file they lie."""
        found = hashlib.blake2b(digest_size=8)
        for name in evenly(self.names, LOOKED_AT):
            entry = self.entries[name]
            found.update(entry.bytes(max(0, (entry.length - LOOKED_AT_BYTES) // 2), LOOKED_AT_BYTES))
        return found.hexdigest()

    def answer(self, name: str) -> Any:
        entry = self.entries[name]
        return self._answer_of(entry, None)

    def read(self, name: str) -> Raw:
        entry = self.entries[name]
        parts, held = entry.parts(), dict[int, Array]()
        frames = {band: self._frames(band, parts, held) for band in self.sensor.names}
        dates = self._axis(frames)
        chosen = [dates[place] for place in self.pick(len(dates))]
        series = [_stacked([self._plane(found.get(at), parts, held) for at in chosen]) for found in frames.values()]
        blank = [gone for _, gone in series]
        if self.valid is not None:
            outside = self._part(parts, self.valid, "data.valid")[:1] == 0
            blank = [gone | outside for gone in blank]
        if len(dates) == 1 and self.when is None:
            single = [(numbers[0], gone[0]) for (numbers, _), gone in zip(series, blank, strict=True)]
            return Raw([one for one, _ in single], self._answer_of(entry, parts), [gone for _, gone in single])
        days = None if self.when is None else [day for day, _ in chosen]
        return Raw([numbers for numbers, _ in series], self._answer_of(entry, parts), blank, dates=days)

    # Where the bands are.

    def _frames(self, band: str, parts: Sequence[Entry], held: dict[int, Array]) -> dict[Moment, Frame]:
        """The images that a sample has of a band, by when they were taken, or by their order."""
        found: list[Frame] = []
        said: list[Any] = []
        for pattern, names in self.bands.items():
            if band not in names:
                continue
            for number in _places(parts, pattern):
                count = self._count(number, names, parts, held)
                layer = names.index(band)
                found += [(number, None if count is None else date, layer) for date in range(count or 1)]
                said += self._said(parts[number], count)
        if not found:
            keys = ", ".join(pattern for pattern, names in self.bands.items() if band in names)
            raise BadImageError(f"has no part {keys}, where {band} is: it has {_ids(parts)}; set data.bands")
        keys_of = moments(said) if self.when is not None else [(number, 0) for number in range(len(found))]
        return dict(zip(keys_of, found, strict=True))

    def _count(self, number: int, names: Sequence[Any], parts: Sequence[Entry], held: dict[int, Array]) -> int | None:
        """How many dates a part has in itself; None of a single image. Its layers are counted."""
        if parts[number].format != "HDF5":
            return None
        numbers = self._layers(number, parts, held, names)
        return len(numbers) if numbers.ndim == 4 else None

    def _said(self, part: Entry, count: int | None) -> list[Any]:
        """What the index says of the dates of a part."""
        if self.when is None:
            return []
        value = part.said.get(self.when)
        if value is None:
            raise BadImageError(f"has no {self.when!r} for its part {part.id!r}: set data.when")
        given = list(value) if isinstance(value, list) else [value]
        if len(given) != (count or 1):
            raise BadImageError(f"has {len(given)} dates but {count or 1} images in its part {part.id!r}")
        return given

    def _axis(self, frames: dict[str, dict[Moment, Frame]]) -> list[Moment]:
        """The dates of a sample: all that a band has an image of."""
        if self.when is not None:
            return sorted({at for found in frames.values() for at in found})
        longest = max(frames.values(), key=len)
        for band, found in frames.items():
            if len(found) == 1 < len(longest):  # a height beside a series
                found |= dict.fromkeys(longest, found[0, 0])
            elif len(found) != len(longest):
                raise BadImageError(f"has {len(found)} images of {band}, but {len(longest)} of other bands")
        return list(longest)

    # What is in a part.

    def _plane(self, frame: Frame | None, parts: Sequence[Entry], held: dict[int, Array]) -> Array | None:
        if frame is None:
            return None
        number, date, layer = frame
        names = next(names for pattern, names in self.bands.items() if number in _places(parts, pattern))
        numbers = self._layers(number, parts, held, names)
        return np.asarray(numbers[layer] if date is None else numbers[date, layer])

    def _layers(self, number: int, parts: Sequence[Entry], held: dict[int, Array], names: Sequence[Any]) -> Array:
        if number not in held:
            held[number] = layers(parts[number].bytes(), parts[number].format, self.fitting.check_room)
            count = held[number].shape[-3]
            if count != len(names) and not (names[-1] == REST and count >= len(names) - 1):
                raise BadImageError(
                    f"has {count} bands in its part {parts[number].id!r}, but data.bands names {len(names)} of it:"
                    " name each, null for one that is not read"
                )
        return held[number]

    def _answer_of(self, entry: Entry, parts: Sequence[Entry] | None) -> Any:
        if self.label is None:
            return None
        if self.label in ("label", "multilabel"):
            return entry.said[self.column]
        found = self._part(entry.parts() if parts is None else parts, self.column, "data.answer")
        if (len(found) > 1 and self.layer is None) or len(found) < (self.layer or 1):
            raise BadImageError(f"has {len(found)} layers in its part {self.column!r}: set data.layer to one of them")
        return found[(self.layer or 1) - 1]

    def _part(self, parts: Sequence[Entry], pattern: str, setting: str) -> Array:
        """`[layers, H, W]` of the one part that is called so."""
        places = _places(parts, pattern)
        if len(places) != 1:
            raise BadImageError(f"has {len(places)} parts {pattern!r}: it has {_ids(parts)}; set {setting}")
        part = parts[places[0]]
        if part.id == "annotations":
            return polygons(part.bytes())
        return layers(part.bytes(), part.format, self.fitting.check_room)


def _places(parts: Sequence[Entry], pattern: str) -> list[int]:
    """The parts whose id is like a pattern (`*_S1_*`), or the one at a place that is counted from 0."""
    if pattern.isdigit():
        return [int(pattern)] if int(pattern) < len(parts) else []
    return [number for number, part in enumerate(parts) if fnmatchcase(part.id, pattern)]


def _ids(parts: Sequence[Entry]) -> str:
    return ", ".join(part.id for part in parts) or "nothing"


def _stacked(planes: Sequence[Array | None]) -> tuple[Array, Array]:
    """`[dates, H, W]` and where nothing is, of images that may not be there."""
    like = next((plane for plane in planes if plane is not None), np.zeros((1, 1), np.uint8))
    numbers = np.stack([np.zeros_like(like) if plane is None else plane for plane in planes])
    gone = np.array([plane is None for plane in planes])[:, None, None]
    return numbers, np.broadcast_to(gone, numbers.shape)


def _band_names(part: Any, names: Any) -> list[Any]:
    good = isinstance(names, list) and names and all(name is None or isinstance(name, str) for name in names)
    if not good or REST in names[:-1]:
        raise UserError(f"data.bands.{part} is {names!r}: give the names of its bands in order, null for one not read")
    return list(names)


def tortillas(root: Path, task: str, files: Sequence[str]) -> list[Path]:
    """Where the files of a set are: all in the root or in its folder of the set's name."""
    for folder in (root, root / task):
        found = [folder / file for file in files if (folder / file).is_file()]
        if len(found) == len(files):
            return found
        if found:
            lost = ", ".join(file for file in files if folder / file not in found)
            raise UserError(
                f"{shown(folder)} has {len(found)} of the {len(files)} files of {task}: {lost} is not there"
            )
        if (folder / f"{task}.tortilla").is_file():  # as the set's own tests name a part of it
            return [folder / f"{task}.tortilla"]
    raise UserError(
        f"{shown(root.absolute())} has no {files[0]}: set GEO_BENCH_2_DIR, or data.root, to the folder that it is in,"
        f" or get it: hf download aialliance/{task} --repo-type dataset --local-dir FOLDER"
    )
