"""The one door to a scene: what its words are, which layout that has, and the scene of it."""

from __future__ import annotations

from pathlib import Path

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found, Reading, Scene
from satdifuser.scenes.source.folder import folder_layout, named_files
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.opened import FileScene
from satdifuser.scenes.source.raster import is_remote


def open_scene(found: Found, reading: Reading) -> Scene:
    """The scene of these words, open, with the needed bands where they belong."""
    return FileScene(found, reading, layout_of(found.words, reading))


def layout_of(words: str, reading: Reading) -> Layout:
    """Which rasters the scene has."""
    path = Path(words).expanduser()
    if isinstance(reading.bands, dict):
        return named_files(path, reading.bands, reading.sensor)
    if is_remote(words) or path.is_file():
        return Layout("file", (Layer(words, named=True),))
    if path.is_dir():
        return folder_layout(path)
    raise UserError(f"{shown(words)} is not there: give the path of a scene")
