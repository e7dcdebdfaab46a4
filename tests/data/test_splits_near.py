"""Distances between tiles, against shapely, pyproj's geodesics and slow loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer

from satdifuser.data.splits.near import TOUCH, Floats, Tiles, between, closest, near
from satdifuser.data.splits.places import RADIUS, Footprint, Places, read_footprint
from satdifuser.errors import UserError


def turned(rng: np.random.Generator, count: int, extent: float, sizes: tuple[float, float]) -> Floats:
    """Rectangles anywhere, of any size and turned in any way, `[count, 4, 2]`."""
    half = rng.uniform(*sizes, (count, 1, 2)) / 2
    corners = half * [[-1, 1], [1, 1], [1, -1], [-1, -1]]
    angle = rng.uniform(0, np.pi, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    return np.asarray(corners @ turn + rng.uniform(0, extent, (count, 1, 2)))


def flat(corners: Floats) -> Tiles:
    return Tiles(np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], -1), flat=True)


def places(boxes: list[Footprint]) -> Places:
    names = [str(number) for number in range(len(boxes))]
    return Places(names, dict(zip(names, boxes, strict=True)).get)


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_shapelys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = turned(rng, 400, 300, (1, 90)), turned(rng, 400, 300, (1, 90))
    wanted = shapely.distance(shapely.polygons(a), shapely.polygons(b))
    found, overlap = between(flat(a), flat(b))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert 20 < (wanted == 0).sum() < 380
    assert ((overlap > 0) == (shapely.area(shapely.intersection(shapely.polygons(a), shapely.polygons(b))) > 0)).all()


def test_overlap_is_how_far_one_must_move_to_be_free() -> None:
    box = np.array([[0.0, 4], [6, 4], [6, 0], [0, 0]])
    moved = [(5, 0), (0, -3), (6, 1), (-2, -2), (7, 0), (1, 1)]
    _, overlap = between(flat(np.stack([box] * 6)), flat(np.stack([box + np.array(step) for step in moved])))
    np.testing.assert_allclose(overlap, [1, 1, 0, 2, 0, 3], atol=1e-12)


def test_points_and_lines_are_tiles_too() -> None:
    point = np.zeros((1, 4, 2))
    box = np.array([[[3.0, 8], [9, 8], [9, 4], [3, 4]]])
    assert between(flat(point), flat(box))[0].tolist() == [5.0]
    assert between(flat(point), flat(point + np.array([3, 4])))[0].tolist() == [5.0]
    inside = between(flat(point + np.array([5, 5])), flat(box))
    assert inside[0].tolist() == [0.0]
    assert inside[1].tolist() == [1.0]
    line = np.array([[[0.0, 0], [2, 0], [2, 0], [0, 0]]])
    assert between(flat(line), flat(line + np.array([5, 0])))[0].tolist() == [3.0]


@pytest.mark.parametrize("apart", [0.0, 3.0, 40.0, 1e6])
@pytest.mark.parametrize("sizes", [(5, 20), (0.5, 200)])
def test_those_that_are_near_are_those_that_all_pairs_say(apart: float, sizes: tuple[float, float]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        a, b = turned(rng, 150, 2500, sizes), turned(rng, 60, 2500, sizes)
        b[0] = 400 * (b[0] - b[0].mean(0)) / np.ptp(b[0]) + b[0].mean(0)  # a large one among small ones
        shapes = shapely.polygons(a)[:, None], shapely.polygons(b)
        distance = shapely.distance(*shapes)
        found = near(flat(a), flat(b), apart)
        if apart:
            assert found.tolist() == (distance < apart).any(1).tolist()
        else:
            area = shapely.area(shapely.intersection(*shapes))
            assert found[(area > 4 * TOUCH * np.minimum.outer(flat(a).outer, flat(b).outer) ** 2).any(1)].all()
            assert (area[found] > 0).any(1).all()
        metres, i, j = closest(flat(a), flat(b))
        assert metres == pytest.approx(distance.min(), abs=1e-9)
        assert distance[i, j] == pytest.approx(metres, abs=1e-9)


def test_tiles_that_touch_are_not_near_and_those_that_overlap_by_more_are() -> None:
    grid = np.array([[[x, y + 1], [x + 1, y + 1], [x + 1, y], [x, y]] for x in range(9) for y in range(9)]) * 640.0
    middle = grid[[40]]
    assert not near(flat(np.delete(grid, 40, 0)), flat(middle), 0).any()
    assert near(flat(np.delete(grid, 40, 0)), flat(middle), 640).sum() == 8  # and not those at just 640 m
    step = 640 * TOUCH
    assert near(flat(grid[[41]] - [0, 2 * step]), flat(middle), 0).all()
    assert not near(flat(grid[[41]] - [0, step / 2]), flat(middle), 0).any()


# --- on the earth


@pytest.mark.parametrize("latitude", [0, 35, 62, -79.5, 89.7])
def test_distances_on_the_earth_are_geodesics_and_never_longer(latitude: float) -> None:
    """Points 20 m to 60 km apart in any direction, beside the poles and over the antimeridian too."""
    rng, geod = np.random.default_rng(int(abs(latitude))), Geod(ellps="WGS84")
    for longitude in (11.3, 179.99):
        metres = np.geomspace(20, 60_000, 200)
        x, y, _ = geod.fwd(np.full(200, longitude), np.full(200, latitude), rng.uniform(0, 360, 200), metres)
        start = places([Footprint.point(longitude, latitude)] * 200).tiles
        ends = places([Footprint.point(float(a), float(b)) for a, b in zip(x, y, strict=True)]).tiles
        found = between(start, ends)[0]
        np.testing.assert_allclose(found, metres, rtol=3e-5)
        assert (found <= metres * (1 + 1e-9)).all()


def densified(tile: Footprint, points: int = 60) -> Any:
    """The outline of a tile as lon and lat, straight in its own map."""
    place = np.arange(points) / points
    x, y = (
        np.concatenate([a + (b - a) * place for a, b in itertools.pairwise([*side, side[0]])])
        for side in (tile.x, tile.y)
    )
    return Transformer.from_crs(tile.crs, 4326, always_xy=True).transform(x, y)


def test_tiles_of_several_maps_are_as_far_as_the_nearest_points_of_their_outlines() -> None:
    rng, geod = np.random.default_rng(3), Geod(ellps="WGS84")
    for _ in range(12):
        x, y = rng.uniform(680e3, 700e3), rng.uniform(52e5, 53e5)
        first = Footprint.box(x, y, x + 2560, y + 2560, "EPSG:32632")
        to_next = Transformer.from_crs(32632, 32633, always_xy=True)
        x, y = to_next.transform(x + rng.choice([-1, 1]) * rng.uniform(4e3, 9e3), y + rng.uniform(-9e3, 9e3))
        second = Footprint.box(x, y, x + 5120, y + 2560, "EPSG:32633")
        found = places([first, second])
        assert not found.tiles.flat
        distance = between(found.tiles[[0]], found.tiles[[1]])[0][0]
        a, b = densified(first), densified(second)
        pairs = itertools.product(range(len(a[0])), range(len(b[0])))
        wanted = min(geod.inv(a[0][i], a[1][i], b[0][j], b[1][j])[2] for i, j in pairs)
        assert distance == pytest.approx(wanted, rel=2e-3, abs=1)


def test_metres_of_a_map_count_where_they_are_metres() -> None:
    def one(x: float, y: float, crs: str) -> Places:
        return places([Footprint.box(x, y, x + 1000, y + 1000, crs), Footprint.point(x + 3000, y, crs)])

    for crs, x, y in (("EPSG:32632", 5e5, 53e5), ("EPSG:25832", 7e5, 53e5), ("EPSG:3035", 43e5, 32e5)):
        found = one(x, y, crs)
        assert found.tiles.flat
        assert between(found.tiles[[0]], found.tiles[[1]])[0][0] == pytest.approx(2000, abs=1e-9)
    for crs, x, y in (
        ("EPSG:3857", 1e6, 8e6),
        ("EPSG:6933", 1e6, 6e6),
        ("EPSG:32632", 2e6, 53e5),
    ):  # and beyond its zone
        found = one(x, y, crs)
        assert not found.tiles.flat
        longitude, latitude = Transformer.from_crs(crs, 4326, always_xy=True).transform([x + 1000, x + 3000], [y, y])
        wanted = Geod(ellps="WGS84").inv(longitude[0], latitude[0], longitude[1], latitude[1])[2]
        assert abs(wanted - 2000) > 20
        assert between(found.tiles[[0]], found.tiles[[1]])[0][0] == pytest.approx(wanted, rel=1e-4)
    feet = places([Footprint.point(9e5, 2e5, "EPSG:2263"), Footprint.point(9e5, 2e5 + 3280.83333, "EPSG:2263")])
    assert feet.tiles.flat
    assert between(feet.tiles[[0]], feet.tiles[[1]])[0][0] == pytest.approx(1000, abs=1e-3)


def test_blocks_are_squares_of_that_side_anywhere() -> None:
    rng = np.random.default_rng(0)
    degrees = np.stack([rng.uniform(-180, 180, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))], 1)
    found = places([Footprint.point(x, y) for x, y in degrees.tolist()])
    blocks = found.blocks(800_000)
    in_one = {tuple(block): np.flatnonzero((blocks == block).all(1)) for block in np.unique(blocks, axis=0)}
    surface = 4 * np.pi * RADIUS**2 / 800_000**2
    assert 0.9 * surface < len(in_one) < 1.1 * surface
    counts = np.array([len(members) for members in in_one.values()])
    assert counts.std() < 1.3 * np.sqrt(counts.mean())  # no more than chance: they have one size
    for members in in_one.values():
        assert np.linalg.norm(np.ptp(found.tiles.centres[members], axis=0)) < 3 * 800_000
    utm = places([Footprint.box(x, 5e6, x + 10, 5e6 + 10, "EPSG:32632") for x in (500_000, 500_994, 500_996, 501_001)])
    assert utm.blocks(1000).tolist() == [[500, 5000], [500, 5000], [501, 5000], [501, 5000]]


def test_positions_that_cannot_be_are_errors_that_name_the_first() -> None:
    lost: dict[str, Footprint | None] = {"a": Footprint.point(0, 0), "b.tif": None, "c.tif": None}
    with pytest.raises(UserError, match=r"2 of 3 samples do not say where they lie, b\.tif first: .*georeferenced"):
        Places(list(lost), lost.get)
    for bad, said in (
        (Footprint.point(float("nan"), 0), r"1 samples lie nowhere \(NaN\), 0 first"),
        (Footprint.point(10, 95), "lie outside of their map"),
        (Footprint.box(-180, -60, 180, 60, "EPSG:4326"), "sample 0 is .* km across by its georeference"),
        (Footprint.point(10, 5, "EPSG:999999"), "sample 0 has coordinates that are not known"),
    ):
        with pytest.raises(UserError, match=said):
            places([bad])


def test_a_file_says_where_its_corners_are(tmp_path: Any) -> None:
    import rasterio
    from rasterio.transform import Affine, from_origin

    def write(name: str, **more: Any) -> Any:
        size: dict[str, Any] = {"width": 8, "height": 4, "count": 1, "dtype": "uint8", "driver": "GTiff"}
        with rasterio.open(tmp_path / name, "w", **size, **more) as file:
            file.write(np.ones((1, 4, 8), np.uint8))
        return tmp_path / name

    plain = read_footprint(write("a.tif", crs="EPSG:32632", transform=from_origin(5e5, 5e6, 10, 20)))
    assert plain == Footprint.box(5e5, 5e6 - 80, 5e5 + 80, 5e6, "EPSG:32632")
    assert plain is not None
    assert plain.part(4, 8, slice(1, 3), slice(2, 4)) == Footprint.box(500020, 5e6 - 60, 500040, 5e6 - 20, "EPSG:32632")
    turn = Affine.translation(5e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -10)
    rotated = read_footprint(write("b.tif", crs="EPSG:32632", transform=turn))
    assert rotated is not None
    assert list(zip(rotated.x, rotated.y, strict=True))[2] == pytest.approx(turn * (8, 4))
    assert read_footprint(write("c.tif")) is None
    (tmp_path / "d.tif").write_bytes(b"none")
    with pytest.raises(UserError, match=r"d\.tif cannot be read for where it lies"):
        read_footprint(tmp_path / "d.tif")
