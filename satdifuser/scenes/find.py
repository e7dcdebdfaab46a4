"""Which scenes a user means: a file, a folder, a pattern, a list, a catalogue, each with a name for its outputs."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found
from satdifuser.scenes.source.folder import grouped, rasters_in
from satdifuser.scenes.source.products import is_safe, landsat_files
from satdifuser.scenes.source.raster import DRIVERS, is_remote, suffix_of
from satdifuser.scenes.source.stac import is_catalogue, is_item, items_in
from satdifuser.scenes.source.zarrs import is_zarr

METADATA = re.compile(r"^MTD_MSIL\w+\.xml$|_MTL\.(txt|json|xml)$", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")


def find_scenes(words: str | Sequence[str], bands: Any = None) -> list[Found]:
    """All scenes of these words, in order, each under a name of its own; no raster is opened for it.

    `bands` is what the user says of bands: a table of files makes a folder one scene.
    """
    asked = [words] if isinstance(words, str) else list(words)
    scenes = [scene for one in asked for scene in _of(one, isinstance(bands, Mapping))]
    if not scenes:
        raise UserError("there is no scene: give scene=, a path or a list of them")
    return _named_apart(scenes)


def _of(words: str, as_one: bool) -> list[Found]:
    path = Path(words).expanduser()
    if is_remote(words) and is_catalogue(words):
        raise UserError(f"{shown(words)} is a STAC item or a table elsewhere: download it, its assets may stay there")
    if is_remote(words) or is_zarr(words):
        return [Found(_name(words), words)]
    if is_catalogue(words) and not MAGIC.search(words):
        return [Found(_clean(name), item) for name, item in _items(words)]
    if path.is_file() and METADATA.search(path.name):  # of a product, which is the folder around it
        return [Found(_name(str(path.parent)), str(path.parent))]
    if path.is_dir():
        return [Found(_name(words), str(path))] if as_one else _folder(path)
    if path.exists():
        return [Found(_name(words), str(path))]
    if MAGIC.search(words):
        hits = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (patterns may begin anywhere)
        if not hits:
            raise UserError(f"no file is called {shown(words)}: give a pattern that some scene has")
        return [scene for hit in hits for scene in _of(hit, as_one)]
    raise UserError(f"{shown(words)} is not there: give the path of a scene")


def _folder(path: Path) -> list[Found]:
    """A scene of one file a band, or all scenes in the folder."""
    if is_safe(path) or landsat_files(path):
        return [Found(_name(str(path)), str(path))]
    items = [scene for file in sorted(path.glob("*.json")) if is_item(file) for scene in _of(str(file), False)]
    if items:  # they know of the rasters beside them
        return items
    if len(grouped(rasters_in(path))) == 1:
        return [Found(_name(str(path)), str(path))]
    inner = [
        Found(_name(str(p)), str(p)) for p in sorted(path.iterdir()) if p.is_dir() and (is_zarr(str(p)) or _is_one(p))
    ]
    scenes = [*(Found(_name(str(file)), str(file)) for file in rasters_in(path)), *inner]
    if not scenes:
        raise UserError(
            f"{shown(path)} has no scene: no rasters ({', '.join(DRIVERS)}), no Zarr, and no folder of one file a band"
        )
    return scenes


def _is_one(path: Path) -> bool:
    """Whether a folder is one scene: a product of Sentinel-2 or Landsat, or one file a band."""
    return is_safe(path) or bool(landsat_files(path)) or len(grouped(rasters_in(path))) == 1


def _items(words: str) -> list[tuple[str, str]]:
    path, _, name = words.partition("#")
    found = [(own, item) for own, item in items_in(Path(path).expanduser()) if not name or own == name]
    ids = [own for own, _ in found]
    twice = next((own for own in ids if ids.count(own) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None or not found:
        said = (
            f"several items {shown(twice)}" if twice is not None else f"no item {shown(name)}" if name else "no items"
        )
        raise UserError(f"{shown(path)} has {said}")
    return found


def _name(words: str) -> str:
    """What outputs are called."""
    bare = words.partition("?")[0] if is_remote(words) else words
    path = Path(bare.rstrip("/")).expanduser()
    last = path.name or path.resolve().name
    known = {*DRIVERS, ".safe", ".zarr", ".json"}
    stem = last[: -len(suffix_of(last))] if suffix_of(last) in known else last
    return _clean(stem)


def _clean(name: str) -> str:
    return re.sub(r"[^\w.()+=,@-]+", "_", name).strip("._") or "scene"


def _named_apart(scenes: Sequence[Found]) -> list[Found]:
    """Those of the same name get their folder's before it, or a number behind it."""
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for scene in scenes:
        counts[scene.name.lower()] = counts.get(scene.name.lower(), 0) + 1
    found = []
    for scene in scenes:
        name = scene.name
        if counts[name.lower()] > 1:
            above = _name(str(Path(scene.words.partition("#")[0]).parent))
            name = f"{above}_{name}"
        plain, number = name, 1
        while name.lower() in taken:  # some disks do not tell case apart
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        found.append(Found(name, scene.words))
    return found
