"""A GeoParquet file of tiles: a row for each, with its footprint and what was answered for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Array, Form, Target
from satdifuser.scenes.out.cog import synced, tags_of
from satdifuser.scenes.out.forms import bands_of, nodata_of, scales_of
from satdifuser.scenes.out.partial import IDENTITY, Piece
from satdifuser.scenes.out.raw import Raw, loaded

if TYPE_CHECKING:
    import pyarrow

GEO = "1.1.0"
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Tiles(Raw):
    """Rows of tiles without data are left out; a row group for each unit."""

    def __init__(self, path: str, target: Target) -> None:
        super().__init__(path, target)
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UserError(f"{path} is to be a Parquet file, which pyarrow writes: pip install pyarrow") from error

    def assemble(self, pieces: Sequence[Piece], result: Path) -> list[tuple[Path, Path]]:
        from pyarrow import parquet

        schema = schema_of(self.target, self.digest)
        with parquet.ParquetWriter(result, schema, compression="zstd") as file:
            for piece in pieces:
                table = rows_of(self.target.form, self.target.place, piece, loaded(piece), schema)
                if table.num_rows:
                    file.write_table(table, row_group_size=table.num_rows)
        synced(result)
        return [(result, self.path)]

    def digest_there(self) -> str | None:
        from pyarrow import parquet

        found = (parquet.read_metadata(self.path).metadata or {}).get(IDENTITY.encode())
        return None if found is None else found.decode()


def schema_of(target: Target, digest: str) -> pyarrow.Schema:
    import pyarrow as pa

    form = target.form
    if form.kind == "classes":
        answers = [("class", pa.string()), ("class_number", pa.from_numpy_dtype(np.dtype(form.dtype)))]
    elif form.kind == "embedding":
        answers = [("embedding", pa.list_(pa.from_numpy_dtype(np.dtype(form.dtype)), len(form.names)))]
    else:
        answers = [(name, pa.float32()) for name in columns_of(form)]
    bbox = pa.struct([(side, pa.float64()) for side in SIDES])
    place = [("id", pa.string()), ("row", pa.int32()), ("column", pa.int32())]
    words = {**tags_of(target, digest), "geo": json.dumps(_geo(target.place))}
    words |= {key: json.dumps(value, default=str) for key, value in target.attributes.items()}
    if form.kind == "embedding":
        words["SATDIFUSER_CHANNELS"] = json.dumps(form.names, ensure_ascii=False)
        if scales_of(form):
            words["SATDIFUSER_SCALES"] = json.dumps(scales_of(form))
    return pa.schema([*place, *answers, ("bbox", bbox), ("geometry", pa.binary())], metadata=words)


def columns_of(form: Form) -> list[str]:
    """
    >>> columns_of(Form("probabilities", "float32", ("sea", "land")))
    ['p_sea', 'p_land']
    """
    before = {"probabilities": "p_", "logits": "logit_"}.get(form.kind, "")
    return [f"{before}{name}" for name in bands_of(form)]


def rows_of(form: Form, place: Place, piece: Piece, array: Array, schema: pyarrow.Schema) -> pyarrow.Table:
    """The tiles of a unit that have data, row by row."""
    import pyarrow as pa

    nodata = nodata_of(form)
    there = ~np.isnan(array).all(0) if np.isnan(nodata) else ~(array == nodata).all(0)
    rows, columns = np.nonzero(there)
    values = array[:, rows, columns]
    rows, columns = rows + piece.rows.start, columns + piece.columns.start
    found: list[Any] = [[f"r{row}c{column}" for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]]
    found += [rows.astype(np.int32), columns.astype(np.int32)]
    if form.kind == "classes":
        found += [[form.names[number] for number in values[0].tolist()], values[0]]
    elif form.kind == "embedding":
        flat = pa.array(np.ascontiguousarray(values.T).reshape(-1))
        found.append(pa.FixedSizeListArray.from_arrays(flat, len(form.names)))
    else:
        scales = scales_of(form) or (1.0,) * len(values)
        found += [(line * scale).astype(np.float32) for line, scale in zip(values, scales, strict=True)]
    corners = corners_of(place, rows, columns)
    low, high = corners.min(1), corners.max(1)
    sides = [low[:, 0], low[:, 1], high[:, 0], high[:, 1]]
    found.append(pa.StructArray.from_arrays([pa.array(side) for side in sides], names=list(SIDES)))
    found.append(pa.array(polygons(corners), pa.binary()))
    return pa.Table.from_arrays(
        [pa.array(one) if not isinstance(one, pa.Array) else one for one in found], schema=schema
    )


def corners_of(place: Place, rows: Array, columns: Array) -> Array:
    """Of each tile its four corners, `[tiles, 4, 2]`, anticlockwise where north is up."""
    a, b, c, d, e, f = map(float, place.transform)
    across = columns[:, None] + np.array([0, 1, 1, 0])
    down = rows[:, None] + np.array([1, 1, 0, 0])
    return np.stack([a * across + b * down + c, d * across + e * down + f], -1)


def polygons(corners: Array) -> list[bytes]:
    """Well-known binary: little-endian, a polygon, of one ring, of five points."""
    kind = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))])
    found = np.zeros(len(corners), kind)
    found["order"], found["type"], found["rings"], found["points"] = 1, 3, 1, 5
    found["ring"] = np.concatenate([corners, corners[:, :1]], 1)
    return [one.tobytes() for one in found]


def _geo(place: Place) -> dict[str, Any]:
    """What GeoParquet says of its column of geometries."""
    crs = None
    if place.crs is not None:
        import pyproj

        crs = pyproj.CRS.from_wkt(place.crs.to_wkt()).to_json_dict()
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": crs,
        "bbox": list(place.bounds()),
        "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
    }
    return {"version": GEO, "primary_column": "geometry", "columns": {"geometry": column}}
