"""Sensors: their bands, in the order in which most files have them. A data set of other bands names those it has.

`data.sensor=SENTINEL2:B04/B03/B02` is three of them in that order, `SENTINEL2+SENTINEL1` is radar beside light. Centres
and widths are the agencies' own, in nm.
"""

from __future__ import annotations

from satdifuser.data.bands import SENTINEL2, SENTINEL2_RGB, Band, Sensor, embedding

SENTINEL2_NO_CIRRUS = Sensor(
    "Sentinel-2 MSI without cirrus", tuple(band for band in SENTINEL2.bands if band.name != "B10")
)
"""The twelve bands of surface reflectance."""

SENTINEL2_LAND = Sensor("Sentinel-2 MSI at 10 and 20 m", tuple(band for band in SENTINEL2.bands if band.gsd < 60))
"""The ten bands without those of 60 m, which are for the atmosphere: BigEarthNet's, PASTIS's and So2Sat's."""

SENTINEL2_B8A_LAST = Sensor(
    "Sentinel-2 MSI, B8A last",
    (*(band for band in SENTINEL2.bands if band.name != "B8A"), SENTINEL2.bands[SENTINEL2.names.index("B8A")]),
)
"""As EuroSAT's files of 13 bands have them."""

C_BAND = 55_465_763.0  # nm, of 5.405 GHz
SENTINEL1 = Sensor(
    "Sentinel-1 SAR",
    (Band("VV", "vv", C_BAND, 10, unit="dB"), Band("VH", "vh", C_BAND, 10, unit="dB")),
)
"""Backscatter in dB; 0 is no data."""

SENTINEL1_BOTH = Sensor(
    "Sentinel-1 SAR, ascending and descending",
    tuple(
        Band(f"{name}_{way}", f"{name.lower()}_{way}", C_BAND, 10, unit="dB")
        for way in ("asc", "desc")
        for name in ("VV", "VH")
    ),
)
"""Backscatter of both ways that the satellite passes, in dB; 0 is no data."""

LANDSAT5 = Sensor(
    "Landsat-5 TM",
    (
        Band("B1", "blue", 485.0, 30, 70),  # not B01: another band than Sentinel-2's of that number
        Band("B2", "green", 560.0, 30, 80),
        Band("B3", "red", 660.0, 30, 60),
        Band("B4", "nir", 830.0, 30, 140),
        Band("B5", "swir16", 1650.0, 30, 200),
        Band("B6", "lwir", 11_450.0, 120, 2100, "kelvin"),
        Band("B7", "swir22", 2215.0, 30, 270),
    ),
)

LANDSAT7 = Sensor(
    "Landsat-7 ETM+",
    (
        Band("B1", "blue", 485.0, 30, 70),
        Band("B2", "green", 560.0, 30, 80),
        Band("B3", "red", 660.0, 30, 60),
        Band("B4", "nir", 835.0, 30, 130),
        Band("B5", "swir16", 1650.0, 30, 200),
        Band("B6", "lwir", 11_450.0, 60, 2100, "kelvin"),
        Band("B7", "swir22", 2220.0, 30, 260),
        Band("B8", "pan", 710.0, 15, 380),
    ),
)

_OLI = (
    Band("B1", "coastal", 443.0, 30, 16),
    Band("B2", "blue", 482.0, 30, 60),
    Band("B3", "green", 561.4, 30, 57),
    Band("B4", "red", 654.6, 30, 37),
    Band("B5", "nir", 864.7, 30, 28),
    Band("B6", "swir16", 1608.9, 30, 85),
    Band("B7", "swir22", 2200.7, 30, 187),
    Band("B8", "pan", 589.5, 15, 172),
    Band("B9", "cirrus", 1373.4, 30, 20),
    Band("B10", "lwir11", 10_895.0, 100, 590, "kelvin"),
    Band("B11", "lwir12", 12_005.0, 100, 1010, "kelvin"),
)
LANDSAT8 = Sensor("Landsat-8 OLI", _OLI)
LANDSAT9 = Sensor("Landsat-9 OLI-2", _OLI)
LANDSAT8_SR = Sensor("Landsat-8 OLI surface reflectance", _OLI[:7])
"""The seven bands of surface reflectance."""

HLS = Sensor(
    "Harmonized Landsat Sentinel-2",
    tuple(
        Band(band.name, band.common, band.wavelength, 30, band.bandwidth)
        for band in SENTINEL2
        if band.name in ("B02", "B03", "B04", "B8A", "B11", "B12")
    ),
)
"""The six bands that both have, by the names of Sentinel-2's, which Landsat's are adjusted to."""

PLANETSCOPE = Sensor(
    "PlanetScope",
    (
        Band("blue", "blue", 485.0, 3, 60),
        Band("green", "green", 545.0, 3, 90),
        Band("red", "red", 630.0, 3, 80),
        Band("nir", "nir", 820.0, 3, 80),
    ),
)

SUPERDOVE = Sensor(
    "PlanetScope SuperDove",
    (
        Band("coastal", "coastal", 443.0, 3, 20),
        Band("blue", "blue", 490.0, 3, 50),
        Band("green1", "green1", 531.0, 3, 36),
        Band("green", "green", 565.0, 3, 36),
        Band("yellow", "yellow", 610.0, 3, 20),
        Band("red", "red", 665.0, 3, 31),
        Band("rededge", "rededge1", 705.0, 3, 15),
        Band("nir", "nir", 865.0, 3, 40),
    ),
)

AERIAL_RGB = Sensor(
    "aerial RGB",
    (
        Band("red", "red", 665.0, 0.1, unit="colour"),
        Band("green", "green", 560.0, 0.1, unit="colour"),
        Band("blue", "blue", 490.0, 0.1, unit="colour"),
    ),
)
"""Pictures from an aeroplane or a drone, from 0 to 1; wavelengths as GEO-Bench states them, widths not known."""

AERIAL = AERIAL_RGB + Sensor("near infrared", (Band("nir", "nir", 830.0, 0.1, unit="colour"),))
"""The same with near infrared, as most cameras of surveys have it."""

NAIP = Sensor(
    "NAIP",
    (
        Band("red", "red", 635.0, 1, 32, "colour"),
        Band("green", "green", 555.0, 1, 60, "colour"),
        Band("blue", "blue", 465.0, 1, 60, "colour"),
        Band("nir", "nir", 845.0, 1, 74, "colour"),
    ),
)
"""Aerial pictures of the United States in four bands, from 0 to 1; wavelengths of a Leica ADS100."""

RADAR_PICTURE = Sensor(
    "radar as pictures",
    (
        Band("VV", "vv", C_BAND, 10, unit="colour"),
        Band("VH", "vh", C_BAND, 10, unit="colour"),
        Band("amplitude", "amplitude", C_BAND, 10, unit="colour"),
    ),
)
"""Radar that was made into pictures, from 0 to 1: bright is strong, and how many dB it is, is lost."""

INFRARED_PICTURE = Sensor("thermal infrared as pictures", (Band("lwir", "lwir", 10_300.0, 4000, unit="colour"),))
"""A band of a weather satellite that was made into pictures, from 0 to 1; how many kelvin it is, is lost."""

CAPELLA = Sensor(
    "Capella SAR (X band)",
    tuple(Band(name, name.lower(), 31_228_381.0, 0.5, unit="dB") for name in ("HH", "HV", "VH", "VV")),
)
"""Four polarisations at 9.6 GHz, in dB; 0 is no data."""

WORLDVIEW = Sensor(
    "WorldView-2 and -3",
    (
        Band("coastal", "coastal", 425.0, 1.24, 50, "colour"),
        Band("blue", "blue", 480.0, 1.24, 60, "colour"),
        Band("green", "green", 545.0, 1.24, 70, "colour"),
        Band("yellow", "yellow", 605.0, 1.24, 40, "colour"),
        Band("red", "red", 660.0, 1.24, 60, "colour"),
        Band("rededge", "rededge1", 725.0, 1.24, 40, "colour"),
        Band("nir1", "nir", 832.5, 1.24, 125, "colour"),
        Band("nir2", "nir09", 950.0, 1.24, 180, "colour"),
        Band("pan", "pan", 625.0, 0.31, 350, "colour"),
    ),
)
"""Numbers of 11 bits that are no reflectance, from 0 to 1."""

HEIGHT = Sensor("height", (Band("height", "height", 0.0, 1, unit="metres"),))
"""Height or elevation beside light or radar; it has no wavelength."""

EMBEDDING = embedding(64)
"""Vectors of 64 numbers, as AlphaEarth's; `EMBEDDING:128` has 128."""

__all__ = [
    "AERIAL",
    "AERIAL_RGB",
    "CAPELLA",
    "EMBEDDING",
    "HEIGHT",
    "HLS",
    "INFRARED_PICTURE",
    "LANDSAT5",
    "LANDSAT7",
    "LANDSAT8",
    "LANDSAT8_SR",
    "LANDSAT9",
    "NAIP",
    "PLANETSCOPE",
    "RADAR_PICTURE",
    "SENTINEL1",
    "SENTINEL1_BOTH",
    "SENTINEL2",
    "SENTINEL2_B8A_LAST",
    "SENTINEL2_LAND",
    "SENTINEL2_NO_CIRRUS",
    "SENTINEL2_RGB",
    "SUPERDOVE",
    "WORLDVIEW",
]
