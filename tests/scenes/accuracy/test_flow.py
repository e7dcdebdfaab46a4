"""From files of a map and of its ground to estimates, one-line errors, and the report."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.commands.evaluate_map import run
from satdifuser.errors import UserError
from satdifuser.scenes.accuracy.flow import Evaluated, evaluate
from satdifuser.scenes.accuracy.reference import Naming
from satdifuser.settings.scenes import EvaluateMapSettings
from tests.scenes.accuracy.conftest import CLASSES, TRANSFORM, points_at, write_map, write_objects

Ground = tuple[np.ndarray, np.ndarray]


def done(map_: Path, reference: Path, **settings: Any) -> Evaluated:
    return evaluate(EvaluateMapSettings(map=str(map_), reference=str(reference), **settings))


def words_of(numbers: np.ndarray) -> list[str]:
    return [CLASSES[number] for number in numbers]


def test_points_are_counted_where_they_lie(tmp_path: Path, ground: Ground) -> None:
    truth, mapped = ground
    mapped = mapped.copy()
    mapped[:20] = 255
    random = np.random.default_rng(0)
    rows, columns = random.integers(0, 120, 200), random.integers(0, 150, 200)
    shapes, words = points_at(rows, columns), words_of(truth[rows, columns])
    outside = points_at(np.array([-1, 500]), np.array([4, 10]))
    found = done(
        write_map(tmp_path / "map.tif", mapped),
        write_objects(tmp_path / "points.gpkg", [*shapes, *outside], [*words, "water", "Bare Soil"]),
    )
    counts = np.zeros((3, 3), int)
    inside = rows >= 20
    np.add.at(counts, (mapped[rows[inside], columns[inside]], truth[rows[inside], columns[inside]]), 1)
    assert found.found.counts.tolist() == counts.tolist()
    assert found.classes == CLASSES
    (said,) = found.said
    assert "2 outside the map" in said
    assert f"{(~inside).sum()} where the map has no data" in said
    hectares = np.bincount(mapped[20:].ravel(), minlength=3) * 0.09
    np.testing.assert_allclose(found.mapped / 1e4, hectares, rtol=1e-3)


def test_points_of_another_reference_system(tmp_path: Path, ground: Ground) -> None:
    import geopandas

    truth, mapped = ground
    random = np.random.default_rng(1)
    rows, columns = random.integers(0, 120, 150), random.integers(0, 150, 150)
    there = write_objects(tmp_path / "there.gpkg", points_at(rows, columns), words_of(truth[rows, columns]))
    geopandas.read_file(there).to_crs(4326).to_file(tmp_path / "away.geojson")
    path = write_map(tmp_path / "map.tif", mapped)
    one, other = done(path, there), done(path, tmp_path / "away.geojson", column="class")
    assert one.found.counts.tolist() == other.found.counts.tolist()


def test_polygons_are_one_unit_each_or_clusters_of_pixels(tmp_path: Path) -> None:
    import shapely

    a, _, c, _, e, f = TRANSFORM

    def box(row: int, column: int, height: int, width: int) -> Any:
        return shapely.box(c + a * column, f + e * (row + height), c + a * (column + width), f + e * row)

    mapped = np.zeros((30, 30), np.uint8)
    mapped[:, 20:] = 1
    shapes = [box(0, 0, 4, 4), box(10, 18, 2, 5), box(20, 22, 3, 3), box(26, 26, 2, 2), box(5, 5, 2, 2)]
    words = ["forest", "bare soil", "bare soil", "forest", "forest"]
    reference = write_objects(tmp_path / "polygons.gpkg", shapes, words)
    path = write_map(tmp_path / "map.tif", mapped, names=CLASSES[:2])
    whole = done(path, reference)
    assert whole.found.counts.tolist() == [[2, 0], [1, 2]]
    pixels = done(path, reference, units="pixels")
    assert pixels.found.counts.tolist() == [[16 + 4, 4], [4, 6 + 9]]
    assert pixels.found.clusters.tolist() == [3, 3]
    assert pixels.kind == "pixels of polygons"


def test_a_raster_of_all_the_ground_leaves_nothing_to_chance(tmp_path: Path, ground: Ground) -> None:
    truth, mapped = ground
    found = done(write_map(tmp_path / "map.tif", mapped), write_map(tmp_path / "truth.tif", truth))
    assert found.found.overall.value == pytest.approx((truth == mapped).mean(), rel=1e-5)
    assert found.found.overall.low == found.found.overall.high
    assert found.found.counts.sum() == truth.size


def test_strata_that_are_not_the_map(tmp_path: Path, ground: Ground) -> None:
    truth, mapped = ground
    strata = np.repeat((np.arange(150) > 100)[None], 120, 0).astype(np.uint8)
    random = np.random.default_rng(2)
    columns = np.r_[random.integers(0, 101, 60), random.integers(101, 150, 60)]
    rows = random.integers(0, 120, 120)
    found = done(
        write_map(tmp_path / "map.tif", mapped),
        write_objects(tmp_path / "points.gpkg", points_at(rows, columns), words_of(truth[rows, columns])),
        strata=str(write_map(tmp_path / "strata.tif", strata, names=("west", "east"))),
    )
    right = mapped[rows, columns] == truth[rows, columns]
    assert found.strata == ("west", "east")
    assert found.found.overall.value == pytest.approx(
        101 / 150 * right[:60].mean() + 49 / 150 * right[60:].mean(), rel=1e-4
    )


def test_a_simple_sample_weighs_all_points_alike(tmp_path: Path, ground: Ground) -> None:
    truth, mapped = ground
    random = np.random.default_rng(2)
    rows, columns = random.integers(0, 120, 90), random.integers(0, 150, 90)
    found = done(
        write_map(tmp_path / "map.tif", mapped),
        write_objects(tmp_path / "points.gpkg", points_at(rows, columns), words_of(truth[rows, columns])),
        design="simple",
    )
    assert found.found.overall.value == pytest.approx((mapped[rows, columns] == truth[rows, columns]).mean())


def test_what_classes_are_called() -> None:
    assert Naming({1: "a b", 4: "c"}, {"x": "A_b", "y": 4, "z": None})("x") == 1
    assert Naming({1: "a b"}, {"y": 1})("Y") == 1
    with pytest.raises(UserError, match=r"classes\.x is d, no class of the map: it has 1 \(a\)"):
        Naming({1: "a"}, {"x": "d"})


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ({}, ["forst"], r"classes that the map has not \(forst\).*did you mean forest\?"),
        ({}, [None], r"nothing with a class on the map \(1 without a class\)"),
        ({"classes": {"forest": None}}, ["forest"], "1 of classes that are left out"),
        ({"classes": ["one", "two"]}, ["one"], "classes names 2 classes"),
        ({"column": "klass"}, ["forest"], "no column klass: it has class"),
        ({"strata": "map.tif", "design": "simple"}, ["forest"], "strata is set, but design=simple has none"),
        ({"strata": "small.tif"}, ["forest"], "has 5 x 5 pixels, but map .* has 120 x 150"),
    ],
)
def test_errors_in_one_line(
    tmp_path: Path,
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    words: list[Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_map(tmp_path / "map.tif", ground[1])
    write_map(tmp_path / "small.tif", ground[1][:5, :5])
    reference = write_objects(tmp_path / "points.geojson", points_at(np.array([3]), np.array([4])), words)
    with pytest.raises(UserError, match=said) as error:
        done(path, reference, **settings)
    assert "\n" not in str(error.value)


def test_what_is_no_map_of_classes(tmp_path: Path, ground: Ground) -> None:
    reference = write_objects(tmp_path / "points.geojson", points_at(np.array([3]), np.array([4])), ["forest"])
    with pytest.raises(UserError, match="it is not there"):
        done(tmp_path / "none.tif", reference)
    with pytest.raises(UserError, match="numbers of float32, not classes"):
        done(write_map(tmp_path / "float.tif", ground[1].astype(np.float32)), reference)
    with pytest.raises(UserError, match="names no reference system"):
        done(write_map(tmp_path / "bare.tif", ground[1], crs=None), reference)


def test_the_report(tmp_path: Path, ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    truth, mapped = ground
    random = np.random.default_rng(7)
    rows, columns = random.integers(0, 120, 200), random.integers(0, 150, 200)
    path = write_map(tmp_path / "map.tif", mapped)
    reference = write_objects(tmp_path / "points.gpkg", points_at(rows, columns), words_of(truth[rows, columns]))
    settings = EvaluateMapSettings(map=str(path), reference=str(reference), level=0.9, output=str(tmp_path / "out"))
    found = run(settings)
    printed = capsys.readouterr().out
    assert "intervals of 90%" in printed
    assert "bare soil" in printed
    values = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert values["overall"]["value"] == found.found.overall.value
    assert sum(one["area"]["value"] for one in values["classes"]) == pytest.approx(values["area"])
    with (tmp_path / "out" / "classes.csv").open() as file:
        table = list(csv.DictReader(file))
    users = {row["class"]: float(row["value"]) for row in table if row["measure"] == "user's accuracy"}
    assert users == {name: found.found.users[place].value for place, name in enumerate(CLASSES)}
    page = (tmp_path / "out" / "accuracy.html").read_text()
    assert page.count("<svg") == 3
    assert "level=0.9" in page
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(UserError, match="has a report already"):
        run(settings)
