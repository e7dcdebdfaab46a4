"""Scenes as they lie on disk: files of any kind as the bands of a sensor on one grid."""
