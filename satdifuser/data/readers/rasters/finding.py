"""Which samples a split has: files found, left out, labelled, split by the rule, and cut into tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from satdifuser.data.files.images import open_image
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Ask
from satdifuser.data.files.tree import warn_once
from satdifuser.data.readers.base import Answer
from satdifuser.data.readers.rasters.patterns import Pattern
from satdifuser.data.readers.rasters.pixels import Pixels, Spot
from satdifuser.data.readers.rasters.said import Said, check_used, said_by_folder, said_by_table
from satdifuser.data.readers.rasters.sources import Item, items_of, stacked
from satdifuser.data.readers.rasters.tiles import Tiling
from satdifuser.data.splits.holdout import SPLITS
from satdifuser.data.splits.places import Footprint
from satdifuser.data.splits.rules import Blocks, Folder, Folds, Rule, assigned, rule_of
from satdifuser.errors import UserError, nearest


@dataclass
class Found:
    """The samples of a split, in order, and what is known of them besides their pixels."""

    names: list[str]
    spots: Mapping[str, Spot]
    rule: Rule
    label: Answer | None
    masks: Pattern | None
    classes: list[str] | None
    answers: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    footprints: Mapping[str, Footprint] = field(default_factory=dict)


def find(
    pixels: Pixels,
    tiling: Tiling | None,
    split: str,
    *,
    masks: str | None,
    table: Any,
    classes: Any,
    label: Answer | None,
    split_by: Any,
    exclude: Sequence[str],
    many: bool,
    mask_ask: Ask,
) -> Found:
    """The samples of a split, by the settings of the same names."""
    if split not in SPLITS:
        raise UserError(f"data.split is {split!r}: it can be {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    rule, root = rule_of(split_by, "data.split_by"), pixels.root
    pattern = None if masks is None else Pattern.of("data.masks", masks)
    items = items_of(root, pixels.sources, pattern, exclude)
    if many:
        if tiling is not None:
            raise UserError("data.stacked and data.tile are both set: samples of an array are not cut into tiles")
        items = stacked(root, items, lambda item: _length(pixels, item, pattern, mask_ask))
    said = Said() if table is None else said_by_table(table, list(items), classes)
    check_used(said, rule)
    for known in (said.answers, said.metadata) if said.skip else ():
        items = {name: item for name, item in items.items() if name in known or not known}
    answers, shown_classes, kind = _answers(items, said, pattern, label, pixels, classes)
    if kind == "label" and said.label is None:
        items = {name: item for name, item in items.items() if name in answers}
    spots = {name: Spot(name, item) for name, item in items.items()}
    footprints = {} if said.table is None else said.table.footprints

    def footprint(name: str) -> Footprint | None:
        spot = spots[name]
        return pixels.footprint(spot) or footprints.get(spot.id)

    by_class = {name: str(answers[name]) for name in items if name in answers} if kind == "label" else None
    if tiling is not None and isinstance(rule, Blocks | Folds):
        spots = _tiles(spots, tiling, pixels)
        by_class = None if by_class is None else {name: by_class[spot.id] for name, spot in spots.items()}
    if isinstance(rule, Folder):  # folders are in paths, and ids may be none
        paths = {spot.item.paths[0] + _row(spot): name for name, spot in spots.items()}
        of_paths = None if by_class is None else {path: by_class[name] for path, name in paths.items()}
        parts = assigned(list(paths), rule, classes=of_paths, table=said.table)
        splits = {part: [paths[path] for path in found] for part, found in parts.items()}
    else:
        splits = assigned(list(spots), rule, classes=by_class, table=said.table, footprint=footprint)
    names = sorted(splits[split])
    if tiling is not None and not isinstance(rule, Blocks | Folds):
        spots = _tiles({name: spots[name] for name in names}, tiling, pixels)
        names = list(spots)
    if not names:
        counts = ", ".join(f"{part}: {len(found)}" for part, found in splits.items() if part != "all")
        raise UserError(
            f"data.root {shown(root)} has no samples for {split}: of {len(splits['all'])}, data.split_by"
            f" ({rule.words()}) gives {counts}; set another rule or shares"
        )
    return Found(names, spots, rule, kind, pattern, shown_classes, answers, said.metadata, footprints)


def _row(spot: Spot) -> str:
    return "" if spot.item.number is None else f"#{spot.item.number}"


def _answers(
    items: Mapping[str, Item], said: Said, masks: Pattern | None, label: Answer | None, pixels: Pixels, classes: Any
) -> tuple[Mapping[str, Any], list[str] | None, Answer | None]:
    """What samples are labelled with, the classes that this shows, and which kind of label it is."""
    folders = "class" in pixels.sources[0].pattern.fields
    if said.label is not None:
        if label not in (None, said.label):
            raise UserError(f"data.label is {label}, but data.table gives a {said.label}: name its column as {label}")
        return said.answers, said.classes, said.label
    if masks is not None and label in (None, "mask", "target"):
        return {}, None, label or "mask"
    if folders and label in (None, "label"):
        found = said_by_folder({name: item.fields["class"] for name, item in items.items()}, classes)
        return found, sorted(set(found.values())), "label"
    if label is not None:
        raise UserError(
            f"data.label is {label}, and nothing says it: give data.masks (mask, target), data.table with its column,"
            " or a {class} in data.images (label)"
        )
    return {}, None, None


def _tiles(spots: Mapping[str, Spot], tiling: Tiling, pixels: Pixels) -> dict[str, Spot]:
    """Each image's tiles, by their first row and column."""
    found: dict[str, Spot] = {}
    small: list[str] = []
    for name, spot in spots.items():
        height, width = pixels.grid(spot)
        corners = tiling.of_image(height, width)
        small += [] if corners else [name]
        for row, column in corners:
            ends = min(row + tiling.size, height), min(column + tiling.size, width)
            window = slice(row, ends[0]), slice(column, ends[1])
            found[f"{name}#{row},{column}"] = replace(spot, window=window)
    if small:
        warn_once(
            f"{len(small)} of {len(spots)} images are smaller than data.tile.size={tiling.size} and give no tile"
            f" ({shown(small[0])} first): set data.tile.edge=pad, or a smaller size"
        )
    return found


def _length(pixels: Pixels, item: Item, masks: Pattern | None, mask_ask: Ask) -> int:
    """How many samples lie along the first axis of its files, the mask's too; an error where they hold unlike many."""
    asks, keys = [*pixels.asks, mask_ask], [source.pattern.key for source in pixels.sources]
    keys += [None if masks is None else masks.key]
    paths = [pixels.root / path for path in (*item.paths, *([] if item.mask is None else [item.mask]))]
    counts: list[int] = []
    for path, ask, key in zip(paths, asks, keys, strict=False):
        with open_image(path, replace(ask, item=0), key) as opened:
            array = getattr(opened, "array", None)
            if array is None:
                raise UserError(
                    f"{shown(path)} is no array, and data.stacked is of NPY and HDF5: set data.stacked=false"
                )
            counts.append(int(array.shape[0]))
        if counts[-1] != counts[0]:
            raise UserError(
                f"{_with_key(path, key)} holds {counts[-1]} samples, but {_with_key(paths[0], keys[0])} holds"
                f" {counts[0]}: those of one number are one sample, so give both as many, or leave them out with"
                " data.exclude"
            )
    return counts[0]


def _with_key(path: Path, key: str | None) -> str:
    return shown(path) + ("" if key is None else f":{key}")
