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
from rasterio.enums import Resampling

from satdifuser.build import build_data
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor

datasets = pytest.importorskip("torchgeo.datasets")
PARQUET = ("BigEarthNetV2", "FieldsOfTheWorld")
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
    if name in PARQUET:
        pytest.importorskip("pyarrow")
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
    if "dates" in item:  # of some series nobody knows them
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


# those that are asked otherwise


def built(name: str, root: Path, split: str, *words: str) -> Any:
    return build_data(
        compose("train", ["data=torchgeo", f"data.dataset={name}", f"data.root={root}", *words]).data, split
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_mmflood_is_read_by_windows_of_its_tiles(copied: Callable[[str], Path], split: str) -> None:
    root = copied("mmflood")
    data = built("MMFlood", root, split, "data.size=8")
    made = class_of("MMFlood")(str(root), split=split, checksum=False)
    assert len(data) == sum(
        -(-height // 8) * -(-width // 8) for height, width in map(data.made.size, range(len(data.made)))
    )
    assert {name.rpartition("/")[0] for name in data.names} <= {
        f"{path.parts[-3]}/{path.stem}" for path in root.glob("activations/*/s1_raw/*.tif")
    }
    for item in (data[0], data[len(data) - 1]):
        window = data.windows[item["id"]]
        box, times = made.index.geometry.iloc[window.of].bounds, made.index.index[window.of]
        whole = made[slice(box[0], box[2]), slice(box[1], box[3]), slice(times.left, times.right)]
        image = whole["image"][:, window.rows, window.columns].double().numpy()
        wanted, (height, width) = POWER(image), image.shape[1:]
        np.testing.assert_allclose(item["image"][:, :height, :width].double().numpy(), wanted, rtol=1e-5, atol=1e-4)
        truth = whole["mask"].squeeze()[window.rows, window.columns]
        assert torch.equal(item["mask"][:height, :width], truth.long())
        assert (item["mask"][height:] == 255).all()


def test_clouds_of_landsat_are_read_by_windows_of_its_scenes(copied: Callable[[str], Path]) -> None:
    root = copied("l8biome")
    words = ["data.size=16", "data.parts={train: {}, val: {}, test: {}}"]
    data = built("L8Biome", root, "train", *words)
    made = class_of("L8Biome")(str(root), checksum=False)
    scenes = {path.stem for path in root.rglob("LC8*.TIF") if "fixedmask" not in path.stem}
    assert {name.partition("/")[0] for name in data.names} == scenes
    item = data[0]
    window = data.windows[item["id"]]
    box, times = made.index.geometry.iloc[window.of].bounds, made.index.index[window.of]
    whole = made[slice(box[0], box[2]), slice(box[1], box[3]), slice(times.left, times.right)]
    image = whole["image"].double().numpy()[[0, 1, 2, 3, 4, 5, 6, 8], :16, :16]
    wanted = np.where(image == 0, 0, (image - 5000) / 50000)
    np.testing.assert_allclose(item["image"].double().numpy()[:, : image.shape[1], : image.shape[2]], wanted, atol=1e-6)
    assert data.sensor.names == ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9")
    parts = [{n.partition("/")[0] for n in built("L8Biome", root, split, "data.size=16").names}
             for split in ("train", "val", "test")]  # fmt: skip
    assert set.union(*parts) == scenes
    assert sum(map(len, parts)) == len(scenes)


def test_crops_of_kenya_have_the_dates_of_their_images(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = class_of("CV4AKenyaCropType")
    for name, value in (("tile_height", 2), ("tile_width", 2), ("tiles", ("0",)), ("dates", ("20190606",))):
        monkeypatch.setattr(cls, name, value)  # as the layout has them
    root = copied("cv4a_kenya_crop_type")
    bands = ", ".join(NO_CIRRUS)
    words = [
        "data.size=2",
        WHOLE,
        "data.scaling={numbers: dn, unit: 1e38}",
        "data.classes={67: a, 78: b, 154: c, 179: d}",
    ]
    data = built(
        "CV4AKenyaCropType", root, "train", f"data.arguments={{chip_size: 2, stride: 2, bands: [{bands}]}}", *words
    )
    item = data[0]
    assert item["id"] == "0/0/0"
    assert item["dates"].tolist() == [18053]  # 2019-06-06
    theirs = cls(str(root), chip_size=2, stride=2, bands=NO_CIRRUS)[0]
    np.testing.assert_allclose(item["image"].double().numpy(), theirs["image"].double().numpy() / 1e38, rtol=1e-6)


def test_radar_beside_light_is_read_by_name(copied: Callable[[str], Path]) -> None:
    """Of torchgeo's 14 channels the first is VH, though its documentation says VV."""
    root = copied("bigearthnet/v1")
    channels = f"data.channels={{image: [VH, VV, {', '.join(NO_CIRRUS)}]}}"
    item = built("BigEarthNet", root, "train", "data.arguments={bands: all}", channels,
                 "data.sensor=SENTINEL1+SENTINEL2_NO_CIRRUS",
                 "data.scaling={numbers: dn, bands: {VV: {numbers: as_is}, VH: {numbers: as_is}}}")[0]  # fmt: skip
    folder = next(
        path for path in root.glob("BigEarthNet-S1-v1.0/*") if item["id"].rpartition("MSIL2A_")[2][-5:] in path.name
    )
    for place, name in enumerate(("VV", "VH")):
        with rasterio.open(folder / f"{folder.name}_{name}.tif") as file:
            stored = file.read(1, out_shape=(120, 120), out_dtype="int32", resampling=Resampling.bilinear)
        np.testing.assert_array_equal(item["image"][place].numpy(), stored)


def test_seasons_without_labels_are_series_by_date(copied: Callable[[str], Path]) -> None:
    """torchgeo draws seasons at random, and in another order each time."""
    root = copied("ssl4eo/s12")
    data = built("SSL4EOS12", root, "train", "data.arguments={split: s2a}", WHOLE, "data.limit=1",
                 "data.sensor=SENTINEL2_NO_CIRRUS", f"data.channels={{image: [{', '.join(NO_CIRRUS)}]}}")  # fmt: skip
    assert data.names == ["0000000"]
    item = data[0]
    folders = sorted((root / "s2a" / "0000000").iterdir(), key=lambda path: path.name)
    assert item["image"].shape == (len(folders), 12, 264, 264)
    days = [str(np.datetime64("1970-01-01") + int(day)).replace("-", "") for day in item["dates"]]
    assert days == [path.name[:8] for path in folders]
    for image, folder in zip(item["image"], folders, strict=True):
        with rasterio.open(folder / "B8A.tif") as file:
            stored = file.read(1, out_shape=(264, 264)).astype(np.float64)
        np.testing.assert_allclose(image[8].double().numpy(), stored / 10000, rtol=1e-6)
    assert torch.equal(data[0]["image"], item["image"])
    assert len({data.fingerprint() for _ in range(8)}) == 1


def test_trees_are_read_from_a_picture_and_two_satellites(copied: Callable[[str], Path]) -> None:
    root = copied("treesatai")
    item = built("TreeSatAI", root, "test", "data.size=2", "data.sensor=SENTINEL2_NO_CIRRUS+SENTINEL1")[0]
    theirs = class_of("TreeSatAI")(str(root), split="test", checksum=False)[0]
    order = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09"]
    optical = theirs["image_s2"].double().numpy()[[order.index(band) for band in NO_CIRRUS]] / 10000
    wanted = np.concatenate([optical, theirs["image_s1"].double().numpy()[:2]])
    np.testing.assert_allclose(item["image"].double().numpy(), wanted, rtol=1e-6)
