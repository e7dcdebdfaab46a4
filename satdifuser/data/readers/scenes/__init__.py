"""Whole scenes with polygons or points as labels: windows that are cut, and labels that are drawn, as they are read."""
