"""GEO-Bench's layout, written by h5py with stand-ins pickled as its own classes: every set, faults, and what runs."""

from __future__ import annotations

import datetime
import json
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from affine import Affine
from omegaconf import OmegaConf
from rasterio.crs import CRS

from satdifuser.build import build_data
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.data.readers.geobench import GeoBench
from satdifuser.data.sensors import SENTINEL1
from satdifuser.data.splits.budgets import label_shares, within_budget
from satdifuser.errors import UserError, expected
from satdifuser.optional import missing
from satdifuser.tasks import Classification, MultiLabel, Segmentation

Array = np.ndarray[Any, Any]
FACTS = Path(__file__).resolve().parents[2] / "configs" / "facts" / "geobench"
PUBLISHED = {  # classes, side
    "m-bigearthnet": (43, 120), "m-so2sat": (17, 32), "m-brick-kiln": (2, 64), "m-forestnet": (12, 332),
    "m-eurosat": (10, 64), "m-pv4ger": (2, 320), "m-pv4ger-seg": (2, 320), "m-chesapeake": (7, 256),
    "m-cashew-plant": (7, 256), "m-SA-crop-type": (10, 256), "m-nz-cattle": (2, 500), "m-NeonTree": (2, 400),
}  # fmt: skip
AS_IS = {"numbers": "as_is"}
each_set = pytest.mark.parametrize("task", PUBLISHED)


def facts(task: str) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(OmegaConf.load(FACTS / f"{task}.yaml"))
    return dict(found)


def names_of(said: dict[str, Any]) -> dict[str, str]:
    """The files' names of the bands that are read unless more are asked for."""
    return {name: said["bands"][name] for name in find_sensor(said["sensor"]).names}


def record(bands: list[str], label: Any = None) -> str:
    """A record as GEO-Bench writes it, with objects of classes that are there only while it is written."""
    module = types.ModuleType("geobench.dataset")
    band_info = type("Sentinel2", (), {"__module__": "geobench.dataset"})
    module.Sentinel2 = band_info  # type: ignore[attr-defined]
    info = band_info()
    info.name, info.spatial_resolution = "04 - Red", np.float64(10)
    each = {
        "date": datetime.date(2020, 1, 1),
        "spatial_resolution": np.int64(10),
        "band_info": info,
        "meta_info": {"latitude": np.float32(1.5)},
        "transform": Affine(10, 0, 600000, 0, -10, 5200000),
        "crs": CRS.from_epsg(32632),
    }
    values: dict[str, Any] = dict.fromkeys(bands, each) | {"bands_order": bands}
    with pytest.MonkeyPatch.context() as there:
        there.setitem(sys.modules, "geobench", types.ModuleType("geobench"))
        there.setitem(sys.modules, "geobench.dataset", module)
        return str(pickle.dumps(values if label is None else values | {"label": label}))


def sample(path: Path, bands: dict[str, Array], label: Any = None, mask: Array | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, band in bands.items():
            file[name] = band
        if mask is not None:
            file["label"] = mask
        file.attrs["pickle"] = record([*bands], label)


def partition(folder: Path, name: str = "default", **splits: list[str]) -> None:
    (folder / f"{name}_partition.json").write_text(json.dumps({"train": [], "valid": [], "test": []} | splits))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEO_BENCH_DIR", str(tmp_path / "geobench"))
    return tmp_path / "geobench"


def known(root: Path, task: str, seed: int = 0, side: int | None = None) -> dict[str, Any]:
    """One sample of a set in its layout, with values that can be told from each other; how it is to come out."""
    said, rng = facts(task), np.random.default_rng(seed)
    side, folder = side or said["size"], root / said["folder"]
    unit = said["scaling"].get("unit", 1)
    assert {**said["scaling"], "bands": 0} == {"bands": 0, **({"numbers": "dn", "unit": unit} if unit != 1 else AS_IS)}
    kinds: dict[Any, Any] = {255: np.uint8, 10000: np.int16, 1: np.float32}
    top = {255: 250, 10000: 9000, 1: 1.0}[unit]
    bands = {
        (name if seed % 2 else f"{name}_2020-01-01"): (rng.random((side, side)) * top).astype(kinds[unit])
        for name in names_of(said).values()
    }
    image = np.stack([band.astype(np.float64) for band in bands.values()]) / unit
    bands["Unread"], count = np.ones((side, side), np.uint8), len(said["classes"])
    truth: Any = rng.integers(count)
    if said["label"] == "multilabel":
        truth = (rng.random(count) < 0.3).astype(np.int64)
    elif said["label"] == "mask":
        truth = rng.integers(0, count, (side, side))
    masked = said["label"] == "mask"
    sample(folder / f"id_{seed}.hdf5", bands, None if masked else truth, truth.astype(np.int16) if masked else None)
    return {"image": image, "truth": truth, "folder": folder, "label": said["label"]}


def built(task: str, *words: str, split: str = "train") -> Any:
    settings = compose("train", ["data=geobench", f"data.task={task}", *words])
    return build_data(settings.data, split)


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# every set


def test_the_facts_are_of_the_twelve_sets() -> None:
    assert {path.stem for path in FACTS.glob("*.yaml")} == PUBLISHED.keys()


@each_set
def test_the_facts_of_a_set_agree_with_its_sensor_and_with_what_is_published(task: str) -> None:
    said = facts(task)
    sensor = find_sensor(said["sensor"])
    more = {"m-so2sat": SENTINEL1.names}.get(task, ())
    assert tuple(said["bands"]) == (*sensor.names, *more)
    assert len(set(said["bands"].values())) == len(said["bands"])
    assert (len(said["classes"]), said["size"]) == PUBLISHED[task]
    assert len(set(said["classes"])) == len(said["classes"])
    assert said["folder"] == ("segmentation" if said["label"] == "mask" else "classification") + f"_v1.0/{task}"


@each_set
def test_a_set_is_read_by_its_name_alone(root: Path, task: str) -> None:
    wanted = [known(root, task, seed) for seed in range(2)]
    partition(wanted[0]["folder"], train=["id_1", "id_0"], valid=["id_0"], test=["id_1"])
    partition(wanted[0]["folder"], "0.50x_train", train=["id_0"], valid=["id_0"], test=["id_1"])
    train, test, half = built(task), built(task, split="test"), built(task, "data.partition=0.50x_train")
    assert [[item["id"] for item in data] for data in (train, test, half)] == [["id_1", "id_0"], ["id_1"], ["id_0"]]
    assert [item["id"] for item in built(task, split="val")] == ["id_0"]
    for item, wanted_of in zip(train, reversed(wanted), strict=True):
        assert item["image"].dtype == torch.float32
        np.testing.assert_allclose(item["image"].double().numpy(), wanted_of["image"], rtol=1e-6, atol=1e-9)
        assert set(item) == {"id", "image", wanted_of["label"]}
        assert item[wanted_of["label"]].dtype == (torch.float32 if wanted_of["label"] == "multilabel" else torch.int64)
        np.testing.assert_array_equal(item[wanted_of["label"]].numpy(), wanted_of["truth"])
    labels = train.read_labels([1, 0])
    assert labels["id"] == ["id_0", "id_1"]
    assert torch.equal(labels[wanted[0]["label"]], torch.stack([train[place][wanted[0]["label"]] for place in (1, 0)]))
    assert set(train.read_labels([0], ["target"])) == {"id"}
    assert test.identity == built(task, "data.partition=0.50x_train", split="test").identity  # the same samples
    assert train.identity != half.identity


@pytest.mark.parametrize(("name", "task"), [("brick_kiln", "m-brick-kiln"), ("forestnet", "m-forestnet")])
def test_two_sets_have_names_of_their_own(root: Path, name: str, task: str) -> None:
    partition(known(root, task)["folder"], train=["id_0"])
    by_name = build_data(compose("train", [f"data={name}"]).data, "train")
    assert by_name.identity == built(task).identity
    assert torch.equal(by_name[0]["image"], built(task)[0]["image"])


def test_eurosats_last_bands_are_by_what_they_hold_and_not_by_the_files_names(root: Path) -> None:
    """EuroSAT stores B8A last, and GEO-Bench named the bands as if it came after B08."""
    stored = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]
    names = sorted(facts("m-eurosat")["bands"].values())  # as the set numbers them: 08A after 08
    assert names[8].startswith("08A")
    folder = root / "classification_v1.0" / "m-eurosat"
    sample(folder / "a.hdf5", {name: np.full((64, 64), 100 * n, np.int16) for n, name in enumerate(names)}, 0)
    partition(folder, train=["a"])
    data = built("m-eurosat")
    values = dict(zip(data.sensor.names, data[0]["image"][:, 0, 0].tolist(), strict=True))
    assert values == pytest.approx({name: number / 100 for number, name in enumerate(stored)})


# what is read of a file


def made(folder: Path, split: str = "train", **settings: Any) -> GeoBench:
    """The samples below `folder/set`, 16 px with two bands and three classes unless said otherwise."""
    usual: dict[str, Any] = {"folder": "set", "label": "label", "sensor": "satdifuser.data.sensors.AERIAL_RGB"}
    usual |= {"size": 16, "scaling": {"numbers": "dn", "unit": 100}, "classes": ["a", "b", "c"]}
    usual |= {"bands": {"red": "R", "green": "G", "blue": "B"}}
    return GeoBench(str(folder), "mine", split, **(usual | settings))


def bands(side: int = 16, **others: Array) -> dict[str, Array]:
    return {name: np.random.default_rng().integers(0, 100, (side, side), np.uint8) for name in "RGB"} | others


def one(folder: Path, *, label: Any = 1, mask: Array | None = None, **others: Array) -> Path:
    sample(folder / "set" / "a.hdf5", bands(**others), label, mask)
    partition(folder / "set", train=["a"])
    return folder / "set" / "a.hdf5"


def test_coarser_bands_are_brought_to_the_finest_grid(tmp_path: Path) -> None:
    coarse = np.random.default_rng().integers(0, 100, (8, 8), np.uint8)
    one(tmp_path, G=coarse)
    image = made(tmp_path)[0]["image"][1].double().numpy()
    centres = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)  # bilinear, by hand
    low, share = np.floor(centres).astype(int), centres - np.floor(centres)
    high = np.minimum(low + 1, 7)
    rows = coarse[low] * (1 - share[:, None]) + coarse[high] * share[:, None]
    wanted = rows[:, low] * (1 - share) + rows[:, high] * share
    np.testing.assert_allclose(image, wanted / 100, atol=1e-6)


def test_images_and_masks_of_another_size_are_refused_cropped_or_resized(tmp_path: Path) -> None:
    mask = np.random.default_rng().integers(0, 3, (16, 16))
    one(tmp_path, label=None, mask=mask)
    full = made(tmp_path, label="mask")[0]
    refused(lambda: made(tmp_path, label="mask", size=8)[0], "a.hdf5 is 16 x 16 px", "data.fit=crop")
    cut = made(tmp_path, label="mask", size=8, fit="crop")[0]
    assert torch.equal(cut["image"], full["image"][:, 4:12, 4:12])
    assert torch.equal(cut["mask"], full["mask"][4:12, 4:12])
    half = made(tmp_path, label="mask", size=8, fit="resize")[0]
    assert (tuple(half["image"].shape), tuple(half["mask"].shape)) == ((3, 8, 8), (8, 8))
    assert torch.equal(half["mask"], full["mask"][1::2, 1::2])
    double = made(tmp_path, label="mask", size=32, fit="resize")[0]
    assert torch.equal(double["mask"][::2, 1::2], full["mask"])


def test_what_shrinks_is_a_mean_of_all_pixels_weighted_by_a_triangle(tmp_path: Path) -> None:
    one(tmp_path)
    full = made(tmp_path)[0]["image"].double().numpy()
    centres, places = (np.arange(4) + 0.5) * 4, np.arange(16) + 0.5
    weights = np.maximum(1 - np.abs(centres[:, None] - places) / 4, 0)
    weights /= weights.sum(1, keepdims=True)
    small = made(tmp_path, size=4, fit="resize")[0]["image"]
    np.testing.assert_allclose(small.double().numpy(), weights @ full @ weights.T, atol=1e-6)


def test_a_sensor_of_fewer_bands_reads_fewer(root: Path) -> None:
    wanted = known(root, "m-eurosat")
    partition(wanted["folder"], train=["id_0"])
    data = built("m-eurosat", "data.sensor=satdifuser.data.bands.SENTINEL2_RGB")
    np.testing.assert_allclose(data[0]["image"].numpy(), wanted["image"][[3, 2, 1]], rtol=1e-6)
    refused(
        lambda: built("m-eurosat", "data.sensor=satdifuser.data.sensors.NAIP"),
        "data.bands has no red, green, blue, nir",
    )


def test_so2sats_filtered_radar_becomes_db_beside_its_reflectance(root: Path) -> None:
    wanted = known(root, "m-so2sat", seed=1)
    power = np.random.default_rng().uniform(1e-3, 2, (2, 32, 32)).astype(np.float32)
    with h5py.File(wanted["folder"] / "id_1.hdf5", "a") as file:
        file["05 - VH.LEE Filtered"], file["06 - VV.LEE Filtered"] = power
    partition(wanted["folder"], train=["id_1"])
    image = built("m-so2sat", "data.sensor=SENTINEL2_LAND+SENTINEL1")[0]["image"].double().numpy()
    np.testing.assert_allclose(image[:10], wanted["image"], rtol=1e-6)
    np.testing.assert_allclose(image[10:], 10 * np.log10(power[::-1].astype(np.float64)), atol=1e-5)


def test_limit_takes_samples_evenly_and_what_is_ignored_may_be_in_a_mask(tmp_path: Path) -> None:
    mask = np.random.default_rng().integers(0, 3, (16, 16))
    mask[3, 4] = 9
    one(tmp_path, label=None, mask=mask)
    data = made(tmp_path, label="mask", ignore=9)
    wanted = torch.from_numpy(mask)
    wanted[3, 4] = data.labels.ignore_index
    assert torch.equal(data[0]["mask"], wanted)
    partition(tmp_path / "set", train=[f"s{number}" for number in range(10)])
    assert made(tmp_path, limit=4).names == ["s0", "s2", "s5", "s7"]


@pytest.mark.parametrize(
    "label", [2, np.int64(2), np.uint8(2), np.array(2), np.float64(2)], ids=["int", "int64", "uint8", "array", "float"]
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_labels_are_read_however_numpy_was_pickled(tmp_path: Path, label: Any, protocol: int) -> None:
    path = one(tmp_path)
    many = np.array([0, 1, 1], ">i2")
    for value, kind in ((label, "label"), (many, "multilabel"), (many[::-1], "multilabel"), ([1, 0, 1], "multilabel")):
        with h5py.File(path, "a") as file:
            text = pickle.dumps({"label": value}, protocol=protocol)
            file.attrs["pickle"] = str(text.replace(b"numpy._core", b"numpy.core") if protocol < 4 else text)
        if protocol == 2 and b"_codecs" in text:  # bytes of Python 2, which no file of GEO-Bench has
            refused(lambda kind=kind: made(tmp_path, label=kind)[0], "names _codecs.encode")
            continue
        assert made(tmp_path, label=kind)[0][kind].tolist() == np.asarray(value).tolist()


# what is refused


class Gadget:
    """What a hostile file would make a reader run."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.given = (function, given)

    def __reduce__(self) -> Any:
        return self.given


def objects(made_by: str, marker: Path) -> Any:
    from numpy._core import multiarray, numeric

    inner = pickle.dumps(Gadget(marker.touch))
    return {
        "scalar": Gadget(multiarray.scalar, np.dtype("O"), inner),
        "buffer": Gadget(numeric._frombuffer, inner, np.dtype("O"), (1,), "C"),
        "string": Gadget(numeric._frombuffer, b"\0" * 8, "O", (1,), "C"),
        "record": Gadget(multiarray.scalar, np.dtype([("a", "O")]), inner),
        "array": np.array([Gadget(marker.touch)], dtype=object),
        "masked": np.ma.MaskedArray([1, 2, 3]),
    }[made_by]


@pytest.mark.parametrize("made_by", ["scalar", "buffer", "string", "record", "array", "masked"])
def test_objects_in_arrays_of_a_record_are_refused_and_not_run(tmp_path: Path, made_by: str) -> None:
    path, marker = one(tmp_path), tmp_path / "ran"
    with h5py.File(path, "a") as file:
        file.attrs["pickle"] = str(pickle.dumps({"label": objects(made_by, marker)}))
    refused(lambda: made(tmp_path)[0], "a.hdf5", "nothing of it was run", "on_error=skip")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"cos\nsystem\n(S'touch %s'\ntR.", "names os.system"),
        (b'cbuiltins\neval\n(S\'open("%s", "w")\'\ntR.', "names builtins.eval"),
        (b"\x80\x04\x8c\x10geobench.dataset\x8c\x09os.system\x93\x8c\x01%s\x85R.", "names geobench.dataset.os.system"),
        (b"cgeobench.evil\nsystem\n(S'%s'\ntR.", "names geobench.evil.system"),
        (b"cgeobench.dataset\nPath\n(S'%s'\ntR.", "is not of GEO-Bench"),  # a stand-in, that is no record
    ],
)
def test_what_a_record_names_is_not_run(tmp_path: Path, text: bytes, named: str) -> None:
    path, marker = one(tmp_path), tmp_path / "ran"
    with h5py.File(path, "a") as file:
        file.attrs["pickle"] = str(text.replace(b"%s", b"x" if b"\x8c\x01" in text else str(marker).encode()))
    refused(lambda: made(tmp_path)[0], "a.hdf5", named, "nothing of it was run")
    assert not marker.exists()


@pytest.mark.parametrize("text", ["__import__('os')", "b'' + b''", "b'\\x80'", "{}", "b'N.'", "b'((t.'", "b'('*10**9"])
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = one(tmp_path)
    with h5py.File(path, "a") as file:
        del file.attrs["pickle"]
        file.attrs["pickle"] = text
    refused(lambda: made(tmp_path)[0], "a.hdf5")
    with h5py.File(path, "a") as file:
        del file.attrs["pickle"]
    refused(lambda: made(tmp_path)[0], "a.hdf5 has a record that is not of GEO-Bench")


def test_masks_need_no_record(tmp_path: Path) -> None:
    mask = np.random.default_rng().integers(0, 3, (16, 16))
    path = one(tmp_path, mask=mask)
    with h5py.File(path, "a") as file:
        file.attrs["pickle"] = str(b"cos\nsystem\n(S'false'\ntR.")
    assert made(tmp_path, label="mask")[0]["mask"].tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("label", "kind", "said"),
    [
        (3, "label", "a label 3, but there are 0 to 2: set data.classes"),
        (-1, "label", "a label -1"),
        (1.5, "label", "a label 1.5"),
        ([1, 0, 1], "label", "a label of 3 numbers in its record, but data.label=label is one class"),
        ("c", "label", "a label of a str"),
        (
            1,
            "multilabel",
            "of 1 numbers in its record, but data.label=multilabel is 0 or 1 for each of 3 classes",
        ),
        ([1, 0], "multilabel", "a label of 2 numbers"),
        ([1, 0, 2], "multilabel", "a label with 2 in its record, but there are 0 and 1"),
        (None, "label", "has no label in its record: of a set with masks, set data.label=mask"),
        (1, "mask", "has no 'label': it has 'B', 'G', 'R'"),
    ],
)
def test_labels_of_another_kind_or_range_are_one_line(tmp_path: Path, label: Any, kind: str, said: str) -> None:
    one(tmp_path, label=label)
    refused(lambda: made(tmp_path, label=kind)[0], "a.hdf5", said)
    refused(lambda: made(tmp_path, label=kind).read_labels([0]), "a.hdf5", said)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_a_mask_with_another_value_is_one_line(tmp_path: Path, value: int) -> None:
    mask = np.zeros((16, 16), np.int16)
    mask[3, 4] = value
    one(tmp_path, mask=mask)
    refused(lambda: made(tmp_path, label="mask")[0], f"a.hdf5 has a mask with {value}, but the class table has 0 to 2:")


def test_bands_that_are_not_there_or_of_several_dates_are_one_line(tmp_path: Path) -> None:
    path = one(tmp_path)
    refused(
        lambda: made(tmp_path, bands={"red": "R", "green": "H", "blue": "B"})[0], "has no 'H': it has 'B', 'G', 'R'"
    )
    with h5py.File(path, "a") as file:
        file["R_2020-01-01"] = file["R"][()]
        file["R_Edge"] = file["R"][()]
    refused(lambda: made(tmp_path)[0], "a.hdf5 has 2 dates of 'R', and several dates are not read")
    with h5py.File(path, "a") as file:
        del file["R"]
    assert made(tmp_path)[0]["image"].shape == (3, 16, 16)
    with h5py.File(path, "a") as file:
        del file["G"]
        file["G"] = np.zeros((16, 16, 3))
    refused(lambda: made(tmp_path)[0], "a.hdf5 has 'G' with the shape (16, 16, 3): a band is a table of numbers")


def test_files_that_are_missing_or_damaged_are_one_line(tmp_path: Path) -> None:
    path = one(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    refused(lambda: made(tmp_path)[0], "a.hdf5 cannot be read", "download the set again", "on_error=skip")
    path.unlink()
    refused(lambda: made(tmp_path)[0], "a.hdf5 is not there, but sample a needs it: download the set again")


def test_folders_splits_and_partitions_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    one(tmp_path)
    partition(tmp_path / "set", "0.10x_train", train=["a"])
    refused(lambda: made(tmp_path, partition="0.20x_train"), "it has 0.10x_train, default")
    refused(lambda: made(tmp_path, "validation"), "GEO-Bench has no split 'validation': it has train, val, test")
    refused(lambda: made(tmp_path, "val"), "default_partition.json has no samples for val")
    refused(lambda: made(tmp_path / "other"), "is no folder: set GEO_BENCH_DIR, or data.root")
    for text in ("{", "[]", '{"train": 3}', '{"train": ["../a"]}', '{"train": "ab"}', '{"train": [1]}'):
        (tmp_path / "set" / "default_partition.json").write_text(text)
        refused(lambda: made(tmp_path), "default_partition.json", "download the set again")


def test_without_h5py_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one(tmp_path)
    data = made(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        data[0]
    assert expected(caught.value)
    assert str(missing(caught.value)).endswith("which is not installed: pip install 'satdifuser[data]'")


# what is done with it


@pytest.mark.parametrize(
    ("task", "kind"), [("m-eurosat", Classification), ("m-bigearthnet", MultiLabel), ("m-chesapeake", Segmentation)]
)
def test_budgets_read_labels_and_no_images(
    root: Path, monkeypatch: pytest.MonkeyPatch, task: str, kind: type[Any]
) -> None:
    wanted = [known(root, task, seed, side=16) for seed in range(40)]
    partition(wanted[0]["folder"], train=[f"id_{seed}" for seed in range(40)])
    data = built(task, "data.size=16")
    learned = kind(data.labels)
    monkeypatch.setattr(GeoBench, "_image", None)
    shares = label_shares(data, learned)
    whole = {"label": lambda truth: np.eye(len(data.labels.classes))[truth], "multilabel": np.asarray}
    whole["mask"] = lambda truth: np.bincount(truth.ravel(), minlength=len(data.labels.classes)) / truth.size
    for row, sample_of in zip(shares.values, wanted, strict=True):
        np.testing.assert_allclose(row, whole[sample_of["label"]](sample_of["truth"]), atol=1e-12)
    half = within_budget(data, learned, 75, 0)
    assert (len(half), len({half.sample_id(index) for index in range(30)})) == (30, 30)


QUICK = ["fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("m-eurosat", ["task=classification", "decoder=linear"]),
        ("m-chesapeake", ["task=segmentation", "encoder.prepare.bands=[red,green,blue]", "encoder.prepare.high=1.0"]),
    ],
)
def test_a_set_is_extracted_and_learned_from(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = [known(root, task, seed, side=32) for seed in range(8)]
    partition(said[0]["folder"], train=["id_0", "id_1", "id_2", "id_3"], valid=["id_4", "id_5"], test=["id_6", "id_7"])
    data = ["data=geobench", f"data.task={task}", "data.size=32"]
    encoder = [word for word in words if word.startswith("encoder")]
    assert main(["extract", *data, *encoder, "store.path=f.zarr"]) == 0
    assert main(["train", *data, *words, *QUICK, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *data, *words, *QUICK, "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    assert json.loads((tmp_path / "stored" / "result.json").read_text())["steps"] == 2
