"""The manifest of many scenes: what is done, what failed and why, and where it lies on the ground."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satdifuser.data.splits.places import read_footprint
from satdifuser.engine.files import json_text, write_text
from satdifuser.errors import UserError
from satdifuser.scenes.many.work import Item

MANIFEST = "manifest.json"
FIELDS = ("name", "scene", "state", "out", "seconds", "pixels", "windows", "error")


@dataclass(frozen=True)
class Row:
    """A scene: `state` is done, failed or open."""

    name: str
    scene: str
    state: str
    out: str
    seconds: float
    pixels: int
    windows: int
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


def rows_of(items: Sequence[Item]) -> list[Row]:
    """One for each scene; a scene is done when all its parts are and its output is there."""
    scenes: dict[str, list[Item]] = {}
    for item in items:
        scenes.setdefault(item.found.name, []).append(item)
    return [_row(parts) for parts in scenes.values()]


def _row(parts: Sequence[Item]) -> Row:
    first, states = parts[0], [item.state for item in parts]
    error = next((str(state["error"]) for state in states if state is not None and "error" in state), None)
    done = all(states) and error is None and first.out.exists()
    sums = {name: sum(state.get(name, 0) for state in states if state) for name in ("seconds", "pixels", "windows")}
    state = "failed" if error is not None else "done" if done else "open"
    return Row(
        first.found.name,
        first.found.words,
        state,
        str(first.out),
        round(float(sums["seconds"]), 3),
        int(sums["pixels"]),
        int(sums["windows"]),
        error,
    )


def write_manifest(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> list[Path]:
    """The manifest as JSON and CSV, and as GeoJSON of the outputs that say where they lie."""
    counts = {state: sum(row.state == state for row in rows) for state in ("done", "failed", "open")}
    values = {**about, **counts, "scenes": [row.to_dict() for row in rows]}
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_dict() for row in rows)
    shapes = [
        {"type": "Feature", "geometry": footprint(Path(row.out)) if row.state == "done" else None}
        | {"properties": row.to_dict()}
        for row in rows
    ]
    collection = {"type": "FeatureCollection", "features": shapes}
    return [
        write_text(folder / MANIFEST, json_text(values, indent=2) + "\n"),
        write_text(folder / "manifest.csv", table.getvalue()),
        write_text(folder / "manifest.geojson", json_text(collection) + "\n"),
    ]


def footprint(out: Path) -> dict[str, Any] | None:
    """Where an output lies, as GeoJSON's polygon in degrees; None where it does not say so."""
    try:
        crs, corners = _corners(out)
    except (UserError, OSError, KeyError, ValueError, TypeError, LookupError):  # a picture, or what is damaged
        return None
    if crs is None:
        return None
    from rasterio.warp import transform

    x, y = transform(crs, "OGC:CRS84", [x for x, _ in corners], [y for _, y in corners])
    ring = [[round(a, 7), round(b, 7)] for a, b in zip(x, y, strict=True)]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def _corners(out: Path) -> tuple[Any, list[tuple[float, float]]]:
    from affine import Affine
    from rasterio.crs import CRS

    if out.suffix == ".parquet":
        import geopandas

        table = geopandas.read_parquet(out)
        left, low, right, top = table.total_bounds
        return table.crs, [(left, top), (right, top), (right, low), (left, low)]
    if out.suffix == ".zarr":
        import zarr

        group = zarr.open_group(out, mode="r")
        said: Any = dict(group["spatial_ref"].attrs)
        width, height = len(group["x"]), len(group["y"])  # type: ignore[arg-type]
        affine = Affine.from_gdal(*map(float, str(said["GeoTransform"]).split()))
        crs = CRS.from_wkt(said["crs_wkt"])
    else:
        place = read_footprint(out)
        return (None, []) if place is None else (place.crs, list(zip(place.x, place.y, strict=True)))
    a, b, c, d, e, f = tuple(affine)[:6]
    return crs, [(a * x + b * y + c, d * x + e * y + f) for x, y in ((0, 0), (width, 0), (width, height), (0, height))]
