"""Blocks in space: no test tile near a training tile, whatever the positions, sizes, maps and order."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from pyproj import Transformer

from satdifuser.data.base import Labels
from satdifuser.data.files.tree import warn_once
from satdifuser.data.splits.blocks import PARTS, dealt, distances
from satdifuser.data.splits.budgets import within_budget
from satdifuser.data.splits.places import Footprint, Places, read_footprint
from satdifuser.data.splits.rules import assigned, rule_of
from satdifuser.errors import UserError
from satdifuser.tasks import Classification


@pytest.fixture(autouse=True)
def _every_line_again() -> None:
    warn_once.cache_clear()


def split(where: dict[str, Footprint], **settings: Any) -> dict[str, list[str]]:
    return assigned(list(where), rule_of({"by": "blocks", **settings}), footprint=where.get)


def tiles(seed: int, count: int, extent: float = 60_000, size: float = 2000, crs: str = "EPSG:32632") -> dict[str, Any]:
    """Boxes of several sizes at random places, some over others."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, extent, (count, 2)) + np.array([4e5, 53e5])
    sides = rng.uniform(0.3, 1, (count, 2)) * size
    found = {}
    for number, ((x, y), (width, height)) in enumerate(zip(places.tolist(), sides.tolist(), strict=True)):
        found[f"tile-{number}"] = Footprint.box(x, y, x + width, y + height, crs)
    return found


def shapes(found: list[str], where: dict[str, Footprint]) -> Any:
    boxes = np.array([[min(where[n].x), min(where[n].y), max(where[n].x), max(where[n].y)] for n in found])
    return shapely.box(*boxes.T)


@pytest.mark.parametrize("apart", [0.0, 1.0, 750.0, 3000.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_tile_is_nearer_than_that_to_one_of_another_split(apart: float, seed: int) -> None:
    """All pairs, in float64, by another library."""
    where = tiles(seed, 500)
    found = split(where, metres=12_000, apart=apart, val=0.15, test=0.25, seed=seed)
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        a, b = shapes(found[one], where)[:, None], shapes(found[other], where)
        assert shapely.distance(a, b).min() >= apart
        assert not apart or not shapely.intersects(a, b).any()
        assert shapely.area(shapely.intersection(a, b)).max() < 2000 * 2.0  # they touch at most
        metres, i, j = distances(found, where.get)[one, other]
        assert metres == pytest.approx(shapely.distance(a, b).min(), abs=1e-6)
        assert shapely.distance(shapes([i], where), shapes([j], where))[0] == pytest.approx(metres, abs=1e-6)
    members = [name for part in PARTS for name in found[part]]
    assert len(members) == len(set(members))
    assert set(members) <= set(found["all"]) == set(where)
    assert all(found[part] == sorted(found[part]) and len(found[part]) > 5 for part in PARTS)


@pytest.mark.parametrize("apart", [0.0, 2000.0])
def test_only_those_that_are_near_are_left_out_and_test_loses_none(apart: float) -> None:
    where = tiles(9, 600)
    found = split(where, metres=15_000, apart=apart, val=0.2, test=0.2)
    free = {name: Footprint.point(sum(f.x) / 4, sum(f.y) / 4, f.crs) for name, f in where.items()}
    whole = split(free, metres=15_000, val=0.2, test=0.2)  # points of the same centres: none touch
    assert sorted(name for part in PARTS for name in whole[part]) == sorted(where)
    assert found["test"] == whole["test"]
    for part, others in (("val", ["test"]), ("train", ["test", "val"])):
        lost = sorted(set(whole[part]) - set(found[part]))
        held = shapes([name for other in others for name in found[other]], where)
        assert set(found[part]) <= set(whole[part])
        distance = shapely.distance(shapes(lost, where)[:, None], held).min(1)
        assert lost
        assert (distance <= apart).all()


def test_the_order_of_names_does_not_matter_and_the_seed_does() -> None:
    where = tiles(5, 300)
    found = split(where, metres=8000, apart=500, seed=3)
    shuffled = dict(sorted(where.items(), key=lambda item: hash(item[0])))
    assert split(shuffled, metres=8000, apart=500, seed=3) == found
    assert split(where, metres=8000, apart=500, seed=4)["test"] != found["test"]


def test_a_block_is_never_cut() -> None:
    where = tiles(6, 400)
    found = split(where, metres=10_000)
    ordered = sorted(where)
    blocks = dict(zip(ordered, map(tuple, Places(ordered, where.get).blocks(10_000).tolist()), strict=True))
    owners: dict[Any, set[str]] = {}
    for part in PARTS:
        for name in found[part]:
            owners.setdefault(blocks[name], set()).add(part)
    assert all(len(parts) == 1 for parts in owners.values())


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_as_near_as_whole_blocks_come(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = {(int(n), 0): int(rng.integers(1, 30)) for n in range(60)}
    total = sum(counts.values())
    wanted = {"test": 0.2 * total, "val": 0.1 * total}
    found = dealt(counts, wanted, seed)
    assert sorted(block for part in PARTS for block in found[part]) == sorted(counts)
    for part, want in wanted.items():
        have = sum(counts[block] for block in found[part])
        others = [counts[block] for block in found["train"]]
        assert all(abs(have + more - want) >= abs(have - want) for more in others)  # no block would bring it nearer
        assert abs(have - want) < 15


def test_blocks_go_round_by_chance_over_seeds() -> None:
    counts = {(x, y): 1 for x in range(10) for y in range(10)}
    tested = Counter(block for seed in range(300) for block in dealt(counts, {"test": 20, "val": 10}, seed)["test"])
    assert len(tested) == 100
    assert 30 < min(tested.values()) <= max(tested.values()) < 95  # 60 each, six standard deviations of 7


def test_tiles_of_two_zones_and_of_degrees_are_kept_apart_too() -> None:
    rng = np.random.default_rng(2)
    to_next = Transformer.from_crs(32632, 32633, always_xy=True)
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    where, plain = {}, {}
    for number, (x, y) in enumerate((rng.uniform(0, 50_000, (400, 2)) + np.array([69e4, 53e5])).tolist()):
        plain[f"{number}"] = Footprint.box(x, y, x + 1000, y + 1000, "EPSG:32632")
        if number % 3 == 0:
            where[f"{number}"] = plain[f"{number}"]
        elif number % 3 == 1:
            a, b = to_next.transform(x, y)
            where[f"{number}"] = Footprint.box(a, b, a + 1000, b + 1000, "EPSG:32633")
        else:
            a, b = to_degrees.transform(plain[f"{number}"].x, plain[f"{number}"].y)
            where[f"{number}"] = Footprint(a, b, "EPSG:4326")
    found = split(where, metres=10_000, apart=1500, val=0.2, test=0.2)
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        distance = shapely.distance(shapes(found[one], plain)[:, None], shapes(found[other], plain))
        assert distance.min() > 1500 - 2 * 1000 * 0.08  # a zone's north is up to 4.5 degrees off the next one's
    with pytest.raises(UserError, match="1 of 400 samples do not say where they lie, 7 first"):
        split({**where, "7": None}, metres=1000)  # type: ignore[dict-item]


def test_what_is_left_out_is_said_once_with_who_loses(caplog: Any) -> None:
    where = tiles(1, 300)
    with caplog.at_level(logging.WARNING):
        found = split(where, metres=15_000, apart=1000, val=0.2, test=0.2)
        split(where, metres=15_000, apart=1000, val=0.2, test=0.2)
    lines = [record.getMessage() for record in caplog.records if "are in no split" in record.getMessage()]
    assert len(lines) == 1
    gone = len(where) - sum(len(found[part]) for part in PARTS)
    assert f"data.split: {gone} of 300 samples are in no split, nearer than 1000 m to one of another split" in lines[0]
    assert f"left are {len(found['train'])} for train" in lines[0]


def test_too_few_blocks_are_said_or_refused(caplog: Any) -> None:
    where = {f"{n}": Footprint.point(5e5 + 10 * n, 5e6, "EPSG:32632") for n in range(100)}
    with caplog.at_level(logging.WARNING):
        found = split(where, metres=250, val=0.0, test=0.1)
    assert len(found["test"]) == 25
    assert "4 blocks of 250 m hold the 100 samples, too few for the shares: 25.0% for test, not 10.0%" in caplog.text
    with pytest.raises(UserError, match=r"1 blocks of 10000 m hold the 100 samples, too few for any to be for train"):
        split(where, metres=10_000, test=0.1, val=0.0)
    with pytest.raises(UserError, match=r"2 blocks of 500 m .* for any to be for train"):
        split(where, metres=500, test=0.1, val=0.1)
    with pytest.raises(UserError, match="all 75 training samples lie within 5000 m of others"):
        split(where, metres=250, test=0.1, val=0.0, apart=5000)
    quiet = split(where, metres=100, val=0.0, test=0.0)
    assert (len(quiet["train"]), quiet["val"], quiet["test"]) == (100, [], [])


def test_a_budget_of_blocks_is_of_the_training_blocks() -> None:
    where = tiles(4, 500)
    found = split(where, metres=10_000, apart=1000, val=0.2, test=0.2)
    classes = {name: int(name.partition("-")[2]) % 3 for name in where}

    class Images:
        name, labels = "made up", Labels(("a", "b", "c"), ("#000", "#111", "#222"))
        identity: Any = {"name": "made up"}  # noqa: RUF012

        def __len__(self) -> int:
            return len(found["train"])

        def sample_id(self, index: int) -> str:
            return found["train"][index]

        def __getitem__(self, index: int) -> Any:
            name = self.sample_id(index)
            return {"id": name, "image": torch.zeros(1, 2, 2), "label": torch.tensor(classes[name])}

    part = within_budget(Images(), Classification(Images.labels), 20, 0)
    ids = {part.sample_id(index) for index in range(len(part))}
    assert ids < set(found["train"])
    assert len(ids) == round(0.2 * len(found["train"]))
    counts = Counter(classes[name] for name in ids)
    whole = Counter(classes[name] for name in found["train"])
    assert all(abs(counts[number] - 0.2 * whole[number]) < 2 for number in range(3))
    smaller = {**found, "train": sorted(ids)}
    assert distances(smaller, where.get)["train", "test"][0] >= 1000


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.spatial", None)
    with pytest.raises(UserError, match="blocks in space need scipy, which is not installed: pip install scipy"):
        split(tiles(0, 100), metres=10_000)


def test_real_files_of_several_zones_are_kept_apart() -> None:
    root = os.environ.get("SATDIFUSER_TEST_DATA")
    if not root:
        pytest.skip("SATDIFUSER_TEST_DATA is not set: real EuroSAT tiles are not read")
    files = {path.name: path for path in sorted(Path(root).glob("real/eurosat-ms/*/*.tif"))}
    where = {name: read_footprint(path) for name, path in files.items()}
    assert len({place.crs for place in where.values() if place}) > 1
    rule = rule_of({"by": "blocks", "metres": 100_000, "apart": 20_000, "val": 0.2, "test": 0.2})
    found = assigned(list(files), rule, footprint=where.get)
    assert min(len(found[part]) for part in PARTS) > 5
    degrees = dict(zip(sorted(files), Places(sorted(files), where.get).degrees, strict=True))
    from pyproj import Geod

    geod = Geod(ellps="WGS84")
    for one in found["train"]:
        for other in found["test"]:
            assert geod.inv(*degrees[one], *degrees[other])[2] > 20_000 + 640 / 2
