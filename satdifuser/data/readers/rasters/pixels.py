"""The bands of a sample: which files have them, which part of each is read, and whether they lie on each other."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.files.called import check_order
from satdifuser.data.files.fitting import SKIP, BadImageError, Fitting
from satdifuser.data.files.geotiff import RASTERS
from satdifuser.data.files.images import open_image
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Array, Ask, Place
from satdifuser.data.readers.base import Raw
from satdifuser.data.readers.rasters.headers import Header, header
from satdifuser.data.readers.rasters.sources import Item, Pick, picks_of, sources_of
from satdifuser.data.readers.rasters.tiles import Tiling
from satdifuser.data.splits.places import Footprint, read_footprint
from satdifuser.errors import UserError

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Spot:
    """A sample: an image, or the rows and columns of a tile of it (as far as the image reaches)."""

    id: str
    item: Item
    window: Window | None = None


class Pixels:
    """Reads the sensor's bands of a sample, wherever they are."""

    def __init__(
        self,
        root: Path,
        images: str | Sequence[str] | Mapping[str, str],
        bands: Sequence[str] | None,
        sensor: Sensor,
        ask: Ask,
        compare: bool = True,
        compare_names: bool = True,
    ) -> None:
        self.compare, self.compare_names = compare, compare_names
        self.root, self.sensor, self.bands = root, sensor, bands
        self.sources = sources_of(images, bands)
        named = [source.bands for source in self.sources]
        self.picks: list[Pick] | None = None
        if all(names is not None for names in named):
            self.picks = picks_of(sensor, [names or () for names in named])
        counts = [len(names) if names else None for names in named]
        if counts == [None] and len(self.sources) == 1:
            counts = [len(sensor)]
        self.asks = [replace(ask, bands=count) for count in counts]

    def headers(self, spot: Spot) -> list[Header]:
        """Of each of its files, which must lie on each other where they say where they lie."""
        found = []
        for source, ask, path in zip(self.sources, self.asks, spot.item.paths, strict=True):
            ask = replace(ask, item=spot.item.number)
            found.append(header(self.root / path, ask, source.pattern.key))
        for place, path in enumerate(spot.item.paths):
            self._check_place(found, range(len(found)), spot, found[place], self.root / path)
        return found

    def grid(self, spot: Spot) -> tuple[int, int]:
        """Height and width of the whole image: of the finest file that the sensor has a band of."""
        heads = self.headers(spot)
        return _grid(heads, self._used(heads))

    def place(self, spot: Spot) -> Place | None:
        """Where the whole image lies, in pixels of its grid; None where no file says so."""
        heads = self.headers(spot)
        used = self._used(heads)
        source = _placed(heads, used)
        place = None if source is None else heads[source].place
        return None if place is None else place.on(*_grid(heads, used))

    def _used(self, heads: Sequence[Header]) -> list[int]:
        """Which files the sensor has a band of."""
        return sorted({source for source, _ in self._found(heads)})

    def _check_place(
        self, heads: Sequence[Header], used: Sequence[int], spot: Spot, other: Header, path: Path, closely: bool = False
    ) -> None:
        """An error where a file does not lie on the finest of an image that says its place."""
        source = _placed(heads, used)
        first = None if source is None else heads[source].place
        if self.compare and source is not None and first is not None and other.place is not None:
            apart, image = other.place.apart(first, closely), spot.item.paths[source]
            if apart is not None:
                raise UserError(
                    f"{shown(path)} does not lie on its image {shown(self.root / image)}: {apart}; cut or warp them"
                    " alike, leave the sample out with data.exclude, or, where what the file says is wrong, set"
                    f" data.georeference=ignore {SKIP}"
                )

    def footprint(self, spot: Spot) -> Footprint | None:
        paths = [self.root / path for path in spot.item.paths]
        if spot.window is None:
            found = (_footprint(path) for path in paths if path.suffix.lower() in RASTERS)
            return next((one for one in found if one is not None), None)
        heads = self.headers(spot)
        used = self._used(heads)
        source = _placed(heads, used)
        whole = None if source is None else _footprint(paths[source])
        return None if whole is None else whole.part(*_grid(heads, used), *spot.window)

    def read(self, spot: Spot, fitting: Fitting, tiling: Tiling | None) -> Raw:
        heads = self.headers(spot)
        picks = self._picks(heads, spot)
        used = self._used(heads)
        grid = _grid(heads, used)
        if spot.window is None:
            try:
                fitting.check(len(picks), *grid)
            except BadImageError as fault:
                raise UserError(f"{shown(self.root / spot.item.paths[0])} {fault} {SKIP}") from fault
        found: dict[int, tuple[list[int], Any]] = {}
        windows = self._windows(spot, fitting, {source: heads[source].grid for source in used}, grid)
        for source in used:
            path, wanted = self.root / spot.item.paths[source], [band for own, band in picks if own == source]
            ask = replace(self.asks[source], item=spot.item.number)
            with open_image(path, ask, self.sources[source].pattern.key) as image:
                found[source] = wanted, image.part(wanted, fitting, *windows[source])
        bands, blanks, owns = [], [], []
        for source, band in picks:
            wanted, part = found[source]
            place = wanted.index(band)
            side = None if tiling is None else self._side(tiling, heads[source].grid, grid)
            numbers, blank = part.numbers[place], None if part.blank is None else part.blank[place]
            bands.append(numbers if side is None else _filled(numbers, side, 0))
            if side is not None and numbers.shape != side:
                blank = np.zeros(numbers.shape, bool) if blank is None else blank
            blanks.append(blank if side is None or blank is None else _filled(blank, side, True))
            owns.append(part.own[place] if part.own else (None, 0.0))
        return Raw(bands, None, blanks, owns)

    def _picks(self, heads: Sequence[Header], spot: Spot) -> list[Pick]:
        for source, head, path in zip(self.sources, heads, spot.item.paths, strict=True):
            if source.bands is not None and head.count != len(source.bands):
                raise UserError(
                    f"{shown(self.root / path)} has {head.count} bands, but {len(source.bands)} are named"
                    f" ({', '.join(source.bands)}): set {'data.bands' if self.bands else source.pattern.setting} to"
                    f" what it has, in its order {SKIP}"
                )
        counts, names = [head.count for head in heads], list(self.bands or self.sensor.names)
        if self.picks is None and sum(counts) != len(names):
            said = " + ".join(map(str, counts))
            raise UserError(
                f"{shown(self.root / spot.item.paths[0])} has {said} band{'s' * (sum(counts) != 1)}, but"
                f" {'data.bands names' if self.bands else self.sensor.name + ' has'} {len(names)} ({', '.join(names)}):"
                f" set data.sensor to the bands of the images, or name these in their order in data.bands {SKIP}"
            )
        picks = self._found(heads)
        for number, source in enumerate(self.sources) if self.compare_names else ():
            read = [(place, band) for place, (own, band) in enumerate(picks) if own == number]
            setting = "data.bands" if self.bands else source.pattern.setting if source.bands else ""
            check_order(self.root / spot.item.paths[number], heads[number].names, self.sensor, read, setting)
        return picks

    def _found(self, heads: Sequence[Header]) -> list[Pick]:
        """Where the sensor's bands are; all bands, where they are not as many as are named (`read` says so)."""
        if self.picks is not None:
            return self.picks
        places = [(source, band) for source, head in enumerate(heads) for band in range(head.count)]
        if self.bands is None or len(self.bands) != len(places):
            return places
        return [places[place] for _, place in picks_of(self.sensor, [self.bands])]

    def _windows(
        self, spot: Spot, fitting: Fitting, grids: Mapping[int, tuple[int, int]], grid: tuple[int, int]
    ) -> dict[int, Window]:
        """Of each file, which part is read: that of the tile, or the middle where only that is kept."""
        whole = {source: (slice(0, height), slice(0, width)) for source, (height, width) in grids.items()}
        wanted = fitting.part(*grid) if spot.window is None else spot.window
        if wanted == (slice(0, grid[0]), slice(0, grid[1])):
            return whole
        parts = {source: tuple(map(_part, wanted, own, grid)) for source, own in grids.items()}
        if all(None not in part for part in parts.values()):
            return parts  # type: ignore[return-value]
        if spot.window is None:
            return whole
        coarse = next(source for source, part in parts.items() if None in part)
        raise UserError(
            f"{shown(self.root / spot.item.paths[coarse])} has {grids[coarse][0]} x {grids[coarse][1]} px, and the"
            f" tiles of its image ({grid[0]} x {grid[1]} px) do not begin and end with its pixels: set data.tile.size"
            " and stride to multiples of what one of its pixels covers, and data.tile.edge=drop"
        )

    @staticmethod
    def _side(tiling: Tiling, own: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        return tiling.size * own[0] // grid[0], tiling.size * own[1] // grid[1]

    def mask_window(self, spot: Spot, fitting: Fitting, path: Path, key: str | None, ask: Ask) -> Window:
        """The part of the mask that is read; an error where it is not the image's."""
        mask, heads = header(path, ask, key), self.headers(spot)
        used = self._used(heads)
        grid = _grid(heads, used)
        self._check_place(heads, used, spot, mask, path, closely=True)
        whole = slice(0, mask.height), slice(0, mask.width)
        if mask.grid != grid:
            multiple = all(max(a, b) % min(a, b) == 0 for a, b in zip(mask.grid, grid, strict=True))
            if spot.window is None and fitting.fit == "resize" and multiple:
                return whole
            image = spot.item.paths[max(used, key=lambda source: heads[source].pixels)]
            others = (one for head, one in zip(heads, spot.item.paths, strict=True) if head.grid == mask.grid)
            alike, mend = next(others, None), "cut them alike"
            if multiple:
                mend = f"set data.fit=resize{'' if spot.window is None else ' and data.tile=null'}, {mend}"
            if alike is not None:
                mend = f"name a band of {shown(alike)} in data.sensor too, {mend}"
            raise UserError(
                f"{shown(path)} is a mask of {mask.height} x {mask.width} px, but its image"
                f" {shown(self.root / image)} is {grid[0]} x {grid[1]} px: {mend}, or leave the"
                f" sample out with data.exclude: [{shown(spot.id)}] {SKIP}"
            )
        return fitting.part(*grid) if spot.window is None else spot.window


def _grid(heads: Sequence[Header], used: Sequence[int]) -> tuple[int, int]:
    return max(heads[source].height for source in used), max(heads[source].width for source in used)


def _placed(heads: Sequence[Header], used: Sequence[int]) -> int | None:
    """Which file says best where the sample lies: one that is used, the finest of these; None if none says it."""
    told = [(head.place, source) for source, head in enumerate(heads) if head.place is not None]
    ranks = [(place.crs is not None, source in used, heads[source].pixels, -source) for place, source in told]
    return -max(ranks)[-1] if ranks else None


def _part(wanted: slice, own: int, finest: int) -> slice | None:
    """The same part of a coarser side; None where it does not begin and end with its pixels."""
    if finest % own:
        return None
    factor = finest // own
    if wanted.start % factor or (wanted.stop % factor and wanted.stop != finest):
        return None
    return slice(wanted.start // factor, -(-wanted.stop // factor))


def _filled(numbers: Array, side: tuple[int, int], value: Any) -> Array:
    """Up to the side of a tile, below and to the right."""
    if numbers.shape == side:
        return numbers
    full = np.full(side, value, numbers.dtype)
    full[: numbers.shape[0], : numbers.shape[1]] = numbers
    return full


@functools.lru_cache(maxsize=2**14)
def _footprint(path: Path) -> Footprint | None:
    return read_footprint(path)
