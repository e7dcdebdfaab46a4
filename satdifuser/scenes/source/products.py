"""Folders as agencies give them: Sentinel-2's SAFE and Landsat's Collection 2, with the scale that they say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from satdifuser.data.bands import SENTINEL2
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Own
from satdifuser.data.sensors import LANDSAT5, LANDSAT7, LANDSAT8, LANDSAT9
from satdifuser.errors import UserError
from satdifuser.scenes.source.folder import rasters_in
from satdifuser.scenes.source.layer import Layer, Layout

SENTINEL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""In the order of `band_id` of a product's metadata."""
_BAND = re.compile(r"_(B\d[\dA])(?:_(\d\d)m)?$", re.IGNORECASE)
_BASELINE = re.compile(r"_N(\d{4})_R\d{3}_")
OFFSET_SINCE = 400  # processing baseline 04.00, of January 2022

_LANDSAT = re.compile(
    r"^L[COTEM]\d\d_L\w{3}_\d{6}_\d{8}_\d{8}_(\d\d)_\w[\dT]_(?:(SR|ST)_)?(B\d{1,2}(?:_VCID_\d)?)$", re.I
)
COLLECTION_2: Mapping[str, Own] = {"SR": (2.75e-05, -0.2), "ST": (0.00341802, 149.0)}
"""Reflectance of the surface, and its temperature in kelvin, as the handbook of Collection 2 has them."""
SATELLITES = {"04": LANDSAT5, "05": LANDSAT5, "07": LANDSAT7, "08": LANDSAT8, "09": LANDSAT9}
"""Of which sensor B4 is, by the number in the name."""


def is_safe(folder: Path) -> bool:
    """Whether it is a product of Sentinel-2 as ESA packs it."""
    return (folder / "GRANULE").is_dir()


def safe_layout(folder: Path) -> Layout:
    """The finest file of each band; numbers are (number + offset) / quantification, as the product's metadata say."""
    granules = sorted(p for p in (folder / "GRANULE").iterdir() if (p / "IMG_DATA").is_dir())
    if len(granules) != 1:
        listed = ", ".join(shown(p.name) for p in granules[:3]) or "none"
        raise UserError(f"{shown(folder)} has {len(granules)} granules with IMG_DATA ({listed}): one is read at a time")
    images = granules[0] / "IMG_DATA"
    files = [
        file for place in (images, *sorted(p for p in images.iterdir() if p.is_dir())) for file in rasters_in(place)
    ]
    found = [(file, match) for file in files if (match := _BAND.search(file.stem)) is not None]
    if not found:
        raise UserError(f"{shown(images)} has no bands of Sentinel-2 (*_B02*.jp2): the product is not whole")
    own, metadata, doubt = _safe_scale(folder)
    layers = []
    for file, match in found:
        name = match[1].upper()
        scale = own.get(name)
        gsd = float(match[2]) if match[2] else None
        layers.append(Layer(str(file), ((name,),), own=() if scale is None else (scale,), nodata=(0.0,), gsd=gsd))
    files_read = () if metadata is None else (str(metadata),)
    return Layout("SAFE", tuple(layers), metadata.name if metadata else "the product", doubt, SENTINEL2, files_read)


def _safe_scale(folder: Path) -> tuple[dict[str, Own], Path | None, str | None]:
    metadata = next(iter(sorted(folder.glob("MTD_MSIL*.xml"))), None)
    if metadata is None:
        baseline = _BASELINE.search(folder.name)
        if baseline is not None and int(baseline[1]) < OFFSET_SINCE:
            return dict.fromkeys(SENTINEL, (1e-4, 0.0)), None, None
        return (
            {},
            None,
            "has no MTD_MSIL2A.xml or MTD_MSIL1C.xml, which says whether its numbers have an offset of -1000",
        )
    text = metadata.read_text(encoding="utf-8", errors="replace")
    unit = re.search(r"<(?:BOA_)?QUANTIFICATION_VALUE\b[^>]*>\s*([\d.eE+]+)\s*<", text)
    if unit is None or not float(unit[1]) > 0:
        return (
            {},
            metadata,
            f"has no QUANTIFICATION_VALUE in {metadata.name}, so nobody knows what its numbers are worth",
        )
    offsets = {
        int(band): float(value)
        for band, value in re.findall(r"<(?:BOA|RADIO)_ADD_OFFSET\s+band_id=\"(\d+)\"[^>]*>\s*(-?[\d.]+)\s*</", text)
    }
    quantum = float(unit[1])
    return {name: (1 / quantum, offsets.get(n, 0.0) / quantum) for n, name in enumerate(SENTINEL)}, metadata, None


def landsat_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """The bands of a Landsat product by the names that USGS gives them."""
    return [(file, match) for file in rasters_in(folder) if (match := _LANDSAT.match(file.stem)) is not None]


def landsat_layout(folder: Path) -> Layout:
    """Bands of a Landsat product; numbers are reflectance or kelvin by its MTL file, or by what Collection 2 has."""
    files = landsat_files(folder)
    scenes = sorted({file.stem[: match.start(2 if match[2] else 3)] for file, match in files})
    if len(scenes) != 1:
        raise UserError(f"{shown(folder)} has bands of {len(scenes)} Landsat scenes: give each a folder")
    metadata = next((p for p in sorted(folder.glob("*_MTL.*")) if p.suffix.lower() in (".txt", ".json")), None)
    groups = {} if metadata is None else _mtl(metadata)
    layers, doubt = [], None
    for file, match in files:
        name = match[3].upper()
        own = _landsat_scale(groups, match[1], (match[2] or "").upper(), name)
        if own is None and not match[2] and metadata is None:
            doubt = "has no MTL file, which says what its numbers are worth"
        layers.append(Layer(str(file), ((name,),), own=() if own is None else (own,), nodata=(0.0,)))
    product = "Collection 2" if metadata is None else metadata.name
    sensor = SATELLITES.get(files[0][0].name[2:4])
    return Layout("Landsat", tuple(layers), product, doubt, sensor, () if metadata is None else (str(metadata),))


def _landsat_scale(groups: Mapping[str, Mapping[str, str]], collection: str, kind: str, name: str) -> Own | None:
    number = name.removeprefix("B")
    if kind == "SR":
        said = _pair(groups.get("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", {}), "REFLECTANCE", f"BAND_{number}")
        return said or (COLLECTION_2["SR"] if collection == "02" else None)
    if kind == "ST":
        said = _pair(groups.get("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", {}), "TEMPERATURE", f"BAND_ST_B{number}")
        return said or (COLLECTION_2["ST"] if collection == "02" else None)
    rescaling = groups.get("LEVEL1_RADIOMETRIC_RESCALING") or groups.get("RADIOMETRIC_RESCALING") or {}
    said, elevation = (
        _pair(rescaling, "REFLECTANCE", f"BAND_{number}"),
        _number(groups.get("IMAGE_ATTRIBUTES", {}), "SUN_ELEVATION"),
    )
    if said is None or elevation is None or said[0] is None or not 0 < elevation <= 90:
        return None  # of thermal bands there is only radiance
    sun = math.sin(math.radians(elevation))
    return said[0] / sun, said[1] / sun


def _pair(group: Mapping[str, str], kind: str, band: str) -> Own | None:
    scale, offset = _number(group, f"{kind}_MULT_{band}"), _number(group, f"{kind}_ADD_{band}")
    return None if scale is None or offset is None or not scale > 0 else (scale, offset)


def _number(group: Mapping[str, str], key: str) -> float | None:
    try:
        return float(group[key])
    except (KeyError, TypeError, ValueError):
        return None


def _mtl(path: Path) -> dict[str, dict[str, str]]:
    """The groups of a metadata file: TXT or JSON."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".json":
        try:
            whole: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{shown(path)} is damaged ({error}): download it again") from None
        inner = whole.get("LANDSAT_METADATA_FILE", whole) if isinstance(whole, dict) else {}
        return {str(name): group for name, group in inner.items() if isinstance(group, dict)}
    groups: dict[str, dict[str, str]] = {}
    within = ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            within = value
        elif key != "END_GROUP" and value:
            groups.setdefault(within, {})[key] = value.strip('"')
    return groups
