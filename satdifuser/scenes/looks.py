"""A scene or a map made small enough to look at: what it holds, and the colours in which it is painted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.colours import colours as usual
from satdifuser.data.files.quiet import quiet
from satdifuser.scenes.out.base import Array
from satdifuser.scenes.scene import Scene

BLANK = (224, 224, 224)
STRIP, ACROSS = 512, 2048  # px that are read at once
LIGHT = ("red", "green", "blue")
Grid = tuple[tuple[float, ...], int, int]
"""GDAL's six numbers a to f, height and width."""
ENDS = (2.0, 98.0)  # percentiles that a stretch goes from and to


@dataclass(frozen=True)
class Looked:
    """A map, small: numbers `[bands, h, w]` in their unit, NaN where there are none."""

    kind: str
    numbers: Array
    names: tuple[str, ...]
    colours: tuple[str, ...]
    grid: Grid | None = None
    """Of the map itself; None where it has no place."""

    @property
    def there(self) -> Array:
        return np.asarray(~np.isnan(self.numbers).all(0))

    @property
    def classes(self) -> Array:
        """The class of each pixel, or the likeliest; -1 without data."""
        safe = np.where(np.isnan(self.numbers), -np.inf, self.numbers)
        found = safe[0] if self.kind == "classes" else safe.argmax(0)
        return np.where(self.there, found, -1).astype(np.int64)


def step_of(height: int, width: int, side: int) -> int:
    return max(1, -(-max(height, width) // side))


def look(path: str | Path, side: int) -> Looked:
    """A map of ours, with its longer side of at most so many px; a COG by its overviews."""
    suffix = Path(path).suffix.lower()
    said, numbers, grid = {".zarr": _zarr, ".parquet": _tiles}.get(suffix, _tiff)(Path(path), side)
    kind = said.get("SATDIFUSER_OUTPUT", "values")
    names = tuple(json.loads(said.get("SATDIFUSER_CLASSES", "[]")))
    shades = tuple(json.loads(said.get("SATDIFUSER_COLOURS", "[]")))
    if kind in ("classes", "probabilities", "logits"):
        count = len(numbers) if kind != "classes" else int(np.nanmax(numbers, initial=-1)) + 1
        names = names or tuple(f"class {number}" for number in range(count))
        shades = shades if len(shades) == len(names) else usual(len(names))
    return Looked(kind, numbers, names, shades, grid)


def _tiff(path: Path, side: int) -> tuple[Mapping[str, str], Array, Grid | None]:
    import rasterio

    with quiet(), rasterio.open(path, driver="GTiff") as file:
        step = step_of(file.height, file.width, side)
        shape = (file.count, -(-file.height // step), -(-file.width // step))
        found = file.read(out_shape=shape, masked=True).astype(np.float32).filled(np.nan)
        scales = np.asarray(file.scales, np.float32)[:, None, None]
        grid = None if file.transform.is_identity else (tuple(file.transform)[:6], file.height, file.width)
        return file.tags(), found * scales, grid


def _zarr(path: Path, side: int) -> tuple[Mapping[str, str], Array, Grid | None]:
    import zarr

    root: Any = zarr.open_group(str(path), mode="r")
    array = root["embedding" if "embedding" in root else "map"]
    step = step_of(array.shape[1], array.shape[2], side)
    rows = -(-array.chunks[1] // step) * step  # so that the rows that are kept are evenly apart
    parts = [array[:, top : top + rows][:, ::step, ::step] for top in range(0, array.shape[1], rows)]
    found = np.concatenate(parts, 1)
    numbers = found.astype(np.float32)
    if found.dtype.kind in "iu":
        numbers[found == array.fill_value] = np.nan
    scale = array.attrs.get("scales", array.attrs.get("scale_factor", 1.0))
    place = None
    if "spatial_ref" in root:
        c, a, b, f, d, e = map(float, str(root["spatial_ref"].attrs["GeoTransform"]).split())
        place = (a, b, c, d, e, f), int(array.shape[1]), int(array.shape[2])
    return root.attrs, numbers * np.asarray(scale, np.float32).reshape(-1, 1, 1), place


def _tiles(path: Path, side: int) -> tuple[Mapping[str, str], Array, Grid | None]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    said = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    rows, columns = (table[name].to_numpy() for name in ("row", "column"))
    inner = [name for name in table.column_names if name not in ("id", "row", "column", "class", "bbox", "geometry")]
    if "embedding" in inner:
        vectors = table["embedding"].combine_chunks()
        values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1).T.astype(np.float32)
        values = values * np.asarray(json.loads(said.get("SATDIFUSER_SCALES", "1")), np.float32).reshape(-1, 1)
    else:
        values = np.stack([table[name].to_numpy().astype(np.float32) for name in inner])
    shape = (int(rows.max(initial=0)) + 1, int(columns.max(initial=0)) + 1)
    found = np.full((len(values), *shape), np.nan, np.float32)
    found[:, rows, columns] = values
    step = step_of(*shape, side)
    return said, found[:, ::step, ::step], _tile_grid(table, shape)


def _tile_grid(table: Any, shape: tuple[int, int]) -> Grid | None:
    """By the first tile's box; of tiles that are turned none."""
    if not table.num_rows:
        return None
    box, row, column = (table[name][0].as_py() for name in ("bbox", "row", "column"))
    across, down = box["xmax"] - box["xmin"], box["ymin"] - box["ymax"]
    return (across, 0.0, box["xmin"] - column * across, 0.0, down, box["ymax"] - row * down), *shape


def painted(looked: Looked) -> Array:
    """Colours `[h, w, 3]`: of classes, paler where a class is less likely; of values; of an embedding's components."""
    if looked.kind in ("classes", "probabilities", "logits"):
        shades = np.array([rgb(colour) for colour in looked.colours] + [BLANK], np.float64)
        picture = shades[looked.classes]
        if looked.kind == "probabilities" and looked.there.any():
            most = np.where(looked.there, np.nan_to_num(looked.numbers).max(0), 1.0)[..., None]
            picture = 255 - (255 - picture) * np.where(looked.there[..., None], 0.15 + 0.85 * most, 1.0)
        return picture.astype(np.uint8)
    if looked.kind == "embedding":
        return stretched(components(looked.numbers), looked.there)
    return shaded(looked.numbers[0], *span(looked.numbers[0]))


def span(values: Array) -> tuple[float, float]:
    """Where the colours of values begin and end."""
    there = values[np.isfinite(values)]
    low, high = np.percentile(there, ENDS) if there.size else (0.0, 1.0)
    return float(low), float(high)


def shaded(values: Array, low: float, high: float) -> Array:
    from satdifuser.report.pictures import shaded as in_cividis

    return np.asarray(in_cividis(values, low, high, BLANK))


def components(numbers: Array) -> Array:
    """The first three principal components `[3, h, w]`; each points to where its largest weight is positive."""
    there = np.isfinite(numbers).all(0)
    found = np.full((3, *there.shape), np.nan)
    if not there.any():
        return found
    points = numbers[:, there].astype(np.float64)
    points -= points.mean(1, keepdims=True)
    _, axes = np.linalg.eigh(points @ points.T)
    for place, axis in enumerate(axes.T[::-1][:3]):
        found[place, there] = np.sign(axis[np.abs(axis).argmax()]) * axis @ points
    found[len(axes) :, there] = 0.0
    return found


def stretched(numbers: Array, there: Array) -> Array:
    """Three channels as red, green and blue, each between its percentiles."""
    picture = np.empty((*there.shape, 3), np.uint8)
    for channel, values in enumerate(numbers):
        low, high = span(np.where(there, values, np.nan))
        share = (np.nan_to_num(values) - low) / ((high - low) or 1.0)
        picture[..., channel] = np.clip(share, 0, 1) * 255
    picture[~there] = BLANK
    return picture


def rgb(colour: str) -> tuple[int, int, int]:
    """
    >>> rgb("#ff8000")
    (255, 128, 0)
    """
    red, green, blue = (int(colour.lstrip("#")[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue


def scene_picture(scene: Scene, side: int) -> tuple[Array, str]:
    """A scene in its true colours if it has them, else in its first bands; and which those are."""
    names = [band.common for band in scene.sensor.bands]
    small, there = _small(scene, side)
    filled = [place for place in range(len(names)) if (small[place] != 0).any()]
    if all(name in names and names.index(name) in filled for name in LIGHT):
        chosen, said = [names.index(name) for name in LIGHT], "true colour"
    else:
        chosen = filled[:3] if len(filled) >= 3 else (filled[:1] or [0]) * 3
        shown = [scene.sensor.bands[place].name for place in dict.fromkeys(chosen)]
        said = f"{'bands' if len(shown) > 1 else 'band'} {', '.join(shown)}"
    return stretched(small[chosen], there), said if filled else "no data"


def _small(scene: Scene, side: int) -> tuple[Array, Array]:
    """Means of squares of pixels, read in parts, and where there are any."""
    height, width = scene.place.height, scene.place.width
    step = step_of(height, width, side)
    shape = -(-height // step), -(-width // step)
    sums = np.zeros((len(scene.sensor.bands), *shape))
    counts = np.zeros(shape)
    down, across = max(STRIP // step, 1) * step, max(ACROSS // step, 1) * step
    for top in range(0, height, down):
        for left in range(0, width, across):
            rows, columns = slice(top, min(top + down, height)), slice(left, min(left + across, width))
            part = scene.read(rows, columns)
            at = slice(top // step, -(-rows.stop // step)), slice(left // step, -(-columns.stop // step))
            there = ~part.blank
            sums[:, at[0], at[1]] = _added(np.where(there, part.image, 0.0), step)
            counts[at] = _added(there[None].astype(float), step)[0]
    return sums / np.maximum(counts, 1), counts > 0


def _added(values: Array, step: int) -> Array:
    down = np.add.reduceat(values, np.arange(0, values.shape[1], step), axis=1, dtype=np.float64)
    return np.asarray(np.add.reduceat(down, np.arange(0, values.shape[2], step), axis=2))
