"""Areas of pixels, against geodesics of pyproj."""

import numpy as np
import pytest

from satdifuser.data.files.opened import Place
from satdifuser.scenes.accuracy.ground import pixel_areas

CASES = {
    "degrees": ((0.01, 0, 12.0, 0, -0.01, 61.0), "EPSG:4326"),
    "degrees of a sphere": ((0.01, 0, 12.0, 0, -0.01, 61.0), "+proj=longlat +R=6371000"),
    "turned degrees": ((0.01, 0.003, 12.0, 0.002, -0.01, -41.0), "EPSG:4326"),
    "UTM": ((100, 0, 180000.0, 0, -100, 6700000.0), "EPSG:32633"),
    "Web Mercator": ((500, 0, 1200000.0, 0, -500, 8400000.0), "EPSG:3857"),
    "equal area": ((300, 20, 4300000.0, 20, -300, 3200000.0), "EPSG:3035"),
    "feet": ((300, 0, 2000000.0, 0, -300, 800000.0), "EPSG:2263"),
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_as_large_as_on_the_ellipsoid(name: str) -> None:
    import pyproj
    from rasterio.crs import CRS

    transform, crs = CASES[name]
    place = Place(tuple(map(float, transform)), CRS.from_user_input(crs), 40, 30)
    found = pixel_areas(place)
    assert found is not None
    rows, columns = slice(7, 29), slice(3, 30)
    areas = found(rows, columns)
    assert areas.shape == (22, 27)
    a, b, c, d, e, f = place.transform
    own = pyproj.CRS(crs)
    over = pyproj.Transformer.from_crs(own, own.geodetic_crs, always_xy=True)
    for row, column in ((7, 3), (20, 11), (28, 29)):
        side = np.linspace(0, 1, 21)[:-1]
        u = np.r_[side, np.ones(20), 1 - side, np.zeros(20)]
        v = np.r_[np.zeros(20), side, np.ones(20), 1 - side]
        x, y = column + u, row + v
        area, _ = own.get_geod().polygon_area_perimeter(*over.transform(a * x + b * y + c, d * x + e * y + f))
        assert areas[row - 7, column - 3] == pytest.approx(abs(area), rel=2e-5)


def test_all_of_the_earth() -> None:
    from rasterio.crs import CRS

    place = Place((1.0, 0, -180.0, 0, -1.0, 90.0), CRS.from_epsg(4326), 180, 360)
    found = pixel_areas(place)
    assert found is not None
    assert found(slice(0, 180), slice(0, 360)).sum() == pytest.approx(5.10065622e14, rel=1e-8)


def test_without_a_reference_system_there_is_no_ground() -> None:
    assert pixel_areas(Place((1.0, 0, 0, 0, 1.0, 0), None, 2, 2)) is None
