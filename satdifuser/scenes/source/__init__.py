"""Scenes of every kind as the bands of a sensor on one grid."""

from satdifuser.scenes.source.layouts import open_scene
from satdifuser.scenes.source.reading import reading_of, sensor_of

__all__ = ["open_scene", "reading_of", "sensor_of"]
