"""Where samples lie, for readers that say it or whose samples are files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from satdifuser.data.base import LabelledDataset
from satdifuser.data.check.repeats import Box

TIFF = (".tif", ".tiff")


def boxes_of(data: LabelledDataset, names: Sequence[str]) -> dict[str, tuple[Box, str]]:
    """Bounds and coordinate system of each sample that has them, by its reader's `footprint` or its file's header."""
    found = {}
    own = getattr(data, "footprint", None)
    files = _alone(data, names) if own is None else {}
    for name in names:
        place = own(name) if own is not None else _of_file(files[name]) if name in files else None
        if place is not None:
            found[name] = ((min(place.x), min(place.y), max(place.x), max(place.y)), str(place.crs))
    return found


def _alone(data: LabelledDataset, names: Sequence[str]) -> dict[str, Any]:
    """The first file of each sample, where it is a GeoTIFF and no other sample's too."""
    files = getattr(data, "files", None)
    if not callable(files):
        return {}
    first = {name: next(iter(files(name)), None) for name in names}
    several = len({*first.values()}) == len(first)
    return {n: file for n, file in first.items() if several and file is not None and file.suffix.lower() in TIFF}


def _of_file(path: Any) -> Any:
    from satdifuser.data.splits.places import read_footprint

    return read_footprint(path)
