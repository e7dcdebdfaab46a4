"""Folds: each sample is tested once, no group is in two parts, and nothing hangs on the order of files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.data.splits.folds import by_name, dealt
from satdifuser.data.splits.near import between
from satdifuser.data.splits.places import Footprint, Places
from satdifuser.data.splits.rules import assigned, rule_of
from satdifuser.errors import UserError

PARTS = ("train", "val", "test")


def of_groups(rng: np.random.Generator, groups: int, most: int = 9) -> list[str]:
    """Names as `scene-3_7`: groups of unequal size."""
    return [f"scene-{g}_{n}" for g in range(groups) for n in range(int(rng.integers(1, most)))]


def folds(names: list[str], classes: Any = None, footprint: Any = None, **words: Any) -> list[dict[str, list[str]]]:
    def one(fold: int) -> dict[str, list[str]]:
        return assigned(names, rule_of({"by": "folds", "fold": fold, **words}), classes=classes, footprint=footprint)

    if words.get("of") != "all":
        return [one(fold) for fold in range(words.get("of", 5))]
    with pytest.raises(UserError, match="there are") as refused:
        one(9999)
    return [one(fold) for fold in range(int(str(refused.value).partition("there are ")[2].split()[0]))]


@pytest.mark.parametrize("of", [2, 3, 5, "all"])
@pytest.mark.parametrize("seed", range(4))
def test_each_sample_is_tested_once_and_no_group_is_in_two_parts(of: Any, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    groups = int(rng.integers(5, 25))
    names = of_groups(rng, groups)
    classes = {name: int(rng.integers(4)) for name in names} if seed % 2 else None
    found = folds(names, classes, of=of, group="{group}_*", val=0.2, seed=seed)
    assert len(found) == (groups if of == "all" else of)
    assert Counter(name for one in found for name in one["test"]) == Counter(names)
    for one in found:
        assert sorted(name for part in PARTS for name in one[part]) == sorted(names) == one["all"]
        of_part = {part: {name.partition("_")[0] for name in one[part]} for part in PARTS}
        assert all(of_part.values())
        assert len(set().union(*of_part.values())) == sum(map(len, of_part.values()))
    again = folds(
        [names[n] for n in rng.permutation(len(names))], classes, of=of, group="{group}_*", val=0.2, seed=seed
    )
    assert again == found


def test_a_fold_number_that_is_not_there_is_an_error_that_says_how_many_there_are() -> None:
    names = [f"g{n % 3}_{n}" for n in range(12)]
    with pytest.raises(UserError, match=r"fold is 3: there are 3 folds, 0 to 2, for there are 3 groups of {group}_\*"):
        assigned(names, rule_of({"by": "folds", "of": 9, "fold": 3, "group": "{group}_*"}))
    with pytest.raises(UserError, match=r"the 12 samples are 1 of groups of {group}\?_\*, and folds need two or more"):
        assigned(names, rule_of({"by": "folds", "group": "{group}?_*"}))


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_as_balanced_by_class_as_single_samples_allow(seed: int) -> None:
    """Where each sample is a group, no fold has over one more of a class than another."""
    rng = np.random.default_rng([seed, 1])
    names = [f"n{n}" for n in range(80)]
    classes = {name: int(rng.integers(5)) for name in names}
    tallies = [Counter(classes[name] for name in fold["test"]) for fold in folds(names, classes)]
    for label in range(5):
        counts = [tally[label] for tally in tallies]
        assert max(counts) - min(counts) <= 1
    sizes = [len(fold["test"]) for fold in folds(names)]
    assert max(sizes) - min(sizes) == 0


def test_folds_of_groups_are_better_balanced_than_groups_in_turn() -> None:
    rng = np.random.default_rng(3)
    better = 0
    for _ in range(20):
        groups = {f"g{g}": [f"g{g}_{n}" for n in range(int(rng.integers(1, 12)))] for g in range(30)}
        main = {key: int(rng.integers(3)) for key in groups}
        classes = {
            name: int(rng.integers(3)) if rng.random() < 0.5 else main[key]
            for key, own in groups.items()
            for name in own
        }
        in_turn = {key: n % 5 for n, key in enumerate(groups)}
        better += spread(groups, classes, dealt(groups, 5, 0, classes)) < spread(groups, classes, in_turn)
    assert better >= 19


def spread(groups: dict[str, list[str]], classes: dict[str, int], numbers: dict[str, int]) -> float:
    """How unlike the folds' shares of the classes are."""
    table = np.zeros((5, 3))
    for key, own in groups.items():
        for name in own:
            table[numbers[key], classes[name]] += 1
    return float((table / table.sum(0)).std(0).sum())


def test_validation_takes_about_its_share_of_each_class_in_whole_groups() -> None:
    names = [f"n{n}" for n in range(200)]
    classes = {name: n % 4 for n, name in enumerate(names)}
    for one in folds(names, classes, val=0.2):
        counts = Counter(classes[name] for name in one["val"])
        assert set(counts) == {0, 1, 2, 3}
        assert all(abs(count - 0.2 * 40) <= 1 for count in counts.values())
    assert all(not one["val"] for one in folds(names, val=0.0))


def test_where_one_group_is_left_validation_is_of_samples_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"a_{n}" for n in range(20)] + [f"b_{n}" for n in range(20)]
    found = folds(names, of=2, group="{group}_*", val=0.25)
    assert [(len(one["train"]), len(one["val"]), len(one["test"])) for one in found] == [(15, 5, 20)] * 2
    assert "samples of it are for validation, which are near training" in caplog.text


def test_a_group_of_a_pattern_is_a_part_of_an_id() -> None:
    ids = [
        f"patch_{n}_{r}_by_{c}_LC08_L1TP_{scene}_01_T1#0,128" for n, r, c in ((1, 2, 3), (4, 5, 6)) for scene in "xy"
    ]
    assert sorted(by_name(ids, "patch_*_by_*_LC08_{group}")) == ["L1TP_x_01_T1", "L1TP_y_01_T1"]
    with pytest.raises(UserError, match=r"data\.split\.group=scene_{group} is not the pattern of 4 of 4 ids, patch_1"):
        by_name(ids, "scene_{group}")
    with pytest.raises(UserError, match=r"in which {group} stands once"):
        by_name(ids, "patch_*")


@pytest.mark.parametrize("apart", [0.0, 120.0])
def test_blocks_in_space_are_groups_and_what_is_near_a_tested_sample_is_not_learned_from(apart: float) -> None:
    rng = np.random.default_rng(5)
    spots = {f"t{n}": rng.uniform(0, 3000, 2) for n in range(150)}

    def footprint(name: str) -> Footprint:
        x, y = spots[name] + [500000, 4000000]
        return Footprint.box(x, y, x + 60, y + 60, "EPSG:32633")

    names = list(spots)
    found = folds(names, None, footprint, of=4, metres=500.0, apart=apart, val=0.15)
    assert Counter(name for one in found for name in one["test"]) == Counter(names)
    tiles = Places(names, footprint).tiles
    at = {name: n for n, name in enumerate(names)}
    lost = 0
    for one in found:
        lost += len(names) - sum(len(one[part]) for part in PARTS)
        for first, second in (("train", "test"), ("val", "test"), ("train", "val")):
            for name in one[first]:
                other = tiles[[at[other] for other in one[second]]]
                mine = tiles[[at[name]] * len(other)]
                distance, overlap = between(mine, other)
                assert (distance >= apart).all()
                assert (overlap <= 0.1).all()
        assert one["train"]
    assert lost > 0
    whole = {name: tuple(np.floor((spots[name] + 30 + [500000, 4000000]) / 500).astype(int)) for name in names}
    tested = [{whole[name] for name in one["test"]} for one in found]
    assert sum(map(len, tested)) == len(set(whole.values()))  # no block is tested in two folds


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UserError, match="has metres and group"):
        rule_of({"by": "folds", "metres": 100.0, "group": "file"})
    with pytest.raises(UserError, match=r"data\.split\.apart is of blocks in space"):
        rule_of({"by": "folds", "apart": 100.0})
    with pytest.raises(UserError, match="of"):
        rule_of({"by": "folds", "of": 1})


def test_tiles_of_an_image_stay_together_and_a_folder_of_classes_is_balanced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(9):
        file = tmp_path / ("forest" if n % 3 else "water") / f"{n}.tif"
        file.parent.mkdir(exist_ok=True)
        place = from_origin(600000 + 5000 * n, 5000000, 10, 10)
        with rasterio.open(
            file, "w", driver="GTiff", width=16, height=16, count=3, dtype="uint8", crs="EPSG:32633", transform=place
        ) as out:
            out.write(rng.integers(1, 255, (3, 16, 16), dtype=np.uint8))
    seen: Counter[str] = Counter()
    for fold in range(3):
        parts = {
            part: Rasters(
                str(tmp_path),
                part,
                images="{class}/*.tif",
                sensor="SENTINEL2_RGB",
                size=8,
                tile=8,
                scaling="8bit",
                split_by={"by": "folds", "of": 3, "fold": fold, "val": 0.3},
            )
            for part in PARTS
        }
        files = {part: {name.partition("#")[0] for name in data.names} for part, data in parts.items()}
        assert [len(data) for data in parts.values()][2] == 12
        assert len(set().union(*files.values())) == sum(map(len, files.values())) == 9
        assert sum(name.startswith("water") for name in files["test"]) == 1
        seen.update(parts["test"].names)
    assert len(seen) == 36
    assert set(seen.values()) == {1}
