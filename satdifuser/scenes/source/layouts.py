"""The one door to a scene: what its words are, which layout that has, and the scene of it."""

from __future__ import annotations

from pathlib import Path

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found, Reading, Scene
from satdifuser.scenes.source.folder import folder_layout, named_files
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.opened import FileScene
from satdifuser.scenes.source.products import is_safe, landsat_files, landsat_layout, safe_layout
from satdifuser.scenes.source.raster import is_remote
from satdifuser.scenes.source.stac import is_catalogue, item_layout
from satdifuser.scenes.source.zarrs import is_zarr, zarr_layout


def open_scene(found: Found, reading: Reading) -> Scene:
    """The scene of these words, open, with the needed bands where they belong."""
    return FileScene(found, reading, layout_of(found.words, reading))


def layout_of(words: str, reading: Reading) -> Layout:
    """Which rasters the scene has."""
    path = Path(words).expanduser()
    if isinstance(reading.bands, dict):
        return named_files(path, reading.bands, reading.sensor)
    if is_zarr(words):
        return zarr_layout(words)
    if is_remote(words):
        return Layout("file", (Layer(words, named=True),))
    if is_catalogue(words):
        return item_layout(words)
    if path.is_file():
        return Layout("file", (Layer(words, named=True),))
    if not path.is_dir():
        raise UserError(f"{shown(words)} is not there: give the path of a scene")
    if is_safe(path):
        return safe_layout(path)
    return landsat_layout(path) if landsat_files(path) else folder_layout(path)
