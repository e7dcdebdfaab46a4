"""Sensors of published data sets: their bands in the order in which a reader gives them."""

from __future__ import annotations

from satdifuser.data.bands import SENTINEL2, Band, Sensor


def _sentinel2(name: str, *bands: str) -> Sensor:
    return Sensor(name, tuple(SENTINEL2.bands[place] for place in SENTINEL2.index(bands)))


SENTINEL2_NO_CIRRUS = _sentinel2("Sentinel-2 MSI without cirrus", *(name for name in SENTINEL2.names if name != "B10"))
"""The twelve bands of surface reflectance."""

SENTINEL2_LAND = _sentinel2(
    "Sentinel-2 MSI at 10 and 20 m", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"
)
"""Without the three bands of 60 m, which are for the atmosphere: So2Sat's."""

SENTINEL2_BRICK_KILN = _sentinel2(
    "Sentinel-2 MSI as m-brick-kiln", "B01", "B02", "B03", "B04", "B05", "B07", "B08", "B8A", "B11", "B12"
)

LANDSAT8 = Sensor(
    "Landsat-8 OLI",
    (
        Band("B2", "blue", 482.0, 30, 60),  # not B02: another band than Sentinel-2's of that number
        Band("B3", "green", 561.4, 30, 57),
        Band("B4", "red", 654.6, 30, 37),
        Band("B5", "nir", 864.7, 30, 28),
        Band("B6", "swir16", 1608.9, 30, 85),
        Band("B7", "swir22", 2200.7, 30, 187),
    ),
)
"""The six bands that most data sets have."""

AERIAL_RGB = Sensor(
    "aerial RGB",
    (Band("red", "red", 665.0, 0.1), Band("green", "green", 560.0, 0.1), Band("blue", "blue", 490.0, 0.1)),
    valid=(0.0, 1.0),
)
"""Pictures from an aeroplane, from 0 to 1; wavelengths as GEO-Bench states them, widths not known."""

NAIP = Sensor(
    "NAIP",
    (
        Band("blue", "blue", 465.0, 1, 60),
        Band("green", "green", 555.0, 1, 60),
        Band("nir", "nir", 845.0, 1, 74),
        Band("red", "red", 635.0, 1, 32),
    ),
    valid=(0.0, 1.0),
)
"""Aerial pictures of the United States in four bands, from 0 to 1; wavelengths of a Leica ADS100."""
