"""A scene of rasters: the needed bands found by name, read in parts, scaled once and brought to one grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.bands import Band
from satdifuser.data.files.called import hits
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Array, Numbers, Place
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found, Pixels, Reading, Scene
from satdifuser.scenes.source.checks import check_light, check_scale, tell, tell_ground
from satdifuser.scenes.source.grids import Onto, onto
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.names import Called, Pick, given, matched
from satdifuser.scenes.source.raster import CACHE, GdalRaster, Raster, is_remote
from satdifuser.scenes.source.scaled import ScaledRaster, scales_beside
from satdifuser.scenes.source.zarrs import ZarrRaster


@dataclass(frozen=True)
class Source:
    """Bands of one raster that are read at once: their places in the sensor and in the raster."""

    layer: Layer
    raster: Raster
    places: tuple[int, ...]
    bands: tuple[int, ...]
    onto: Onto | None


class FileScene(Scene):
    """What a layout says, open. Only rasters that have a needed band stay so."""

    def __init__(self, found: Found, reading: Reading, layout: Layout) -> None:
        self.name, self.sensor, self.reading, self.layout = found.name, reading.sensor, reading, layout
        self.words = found.words
        self._open: dict[int, Raster] = {}
        try:
            picks = self._picks()
            self.place = self._grid(picks)
            self._sources = self._sources_of(picks)
            self._check(picks)
        except BaseException:
            self.close()
            raise
        self._picked = picks

    # Which bands, and where they are.

    def raster(self, number: int) -> Raster:
        """One of the layers, open; errors name it."""
        if number not in self._open:
            layer = self.layout.layers[number]
            with naming(layer.path):
                self._open[number] = open_raster(layer)
        return self._open[number]

    def _picks(self) -> dict[str, Pick]:
        needed, bands, layers = self.reading.needed, self.reading.bands, self.layout.layers
        where = shown(self.words)
        if bands is not None and not isinstance(bands, dict):
            if len(layers) != 1:
                raise UserError(
                    f"{where} has {len(layers)} rasters: say which has which band, as"
                    " reading.bands={B04: red.tif, ...}"
                )
            return given(bands, self.raster(0).count, self.sensor, needed, where)
        called = []
        for number, layer in enumerate(layers):
            names = layer.names
            if names is None:
                raster = self.raster(number)
                stem = () if layer.stem is None or raster.count > 1 else (layer.stem,)
                names = tuple((*own, *stem) for own in raster.names)
            called += [Called(Pick(number, place), words, layer.gsd) for place, words in enumerate(names)]
        if len(layers) == 1 and not any(self._meant(called)):
            return self._in_order(called, where)
        return matched(called, self.sensor, needed, where)

    def _meant(self, called: list[Called]) -> Iterator[bool]:
        return (bool(hits(one.words, self.sensor)[1]) for one in called)

    def _in_order(self, called: list[Called], where: str) -> dict[str, Pick]:
        """Bands without names that anybody knows: as many as the sensor has, or as those of training."""
        names = self.reading.unnamed or self.sensor.names
        if len(called) != len(names):
            words = [one.words[0] for one in called if one.words]
            listed = f" ({', '.join(map(shown, words[:20]))})" if words else " without names"
            raise UserError(
                f"{where} has {len(called)} band{'s' * (len(called) != 1)}{listed}, but {self.sensor.name} has"
                f" {len(names)} ({', '.join(names)}): set reading.bands to the names of its bands, in its order"
                f"{self._opaque(len(names) - len(called))}"
            )
        tell(f"{where} does not name its bands: they are taken as {', '.join(names)} (reading.bands says otherwise)")
        return given(names, len(called), self.sensor, self.reading.needed, where)

    def _opaque(self, lost: int) -> str:
        """What to add where the bands that are lost are those that say how opaque a pixel is."""
        alpha = getattr(self.raster(0), "alpha", [])
        if not alpha or lost != len(alpha):
            return ""
        return (
            f"; its band {alpha[0]} says that it is alpha (how opaque), not data: if it is data, run gdal_edit.py"
            f" -colorinterp_{alpha[0]} undefined"
        )

    def _grid(self, picks: dict[str, Pick]) -> Place:
        """The finest needed band's grid; all others must lie on its ground."""
        used = list(dict.fromkeys(pick.layer for pick in picks.values()))
        rasters = {number: self.raster(number) for number in used}
        placed = [number for number in used if rasters[number].place is not None]
        finest = min(placed or used, key=lambda number: _pixel(rasters[number]))
        first = rasters[finest]
        for number in [number for number in placed if number != finest]:
            place, other = first.place, rasters[number].place
            fault = None if place is None or other is None else other.apart(place)
            if fault is not None:
                raise UserError(
                    f"{shown(rasters[number].path)} does not lie on {shown(first.path)}: {fault}; bring them to one"
                    " grid (gdalwarp), or leave it out"
                )
        if first.place is None:
            tell(f"{shown(first.path)} {first.said or 'has no georeference'}")
            return Place((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), None, first.height, first.width)
        if first.place.crs is None:
            tell(f"{shown(first.path)} names no reference system (CRS), so what is made of it names none")
        return first.place

    def _sources_of(self, picks: dict[str, Pick]) -> list[Source]:
        sources = []
        for number in dict.fromkeys(pick.layer for pick in picks.values()):
            raster, layer = self.raster(number), self.layout.layers[number]
            ours = [(self.sensor.names.index(name), pick.band) for name, pick in picks.items() if pick.layer == number]
            lost = [band for _, band in ours if band >= raster.count]
            if lost:
                raise UserError(
                    f"{shown(raster.path)} has {raster.count} bands, not the {lost[0] + 1} that it is said to"
                )
            size = raster.height, raster.width
            how = onto(raster.place, size, self.place, self.reading.resampling, shown(raster.path))
            sources.append(Source(layer, raster, tuple(p for p, _ in ours), tuple(b for _, b in ours), how))
        for number in [number for number in self._open if number not in {p.layer for p in picks.values()}]:
            self._open.pop(number).close()
        kept = sum(source.raster.row_bytes(len(source.bands)) for source in sources) * 5 // 4
        for source in sources:
            source.raster.cache = min(max(kept, CACHE[0]), CACHE[1])
        return sources

    def _check(self, picks: dict[str, Pick]) -> None:
        own = {}
        for name, pick in picks.items():
            product = self.layout.layers[pick.layer].own
            own[name] = (product[pick.band] if product else None) or self.raster(pick.layer).own(pick.band)
        check_light(self.layout, picks, self.sensor, shown(self.words))
        check_scale(self.layout, own, self.reading, self.sensor, shown(self.words))
        tell_ground(self.place, [self.sensor.bands[self.sensor.names.index(n)] for n in picks], shown(self.words))

    # What it is.

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "files": [source.raster.identity() for source in self._sources],
            "bands": {name: [pick.layer, pick.band] for name, pick in self._picked.items()},
            "own": [[list(own) if own else None for own in source.layer.own] for source in self._sources],
            "sensor": list(self.sensor.names),
            "scaling": self.reading.scaling.to_dict(),
            "nodata": list(self.reading.nodata),
            "nan": self.reading.nan,
            "resampling": self.reading.resampling,
            "grid": [*self.place.transform, self.place.height, self.place.width],
            "crs": None if self.place.crs is None else self.place.crs.to_wkt(),
        }

    @property
    def files(self) -> tuple[str, ...]:
        return (*(layer.path for layer in self.layout.layers), *self.layout.files, self.words.partition("#")[0])

    def read(self, rows: slice, columns: slice) -> Pixels:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        image = np.zeros((len(self.sensor), height, width), np.float32)
        blank = np.ones((height, width), bool)
        for source in self._sources:
            window = (rows, columns) if source.onto is None else source.onto.window(rows, columns)
            with naming(source.raster.path):
                numbers = source.raster.read(source.bands, *window)
                gone = self._gone(numbers, source)
                for at, place in enumerate(source.places):
                    values = self._scaled(numbers, at, gone[at], self.sensor.bands[place], source)
                    lost = gone[at]
                    if source.onto is not None:
                        values, lost = source.onto.resampled(values, lost, rows, columns)
                    values[lost] = 0.0
                    image[place] = values
                    blank &= lost if self.sensor.bands[place].unit == "metres" else values == 0
        return Pixels(image, blank)

    def _scaled(self, numbers: Numbers, at: int, gone: Array, band: Band, source: Source) -> Array:
        own = source.layer.own[source.bands[at]] if source.layer.own else None
        if own is None:
            own = numbers.own[at] if numbers.own else (None, 0.0)
        values = self.reading.scaling.apply(numbers.numbers[at], band, *own)
        bad = ~np.isfinite(values) & ~gone
        if bad.any():
            row, column = (int(where[0]) for where in np.nonzero(bad))
            kind = "NaN" if np.isnan(values[row, column]) else "an infinite value"
            mend = "set reading.nan=nodata" if kind == "NaN" else "mend it, or set reading.nodata to it"
            raise BadImageError(f"has {kind} in {band.name}: {mend}")
        return values

    def _gone(self, numbers: Numbers, source: Source) -> Array:
        """Where each band has no data, by the file, by the product or by the user."""
        found = numbers.numbers
        gone = np.zeros(found.shape, bool) if numbers.blank is None else numbers.blank.copy()
        blanks = np.asarray([*self.reading.nodata, *source.layer.nodata])
        if len(blanks):  # a file of float32 has what -999.9 is there
            gone |= np.isin(found, blanks.astype(found.dtype) if found.dtype.kind == "f" else blanks)
        own = [source.layer.own[band] for band in source.bands] if source.layer.own else []
        if found.dtype.kind == "u" and any(one is not None and one[1] for one in own):
            gone |= found == 0  # zero is no data, not the offset
        for at, place in enumerate(source.places):
            gone[at] |= self.reading.scaling.blank(found[at], self.sensor.bands[place])
        if self.reading.nan == "nodata" and found.dtype.kind == "f":
            gone |= np.isnan(found)
        return gone

    def close(self) -> None:
        for raster in self._open.values():
            raster.close()
        self._open.clear()


def open_raster(layer: Layer) -> Raster:
    """A file through GDAL, or an array of Zarr."""
    if layer.inner is not None:
        return ZarrRaster(layer.path, layer.inner)
    scales = scales_beside(layer.path)
    if scales is not None:
        return ScaledRaster(layer.path, scales)
    return GdalRaster(layer.path, layer.named)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Whatever is wrong with a raster is one line that names it."""
    try:
        yield
    except BadImageError as fault:
        said = str(fault).replace("data.scaling", "reading.scaling")
        raise UserError(f"{shown(path)} {said}") from fault
    except (UserError, ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:  # damaged files make their libraries raise all kinds
        said = str(error)
        for place in (path if is_remote(path) else str(Path(path).absolute()), path):
            said = said.replace(f"'{place}' not", "it is not").replace(place, "the file")
        reason = shown(" ".join(said.split()).removesuffix("."))
        mend = "check the address, the network and the keys" if is_remote(path) else "replace it"
        raise UserError(f"{shown(path)} cannot be read ({reason}): {mend}") from error


def _pixel(raster: Raster) -> float:
    """The area of its pixels; without a place, less for more of them."""
    if raster.place is None:
        return -float(raster.height * raster.width)
    a, b, _, d, e, _ = raster.place.transform
    return abs(a * e - b * d)
