"""Which files a sample is made of, and which band of which file is which of the sensor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from satdifuser.data.bands import Sensor
from satdifuser.data.files.images import KINDS
from satdifuser.data.files.names import shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.readers.rasters.patterns import MISSING, Pattern
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word

PatternWords = Annotated[
    str | list[str] | dict[str, str],
    Word("a pattern of names, a list of them (files that are stacked), or {band: pattern} (a file for each band)"),
]
Pick = tuple[int, int]
"""Which file of a sample, and which band of it."""


@dataclass(frozen=True)
class Source:
    """Files of one pattern, one for each sample, and the names of their bands where these are said."""

    pattern: Pattern
    bands: tuple[str, ...] | None


@dataclass(frozen=True)
class Item:
    """One image: a path below the root for each source, its mask, and the fields of its name."""

    paths: tuple[str, ...]
    fields: Mapping[str, str]
    mask: str | None = None
    number: int | None = None


def sources_of(images: str | Sequence[str] | Mapping[str, str], bands: Sequence[str] | None) -> list[Source]:
    """The patterns of images; bands of a file in a mapping are its key (`red`, or `B02/B03/B04` of three)."""
    if isinstance(images, Mapping):
        if bands is not None:
            raise UserError("data.bands and the names in data.images both say which bands there are: leave one out")
        return [Source(Pattern.of(f"data.images.{key}", text), tuple(key.split("/"))) for key, text in images.items()]
    if isinstance(images, str) and (": " in images or images.startswith("[")):  # as a shell passed it on
        raise UserError(
            f"data.images is one pattern, {images!r}: quote those in it, as"
            " 'data.images={red: \"r/{id}.tif\"}', or write them in a YAML"
        )
    if isinstance(images, str):
        return [Source(Pattern.of("data.images", images), None if bands is None else tuple(bands))]
    return [Source(Pattern.of(f"data.images.{place}", text), None) for place, text in enumerate(images)]


def items_of(root: Path, sources: Sequence[Source], masks: Pattern | None, exclude: Sequence[str]) -> dict[str, Item]:
    """Id -> its files; an error where a file that belongs to one is missing, or an id is there twice."""
    first = sources[0].pattern
    found = first.found(root)
    if not first.path.lower().endswith(KINDS):
        found = {path: fields for path, fields in found.items() if path.lower().endswith(KINDS)}
        if not found:
            raise UserError(f"{first.setting}={first.text} matches no image ({', '.join(KINDS)})")
    ids: dict[str, str] = {}
    for path, fields in found.items():
        name = fields.get("id", path)
        if name in ids:
            raise UserError(
                f"{first.setting}={first.text} gives the id {shown(name)} to {shown(ids[name])} and {shown(path)}:"
                " write * in place of {id} (ids are paths then), or put what tells them apart into {id}"
            )
        ids[name] = path
    left_out = _excluded(exclude, ids)
    kept = {name: path for name, path in ids.items() if name not in left_out}
    others = [source.pattern.beside(root, first, found) for source in sources[1:]]
    beside = None if masks is None else masks.beside(root, first, found)
    for source, paths in zip(sources[1:], others, strict=True):
        _check_all(kept, paths, f"no file of {source.pattern.setting}={source.pattern.text}")
    if masks is not None and beside is not None:
        _check_all(kept, beside, f"no mask of {masks.setting}={masks.text}")
        spare = len(masks.found(root)) - len(set(beside.values()))
        if spare:
            warn_once(f"{masks.setting}={masks.text} matches {spare} masks that belong to no image")
    return {
        name: Item((path, *(paths[path] for paths in others)), found[path], None if beside is None else beside[path])
        for name, path in kept.items()
    }


def _excluded(exclude: Sequence[str], ids: Mapping[str, str]) -> set[str]:
    by_path = {path: name for name, path in ids.items()}
    unknown = next((one for one in exclude if one not in ids and one not in by_path), None)
    if unknown is not None:
        raise UserError(
            f"data.exclude has {shown(unknown)}, which is the id of no sample: ids are as {shown(next(iter(ids)))}"
            f"{nearest(unknown, ids)}"
        )
    return {one if one in ids else by_path[one] for one in exclude}


def _check_all(ids: Mapping[str, str], paths: Mapping[str, str], what: str) -> None:
    lost = [name for name, path in ids.items() if path not in paths]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(ids)} images have {what}, {shown(ids[lost[0]])} first: {MISSING} (the id of this one"
            f" is {shown(lost[0])}), or mend the pattern"
        )


def picks_of(sensor: Sensor, bands: Sequence[Sequence[str]]) -> list[Pick]:
    """Where each of the sensor's bands is, among the named bands of each source."""
    places: dict[str, Pick] = {}
    for source, names in enumerate(bands):
        for place, name in enumerate(names):
            if name in places:
                raise UserError(f"data.bands has {name} twice: name the bands of the files apart")
            places[name] = (source, place)
    found = []
    for band in sensor:
        pick = places.get(band.name, places.get(band.common))
        if pick is None:
            raise UserError(
                f"no file has {band.name} ({band.common}), which {sensor.name} has: data.bands (or data.images) names"
                f" {', '.join(places)}; set data.sensor to some of these, as data.sensor=SENTINEL2:B04/B03/B02"
            )
        found.append(pick)
    return found


def stacked(root: Path, items: Mapping[str, Item], length: Any) -> dict[str, Item]:
    """A sample for each place along the first axis of files that hold many; `length(path)` is how many."""
    return {
        f"{name}#{number}": Item(item.paths, item.fields, item.mask, number)
        for name, item in items.items()
        for number in range(length(item))
    }
