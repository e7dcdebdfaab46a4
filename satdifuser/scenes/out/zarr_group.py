"""A Zarr group that xarray reads: one array of bands, x, y, and the reference system in the words of CF and GeoZarr."""

from __future__ import annotations

import base64
import json
import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.scenes.out.base import Array, Form
from satdifuser.scenes.out.cog import tags_of
from satdifuser.scenes.out.forms import bands_of, nodata_of, scales_of
from satdifuser.scenes.out.partial import IDENTITY, Piece
from satdifuser.scenes.out.raw import Raw, part

CHUNK_BYTES = 2 * 2**20
NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class ZarrGroup(Raw):
    """Version 3; the array is `embedding` or `map`, `[band, y, x]`; chunks have all bands."""

    def assemble(self, pieces: Sequence[Piece], result: Path) -> list[tuple[Path, Path]]:
        import zarr
        from zarr.codecs import ZstdCodec

        form, place = self.target.form, self.target.place
        count = len(bands_of(form))
        attributes = {**tags_of(self.target, self.digest), **json.loads(json.dumps(dict(self.target.attributes)))}
        attributes.pop("AREA_OR_POINT")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that consolidated metadata are not part of the specification yet
            root = zarr.create_group(str(result), zarr_format=3, attributes={"Conventions": "CF-1.11", **attributes})
            for name, line, said in coordinates(place, count):
                own = root.create_array(
                    name,
                    shape=line.shape,
                    dtype=line.dtype,
                    dimension_names=[name] if line.ndim else [],
                    attributes=said,
                )
                own[...] = line
            if form.kind == "embedding" and scales_of(form):
                scales = np.asarray(scales_of(form), np.float64)
                own = root.create_array("scale", shape=scales.shape, dtype=scales.dtype, dimension_names=["band"])
                own[...] = scales
            chunk = chunk_of(count, np.dtype(form.dtype).itemsize, place.height, place.width)
            array = root.create_array(
                "embedding" if form.kind == "embedding" else "map",
                shape=(count, place.height, place.width),
                chunks=(count, *chunk),
                dtype=form.dtype,
                fill_value=nodata_of(form),
                compressors=ZstdCodec(level=3),
                dimension_names=["band", "y", "x"],
                attributes=words_of(form, place),
            )
            for top in range(0, place.height, chunk[0]):
                rows = slice(top, min(top + chunk[0], place.height))
                near = [piece for piece in pieces if piece.rows.start < rows.stop and piece.rows.stop > rows.start]
                for left in range(0, place.width, chunk[1]):
                    columns = slice(left, min(left + chunk[1], place.width))
                    array[:, rows, columns] = part(near, rows, columns)
            zarr.consolidate_metadata(str(result), zarr_format=3)
        return [(result, self.path)]

    def digest_there(self) -> str | None:
        found: str | None = json.loads((self.path / "zarr.json").read_text())["attributes"].get(IDENTITY)
        return found


def chunk_of(bands: int, itemsize: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a chunk: a square of a power of two with all bands, of 2 MB at most.

    >>> chunk_of(1, 1, 5000, 5000), chunk_of(1280, 2, 500, 20)
    ((512, 512), (16, 16))
    """
    side = 512
    while side > 16 and side * side * bands * itemsize > CHUNK_BYTES:
        side //= 2
    return min(side, height), min(side, width)


def coordinates(place: Place, count: int) -> list[tuple[str, Array, dict[str, Any]]]:
    """Numbers of bands, middles of pixels where rows and columns run along x and y, and the reference system."""
    found: list[tuple[str, Array, dict[str, Any]]] = [("band", np.arange(1, count + 1), {})]
    a, b, c, d, e, f = map(float, place.transform)
    if (a, b, c, d, e, f) == NOWHERE and place.crs is None:
        return found
    if b == 0 and d == 0:
        across, down = _axes_words(place.crs)
        found.append(("x", c + a * (np.arange(place.width) + 0.5), {"axis": "X", **across}))
        found.append(("y", f + e * (np.arange(place.height) + 0.5), {"axis": "Y", **down}))
    said: dict[str, Any] = {"GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}
    if place.crs is not None:
        said = {"crs_wkt": place.crs.to_wkt(), "spatial_ref": place.crs.to_wkt(), **said}
    return [*found, ("spatial_ref", np.zeros((), np.int64), said)]


def words_of(form: Form, place: Place) -> dict[str, Any]:
    """CF's words for what the array holds."""
    nodata, names = nodata_of(form), list(bands_of(form))
    said: dict[str, Any] = {"long_name": names if len(names) > 1 else names[0]}
    packed = base64.standard_b64encode(struct.pack("<d", nodata)).decode()  # as xarray has it in version 3
    said["_FillValue"] = packed if np.dtype(form.dtype).kind == "f" else int(nodata)
    if form.kind == "classes":
        said["flag_values"] = list(range(len(form.names)))
        said["flag_meanings"] = " ".join(re.sub(r"\s+", "_", name) for name in form.names)
        said["flag_colors"] = " ".join(form.colours)
    scales = scales_of(form)
    if form.kind == "embedding" and scales:
        said["scales"] = list(scales)
    elif scales:
        said["scale_factor"], said["add_offset"] = scales[0], 0.0
    if tuple(map(float, place.transform)) != NOWHERE or place.crs is not None:
        said["grid_mapping"] = said["coordinates"] = "spatial_ref"  # so that xarray keeps it beside the array
    return said


def _axes_words(crs: Any) -> tuple[dict[str, str], dict[str, str]]:
    if crs is None:
        return {}, {}
    if crs.is_geographic:
        return (
            {"standard_name": "longitude", "units": "degrees_east"},
            {"standard_name": "latitude", "units": "degrees_north"},
        )
    unit = {"units": "m"} if str(crs.linear_units).lower() in ("metre", "meter", "m") else {}
    return (
        {"standard_name": "projection_x_coordinate", **unit},
        {"standard_name": "projection_y_coordinate", **unit},
    )
