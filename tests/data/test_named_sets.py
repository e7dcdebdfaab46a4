"""The sets that are read by name: tiny files in their true layout, by the real writers; values, faults, whole paths."""

from __future__ import annotations

import csv
import datetime
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from satdifuser.build import build_data
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

Array = np.ndarray[Any, Any]
LAND = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
ALL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SPLITS = ("train", "val", "test")


def tif(path: Path, bands: Array, nodata: float | None = None) -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = bands.shape
        shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype, "nodata": nodata}
        with rasterio.open(path, "w", driver="GTiff", **shape) as file:
            file.write(bands)
    return bands


def stored(path: Path, band: int = 1) -> Array:
    """One band, by rasterio itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            found: Array = file.read(band).astype(np.float64)
    return found


def data(name: str, root: Path, split: str = "train", *words: str) -> Any:
    return build_data(compose("train", [f"data={name}", f"data.root={root}", *words]).data, split)


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def close(image: torch.Tensor, wanted: Array) -> None:
    np.testing.assert_allclose(image.double().numpy(), wanted, rtol=2e-6, atol=1e-7)


# MADOS

LENGTHS = {  # of Sentinel-2A, and of 2B
    "B01": (443, 442), "B02": (492, 492), "B03": (560, 559), "B04": (665, 665), "B05": (704, 704), "B06": (740, 739),
    "B07": (783, 780), "B08": (833, 833), "B8A": (865, 864), "B11": (1614, 1610), "B12": (2202, 2186),
}  # fmt: skip
S2A, S2B = ({band: both[which] for band, both in LENGTHS.items()} for which in (0, 1))
METRES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10}


def mados(root: Path, crops: dict[str, list[str]], side: int = 240, seed: int = 0) -> Path:
    """Crops of each split; odd scenes are Sentinel-2B's. A band's values lie about a level of its own."""
    rng = np.random.default_rng(seed)
    (root / "splits").mkdir(parents=True, exist_ok=True)
    for split, names in crops.items():
        (root / "splits" / f"{split}_X.txt").write_text("\n".join(names) + "\n")
        for name in names:
            scene, crop = name.rsplit("_", 1)
            for place, (band, length) in enumerate((S2B if int(scene[6:]) % 2 else S2A).items()):
                metres = METRES.get(band, 20)
                own = side * 10 // metres
                values = 0.02 * (place + 1) + 0.01 * rng.random((1, own, own), np.float32)
                values[0, 0, 0] = np.nan
                tif(root / scene / str(metres) / f"{scene}_L2R_rhorc_{length}_{crop}.tif", values)
            classes = rng.integers(0, 16, (1, side, side)).astype(np.uint8)
            for other in ("cl", "conf", "rep"):
                tif(root / scene / "10" / f"{scene}_L2R_{other}_{crop}.tif", classes if other == "cl" else classes % 4)
    return root


def upsampled(coarse: Array, times: int) -> Array:
    """Bilinear between the centres of pixels, by hand; blank where any share of it is."""
    side = len(coarse)
    centres = np.clip((np.arange(side * times) + 0.5) / times - 0.5, 0, side - 1)
    low, share = np.floor(centres).astype(int), centres - np.floor(centres)
    high = np.minimum(low + 1, side - 1)
    rows = np.nan_to_num(coarse[low], nan=np.inf) * (1 - share[:, None])
    weights = np.zeros((side * times, side))
    weights[np.arange(side * times), low] += 1 - share
    weights[np.arange(side * times), high] += share
    blank = weights @ np.isnan(coarse).astype(float) @ weights.T > 1e-6
    assert rows.shape[0] == side * times
    found = weights @ np.nan_to_num(coarse) @ weights.T
    found[blank] = 0.0
    return found


def test_mados_has_each_band_from_the_file_of_its_wavelength_and_of_either_satellite(tmp_path: Path) -> None:
    crops = {"train": ["Scene_3_12", "Scene_10_1"], "val": ["Scene_0_1"], "test": ["Scene_5_2"]}
    mados(tmp_path / "MADOS", crops, side=48)
    read = {split: data("mados", tmp_path, split, "data.size=48") for split in SPLITS}
    assert {split: list(found.names) for split, found in read.items()} == crops
    for found in read.values():
        for sample in found:
            scene, crop = sample["id"].rsplit("_", 1)
            lengths = S2B if int(scene[6:]) % 2 else S2A
            folder = tmp_path / "MADOS" / scene
            for place, band in enumerate(found.sensor.names):
                metres = METRES.get(band, 20)
                coarse = stored(folder / str(metres) / f"{scene}_L2R_rhorc_{lengths[band]}_{crop}.tif")
                close(sample["image"][place], upsampled(coarse, metres // 10))
            classes = stored(folder / "10" / f"{scene}_L2R_cl_{crop}.tif")
            wanted = np.where(classes == 0, 255, classes - 1)
            np.testing.assert_array_equal(sample["mask"].numpy(), wanted)
            assert len(found.labels.classes) == 15
    assert read["train"].labels.classes[5] == "Oil spill"
    labels = read["train"].read_labels([1])["mask"][0]
    assert torch.equal(labels, read["train"][1]["mask"])


def test_mados_reads_fewer_bands_and_says_which_there_are(tmp_path: Path) -> None:
    mados(tmp_path, {"train": ["Scene_0_1"]})
    full = data("mados", tmp_path)[0]["image"]
    some = data("mados", tmp_path, "train", "data.sensor=SENTINEL2:B12/B04")[0]["image"]
    assert torch.equal(some, full[[10, 3]])
    refused(lambda: data("mados", tmp_path, "train", "data.sensor=SENTINEL2"), "mados has no B09, B10", "B8A, B11, B12")
    refused(lambda: data("mados", tmp_path, "train", "data.sensor=SENTINEL2:B05"), "no band of 10 m", "add B02")


def test_what_mados_lacks_is_one_line(tmp_path: Path) -> None:
    refused(lambda: data("mados", tmp_path), "has no splits: set it to the folder of the set")
    mados(tmp_path, {"train": ["Scene_0_1"]})
    refused(lambda: data("mados", tmp_path, "val"), "val_X.txt is not there", "download the set again")
    (tmp_path / "splits" / "val_X.txt").write_text("../Scene_0_1\n")
    refused(lambda: data("mados", tmp_path, "val"), "val_X.txt has '../Scene_0_1', which is no sample")
    (tmp_path / "splits" / "val_X.txt").write_text("\n")
    refused(lambda: data("mados", tmp_path, "val"), "val_X.txt names no samples")
    swir = tmp_path / "Scene_0" / "20" / "Scene_0_L2R_rhorc_1614_1.tif"
    kept = swir.read_bytes()
    swir.write_bytes(kept[:200])
    refused(lambda: data("mados", tmp_path)[0], "rhorc_1614_1.tif cannot be read", "on_error=skip")
    swir.unlink()
    refused(lambda: data("mados", tmp_path)[0], "rhorc_1614_1.tif is not there, but sample Scene_0_1 needs it")
    swir.write_bytes(kept)
    (tmp_path / "Scene_0" / "10" / "Scene_0_L2R_cl_1.tif").unlink()
    refused(lambda: data("mados", tmp_path)[0], "Scene_0_L2R_cl_1.tif is not there")
    tif(tmp_path / "Scene_0" / "10" / "Scene_0_L2R_cl_1.tif", np.full((1, 240, 240), 16, np.uint8))
    refused(lambda: data("mados", tmp_path)[0], "Scene_0_L2R_cl_1.tif has a mask with 16, but the class table has")


# Sen1Floods11


def floods(root: Path, chips: dict[str, list[str]], side: int = 512, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    hand = root / "data" / "flood_events" / "HandLabeled"
    for split, names in chips.items():
        table = root / "splits" / "flood_handlabeled" / f"flood_{split}_data.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{name}_S1Hand.tif,{name}_LabelHand.tif\n" for name in names))
        for name in names:
            optical = rng.integers(0, 600, (13, side, side)) + 200 * np.arange(13)[:, None, None]
            tif(hand / "S2Hand" / f"{name}_S2Hand.tif", optical.astype(np.uint16))
            radar = np.stack([rng.normal(-10, 3, (side, side)), rng.normal(-17, 3, (side, side))]).astype(np.float32)
            radar[:, :3] = np.nan
            tif(hand / "S1Hand" / f"{name}_S1Hand.tif", radar)
            water = rng.integers(-1, 2, (1, side, side)).astype(np.int16)
            tif(hand / "LabelHand" / f"{name}_LabelHand.tif", water, nodata=-1)
    return root


def test_sen1floods11_has_the_bands_of_both_sensors_and_four_splits(tmp_path: Path) -> None:
    chips = {"train": ["Ghana_1", "India_22"], "valid": ["Spain_3"], "test": ["USA_4"], "bolivia": ["Bolivia_5"]}
    hand = floods(tmp_path / "v1.1", chips, side=64) / "data" / "flood_events" / "HandLabeled"
    words = ["data.size=64", "data.sensor=SENTINEL1:VH+SENTINEL2:B8A/B02+SENTINEL1:VV"]
    for split, names in zip(("train", "val", "test", "bolivia"), chips.values(), strict=True):
        both, light = data("sen1floods11", tmp_path, split, *words), data("sen1floods11", tmp_path, split, words[0])
        radar = data("sen1floods11", tmp_path, split, words[0], "data.sensor=SENTINEL1")
        assert list(both.names) == names == [sample["id"] for sample in light]
        for place, name in enumerate(names):
            optical = hand / "S2Hand" / f"{name}_S2Hand.tif"
            for band, code in enumerate(ALL, 1):
                close(light[place]["image"][light.sensor.names.index(code)], stored(optical, band) / 10000)
            sar = [np.nan_to_num(stored(hand / "S1Hand" / f"{name}_S1Hand.tif", band)) for band in (1, 2)]
            assert (sar[0][:3] == 0).all()
            close(radar[place]["image"], np.stack(sar))
            wanted = [sar[1], stored(optical, 9) / 10000, stored(optical, 2) / 10000, sar[0]]
            close(both[place]["image"], np.stack(wanted))
            water = stored(hand / "LabelHand" / f"{name}_LabelHand.tif")
            np.testing.assert_array_equal(both[place]["mask"].numpy(), np.where(water == -1, 255, water))
    assert light.labels.classes == ("no water", "water")
    assert both.identity != light.identity


def test_sen1floods11_of_one_sensor_asks_for_no_file_of_the_other(tmp_path: Path) -> None:
    floods(tmp_path, {"train": ["Ghana_1"]}, side=32)
    (tmp_path / "data" / "flood_events" / "HandLabeled" / "S1Hand" / "Ghana_1_S1Hand.tif").unlink()
    assert data("sen1floods11", tmp_path, "train", "data.size=32")[0]["image"].shape == (13, 32, 32)
    both = data("sen1floods11", tmp_path, "train", "data.size=32", "data.sensor=SENTINEL2+SENTINEL1")
    refused(lambda: both[0], "Ghana_1_S1Hand.tif is not there, but sample Ghana_1 needs it", "on_error=skip")


def test_what_sen1floods11_lacks_is_one_line(tmp_path: Path) -> None:
    refused(lambda: data("sen1floods11", tmp_path), "has no data/flood_events/HandLabeled")
    floods(tmp_path, {"train": ["Ghana_1"]}, side=32)
    refused(lambda: data("sen1floods11", tmp_path, "val"), "flood_valid_data.csv is not there")
    table = tmp_path / "splits" / "flood_handlabeled" / "flood_valid_data.csv"
    table.write_text("Ghana_1_S1Hand.tif,Ghana_2_LabelHand.tif\n")
    refused(
        lambda: data("sen1floods11", tmp_path, "val"), "has 'Ghana_1_S1Hand.tif,Ghana_2_LabelHand.tif', which is no"
    )
    refused(lambda: data("sen1floods11", tmp_path)[0], "is 32 x 32 px, but data.size is 512")
    refused(
        lambda: data("sen1floods11", tmp_path, "train", "data.sensor=NAIP"), "has no red, green, blue, nir", "VV, VH"
    )
    label = tmp_path / "data" / "flood_events" / "HandLabeled" / "LabelHand" / "Ghana_1_LabelHand.tif"
    tif(label, np.full((1, 32, 32), 2, np.int16))
    refused(lambda: data("sen1floods11", tmp_path, "train", "data.size=32")[0], "a mask with 2")
    tif(tmp_path / "data/flood_events/HandLabeled/S2Hand/Ghana_1_S2Hand.tif", np.zeros((12, 32, 32), np.uint16))
    refused(
        lambda: data("sen1floods11", tmp_path, "train", "data.size=32")[0], "has 12 bands, but a file of the set has 13"
    )


# HLS Burn Scars

HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")


def burns(root: Path, scenes: dict[str, int], side: int = 512, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for folder, count in scenes.items():
        for number in range(count):
            name = f"subsetted_512x512_HLS.S30.T{number:02d}{folder[:3].upper()}.2018{number + 100}.v1.4"
            values = (rng.random((6, side, side)) * 0.05 + 0.05 * np.arange(1, 7)[:, None, None]).astype(np.float32)
            values[:, :2] = 9999
            tif(root / folder / f"{name}_merged.tif", values)
            burnt = rng.integers(0, 2, (1, side, side)).astype(np.int16)
            burnt[:, :2] = -1
            tif(root / folder / f"{name}.mask.tif", burnt)
    return root


def test_hls_burn_scars_tests_on_the_published_validation_and_holds_out_of_training(tmp_path: Path) -> None:
    burns(tmp_path, {"training": 20, "validation": 4}, side=32)
    read = {split: data("hls_burn_scars", tmp_path, split, "data.size=32", "data.val=0.2") for split in SPLITS}
    assert [len(found) for found in read.values()] == [16, 4, 4]
    names = {split: set(found.names) for split, found in read.items()}
    assert names["train"] | names["val"] == {p.name[:-11] for p in (tmp_path / "training").glob("*_merged.tif")}
    assert not names["train"] & names["val"]
    assert names["test"] == {p.name[:-11] for p in (tmp_path / "validation").glob("*_merged.tif")}
    both = {s: data("hls_burn_scars", tmp_path, s, "data.size=32", "data.scheme=both") for s in SPLITS}
    assert [len(found) for found in both.values()] == [20, 4, 4]
    assert both["val"].names == both["test"].names == read["test"].names
    for split, folder in (("train", "training"), ("val", "training"), ("test", "validation")):
        for sample in read[split]:
            path = tmp_path / folder / f"{sample['id']}_merged.tif"
            wanted = np.stack([stored(path, band) for band in range(1, 7)])
            close(sample["image"], np.where(wanted == 9999, 0, wanted))
            burnt = stored(tmp_path / folder / f"{sample['id']}.mask.tif")
            np.testing.assert_array_equal(sample["mask"].numpy(), np.where(burnt == -1, 255, burnt))
    some = data("hls_burn_scars", tmp_path, "test", "data.size=32", "data.sensor=HLS:B12/B03")[0]["image"]
    assert torch.equal(some, read["test"][0]["image"][[5, 1]])
    assert find_sensor("HLS").names == HLS


def test_hls_burn_scars_takes_lists_wherever_its_scenes_lie(tmp_path: Path) -> None:
    burns(tmp_path, {"data": 3, "training": 2}, side=16)
    names = sorted(path.name.removesuffix("_merged.tif") for path in tmp_path.glob("*/*_merged.tif"))
    (tmp_path / "splits").mkdir()
    lists = {"train": names[:3], "val": names[3:4], "test": names[4:]}
    for split, chosen in lists.items():
        (tmp_path / "splits" / f"{split}.txt").write_text("\n".join(chosen))
    for split, chosen in lists.items():
        found = data("hls_burn_scars", tmp_path, split, "data.size=16", "data.scheme=lists")
        assert [sample["id"] for sample in found] == chosen
    (tmp_path / "splits" / "val.txt").write_text("subsetted_lost")
    lost = data("hls_burn_scars", tmp_path, "val", "data.size=16", "data.scheme=lists")
    refused(lambda: lost[0], "subsetted_lost_merged.tif is not there")


def test_what_hls_burn_scars_lacks_is_one_line(tmp_path: Path) -> None:
    refused(lambda: data("hls_burn_scars", tmp_path), "has no training")
    burns(tmp_path, {"training": 2}, side=16)
    refused(lambda: data("hls_burn_scars", tmp_path, "test"), "validation has no images (*_merged.tif)")
    refused(lambda: data("hls_burn_scars", tmp_path, "val"), "data.val=0.1 of 2 scenes leaves none for val")
    refused(lambda: data("hls_burn_scars", tmp_path, "train", "data.scheme=lists"), "has no splits")
    next((tmp_path / "training").glob("*.mask.tif")).unlink()
    read = data("hls_burn_scars", tmp_path, "train", "data.size=16", "data.scheme=both")
    refused(lambda: [read[0], read[1]], ".mask.tif is not there")


# PASTIS


def day(number: int) -> int:
    return int((datetime.date(2018, 9, 17) + datetime.timedelta(days=number)).strftime("%Y%m%d"))


def pastis(root: Path, folds: list[int], side: int = 128, seed: int = 0, radar: bool = True) -> Path:
    """Patches 10000, 10001, ... of these folds, of 8 to 12 dates; radar of other dates and as many as it likes."""
    rng = np.random.default_rng(seed)
    features = []
    for number, fold in enumerate(folds):
        name, own = 10000 + number, {"Fold": fold, "ID_PATCH": 10000 + number, "TILE": "t30uxv"}
        series = {"S2": (10, np.int16)} | ({"S1A": (3, np.float16), "S1D": (3, np.float16)} if radar else {})
        for each, (channels, kind) in series.items():
            dates = int(rng.integers(8, 13)) + 6 * (each != "S2")
            chosen = np.sort(rng.choice(360, dates, replace=False))
            own[f"dates-{each}"] = {str(place): day(int(on)) for place, on in enumerate(chosen)}
            values = (
                rng.integers(50, 4000, (dates, channels, side, side))
                if each == "S2"
                else rng.normal(-12, 4, (dates, channels, side, side))
            )
            values[..., 0, 0] = -10000 if each == "S2" else np.nan
            path = root / f"DATA_{each}" / f"{each}_{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values.astype(kind))
        target = root / "ANNOTATIONS" / f"TARGET_{name}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, rng.integers(0, 20, (3, side, side)).astype(np.uint8))
        features.append({"type": "Feature", "properties": own, "geometry": None})
    rng.shuffle(features)
    (root / "metadata.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return root


def on(root: Path, name: str, series: str) -> list[datetime.date]:
    table = json.loads((root / "metadata.geojson").read_text())["features"]
    own = next(f["properties"] for f in table if str(f["properties"]["ID_PATCH"]) == name)[f"dates-{series}"]
    return [datetime.datetime.strptime(str(own[str(place)]), "%Y%m%d").date() for place in range(len(own))]


def test_pastis_reads_dates_evenly_and_radar_of_the_nearest_date(tmp_path: Path) -> None:
    root = pastis(tmp_path / "PASTIS-R", [1, 2, 3, 4, 5, 1], side=32)
    words = ["data.size=32", "data.dates=5", "data.sensor=SENTINEL2:B12/B02+SENTINEL1", "data.orbit=descending"]
    read = data("pastis", tmp_path, "train", *words)
    assert list(read.names) == ["10000", "10001", "10002", "10005"]
    for sample in read:
        name = sample["id"]
        light, radar = np.load(root / "DATA_S2" / f"S2_{name}.npy"), np.load(root / "DATA_S1D" / f"S1D_{name}.npy")
        light_on, radar_on = on(root, name, "S2"), on(root, name, "S1D")
        count = len(light_on)
        chosen = [int((place + 0.5) * count / 5) for place in range(5)]
        assert sample["dates"].tolist() == [(light_on[at] - datetime.date(1970, 1, 1)).days for at in chosen]
        assert sample["image"].shape == (5, 4, 32, 32)
        for place, at in enumerate(chosen):
            near = min(range(len(radar_on)), key=lambda k: abs((radar_on[k] - light_on[at]).days))
            wanted = np.stack([light[at, 9] / 10000, light[at, 0] / 10000, radar[near, 0], radar[near, 1]]).astype(
                float
            )
            wanted[:, 0, 0] = 0.0
            close(sample["image"][place], wanted)
        classes = np.load(root / "ANNOTATIONS" / f"TARGET_{name}.npy")[0]
        np.testing.assert_array_equal(sample["mask"].numpy(), np.where(classes == 19, 255, classes))
    assert read.labels.classes[18] == "Sorghum"
    assert len(read.labels.classes) == 19


def test_pastis_has_all_dates_or_blank_ones_at_the_end(tmp_path: Path) -> None:
    pastis(tmp_path, [1, 2, 3], side=16, radar=False)
    every = data("pastis", tmp_path, "train", "data.size=16", "data.dates=null")
    many = data("pastis", tmp_path, "train", "data.size=16", "data.dates=20")
    for place in range(3):
        name = every.names[place]
        light = np.load(tmp_path / "DATA_S2" / f"S2_{name}.npy").astype(float) / 10000
        light[..., 0, 0] = 0
        close(every[place]["image"], light)
        close(many[place]["image"][: len(light)], light)
        assert not many[place]["image"][len(light) :].any()
        assert many[place]["dates"].tolist()[len(light) :] == [-1] * (20 - len(light))
    alone = data("pastis", tmp_path, "train", "data.size=16", "data.dates=1")[0]
    assert alone["image"].shape == (1, 10, 16, 16)
    cut = data("pastis", tmp_path, "train", "data.size=8", "data.dates=null", "data.fit=crop")[0]
    assert torch.equal(cut["image"], every[0]["image"][..., 4:12, 4:12])
    assert torch.equal(cut["mask"], every[0]["mask"][4:12, 4:12])


@pytest.mark.parametrize("name", ["mados", "sen1floods11", "hls_burn_scars", "pastis", "so2sat"])
def test_a_set_without_its_labels_is_images(name: str, tmp_path: Path) -> None:
    words = [word for word in tiny(name, tmp_path) if word.startswith("data")]
    for path in [*tmp_path.rglob("*_cl_*"), *tmp_path.rglob("*Label*.tif"), *tmp_path.rglob("*.mask.tif")]:
        path.unlink()
    for path in tmp_path.rglob("TARGET_*.npy"):
        path.unlink()
    sample = data(name, tmp_path, "train", *words[2:], "data.label=null")[0]
    assert set(sample) == {"id", "image"} | ({"dates"} if name == "pastis" else set())


def test_pastis_turns_its_folds_as_the_set_does(tmp_path: Path) -> None:
    pastis(tmp_path, [1, 2, 3, 4, 5], side=8, radar=False)
    for fold in range(1, 6):
        read = {split: data("pastis", tmp_path, split, "data.size=8", f"data.fold={fold}") for split in SPLITS}
        turned = [10000 + (fold - 1 + place) % 5 for place in range(5)]
        assert [sorted(map(int, found.names)) for found in read.values()] == [
            sorted(turned[:3]),
            turned[3:4],
            turned[4:],
        ]


def test_pastis_of_radar_alone_has_the_radars_dates(tmp_path: Path) -> None:
    pastis(tmp_path, [1], side=8)
    sample = data("pastis", tmp_path, "train", "data.size=8", "data.dates=null", "data.sensor=SENTINEL1")[0]
    assert len(sample["image"]) == len(sample["dates"]) == len(on(tmp_path, "10000", "S1A"))


def test_pastis_reads_of_a_file_only_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pastis(tmp_path, [1], side=8, radar=False)
    read, opened = data("pastis", tmp_path, "train", "data.size=8", "data.dates=2"), []
    inner = np.lib.format.open_memmap

    def watched(path: Any, **given: Any) -> Any:
        found = inner(path, **given)
        opened.append(found)
        return found

    monkeypatch.setattr(np.lib.format, "open_memmap", watched)
    assert read[0]["image"].shape[0] == 2
    assert opened
    assert all(isinstance(found, np.memmap) and found.mode == "r" for found in opened)


def test_what_pastis_lacks_is_one_line(tmp_path: Path) -> None:
    refused(lambda: data("pastis", tmp_path), "has no metadata.geojson")
    pastis(tmp_path, [1, 1], side=8, radar=False)
    small = ["data.size=8"]
    refused(lambda: data("pastis", tmp_path, "test"), "metadata.geojson has no patches of fold 5")
    refused(lambda: data("pastis", tmp_path, "train", "data.sensor=SENTINEL1"), "has no 'dates-S1A'", "PASTIS-R")
    refused(lambda: data("pastis", tmp_path, "train", "data.sensor=SENTINEL2"), "pastis has no B01, B09, B10")
    refused(lambda: data("pastis", tmp_path, "train", "data.fold=6"), "data.fold is 6: it can be 1, 2, 3, 4 or 5")
    read = data("pastis", tmp_path, "train", *small)
    (tmp_path / "ANNOTATIONS" / "TARGET_10000.npy").unlink()
    refused(lambda: read[0], "TARGET_10000.npy is not there, but sample 10000 needs it", "on_error=skip")
    light = tmp_path / "DATA_S2" / "S2_10001.npy"
    kept = light.read_bytes()
    light.write_bytes(kept[:300])
    refused(lambda: read[1], "S2_10001.npy cannot be read", "on_error=skip")
    np.save(light, np.zeros((3, 10, 8, 8), np.int16))
    refused(lambda: read[1], "S2_10001.npy has the shape (3, 10, 8, 8), but", "dates in metadata.geojson")
    np.save(light, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(lambda: read[1], "S2_10001.npy cannot be read")
    light.unlink()
    refused(lambda: read[1], "S2_10001.npy is not there")
    for text in ("{", "[]", '{"features": [{"properties": {"Fold": 1, "ID_PATCH": 3, "dates-S2": {"0": 2018}}}]}'):
        (tmp_path / "metadata.geojson").write_text(text)
        refused(
            lambda: data("pastis", tmp_path), "metadata.geojson is not as it was published", "download the set again"
        )


# So2Sat


def so2sat(file: Path, count: int, seed: int = 0, zones: int = 17) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "sen1": rng.normal(0, 0.3, (count, 32, 32, 8)),
        "sen2": rng.random((count, 32, 32, 10)) * 0.3 + 0.2 * np.arange(10),
        "label": np.eye(17)[np.arange(count) % zones],
    }
    values["sen1"][..., 4:6] = np.exp(rng.normal(-2, 1, (count, 32, 32, 2)))
    with h5py.File(file, "w") as made:
        for key, value in values.items():
            made.create_dataset(key, data=value)
    return values


def test_so2sat_has_reflectance_and_intensities_as_decibels(tmp_path: Path) -> None:
    for place, (split, stem) in enumerate(zip(SPLITS, ("training", "validation", "testing"), strict=True)):
        values = so2sat(tmp_path / f"{stem}.h5", 5 + place, seed=place)
        read = data("so2sat", tmp_path, split, "data.sensor=SENTINEL2_LAND+SENTINEL1")
        assert read.names == [f"{stem}-{number:06d}" for number in range(5 + place)]
        for number, sample in enumerate(read):
            light = values["sen2"][number].transpose(2, 0, 1)
            radar = 10 * np.log10(values["sen1"][number][..., [5, 4]]).transpose(2, 0, 1)  # VV, then VH
            np.testing.assert_allclose(
                sample["image"].double().numpy(), np.concatenate([light, radar]), rtol=1e-5, atol=1e-5
            )
            assert sample["label"].item() == number % 17
        assert read.read_labels([3, 1])["label"].tolist() == [3, 1]
    assert read.labels.classes[16] == "Water"
    assert data("so2sat", tmp_path).sensor.names == LAND
    refused(lambda: data("so2sat", tmp_path, "train", "data.sensor=SENTINEL2"), "so2sat has no B01, B09, B10")


def test_a_partition_of_so2sat_holds_validation_out_of_training(tmp_path: Path) -> None:
    for name in ("random", "block", "culture_10"):
        so2sat(tmp_path / name / "training.h5", 20)
        values = so2sat(tmp_path / name / "testing.h5", 4, seed=1)
        read = {s: data("so2sat", tmp_path, s, f"data.partition={name}", "data.val=0.25") for s in SPLITS}
        assert [len(found) for found in read.values()] == [15, 5, 4]
        assert {*read["train"].names, *read["val"].names} == {f"training-{number:06d}" for number in range(20)}
        close(read["test"][2]["image"], values["sen2"][2].transpose(2, 0, 1))
        chosen = read["val"][0]
        with h5py.File(tmp_path / name / "training.h5") as file:
            close(chosen["image"], file["sen2"][int(chosen["id"][-6:])].transpose(2, 0, 1))


def test_what_so2sat_lacks_is_one_line(tmp_path: Path) -> None:
    refused(lambda: data("so2sat", tmp_path), "has no training.h5")
    refused(lambda: data("so2sat", tmp_path, "train", "data.partition=block"), "has no block")
    so2sat(tmp_path / "training.h5", 3)
    refused(lambda: data("so2sat", tmp_path, "val"), "validation.h5 is not there: download the set again")
    with h5py.File(tmp_path / "training.h5", "a") as file:
        file["label"][1] = 0.0
    read = data("so2sat", tmp_path)
    assert read[0]["label"] == 0
    refused(lambda: read[1], "training.h5 has a label of training-000001 that is not one of its 17 zones")
    with h5py.File(tmp_path / "validation.h5", "w") as file:
        file["sen2"] = np.zeros((2, 32, 32, 10))
    refused(lambda: data("so2sat", tmp_path, "val"), "validation.h5: label is not there")
    with h5py.File(tmp_path / "validation.h5", "w") as file:
        file["sen2"], file["label"] = np.zeros((2, 10, 32, 32)), np.eye(17)
    refused(lambda: data("so2sat", tmp_path, "val"), "sen2 is of the shape (2, 10, 32, 32), not")
    (tmp_path / "validation.h5").write_bytes(b"\x89HDF nothing")
    refused(lambda: data("so2sat", tmp_path, "val"), "validation.h5 cannot be read")


# beside torchgeo's own readers


def given(name: str) -> Path:
    folder = os.environ.get("SATDIFUSER_TEST_DATA")
    if not folder:
        pytest.skip("SATDIFUSER_TEST_DATA is not set: it names the folder that holds layouts/torchgeo")
    found = Path(folder) / "layouts" / "torchgeo" / name
    if not found.is_dir():
        pytest.skip(f"{found} is not there")
    return found


def test_so2sat_agrees_with_torchgeo() -> None:
    torchgeo = pytest.importorskip("torchgeo.datasets")
    root = given("so2sat")
    words = ["data.sensor=SENTINEL2_LAND+SENTINEL1", "data.scaling.bands.VV.numbers=as_is"]
    words += ["data.scaling.bands.VH.numbers=as_is", "data.val=0"]
    radar = ("S1_B6", "S1_B5")
    versions = [("2", "null"), *((f"3_{name}", name) for name in ("random", "block", "culture_10"))]
    for version, partition in versions:
        for split, theirs in zip(SPLITS, ("train", "validation", "test"), strict=True):
            if split == "val" and partition != "null":
                continue  # theirs has none
            read = data("so2sat", root, split, *words, f"data.partition={partition}")
            other = torchgeo.So2Sat(str(root), version, theirs, (*torchgeo.So2Sat.all_s2_band_names, *radar))
            assert len(read) == len(other) > 0
            for mine, own in zip(read, other, strict=True):
                light = own["image"][2:]  # theirs has radar first
                wanted = torch.cat([light, own["image"][:2]])
                torch.testing.assert_close(mine["image"], wanted, rtol=0, atol=0)
                assert mine["label"] == own["label"]
            assert read.labels.classes == torchgeo.So2Sat.classes


def test_pastis_agrees_with_torchgeo(tmp_path: Path) -> None:
    torchgeo = pytest.importorskip("torchgeo.datasets")
    with zipfile.ZipFile(given("pastis") / "PASTIS-R.zip") as packed:
        packed.extractall(tmp_path)
    file = tmp_path / "PASTIS-R" / "metadata.geojson"
    table = json.loads(file.read_text())
    for feature in table["features"]:  # theirs has no dates
        name = feature["properties"]["ID_PATCH"]
        for series in ("S2", "S1A", "S1D"):
            count = len(np.load(tmp_path / "PASTIS-R" / f"DATA_{series}" / f"{series}_{name}.npy"))
            feature["properties"][f"dates-{series}"] = {str(place): day(3 * place) for place in range(count)}
    file.write_text(json.dumps(table))
    words = ["data.size=32", "data.dates=null", "data.scaling=as_is", "data.ignore=null", "data.nodata=null"]
    names = list(torchgeo.PASTIS.classes)
    words += [f"data.classes=[{','.join(names)}]"]
    for split, folds in zip(SPLITS, ([1, 2, 3], [4], [5]), strict=True):
        for series, sensor in (("s2", "SENTINEL2_LAND"), ("s1a", "SENTINEL1"), ("s1d", "SENTINEL1")):
            orbit = "data.orbit=descending" if series == "s1d" else "data.orbit=ascending"
            read = data("pastis", tmp_path, split, *words, f"data.sensor={sensor}", orbit)
            other = torchgeo.PASTIS(str(tmp_path), folds, series)
            assert len(read) == len(other) > 0
            for mine, own in zip(read, other, strict=True):
                torch.testing.assert_close(mine["image"], own["image"][:, : len(read.sensor)], rtol=0, atol=0)
                torch.testing.assert_close(mine["mask"], own["mask"], rtol=0, atol=0)


# whole paths

QUICK = [
    "fusion.projection_dim=16",
    "trainer=quick",
    "trainer.max_steps=2",
    "trainer.batch_size=2",
    "trainer.workers=2",
]
EIGHT = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}


def tiny(name: str, root: Path) -> list[str]:
    """Eight tiny samples of a set; the words that it is read with."""
    if name == "mados":
        mados(root, {split: [f"Scene_{number}_1" for number in numbers] for split, numbers in EIGHT.items()}, side=48)
    elif name == "sen1floods11":
        chips = {{"val": "valid"}.get(split, split): [f"A_{n}" for n in numbers] for split, numbers in EIGHT.items()}
        floods(root, {**chips, "bolivia": ["Bolivia_1"]}, side=48)
    elif name == "hls_burn_scars":
        burns(root, {"training": 6, "validation": 2}, side=48)
    elif name == "pastis":
        pastis(root, [1, 2, 3, 1, 4, 4, 5, 5], side=48)
    else:
        for place, (split, stem) in enumerate((("train", "training"), ("val", "validation"), ("test", "testing"))):
            so2sat(root / f"{stem}.h5", len(EIGHT[split]), seed=place, zones=2)
    both = {"sen1floods11": "SENTINEL2+SENTINEL1", "pastis": "SENTINEL2_LAND+SENTINEL1"}
    own = {"hls_burn_scars": ["data.val=0.34"], "pastis": ["data.dates=3"]}.get(name, [])
    own += [f"data.sensor={both[name]}"] if name in both else []
    task = ["task=classification", "decoder=linear"] if name == "so2sat" else ["task=segmentation", "data.size=48"]
    return [f"data={name}", f"data.root={root}", *own, *task]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mados", "sen1floods11", "hls_burn_scars", "pastis", "so2sat"])
def test_a_set_is_extracted_learned_from_and_scored(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = tiny(name, tmp_path / "set")
    time = ["temporal=mean"] if name == "pastis" else []
    reads = [word for word in words if word.startswith("data")]
    assert main(["taps", *reads]) == 0
    assert main(["extract", *reads, "store.path=f.zarr", "store.workers=2"]) == 0
    assert main(["train", *words, *time, *QUICK, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *words, *time, *QUICK, "budget=75", "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    assert main(["eval", "run=stored"]) == 0
    if name == "sen1floods11":
        assert main(["eval", "run=live", "split=bolivia"]) == 0
    assert json.loads((tmp_path / "stored" / "result.json").read_text())["steps"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mados", "sen1floods11", "hls_burn_scars", "pastis", "so2sat"])
def test_a_damaged_sample_is_left_out_where_that_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in tiny(name, tmp_path / "set") if word.startswith("data")]
    tested = data(name, tmp_path / "set", "test", *words[2:])
    file = tested.files(tested.names[0])[0]
    if name == "so2sat":
        with h5py.File(file, "a") as open_file:
            open_file["label"][0] = 0.0
    else:
        file.write_bytes(b"nothing")
    assert main(["extract", *words, "store.path=f.zarr", "on_error=stop"]) == 2
    assert main(["extract", *words, "store.path=g.zarr", "on_error=skip"]) == 0
    assert file.name in capsys.readouterr().err
    assert FeatureStore("g.zarr").split("test").read_labels([0])["id"] == [tested.names[1]]


@pytest.mark.slow
def test_a_grid_over_the_five_sets_gives_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["mados", "sen1floods11", "hls_burn_scars", "pastis", "so2sat"]
    tasks = {}
    for name in names:
        words = [word for word in tiny(name, tmp_path / name) if not word.startswith("encoder")]
        tasks[name] = [*words, *(["temporal=mean"] if name == "pastis" else [])]
    grid = {"models": {"colours": ["encoder=colours", "fusion=concat"]}, "tasks": tasks, "recipe": QUICK}
    (tmp_path / "my_configs" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n" + json.dumps({**grid, "budgets": [100], "seeds": [0], "resamples": 50})
    (tmp_path / "my_configs" / "experiment" / "five.yaml").write_text(text)
    assert main(["compare", "--config-dir", "my_configs", "experiment=five", "output=five"]) == 0
    with (tmp_path / "five" / "ranking.csv").open() as file:
        assert sorted(row["task"] for row in csv.DictReader(file)) == sorted(names)
