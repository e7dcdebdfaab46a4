"""Polygons and points that people draw, of GeoPackage, GeoJSON, shapefile, GeoParquet and the like, as objects."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Place
from satdifuser.data.matching import counted
from satdifuser.data.tables import empty, word
from satdifuser.errors import UserError, nearest

if TYPE_CHECKING:
    import geopandas

Array = np.ndarray[Any, Any]
PARQUET = (".parquet", ".pq", ".geoparquet")
AREAS, POINTS = ("Polygon", "MultiPolygon"), ("Point",)


@dataclass(frozen=True)
class Objects:
    """Geometries (shapely's, polygons and points) in one reference system, and the cells of their rows."""

    path: Path
    setting: str
    geometries: Array
    numbers: tuple[int, ...]
    """Of each the number of its row in the file, from 0."""
    cells: dict[str, list[Any]]
    crs: Any
    """rasterio's; None where the file names none."""
    said: tuple[str, ...] = ()
    """What was mended or left out, a sentence each, for whoever reads to say."""

    def __len__(self) -> int:
        return len(self.geometries)

    @property
    def where(self) -> str:
        return f"{self.setting} {shown(self.path)}"

    @property
    def points(self) -> Array:
        """Which of them are points."""
        import shapely

        return np.asarray(shapely.get_type_id(self.geometries) == 0)

    def column(self, name: str | None, setting: str) -> list[str | None]:
        """A column as words (3.0 is 3), None of an empty cell; null where there is one column alone."""
        there = ", ".join(map(shown, self.cells)) or "none"
        if name is None:
            if len(self.cells) != 1:
                raise UserError(f"{setting} is not set: name the column of {self.where} that has classes, of {there}")
            (name,) = self.cells
        if name not in self.cells:
            raise UserError(f"{self.where} has no column {shown(name)}: it has {there}{nearest(name, self.cells)}")
        return [None if empty(cell) else word(cell) for cell in self.cells[name]]

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of them all."""
        import shapely

        left, bottom, right, top = shapely.total_bounds(self.geometries).tolist()
        return left, bottom, right, top

    def only(self, these: Sequence[int] | Array) -> Objects:
        """Some of them."""
        kept = [int(number) for number in these]
        return replace(
            self,
            geometries=self.geometries[kept],
            numbers=tuple(self.numbers[number] for number in kept),
            cells={name: [found[number] for number in kept] for name, found in self.cells.items()},
        )

    def digest(self, *columns: Sequence[Any]) -> str:
        """What they are, wherever the file lies: geometries, reference system, and these columns."""
        import shapely

        found = hashlib.blake2b(digest_size=8)
        found.update(("" if self.crs is None else self.crs.to_wkt()).encode())
        for number, shape in zip(self.numbers, self.geometries, strict=True):
            found.update(f"{number} ".encode() + shapely.to_wkb(shape, byte_order=1))
        for column in columns:
            found.update("\0".join(map(str, column)).encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def on(self, place: Place) -> Array:
        """The geometries in pixels of a grid: x along its columns and y along its rows, (0, 0) its first corner."""
        import shapely

        a, b, c, d, e, f = place.transform
        area = a * e - b * d
        turned = self.geometries
        if self.crs is not None and place.crs is not None and self.crs != place.crs:
            turned = shapely.transform(turned, _between(self.crs, place.crs))

        def pixels(points: Array) -> Array:
            x, y = points[:, 0] - c, points[:, 1] - f
            return np.stack([(e * x - b * y) / area, (a * y - d * x) / area], 1)

        return np.asarray(shapely.transform(turned, pixels))


def check_crs(objects: Objects, place: Place, scene: str) -> None:
    """Refuse what could lie anywhere: one of both names a reference system, and the other none."""
    if (objects.crs is None) != (place.crs is None):
        lost, has = (objects.where, scene) if objects.crs is None else (scene, objects.where)
        raise UserError(f"{lost} names no reference system (CRS), but {has} does: save it with the one it is in")


def read_objects(path: str | Path, *, layer: str | None = None, setting: str = "data.labels") -> Objects:
    """All of a file. Invalid polygons are mended, points of many are taken apart, rows without a geometry left out."""
    import shapely

    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"{setting} {shown(file)} is not there: give a GeoPackage, GeoJSON, shapefile or GeoParquet")
    table = _opened(file, layer, setting)
    shapes = np.asarray(shapely.force_2d(table.geometry.to_numpy()))
    cells = {str(name): _plain(table[name]) for name in table.columns if name != table.geometry.name}
    crs = None if table.crs is None else _rasterio(table.crs)
    found, said = Objects(file, setting, shapes, tuple(range(len(shapes))), cells, crs), list[str]()
    broken = np.array([shape is not None and not shape.is_valid for shape in shapes], bool)
    if broken.any():
        said.append(_count(found, broken, "are not valid (their outline crosses itself) and were mended"))
        mended = shapes.copy()
        mended[broken] = [_areas(shapely.make_valid(shape), shape) for shape in shapes[broken]]
        found = replace(found, geometries=mended)
    lost = np.array([shape is None or shape.is_empty for shape in found.geometries], bool)
    if lost.any():
        said.append(_count(found, lost, "have no geometry and are left out"))
        found = found.only(np.flatnonzero(~lost))
    found = _apart(found)
    kinds = np.array([shape.geom_type for shape in found.geometries], object)
    lines = ~np.isin(kinds, (*AREAS, *POINTS))
    if lines.any():
        raise UserError(
            f"{found.where}: {_count(found, lines, f'are no polygons or points ({kinds[lines][0]})')}: make polygons of"
            " them (in QGIS: Vector > Geoprocessing > Buffer), or leave them out"
        )
    if not len(found):
        raise UserError(f"{found.where} has no polygon and no point: draw some, or give another file or layer")
    return replace(found, said=tuple(f"{found.where}: {line}" for line in said))


def _opened(file: Path, layer: str | None, setting: str) -> geopandas.GeoDataFrame:
    try:
        import geopandas
        import pyogrio
    except ImportError as error:
        raise UserError(f"{setting} {shown(file)} needs geopandas to be read: pip install geopandas") from error
    try:
        if file.suffix.lower() in PARQUET:
            return geopandas.read_parquet(file)
        names = [str(name) for name in pyogrio.list_layers(file)[:, 0]]
        if layer is None and len(names) > 1:
            said = ", ".join(map(shown, names))
            raise UserError(f"{setting} {shown(file)} has several layers ({said}): set {_beside(setting, 'layer')}")
        if layer is not None and layer not in names:
            close = nearest(layer, names)
            raise UserError(f"{setting} {shown(file)} has no layer {shown(layer)}: it has {', '.join(names)}{close}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of rings and of dates, we say or do not need
            table = pyogrio.read_dataframe(file, layer=layer)
    except UserError:
        raise
    except Exception as error:  # damaged files make their libraries raise all kinds
        reason = shown(" ".join(str(error).split()))
        raise UserError(
            f"{setting} {shown(file)} cannot be read ({reason[:160]}): give a GeoPackage, GeoJSON, shapefile or"
            " GeoParquet that QGIS opens"
        ) from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise UserError(f"{setting} {shown(file)} has no geometries: give a file of polygons or points")
    return table


def _beside(setting: str, name: str) -> str:
    return f"{setting.rpartition('.')[0]}.{name}".lstrip(".")


def _plain(column: Any) -> list[Any]:
    return [cell.item() if isinstance(cell, np.generic) else cell for cell in column.astype(object)]


def _rasterio(crs: Any) -> Any:
    from rasterio.crs import CRS

    code = crs.to_authority(min_confidence=100)
    return CRS.from_user_input(":".join(code)) if code else CRS.from_wkt(crs.to_wkt())


def _between(source: Any, target: Any) -> Callable[[Array], Array]:
    from rasterio.warp import transform

    def move(points: Array) -> Array:
        x, y = transform(source, target, points[:, 0], points[:, 1])
        return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], 1)

    return move


def _count(found: Objects, which: Array, what: str) -> str:
    rows = [f"row {found.numbers[place] + 1}" for place in np.flatnonzero(which)]
    return counted(f"of {len(found)} objects {what}", rows)


def _areas(mended: Any, before: Any) -> Any:
    """Of what a mended polygon has become, what is a polygon."""
    import shapely

    if before.geom_type not in AREAS or mended.geom_type in AREAS:
        return mended
    parts = [part for part in shapely.get_parts(mended) if part.geom_type in AREAS]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def _apart(found: Objects) -> Objects:
    """A point for each of a row of several."""
    import shapely

    many = np.array([shape.geom_type == "MultiPoint" for shape in found.geometries], bool)
    if not many.any():
        return found
    parts, rows = shapely.get_parts(found.geometries, return_index=True)
    parts = np.where(many[rows], parts, found.geometries[rows])
    kept = many[rows] | np.r_[True, rows[1:] != rows[:-1]]
    return replace(found.only(rows[kept]), geometries=parts[kept])
