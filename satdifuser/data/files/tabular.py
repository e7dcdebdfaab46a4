"""Tables as columns of cells: CSV, Parquet, GeoJSON; with where each row lies, if the table says it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from satdifuser.data.files.names import shown
from satdifuser.data.splits.places import Footprint
from satdifuser.errors import UserError

DELIMITED, PARQUET, GEOJSON = (".csv", ".tsv", ".txt"), (".parquet", ".pq", ".geoparquet"), (".geojson", ".json")
DELIMITERS = (",", ";", "\t", "|")
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DEGREES = "EPSG:4326"


class Columns(NamedTuple):
    cells: dict[str, list[Any]]
    places: list[Footprint | None]
    """Where each row lies; empty where the table does not say it."""
    decimal_comma: bool
    """Whether 1,5 can be a number."""


def read_columns(path: Path, name: str) -> Columns:
    """All of a table; `name` is the setting that names it, for errors."""
    if not path.is_file():
        raise UserError(f"{name} {shown(path)} is no file: give the path of a CSV, Parquet or GeoJSON table")
    ending = path.suffix.lower()
    try:
        if ending in DELIMITED:
            return _delimited(path)
        if ending in PARQUET:
            return _parquet(path)
        if ending in GEOJSON:
            return _geojson(path)
    except UserError:
        raise
    except Exception as error:  # damaged files make their libraries raise all kinds
        raise UserError(
            f"{name} {shown(path)} cannot be read ({shown(' '.join(str(error).split()))}): mend it"
        ) from error
    known = ", ".join((*DELIMITED, *PARQUET, *GEOJSON))
    raise UserError(f"{name} {shown(path)} is a table of no kind that is read ({known}): save it as one of them")


def rows_of(path: Path) -> tuple[list[list[str]], str]:
    """The rows of a delimited file, without empty ones, and its delimiter."""
    raw = path.read_bytes()
    try:
        text = raw.decode(MARKS.get(raw[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    ways = {mark: _parsed(text, mark) for mark in DELIMITERS}
    widths = {mark: {len(row) for row in rows[:50]} for mark, rows in ways.items()}
    even = [mark for mark in DELIMITERS if len(widths[mark]) == 1 and max(widths[mark]) > 1]
    ragged = [mark for mark in DELIMITERS if ways[mark] and len(ways[mark][0]) > 1]
    mark = max(even or ragged or [","], key=lambda mark: len(ways[mark][0]) if ways[mark] else 0)
    return ways[mark], mark


def _parsed(text: str, mark: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def _delimited(path: Path) -> Columns:
    rows, mark = rows_of(path)
    if not rows:
        raise UserError(f"{shown(path)} is empty: its first line must name the columns")
    names = [cell or f"column {number}" for number, cell in enumerate(rows[0], 1)]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise UserError(f"{shown(path)} has several columns {shown(twice[0])}: give each a name of its own")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise UserError(
                f"{shown(path)} has {len(row)} cells in row {number} and {len(names)} columns (delimiter"
                f" {'tab' if mark == chr(9) else mark}): put quotes around cells that hold it"
            )
    cells = {one: [row[place] or None for row in rows[1:]] for place, one in enumerate(names)}
    return Columns(cells, [], mark == ";")


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{shown(path)} is Parquet, and pyarrow is not installed: pip install 'satdifuser[data]', or save it as CSV"
        ) from error
    table = parquet.read_table(path)
    cells = {name: table.column(name).to_pylist() for name in table.column_names}
    about = json.loads((table.schema.metadata or {}).get(b"geo", b"{}"))
    main = about.get("primary_column")
    if main not in cells:
        return Columns(cells, [], False)
    import shapely

    crs = about["columns"][main].get("crs", DEGREES)
    crs = json.dumps(crs) if isinstance(crs, Mapping) else crs or DEGREES
    shapes = [None if cell is None else shapely.from_wkb(cell) for cell in cells.pop(main)]
    return Columns(cells, [None if shape is None else _lies(shape.__geo_interface__, crs) for shape in shapes], False)


def _geojson(path: Path) -> Columns:
    found = json.loads(path.read_text("utf-8-sig"))
    crs = DEGREES
    if isinstance(found, Mapping):
        if not isinstance(found.get("features"), list):
            raise UserError(f"{shown(path)} is JSON, but no table: it must be a FeatureCollection or a list of records")
        crs = _crs_of(found.get("crs"), path)
        found = found["features"]
    records, places = [], list[Footprint | None]()
    for entry in found:
        own = entry.get("properties", entry) or {}
        if "properties" in entry and "id" in entry and "id" not in own:
            own = {"id": entry["id"], **own}
        records.append(own)
        places.append(_lies(entry["geometry"], crs) if entry.get("geometry") else None)
    names = list(dict.fromkeys(name for record in records for name in record))
    cells = {str(name): [record.get(name) for record in records] for name in names}
    return Columns(cells, places if any(place is not None for place in places) else [], False)


def _crs_of(member: Any, path: Path) -> str:
    """GeoJSON is in degrees, unless an older one says otherwise."""
    if member is None:
        return DEGREES
    try:
        name = str(member["properties"]["name"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{shown(path)} has a crs without a name: remove it (degrees), or name it as EPSG:32632"
        ) from error
    return DEGREES if name.endswith("CRS84") else name.replace("urn:ogc:def:crs:EPSG::", "EPSG:")


def _lies(geometry: Mapping[str, Any], crs: str) -> Footprint | None:
    """The corners of a four-sided polygon, else the bounds of whatever it is."""
    points = list(_points(geometry))
    if not points:
        return None
    ring = points[:4] if geometry["type"] == "Polygon" and len(points) == 5 and points[0] == points[4] else []
    if ring and _convex(ring):
        return Footprint(tuple(x for x, _ in ring), tuple(y for _, y in ring), crs)
    x, y = zip(*points, strict=True)
    return Footprint.box(min(x), min(y), max(x), max(y), crs)


def _points(geometry: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    todo: list[Any] = [geometry.get("coordinates", ())]
    todo += [inner.get("coordinates", ()) for inner in geometry.get("geometries", ())]
    for part in todo:
        yield from _flat(part)


def _flat(part: Sequence[Any]) -> Iterator[tuple[float, float]]:
    if len(part) and isinstance(part[0], int | float):
        yield float(part[0]), float(part[1])
    else:
        for inner in part:
            yield from _flat(inner)


def _convex(ring: Sequence[tuple[float, float]]) -> bool:
    turns = []
    for place in range(4):
        (ax, ay), (bx, by), (cx, cy) = (ring[(place + step) % 4] for step in range(3))
        turns.append((bx - ax) * (cy - by) - (by - ay) * (cx - bx))
    return all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns)
