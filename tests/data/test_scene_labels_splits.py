"""Splits of drawn labels share no ground, and rare classes come again in training alone."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine

from satdifuser.data.readers.scenes.reader import SceneLabels
from tests.data.scene_labels import LEFT, PIXEL, TOP, drawn, ground, opened, scene

SPLITS = ("train", "val", "test")


def boxes(data: SceneLabels) -> list[Any]:
    found = []
    for name in data.names:
        place = data.footprint(name)
        assert place is not None
        found.append(shapely.box(min(place.x), min(place.y), max(place.x), max(place.y)))
    return found


def scattered(folder: Path, count: int = 90, rare: int = 4) -> None:
    """Points over a scene; a few are of a rare class."""
    scene(folder / "scene.tif", 200, 240)
    places = np.random.default_rng().uniform((0, 0), (200, 240), (count, 2))
    words = ["rare"] * rare + ["wood", "lake"] * ((count - rare) // 2)
    drawn(folder / "labels.gpkg", [shapely.Point(ground(*place)).buffer(25) for place in places[: len(words)]], words)


@pytest.mark.parametrize("label", ["mask", "label"])
@pytest.mark.parametrize("apart", [0.0, 90.0])
def test_splits_by_blocks_share_no_block_and_no_ground(tmp_path: Path, label: str, apart: float) -> None:
    scattered(tmp_path)
    rule = {"by": "blocks", "metres": 400, "apart": apart, "val": 0.2, "test": 0.2}
    splits = {part: opened(tmp_path, part, label=label, split_by=rule) for part in SPLITS}
    assert all(len(data) for data in splits.values())
    for one, other in combinations(SPLITS, 2):
        for mine, others in product(boxes(splits[one]), boxes(splits[other])):
            assert mine.intersection(others).area < 1e-6
            assert mine.distance(others) >= apart - 1e-6
    squares = {
        part: {(box.centroid.x // 400, box.centroid.y // 400) for box in boxes(data)} for part, data in splits.items()
    }
    assert not squares["val"] & squares["test"]
    unmoved = opened(tmp_path, label=label, split_by=rule, split="train", sampling="all")
    own = {(box.centroid.x // 400, box.centroid.y // 400) for box in boxes(unmoved)}
    assert not own & (squares["val"] | squares["test"])


@pytest.mark.parametrize("label", ["mask", "label"])
def test_rare_classes_come_again_in_training_elsewhere_and_in_no_other_split(tmp_path: Path, label: str) -> None:
    scattered(tmp_path)
    rule = "scene"  # of one: all is for training
    every = opened(tmp_path, "train", label=label, split_by=rule, sampling="all")
    data = opened(tmp_path, "train", label=label, split_by=rule, sampling="class", repeats=50)
    assert data.names[: len(every)] == every.names
    assert len(set(data.names)) == len(data.names) > len(every)
    place = data.labels.classes.index("rare")

    def shows(given: SceneLabels) -> list[int]:
        found = np.zeros(3, int)
        for index in range(len(given)):
            value = given[index][label].numpy()
            found += [int((value == number).any()) for number in range(3)]
        return found.tolist()

    before, after = shows(every), shows(data)
    assert before[place] == min(before)
    assert after[place] >= max(before)
    few = opened(tmp_path, "train", label=label, split_by=rule, sampling="class", repeats=2)
    assert shows(few)[place] <= 2 * before[place] + 1
    again = opened(tmp_path, "train", label=label, split_by=rule, sampling="class", repeats=50)
    assert again.names == data.names
    assert opened(tmp_path, "train", label=label, split_by=rule, repeats=50, seed=1).names != data.names
    spots = [data.spots[name] for name in data.names]
    assert len({*spots}) == len(spots)
    own = {spot.object: spot for spot in every.spots.values()}
    for spot in spots:
        assert 0 <= spot.row <= 200 - 16
        assert 0 <= spot.column <= 240 - 16
        if label == "label":
            assert max(abs(spot.row - own[spot.object].row), abs(spot.column - own[spot.object].column)) <= 4


def test_blocks_without_a_seed_show_as_many_classes_in_each_split_as_can_be(tmp_path: Path) -> None:
    scattered(tmp_path, 120, 8)
    rule = {"by": "blocks", "metres": 400, "val": 0.2, "test": 0.2}

    def classes(**given: Any) -> int:
        found = 0
        for part in SPLITS:
            data = opened(tmp_path, part, split_by=rule | given, sampling="all", stride=16)
            masks = np.stack([data[index]["mask"].numpy() for index in range(len(data))])
            found += len({*np.unique(masks).tolist()} - {255})
        return found

    assert classes() >= max(classes(seed=seed) for seed in range(4))


def test_a_column_splits_objects_and_a_window_has_the_labels_of_its_split_alone(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    shapes = [shapely.Point(ground(5 + number, 5)) for number in range(6)]
    parts = ["train", "train", "val", "val", "test", "test"]
    drawn(tmp_path / "labels.gpkg", shapes, ["a", "b"] * 3, split=parts)
    for part in SPLITS:
        for label in ("mask", "label"):
            data = opened(tmp_path, part, label=label, split_by={"by": "column"}, sampling="all")
            own = [number for number, one in enumerate(parts) if one == part]
            if label == "label":
                assert data.names == [f"scene#row{number + 1}" for number in own]
                continue
            (sample,) = [data[index] for index in range(len(data))]
            assert [int(sample["mask"][5 + number, 5]) for number in range(6)] == [
                number % 2 if number in own else 255 for number in range(6)
            ]


def test_many_scenes_are_split_by_scene_or_in_blocks_and_an_object_is_a_sample_in_each(tmp_path: Path) -> None:
    from rasterio.transform import Affine

    for number in range(3):  # beside each other; the first is there twice
        place = Affine(PIXEL, 0, LEFT + 500 * number, 0, -PIXEL, TOP)
        scene(tmp_path / f"s{number}.tif", 50, 50, transform=place)
    scene(tmp_path / "again" / "s9.tif", 50, 50)
    shapes = [shapely.Point(ground(25, 25 + 50 * number)) for number in range(3)]
    drawn(tmp_path / "labels.gpkg", shapes, ["a", "b", "a"])
    scenes = [str(tmp_path / "s*.tif"), str(tmp_path / "again" / "s9.tif")]
    rule = {"by": "scene", "val": ["s1"], "test": ["s2"]}
    found = {
        part: opened(tmp_path, part, scenes=scenes, label="label", split_by=rule, sampling="all") for part in SPLITS
    }
    assert {part: data.names for part, data in found.items()} == {
        "train": ["s0#row1", "s9#row1"],
        "val": ["s1#row2"],
        "test": ["s2#row3"],
    }
    shared = {"by": "scene", "val": 0.25, "test": 0.25}
    names = [opened(tmp_path, part, scenes=scenes, label="label", split_by=shared).names for part in SPLITS]
    assert sum(map(len, names)) >= 4
    blocks = {"by": "blocks", "metres": 500, "val": 0.3, "test": 0.3}
    ours = {part: opened(tmp_path, part, scenes=scenes, label="label", split_by=blocks) for part in SPLITS}
    for one, other in combinations(SPLITS, 2):
        for mine, others in product(boxes(ours[one]), boxes(ours[other])):
            assert mine.intersection(others).area < 1e-6


def test_the_identity_is_the_same_wherever_files_lie_and_another_for_whatever_changes_samples(tmp_path: Path) -> None:
    import shutil

    scattered(tmp_path / "one", 40)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    known: dict[str, Any] = {"split_by": "hash", "classes": ["wood", "lake", "rare"]}
    own = opened(tmp_path / "one", "train", **known).identity
    assert opened(tmp_path / "two", "train", **known).identity == own
    for other in (
        {"size": 8},
        {"stride": 8},
        {"label": "label"},
        {"sampling": "all"},
        {"repeats": 2},
        {"seed": 3},
        {"classes": ["lake", "wood", "rare"]},
        {"split_by": {"by": "hash", "val": 0.3}},
        {"scaling": {"numbers": "dn", "unit": 5000}},
        {"sensor": "SENTINEL2:B04/B02/B03", "bands": ["B04", "B03", "B02"]},
        {"nodata": 7},
        {"resampling": "nearest"},
        {"limit": 3},
    ):
        assert opened(tmp_path / "one", "train", **(known | other)).identity != own, other
    scene(tmp_path / "two" / "scene.tif", 200, 240)
    assert opened(tmp_path / "two", "train", **known).identity != own
    shutil.copy(tmp_path / "one" / "scene.tif", tmp_path / "two" / "scene.tif")
    scattered(tmp_path / "two", 40)
    shutil.copy(tmp_path / "one" / "scene.tif", tmp_path / "two" / "scene.tif")
    assert opened(tmp_path / "two", "train", **known).identity != own


@pytest.mark.parametrize("rule", ["hash", {"by": "scene", "val": ["other"], "test": ["third"]}])
def test_ground_that_a_rule_leaves_in_two_splits_is_said(tmp_path: Path, rule: Any, caplog: Any) -> None:
    scattered(tmp_path)
    scene(tmp_path / "other.tif", 200, 240, transform=Affine(PIXEL, 0, LEFT + 55, 0, -PIXEL, TOP - 35))
    scene(tmp_path / "third.tif", 200, 240)
    given = {
        "scenes": [str(tmp_path / f"{name}.tif") for name in ("scene", "other", "third")],
        "split_by": rule,
        "sampling": "all",
    }
    train, held = opened(tmp_path, "train", **given), opened(tmp_path, "val", **given)
    shared = [any(box.intersection(one).area > 1 for one in boxes(train)) for box in boxes(held)]
    assert any(shared)
    assert "overlap one of training" in caplog.text


def test_a_class_that_nothing_is_of_may_be_added_in_one_process(tmp_path: Path) -> None:
    scattered(tmp_path)
    names = ["lake", "rare", "wood"]
    first = opened(tmp_path, "train", classes=names, split_by="scene")
    assert opened(tmp_path, "train", classes=[*names, "snow"], split_by="scene").names == first.names
