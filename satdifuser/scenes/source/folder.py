"""A folder of one file a band: which band each has, by its name or as the user says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from satdifuser.data.bands import Sensor
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError, nearest
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.names import band_of
from satdifuser.scenes.source.raster import DRIVERS

PICTURES = (".png", ".jpg", ".jpeg")
BANDS = re.compile(
    r"(?:sr_|st_|toa_)?(?:b(?:and)?_?\d{1,2}a?|red_?edge_?\d*|nir_?0?[89]?|swir_?(?:16|22|1|2)?|lwir_?1?[12]?|red|green"
    r"|blue|coastal|cirrus|pan|vv|vh|hh|hv|yellow)",
    re.IGNORECASE,
)
"""What of a file's name says which band it is."""
_PART = re.compile(rf"(?:^|(?<=[^A-Za-z0-9]))(?:{BANDS.pattern})(?=$|[^A-Za-z0-9])", re.IGNORECASE)
_SIZE = re.compile(r"(?:^|(?<=[^A-Za-z0-9]))\d{1,3}m(?=$|[^A-Za-z0-9])", re.IGNORECASE)


def rasters_in(folder: Path) -> list[Path]:
    """The files of a folder that could be bands, by their names."""
    kinds = [suffix for suffix in DRIVERS if suffix != ".vrt"]
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in kinds and p.is_file() and p.name[0] != ".")
    return [p for p in found if p.suffix.lower() not in PICTURES] or found  # those beside rasters are previews


def rest_of(stem: str) -> str | None:
    """A name without the band in it, which the other bands of its scene have too; None where it names none.

    >>> rest_of("T32_20200101_B04_10m"), rest_of("T32_20200101_B8A_20m"), rest_of("scene_1"), rest_of("red")
    ('t32_20200101', 't32_20200101', None, '')
    """
    found = list(_PART.finditer(stem))
    if not found:
        return None
    last = found[-1]
    left = stem[: last.start()] + stem[last.end() :]
    return re.sub(r"[^a-z0-9]+", "_", _SIZE.sub("", left).lower()).strip("_")


def grouped(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files that are bands of one scene, by what their names have in common."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        rest = rest_of(file.stem)
        if rest is not None:
            groups.setdefault(rest, []).append(file)
    return {rest: files for rest, files in groups.items() if len(files) > 1}


def folder_layout(folder: Path) -> Layout:
    """All rasters of a folder, each with what its name says; those that name no band are left out if others do."""
    files = rasters_in(folder)
    if not files:
        raise UserError(f"{shown(folder)} has no rasters: a scene's folder has one file a band ({', '.join(DRIVERS)})")
    groups = grouped(files)
    if len(groups) > 1:
        raise UserError(
            f"{shown(folder)} has files of {len(groups)} scenes ({', '.join(map(shown, list(groups)[:4]))}): give each"
            " a folder, or name the files with reading.bands={B04: red.tif, ...}"
        )
    files = next(iter(groups.values()), files)
    return Layout("folder", tuple(Layer(str(file), stem=file.stem) for file in files))


def named_files(folder: Path, bands: Mapping[str, str], sensor: Sensor) -> Layout:
    """The files that the user names for bands, below the folder; `red.tif:2` is its second band."""
    layers: dict[str, dict[int, str]] = {}
    for name, words in bands.items():
        band = band_of(name, sensor)
        file, _, number = words.rpartition(":") if re.search(r":\d+$", words) else (words, "", "1")
        if folder.is_file() and not file:  # `:2` of the scene itself
            file = folder.name
        taken = layers.setdefault(file, {})
        if int(number) < 1 or int(number) - 1 in taken:
            raise UserError(f"reading.bands has {words} twice, or a band before the first: bands are counted from 1")
        taken[int(number) - 1] = band.name
    root = folder.parent if folder.is_file() else folder
    lost = [file for file in layers if not (root / file).is_file()]
    if lost:
        there = [path.name for path in rasters_in(root)] if root.is_dir() else []
        raise UserError(f"{shown(root / lost[0])} is not there, which reading.bands names{nearest(lost[0], there)}")
    return Layout("named files", tuple(_named(root / file, names) for file, names in layers.items()))


def _named(path: Path, names: Mapping[int, str]) -> Layer:
    words = tuple((names[n],) if n in names else () for n in range(max(names) + 1))
    return Layer(str(path), names=words, named=True)
