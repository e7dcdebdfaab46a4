"""Every set of configs/facts/torchgeo whose layout is at hand, against torchgeo's own object, split by split."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from satdifuser.build import build_data
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor

datasets = pytest.importorskip("torchgeo.datasets")
REAL = os.environ.get("SATDIFUSER_TEST_DATA")
pytestmark = pytest.mark.skipif(not REAL, reason="SATDIFUSER_TEST_DATA is not set to the folder of real data")

S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
NO_CIRRUS = [name for name in S2 if name != "B10"]
LAND = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
RGB = ["red", "green", "blue"]
TVT = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
HELD = {"train": {"split": "train"}, "val": {"split": "train"}, "test": {"split": "test"}}
ALL: dict[str, dict[str, Any]] = {"train": {}, "val": {}, "test": {}}
DN, EIGHT, AS_IS = (lambda n: n / 10000), (lambda n: n / 255), (lambda n: n)
POWER = lambda n: np.where(n == 0, 0.0, 10 * np.log10(np.maximum(n, 1e-10)))  # noqa: E731 (0 is no data)


def case(
    name: str,
    folder: str,
    order: list[str],
    scale: Callable[[Any], Any],
    parts: dict[str, dict[str, Any]],
    words: list[str] | None = None,
    *,
    cls: str | None = None,
    label: str = "",
    at: str = "",
    below: str = "",
    series: list[int] | None = None,
) -> Any:
    """`order` is what the channels are, as torchgeo documents them and as our sensor calls them."""
    values = (name, folder, order, scale, parts, words or [], cls or name, label, at, below, series)
    return pytest.param(*values, id=f"{name}{at and '-'}{at}")


def every(arguments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {split: dict(arguments) for split in ALL}


BEN = [*NO_CIRRUS]
WHOLE = "data.parts={train: {}, val: {}, test: {}}"
CASES = [
    case("EuroSAT", "eurosat", [*S2[:8], "B09", "B10", "B11", "B12", "B8A"], DN, TVT),
    case("EuroSATSpatial", "eurosat", [*S2[:8], "B09", "B10", "B11", "B12", "B8A"], DN, TVT),
    case("EuroSAT100", "eurosat", [*S2[:8], "B09", "B10", "B11", "B12", "B8A"], DN, TVT),
    case("So2Sat", "so2sat", ["?"] * 8 + LAND, AS_IS, {**TVT, "val": {"split": "validation"}}),
    case("So2Sat-block", "so2sat", ["?"] * 8 + LAND, AS_IS,
         {split: {"version": "3_block", **said} for split, said in HELD.items()}, cls="So2Sat"),
    case("BigEarthNet", "bigearthnet/v1", BEN, DN, {split: {"bands": "s2", **said} for split, said in TVT.items()}),
    case("BigEarthNetV2", "bigearthnet/v2", BEN, DN, {split: {"bands": "s2", **said} for split, said in TVT.items()}),
    case("PASTIS", "pastis", LAND, DN, {"train": {"folds": [1, 2, 3]}, "val": {"folds": [4]}, "test": {"folds": [5]}},
         ["data.size=32"]),
    case("RESISC45", "resisc45", RGB, EIGHT, TVT),
    case("UCMerced", "ucmerced", RGB, EIGHT, TVT),
    case("LandCoverAI", "landcoverai", RGB, EIGHT, TVT, ["data.size=64"]),
    case("LoveDA", "loveda", RGB, EIGHT, {**HELD, "test": {"split": "val"}}, ["data.size=2"]),
    case("Potsdam2D", "potsdam", [*RGB, "nir"], EIGHT, HELD, ["data.size=2"]),
    case("Vaihingen2D", "vaihingen", ["nir", "red", "green"], EIGHT, HELD, ["data.size=2"]),
    case("DeepGlobeLandCover", "deepglobelandcover", RGB, EIGHT, HELD, ["data.size=2"]),
    case("GeoNRW", "geonrw", RGB, AS_IS, HELD, ["data.size=100"]),
    case("TreeSatAI", "treesatai", ["nir", "green", "blue", "red"], EIGHT, HELD, ["data.size=32"],
         at="image_aerial"),
    case("CaFFe", "caffe", ["amplitude"], EIGHT, TVT, ["data.size=32"], label="mask_zones"),
    case("Substation", "substation", S2, DN,
         every({"mask_2d": False, "num_of_timepoints": 4, "timepoint_aggregation": None}),
         ["data.size=32"]),
    case("SolarPlantsBrazil", "solar_plants_brazil", ["B04", "B03", "B02", "B08"], DN, TVT),
    case("FieldsOfTheWorld", "ftw", ["B04", "B03", "B02", "B08"], DN, TVT, ["data.size=32"], series=[1, 0]),
    case("USAVars", "usavars", [*RGB, "nir"], EIGHT, {s: {"labels": ["treecover"], **a} for s, a in TVT.items()},
         ["data.size=3"], label="labels"),
    case("SKIPPD", "skippd", RGB, EIGHT, {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    case("TropicalCyclone", "cyclone", ["lwir", "?", "?"], EIGHT, HELD),
    case("ETCI2021", "etci2021", ["VV", "?", "?", "VH", "?", "?"], EIGHT, {**HELD, "test": {"split": "val"}},
         ["data.size=64"], label="mask.1"),
    case("CaBuAr", "cabuar", NO_CIRRUS, DN, TVT, ["data.size=32"]),
    case("OSCD", "oscd", S2, DN, HELD, ["data.size=64"]),
    case("CloudCoverDetection", "ref_cloud_cover_detection_challenge_v1", ["B02", "B03", "B04", "B08"], DN,
         {"train": {"split": "train"}, "test": {"split": "test"}}, ["data.size=2"]),
    case("SpaceNet1", "spacenet/spacenet1", RGB, EIGHT, every({"split": "train", "image": "3band"}),
         ["data.fit=crop", "data.size=400"]),
    case("NASAMarineDebris", "nasa_marine_debris", RGB, EIGHT, ALL, ["data.size=32"]),
    case("SSL4EOL", "ssl4eo/l", [f"B{n}" for n in range(1, 8)], EIGHT, every({"split": "oli_sr", "seasons": 4}),
         ["data.size=36", WHOLE]),
    case("CopernicusBenchCloudS2", "copernicus/l1_cloud_s2", S2, DN, TVT, ["data.size=32"]),
    case("CopernicusBenchEuroSATS2", "copernicus/l2_eurosat_s1s2",
         [*S2[:8], "B09", "B10", "B11", "B12", "B8A"], DN, TVT, ["data.size=32"]),
    case("CopernicusBenchEuroSATS1", "copernicus/l2_eurosat_s1s2", ["VV", "VH"], AS_IS, TVT, ["data.size=32"]),
    case("CopernicusBenchBigEarthNetS2", "copernicus/l2_bigearthnet_s1s2", NO_CIRRUS, DN, TVT, ["data.size=32"]),
    case("CopernicusBenchBigEarthNetS1", "copernicus/l2_bigearthnet_s1s2", ["VV", "VH"], AS_IS, TVT, ["data.size=32"]),
    case("CopernicusBenchDFC2020S2", "copernicus/l2_dfc2020_s1s2", S2, DN, TVT, ["data.size=32"]),
    case("CopernicusBenchDFC2020S1", "copernicus/l2_dfc2020_s1s2", ["VV", "VH"], AS_IS, TVT, ["data.size=32"]),
    case("CopernicusBenchFloodS1", "copernicus/l3_flood_s1", ["VV", "VH"], POWER, TVT, ["data.size=32"]),
    case("CopernicusBenchLCZS2", "copernicus/l3_lcz_s2", LAND, AS_IS, TVT),
]  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    def copy(folder: str) -> Path:
        assert REAL is not None
        return shutil.copytree(Path(REAL) / "layouts" / "torchgeo" / folder, tmp_path / "root")

    return copy


def mended(root: Path, name: str) -> None:
    """What the tiny layouts have otherwise than the real sets."""
    if name == "CloudCoverDetection":  # masks of noise; torchgeo 0.10's folders, which 0.8 calls otherwise
        for path in root.glob("*/*_labels/*.tif"):
            with rasterio.open(path, "r+") as file:
                file.write(file.read() % 2)
        for old, new in (("public", "train"), ("private", "test")):
            if not hasattr(datasets, "PASTIS100"):
                (root / old).rename(root / new)


def class_of(name: str) -> Any:
    return getattr(datasets, name)


@pytest.mark.parametrize(
    ("name", "folder", "order", "scale", "parts", "words", "cls", "label", "at", "below", "series"), CASES
)
def test_a_set_is_read_as_torchgeo_reads_it(
    copied: Callable[[str], Path], name: str, folder: str, order: list[str], scale: Any, parts: Any, words: list[str],
    cls: str, label: str, at: str, below: str, series: list[int] | None,
) -> None:  # fmt: skip
    root = copied(folder)
    mended(root, name)
    settings = compose("train", ["data=torchgeo", f"data.dataset={name}", f"data.root={root}", *words])
    seen = set[str]()
    if name == "CloudCoverDetection":  # one sample has no part for validation
        words = [*words, "data.parts={train: {split: train}, test: {split: test}}"]
        settings = compose("train", ["data=torchgeo", f"data.dataset={name}", f"data.root={root}", *words])
    for split, arguments in parts.items():
        data: Any = build_data(settings.data, split)
        made = class_of(cls)(str(root), **arguments, **({} if cls in NO_SUMS else {"checksum": False}))
        assert len({*data.names}) == len(data) > 0
        for place in range(len(data)):
            item, index = data[place], data.windows[data.names[place]].of
            assert item["id"] == data.sample_id(place)
            seen.add(item["id"])
            theirs = made[index]
            compared(data, item, theirs, order, scale, at or "image", label, series)
        labels = data.read_labels(range(len(data)))
        if data.label is not None:
            assert torch.equal(labels[data.label], torch.stack([item[data.label] for item in data]))
        identity = data.identity
        assert identity["samples"] == len(data)
        assert str(root) not in repr(identity)
    assert seen


NO_SUMS = {"TropicalCyclone", "CloudCoverDetection", "NASAMarineDebris", "CV4AKenyaCropType"}


def compared(
    data: Any, item: Any, theirs: Any, order: list[str], scale: Any, key: str, label: str, series: Any
) -> None:
    """An item of ours and one of torchgeo's: bands by name, numbers in float64, labels by the class's numbers."""
    numbers = theirs[key].double().numpy()
    if "t" in theirs:  # in another order each time
        series = theirs["t"].argsort().tolist()
    if series is not None:
        numbers = numbers.reshape(len(series), -1, *numbers.shape[1:])[series]
    assert numbers.shape[-3] == len(order)
    channels = [order.index(band) for band in data.sensor.names]
    wanted = scale(numbers[..., channels, :, :])
    size, found = data.size, item["image"].double().numpy()
    if found.shape != wanted.shape:  # the middle
        top, left = ((side - size) // 2 for side in wanted.shape[-2:])
        wanted = wanted[..., top : top + size, left : left + size]
    gone = numbers[..., channels, :, :] == 0 if data.nodata else np.zeros(1, bool)
    wanted = np.where(np.broadcast_to(gone, wanted.shape) if gone.shape == wanted.shape else False, 0.0, wanted)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)
    assert find_sensor(data.sensor) is data.sensor
    if found.ndim == 4:
        assert len(item["dates"]) == len(found)
        assert item["dates"].tolist() == sorted(item["dates"].tolist())
    if data.label is None:
        return
    where, *rest = (label or {"mask": "mask"}.get(data.label, "label")).split(".")
    truth = theirs[where]
    for one in rest:
        truth = truth[int(one)]
    answer = item[data.label]
    if data.label == "mask":
        truth = truth.squeeze().numpy()
        truth = truth.reshape(1, 1) if truth.ndim == 0 else truth
        if truth.shape != tuple(answer.shape):
            top, left = ((side - size) // 2 for side in truth.shape)
            truth = truth[top : top + size, left : left + size]
        into = np.array([255 if (n := data.table.numbers.get(v)) is None else n for v in range(256)])
        np.testing.assert_array_equal(answer.numpy(), into[truth])
        assert {*np.unique(truth).tolist()} <= data.table.numbers.keys()
    elif data.label == "multilabel":
        assert answer.tolist() == truth.tolist()
        assert len(truth) == len(data.labels.classes)
    elif data.label == "target":
        assert float(answer) == pytest.approx(float(truth))
    elif hasattr(data.made, "class_to_idx"):
        assert data.labels.classes[int(answer)] == data.made.classes[int(truth)]
    else:
        assert int(answer) == int(truth)
        assert 0 <= int(truth) < len(data.labels.classes)
