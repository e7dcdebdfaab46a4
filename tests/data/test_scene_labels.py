"""Labels that people draw, as masks and as samples: what is in which pixel, and what is said of what is in none."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine

from satdifuser.data.files.tree import warn_once
from satdifuser.errors import UserError
from satdifuser.scenes.vector import read_objects
from tests.data.scene_labels import LEFT, PIXEL, TOP, TURNED, UTM, drawn, ground, opened, scene


@pytest.fixture(autouse=True)
def _said_again() -> None:
    warn_once.cache_clear()


def blobs(count: int, height: int = 64, width: int = 96) -> list[Any]:
    """Polygons of five corners or so, some with a hole, on and over the edge of a scene."""
    rng = np.random.default_rng()
    found = []
    for _ in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        radius = rng.uniform(20, 150, 6)
        x, y = ground(rng.uniform(-4, height + 4), rng.uniform(-4, width + 4))
        outer = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        shape = shapely.make_valid(shapely.Polygon(outer))
        found.append(shape.difference(shapely.Point(x + 30, y).buffer(20)))
    return [shape for shape in found if shape.geom_type == "Polygon"]


def slow_mask(shapes: list[Any], classes: list[int], transform: Affine, rows: range, columns: range) -> Any:
    """Each pixel's middle against each polygon; 255 where there is none, or two classes."""
    found = np.full((len(rows), len(columns)), 255)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            middle = shapely.Point(transform @ (column + 0.5, row + 0.5))
            own = {number for shape, number in zip(shapes, classes, strict=True) if shape.contains(middle)}
            found[i, j] = own.pop() if len(own) == 1 else 255
    return found


@pytest.mark.parametrize("transform", [Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), TURNED])
def test_a_mask_is_the_class_whose_polygon_has_the_middle_of_the_pixel(tmp_path: Path, transform: Affine) -> None:
    scene(tmp_path / "scene.tif", transform=transform)
    shapes = blobs(14)
    classes = np.random.default_rng().integers(0, 2, len(shapes)).tolist()
    drawn(tmp_path / "labels.gpkg", shapes, [("wood", "lake")[number] for number in classes])
    data = opened(tmp_path, classes=["wood", "lake"])
    assert len(data) > 3
    for index, name in enumerate(data.names):
        spot = data.spots[name]
        rows, columns = range(spot.row, spot.row + 16), range(spot.column, spot.column + 16)
        want = slow_mask(shapes, classes, transform, rows, columns)
        np.testing.assert_array_equal(data[index]["mask"].numpy(), want)
        np.testing.assert_array_equal(data.answer(name).numpy(), want)


def test_every_labelled_pixel_is_in_a_window_and_the_image_is_that_of_the_window(tmp_path: Path) -> None:
    numbers = scene(tmp_path / "scene.tif", 50, 70)
    whole = shapely.box(*ground(50, 0), *ground(0, 70))
    drawn(tmp_path / "labels.gpkg", [whole], ["all"])
    data = opened(tmp_path, size=16)
    seen = np.zeros((50, 70), int)
    for index, name in enumerate(data.names):
        spot, sample = data.spots[name], data[index]
        rows, columns = slice(spot.row, spot.row + 16), slice(spot.column, spot.column + 16)
        np.testing.assert_array_equal(sample["image"].numpy(), numbers[:, rows, columns].astype(np.float32) / 10000)
        seen[rows, columns] += 1
        assert bool((sample["mask"] == 0).all())
    assert (seen > 0).all()


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.geojson", "labels.shp", "labels.parquet"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035"])
def test_files_of_all_kinds_and_reference_systems_label_the_same_pixels(tmp_path: Path, name: str, crs: str) -> None:
    scene(tmp_path / "scene.tif")
    shapes = [shapely.box(*ground(40.02, 8.98), *ground(20.98, 31.02)), shapely.Point(ground(50.5, 60.5))]
    if name.endswith(".shp"):  # which has one kind of shape
        shapes[1] = shapes[1].buffer(1)
    path = drawn(tmp_path / name, shapes, ["wood", "lake"], crs)
    data = opened(tmp_path, labels=str(path), size=64, split_by="hash")
    sample = data[0]
    want = np.full((64, 96), 255)
    want[21:40, 9:31], want[50, 60] = 1, 0
    np.testing.assert_array_equal(sample["mask"].numpy(), want[:, :64])
    assert data.labels.classes == ("lake", "wood")


def test_a_point_labels_its_pixel_and_an_object_is_in_the_middle_of_its_window(tmp_path: Path) -> None:
    numbers = scene(tmp_path / "scene.tif")
    places = np.random.default_rng().uniform((10, 10), (54, 86), (12, 2))
    drawn(tmp_path / "labels.gpkg", [shapely.Point(ground(*place)) for place in places], ["a", "b"] * 6)
    masks = opened(tmp_path, size=32)
    for index, name in enumerate(masks.names):
        spot, mask = masks.spots[name], masks[index]["mask"].numpy()
        want = np.full((64, 96), 255)
        for number, (row, column) in enumerate(places):
            want[int(row), int(column)] = number % 2
        np.testing.assert_array_equal(mask, want[spot.row : spot.row + 32, spot.column : spot.column + 32])
    objects = opened(tmp_path, label="label")
    assert len(objects) == 12
    for index, name in enumerate(objects.names):
        number = int(name.partition("#row")[2]) - 1
        row, column = (int(one) - 8 for one in places[number])
        row, column = min(max(row, 0), 48), min(max(column, 0), 80)
        sample = objects[index]
        assert int(sample["label"]) == number % 2
        np.testing.assert_array_equal(
            sample["image"].numpy(), numbers[:, row : row + 16, column : column + 16].astype(np.float32) / 10000
        )


def test_a_scene_smaller_than_a_window_is_filled_up_with_no_data_that_counts_nowhere(tmp_path: Path) -> None:
    numbers = scene(tmp_path / "scene.tif", 10, 7)
    drawn(tmp_path / "labels.gpkg", [shapely.box(*ground(12, -2), *ground(-2, 9))], ["a"])
    sample = opened(tmp_path)[0]
    assert sample["image"].shape == (3, 16, 16)
    np.testing.assert_array_equal(sample["image"][:, :10, :7].numpy(), numbers.astype(np.float32) / 10000)
    assert float(sample["image"][:, 10:].abs().sum() + sample["image"][:, :, 7:].abs().sum()) == 0
    assert bool((sample["mask"][:10, :7] == 0).all())
    assert int((sample["mask"] == 0).sum()) == 70


def test_what_lies_on_no_data_counts_nowhere_and_points_there_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene(tmp_path / "scene.tif", blank=[(slice(0, 20), slice(0, 20))])
    shapes = [shapely.box(*ground(30, 5), *ground(10, 40)), shapely.Point(ground(3, 3)), shapely.Point(ground(40, 3))]
    drawn(tmp_path / "labels.gpkg", shapes, ["a", "b", "b"])
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path, size=64)
    assert "1 points lie where scene has no data and are left out, row 2 first" in caplog.text
    mask = data[0]["mask"].numpy()
    want = np.full((64, 64), 255)
    want[10:30, 5:40] = 0
    want[:20, :20] = 255
    want[40, 3] = 1
    np.testing.assert_array_equal(mask, want)


def test_objects_that_cannot_count_are_said_in_a_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene(tmp_path / "scene.tif")
    bow = shapely.Polygon([ground(10, 10), ground(20, 20), ground(20, 10), ground(10, 20)])
    shapes = [
        shapely.box(*ground(40, 30), *ground(30, 50)),
        shapely.box(*ground(45, 40), *ground(35, 60)),
        bow,
        shapely.box(*ground(500, 500), *ground(490, 510)),
        shapely.box(*ground(60.4, 60.1), *ground(60.1, 60.4)),
        shapely.Point(ground(5, 5)),
        shapely.Point(ground(6, 6)),
        None,
    ]
    words = ["a", "b", "a", "a", "a", None, "cloud", "a"]
    drawn(tmp_path / "labels.gpkg", shapes, words)
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path, classes=["a", "b"])
    for line in (
        "1 of 8 objects are not valid (their outline crosses itself) and were mended, row 3 first",
        "1 of 8 objects have no geometry and are left out, row 8 first",
        "1 objects have an empty cell for their class and are left out, row 6 first",
        "1 objects are of a class that data.classes does not name (cloud) and are left out",
        "1 of 5 objects lie on no scene and are left out, row 4 first",
        "1 polygons have the middle of no pixel of scene in them, row 5 first",
        "1 pairs of objects of two classes overlap on scene, rows 1 and 2 first: the 50 px that they share count",
    ):
        assert line in caplog.text
    found = np.full((64, 96), 255)
    for index, name in enumerate(data.names):
        spot = data.spots[name]
        found[spot.row : spot.row + 16, spot.column : spot.column + 16] = data[index]["mask"].numpy()
    assert (found[35:40, 40:50] == 255).all()
    assert (found[30:35, 30:50] == 0).all()
    assert (found[40:45, 40:60] == 1).all()
    assert (found[10:20, 10:20] == 0).sum() in range(40, 61)  # both halves of the bow


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"column": "klass"}, "has no column klass: it has class, number; did you mean class?"),
        ({"column": None}, "data.column is not set: name the column of data.labels"),
        ({"classes": ["water"]}, "has no object of data.classes (water): its column has a, b; name these"),
        ({"labels": "nowhere.gpkg"}, "data.labels nowhere.gpkg is not there: give a GeoPackage"),
        ({"layer": "other"}, "has no layer other: it has labels"),
        ({"split_by": "folder"}, "data.split_by is 'folder': it can be hash, list, column, blocks, folds, scene"),
        (
            {"split": "val", "split_by": {"by": "scene", "val": ["x"]}},
            "data.split_by.val has x, which is no scene: there are scene",
        ),
        ({"split_by": {"by": "scene", "vall": 1}}, "there is no setting data.split_by.vall of scene"),
        ({"split": "tests"}, "data.split is 'tests': it can be train, val, test, all"),
        ({"split": "train", "split_by": {"by": "scene", "test": ["scene"]}}, "data.labels has no samples for train"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_there_is(
    tmp_path: Path, given: dict[str, Any], line: str
) -> None:
    scene(tmp_path / "scene.tif")
    drawn(tmp_path / "labels.gpkg", [shapely.Point(ground(9, 9)), shapely.Point(ground(50, 9))], "ab", number=[1, 2])
    with pytest.raises(UserError) as error:
        opened(tmp_path, **given)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_elsewhere_or_of_no_reference_system_or_damaged_are_refused(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    away = shapely.transform(shapely.box(*ground(9, 3), *ground(3, 9)), lambda p: p + 1e5)
    drawn(tmp_path / "labels.gpkg", [away], ["a"])
    with pytest.raises(UserError, match="labels no pixel of 1 scene: it covers"):
        opened(tmp_path)
    drawn(tmp_path / "bare.gpkg", [shapely.Point(ground(9, 9))], ["a"], crs=None)
    with pytest.raises(UserError, match="names no reference system"):
        opened(tmp_path, labels=str(tmp_path / "bare.gpkg"))
    (tmp_path / "broken.gpkg").write_bytes(b"SQLite format 3\0 and no more")
    with pytest.raises(UserError, match="cannot be read"):
        opened(tmp_path, labels=str(tmp_path / "broken.gpkg"))
    drawn(tmp_path / "lines.gpkg", [shapely.LineString([ground(1, 1), ground(9, 9)])], ["a"])
    with pytest.raises(UserError, match="are no polygons or points"):
        read_objects(tmp_path / "lines.gpkg")


def test_numbers_of_classes_are_named_by_a_table_and_null_ignores_one(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    shapes = [shapely.Point(ground(9 + 5 * number, 9)) for number in range(4)]
    drawn(tmp_path / "labels.gpkg", shapes, [1, 2, 3, 9])
    plain = opened(tmp_path, size=64)
    assert plain.labels.classes == ("1", "2", "3", "9")
    data = opened(tmp_path, size=64, classes={1: "water", 2: "wood", 3: "water", 9: None})
    mask = data[0]["mask"].numpy()
    assert data.labels.classes == ("water", "wood")
    assert [int(mask[9 + 5 * number, 9]) for number in range(4)] == [0, 1, 0, 255]


def test_points_of_one_row_are_objects_of_their_own(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    several = shapely.MultiPoint([ground(20, 20), ground(40, 60)])
    drawn(tmp_path / "labels.gpkg", [several, shapely.Point(ground(50, 20))], ["a", "b"])
    assert opened(tmp_path, label="label").names == ["scene#row1", "scene#row1-2", "scene#row2"]


def test_a_data_set_reads_the_same_in_another_process(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    shapes = blobs(6)
    drawn(tmp_path / "labels.gpkg", shapes, ["a"] * len(shapes))
    data = opened(tmp_path)
    first = data[0]
    other = pickle.loads(pickle.dumps(data))
    assert not other.held._open
    np.testing.assert_array_equal(other[0]["image"].numpy(), first["image"].numpy())
    np.testing.assert_array_equal(other[0]["mask"].numpy(), first["mask"].numpy())
