"""Masks: numbers, a palette's numbers or colours as classes; or numbers as the values of a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from satdifuser.data.classes import ClassTable
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.images import open_image
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Array, Ask, Numbers
from satdifuser.data.readers.rasters.headers import header
from satdifuser.errors import UserError

SOME = 4
"""How many masks are looked into for the values that they hold, and how much of each: the middle of SIDE px."""
SIDE = 2048
MANY = 16
"""Of more values than this it is asked whether they are classes at all."""


def coloured(classes: Any) -> bool:
    """Whether the class table names colours of a mask and not its numbers; never both."""
    if not isinstance(classes, Mapping):
        return False
    colours = [isinstance(value, str) and value.startswith("#") for value in classes]
    if any(colours) and not all(colours):
        raise UserError("data.classes has colours and numbers: a mask has one or the other")
    return bool(colours) and all(colours)


def by_number(classes: Mapping[str, Any]) -> dict[int, Any]:
    """A table of colours as one of numbers: #rrggbb as it is in hexadecimal. The first colour of a class is its own."""
    found: dict[int, Any] = {}
    for colour, entry in classes.items():
        try:
            number = int(colour[1:], 16) if len(colour) == 7 else -1
        except ValueError:
            number = -1
        if number < 0:
            raise UserError(f"data.classes has the colour {colour!r}: write it as #rrggbb, as '#ff0000' for red")
        known = any(isinstance(one, Mapping) and one["name"] == entry for one in found.values())
        plain = entry is None or isinstance(entry, Mapping) or known
        found[number] = entry if plain else {"name": entry, "colour": colour}
    return found


def read_mask(path: Path, key: str | None, ask: Ask, rows: slice, columns: slice) -> Numbers:
    """A part of the mask, `[h, w]`; of colours the numbers that these are in hexadecimal."""
    with open_image(path, ask, key) as mask:
        if ask.use == "colours" and mask.count != 3:
            raise BadImageError(f"has {mask.count} bands, but a mask in colours has 3: name numbers in data.classes")
        if ask.use != "colours" and mask.count != 1:
            raise BadImageError(
                f"has {mask.count} bands, but a mask has 1: if its colours are the classes, name them in data.classes,"
                " as {'#ff0000': roof}"
            )
        found = mask.read(range(mask.count), rows, columns)
    blank: Array | None = None if found.blank is None else np.asarray(found.blank.any(0))
    if ask.use == "colours":
        red, green, blue = found.numbers.astype(np.int64)
        return Numbers((red * 256 + green) * 256 + blue, blank)
    return Numbers(found.numbers[0], blank, found.own)


def classes_in(mask: Numbers, table: ClassTable, path: Path, colours: bool) -> Tensor:
    """int64 classes; what the file says is no data counts nowhere, unless the table gives its number a name."""
    numbers, gone = mask.numbers, mask.blank
    named = [number for number, known in table.numbers.items() if known is not None]
    lost = None if gone is None else gone & ~np.isin(numbers, named)
    if lost is not None and lost.any():
        numbers = np.where(lost, _any_of(table), numbers)
    if colours:
        unknown = np.setdiff1d(numbers, list(table.numbers))
        if unknown.size:
            known = ", ".join(f"#{number:06x}" for number in table.numbers)
            raise UserError(
                f"{shown(path)} has a mask with the colour #{unknown[0]:06x}, but the class table has {known}: name it"
                " in data.classes ('#000000': null to ignore it), or replace the file"
            )
    try:
        found = table.mask(numbers)
    except BadImageError as fault:
        raise UserError(f"{shown(path)} {fault}") from fault
    if lost is not None:
        found[torch.from_numpy(lost)] = table.labels.ignore_index
    return found


def _any_of(table: ClassTable) -> int:
    return next(iter(table.numbers), 0)


def values_in(mask: Numbers, ignore: Sequence[float]) -> Array:
    """float32 values to regress, by the file's scale and offset if it has them; NaN is what counts nowhere."""
    scale, offset = mask.own[0] if mask.own else (None, 0.0)
    found: Array = (mask.numbers * np.float64(1.0 if scale is None else scale) + offset).astype(np.float32)
    if ignore:
        found[np.isin(mask.numbers, ignore)] = np.nan
    if mask.blank is not None:
        found[mask.blank] = np.nan
    return found


def said_of_values(masks: Sequence[tuple[Path, str | None, Ask]], ignore: Sequence[Any]) -> str:
    """Which values the first masks hold, and what to set then, to follow an error; nothing where none can be read."""
    held: set[float] = set()
    colours = False
    for path, key, ask in masks[:SOME]:
        with suppress(UserError, BadImageError):  # what is wrong with it is said once there are classes
            values, coloured = _held(path, key, ask)
            held, colours = held | values, colours or coloured
    found = sorted(held - {*ignore})
    if not found:
        return ""
    words = [f"'#{int(one):06x}'" if colours else f"{one:g}" for one in found]
    if len(found) > MANY:
        return (
            f": the first masks hold {len(found)} values, {words[0]} to {words[-1]}: name them, or, where they are no"
            " classes but amounts, set data.label=target"
        )
    names = ", ".join(f"{one}: ..." for one in words)
    return f": the first masks hold {', '.join(words)}: set data.classes={{{names}}}"


def _held(path: Path, key: str | None, ask: Ask) -> tuple[set[float], bool]:
    """The values in the middle of a mask, and whether they are colours."""
    try:
        head = header(path, ask, key)
        coloured = head.count == 3
        ask = replace(ask, use="colours", bands=3) if coloured else ask
    except UserError:  # as a picture in colours is where numbers are asked for
        ask, coloured = replace(ask, use="colours", bands=3), True
        head = header(path, ask, key)
    rows, columns = (slice(max(0, (side - SIDE) // 2), (side + SIDE) // 2) for side in (head.height, head.width))
    rows, columns = slice(rows.start, min(rows.stop, head.height)), slice(columns.start, min(columns.stop, head.width))
    mask = read_mask(path, key, ask, rows, columns)
    known = mask.numbers if mask.blank is None else mask.numbers[~mask.blank]
    return {float(one) for one in np.unique(known) if np.isfinite(one)}, coloured
