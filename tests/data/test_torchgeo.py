"""torchgeo's classes on tiny files in their true layouts, written here; facts of all sets; what is said of faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import rasterio
import torch
from omegaconf import OmegaConf
from PIL import Image

from satdifuser.build import build_data
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.data.classes import ClassTable
from satdifuser.data.readers.torchgeo.held import held_by
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError

datasets = pytest.importorskip("torchgeo.datasets")
FACTS = Path(__file__).resolve().parents[2] / "configs" / "facts" / "torchgeo"
SETS = sorted(path.stem for path in FACTS.glob("*.yaml"))
STORED = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]  # EuroSAT's files
EUROSAT = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
           "Residential", "River", "SeaLake"]  # fmt: skip


def facts(name: str) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(OmegaConf.load(FACTS / f"{name}.yaml"))
    return dict(found)


def built(name: str, root: Path, *words: str, split: str = "train") -> Any:
    return build_data(
        compose("train", ["data=torchgeo", f"data.dataset={name}", f"data.root={root}", *words]).data, split
    )


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def tif(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    place = rasterio.transform.from_origin(500000, 5200000, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, crs="EPSG:32632",
        transform=place,
    ) as file:  # fmt: skip
        file.write(array)


def eurosat(root: Path, each: int = 3, seed: int = 0) -> dict[str, Any]:
    """Thirteen bands of each class, and lists of the splits; what each image holds."""
    rng, found = np.random.default_rng(seed), {}
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in EUROSAT:
        for number in range(1, each + 1):
            array = rng.integers(1, 9000, (13, 64, 64), dtype=np.uint16)
            file = f"{name}_{number}"
            tif(root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif" / name / f"{file}.tif", array)
            found[f"{name}/{file}"] = array
            lists[("train", "val", "test")[(number - 1) % 3]].append(f"{file}.jpg")
    for split, names in lists.items():
        (root / f"eurosat-{split}.txt").write_text("\n".join(names) + "\n")
    return found


def chips(root: Path, side: int = 512) -> dict[str, Any]:
    """LandCover.ai as its authors' script leaves it."""
    rng, found = np.random.default_rng(1), {}
    (root / "output").mkdir(parents=True)
    for number, split in enumerate(("train", "train", "val", "test")):
        name = f"M-33-20-D-c-4-2_{number}"
        mask = rng.integers(0, 5, (side // 16, side // 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(root / f"output/{name}.jpg")
        Image.fromarray(mask).save(root / f"output/{name}_m.png")
        with (root / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")
        found[name] = mask
    return found


# facts


def test_there_are_the_sets_of_the_issue() -> None:
    assert {"EuroSAT", "So2Sat", "BigEarthNet", "BigEarthNetV2", "PASTIS", "RESISC45", "UCMerced", "LandCoverAI",
            "LoveDA", "Potsdam2D", "Vaihingen2D", "DeepGlobeLandCover", "GeoNRW", "TreeSatAI", "CaFFe", "Substation",
            "SolarPlantsBrazil", "FieldsOfTheWorld", "MMFlood", "SSL4EOLBenchmark", "USAVars", "SKIPPD",
            "TropicalCyclone"} <= {*SETS}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_the_facts_of_a_set_agree_with_its_class(name: str) -> None:
    said = facts(name)
    cls = getattr(datasets, said.get("class", name))
    sensor, scaling = find_sensor(said["sensor"]), Scaling.of(said["scaling"])
    assert scaling.numbers != "auto"
    assert {"channels", "parts", "size", "label", "holds", "get", "licence", "cite"} <= said.keys()
    assert {*said["parts"]} == {"train", "val", "test"}
    takes = cls.__init__.__code__.co_varnames
    for part in [said.get("given") or {}, *said["parts"].values()]:
        assert {*part} - {"share"} <= {*takes}, part
    listed = [name for names in said["channels"].values() if not isinstance(names, str) for name in names]
    assert len({*listed}) == len(listed)
    if all(not isinstance(names, str) for names in said["channels"].values()):
        theirs = [(said.get("bands") or {}).get(band, band) for band in sensor.names]
        assert {*theirs} <= {*listed}
    if isinstance(said.get("classes"), list | dict):
        table = ClassTable(
            said["classes"], np.atleast_1d(said["ignore"]).tolist() if said.get("ignore") is not None else []
        )
        assert len(table.labels.classes) > 1
    else:
        assert said["label"] in (None, "target") or isinstance(said["classes"], str)


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_not_there_is_one_line_that_says_what_its_folder_must_hold(tmp_path: Path, name: str) -> None:
    refused(lambda: built(name, tmp_path / "none"), "none", facts(name)["holds"][:20], facts(name)["get"][:20])


@pytest.mark.parametrize("name", SETS)
def test_the_parts_of_a_set_have_no_sample_twice(name: str) -> None:
    from satdifuser.data.readers.torchgeo.lists import share_of

    parts, ids = facts(name)["parts"], [f"{n:03d}" for n in range(137)]
    shares = [part["share"] for part in parts.values() if "share" in part]
    seen: dict[str, list[set[str]]] = {}
    for part in parts.values():
        arguments = json.dumps({key: value for key, value in part.items() if key != "share"}, sort_keys=True)
        seen.setdefault(arguments, []).append(share_of(ids, part["share"], None, shares) if "share" in part else {*ids})
    for found in seen.values():
        assert sum(map(len, found)) == len(set.union(*found))


# what is read


def test_eurosats_thirteen_bands_are_by_name_and_not_by_place(tmp_path: Path) -> None:
    truth = eurosat(tmp_path)
    data = built("EuroSAT", tmp_path)
    assert data.sensor.names[8] == "B8A"
    assert len(data) == 10
    assert data.labels.classes == tuple(EUROSAT)
    for item in data:
        stored = dict(zip(STORED, truth[item["id"]].astype(np.float64) / 10000, strict=True))
        wanted = np.stack([stored[band] for band in data.sensor.names])
        np.testing.assert_allclose(item["image"].double().numpy(), wanted, rtol=1e-6)
        assert EUROSAT[int(item["label"])] == item["id"].partition("/")[0]
    labels = data.read_labels(range(len(data)))
    assert labels["label"].tolist() == [int(item["label"]) for item in data]
    rgb = built("EuroSAT", tmp_path, "data.sensor=SENTINEL2:B04/B8A")
    assert torch.equal(rgb[3]["image"], data[3]["image"][[3, 8]])


def test_a_class_that_gives_other_bands_is_read_by_their_names(tmp_path: Path) -> None:
    eurosat(tmp_path)
    whole = built("EuroSAT", tmp_path, "data.sensor=SENTINEL2:B03/B8A")
    few = built("EuroSAT", tmp_path, "data.arguments={bands: [B8A, B12, B03]}", "data.sensor=SENTINEL2:B03/B8A")
    assert torch.equal(few[0]["image"], whole[0]["image"])
    refused(lambda: built("EuroSAT", tmp_path, "data.arguments={bands: [B8A, B12]}"), "has no band B01", "data.sensor")
    refused(
        lambda: built("EuroSAT", tmp_path, "data.channels={image: [" + ", ".join(STORED[:12]) + "]}"), "has no band B8A"
    )
    wrong = built("EuroSAT", tmp_path, "data.channels={image: [B02, B03]}", "data.sensor=SENTINEL2:B03/B02")
    refused(lambda: wrong[0], "has 13 channels in 'image', but data.channels names 2", "another order of bands")


def test_labels_of_folders_are_by_their_names_where_some_folders_are_not_there(tmp_path: Path) -> None:
    """torchgeo numbers the folders that it finds."""
    eurosat(tmp_path)
    tifs = tmp_path / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    for path in (tifs / "AnnualCrop").iterdir():
        path.unlink()
    (tifs / "AnnualCrop").rmdir()
    data = built("EuroSAT", tmp_path)
    assert {(item["id"].partition("/")[0], EUROSAT[int(item["label"])]) for item in data} == {
        (name, name) for name in EUROSAT[1:]
    }


def test_identity_knows_the_files_and_not_where_they_lie(tmp_path: Path) -> None:
    for place in ("a", "b", "c"):
        eurosat(tmp_path / place, seed=place == "c")
    one, two, other = (built("EuroSAT", tmp_path / place).identity for place in "abc")
    assert one == two != other
    assert str(tmp_path) not in json.dumps(one)
    assert one["ids"].startswith("imgs as")
    assert one != built("EuroSAT", tmp_path / "a", split="val").identity


def test_masks_are_read_and_cut_as_their_images_are(tmp_path: Path) -> None:
    truth = chips(tmp_path)
    whole = built("LandCoverAI", tmp_path)
    assert [item["id"] for item in whole] == [*truth][:2]
    assert torch.equal(whole[0]["mask"], torch.from_numpy(truth[whole.names[0]]).long())
    made = datasets.LandCoverAI(str(tmp_path), checksum=False)[0]
    np.testing.assert_allclose(whole[0]["image"].double().numpy(), made["image"].double().numpy() / 255, rtol=1e-6)
    middle = built("LandCoverAI", tmp_path, "data.size=200", "data.fit=crop")[0]
    assert torch.equal(middle["image"], whole[0]["image"][:, 156:356, 156:356])
    assert torch.equal(middle["mask"], whole[0]["mask"][156:356, 156:356])


def test_windows_cover_an_image_once_and_are_padded_at_its_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for place, side in (("Rural", 100), ("Urban", 100)):
        for kind in ("images_png", "masks_png"):
            (tmp_path / "Train" / place / kind).mkdir(parents=True)
        for number in range(12):
            picture = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"Train/{place}/images_png/{number}.png")
            Image.fromarray(rng.integers(0, 8, (side, side), dtype=np.uint8)).save(
                tmp_path / f"Train/{place}/masks_png/{number}.png"
            )
    data = built("LoveDA", tmp_path, "data.size=48")
    val = built("LoveDA", tmp_path, "data.size=48", split="val")
    images = [{name.rpartition("/")[0] for name in one.names} for one in (data, val)]
    assert not images[0] & images[1]
    assert sum(map(len, images)) == 24
    assert len(val) == 9 * len(images[1]) > 0
    first = val.names[0].rpartition("/")[0]
    place, number = first.split("/")
    with Image.open(tmp_path / f"Train/{place}/images_png/{number}.png") as file:
        picture = np.asarray(file).transpose(2, 0, 1).astype(np.float64) / 255
    with Image.open(tmp_path / f"Train/{place}/masks_png/{number}.png") as file:
        mask = np.asarray(file)
    found, classes = np.zeros((3, 144, 144)), np.full((144, 144), 255)
    for item in (val[index] for index in range(9)):
        row, column = (int(digit) for digit in item["id"].rpartition("/r")[2].split("c"))
        box = slice(48 * row, 48 * row + 48), slice(48 * column, 48 * column + 48)
        found[:, box[0], box[1]], classes[box] = item["image"].numpy(), item["mask"].numpy()
        assert torch.equal(val.read_labels([val.names.index(item["id"])])["mask"][0], item["mask"])
    np.testing.assert_allclose(found[:, :100, :100], picture, rtol=1e-6)
    assert (found[:, 100:] == 0).all()
    np.testing.assert_array_equal(classes[:100, :100], np.where(mask == 0, 255, mask.astype(int) - 1))
    assert (classes[100:] == 255).all()


def pastis(root: Path, patches: int = 10) -> None:
    """Series of 3 to 5 dates of 32 px, with their dates and folds in a table."""
    rng, features = np.random.default_rng(2), []
    for folder in ("DATA_S2", "ANNOTATIONS"):
        (root / "PASTIS-R" / folder).mkdir(parents=True)
    for patch in range(patches):
        count = 3 + patch % 3
        series = rng.integers(0, 9000, (count, 10, 32, 32), dtype=np.int16)
        np.save(root / f"PASTIS-R/DATA_S2/S2_{10000 + patch}.npy", series)
        target = np.stack([rng.integers(0, 20, (32, 32), dtype=np.uint8)] * 3)
        np.save(root / f"PASTIS-R/ANNOTATIONS/TARGET_{10000 + patch}.npy", target)
        said = {"ID_PATCH": 10000 + patch, "Fold": 1 + patch % 5,
                "dates-S2": {str(n): 20180917 + n for n in range(count)}}  # fmt: skip
        ring = [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
        features.append({"type": "Feature", "properties": said, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    table = {"type": "FeatureCollection", "features": features}
    (root / "PASTIS-R/metadata.geojson").write_text(json.dumps(table))


def trees(root: Path, count: int = 8) -> None:
    """TreeSatAI: a picture and two satellites of each place, genera in a table."""
    rng, labels, names = np.random.default_rng(7), {}, []
    for number in range(count):
        name = f"Abies_alba_{number}_1_WEFL_NLF.tif"
        tif(root / "aerial/60m" / name, rng.integers(0, 255, (4, 32, 32), dtype=np.uint8))
        tif(root / "s1/60m" / name, rng.uniform(-20, -5, (3, 6, 6)).astype(np.float32))
        tif(root / "s2/60m" / name, rng.integers(1, 9000, (12, 6, 6), dtype=np.uint16))
        labels[name] = [[genus, 0.5] for genus in rng.choice(["Abies", "Fagus", "Quercus"], 2, replace=False)]
        names.append(name)
    (root / "labels").mkdir()
    (root / "labels/TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(labels))
    (root / "train_filenames.lst").write_text("\n".join(names[:-2]))
    (root / "test_filenames.lst").write_text("\n".join(names[-2:]))
    for place in ("abies_alba",):  # torchgeo looks for its downloads
        (root / f"aerial_60m_{place}.zip").touch()


def test_several_labels_and_sensors_are_read(tmp_path: Path) -> None:
    trees(tmp_path)
    data = built("TreeSatAI", tmp_path, "data.size=32", "data.sensor=AERIAL:red/nir+SENTINEL1:VH")
    item = data[0]
    with rasterio.open(tmp_path / "aerial/60m" / f"{item['id']}.tif") as file:
        picture = file.read().astype(np.float64) / 255
    np.testing.assert_allclose(item["image"][:2].double().numpy(), picture[[3, 0]], rtol=1e-6)
    assert (item["image"][2] < -4).all()
    assert item["multilabel"].sum() == 2


def test_a_series_has_the_dates_of_its_table(tmp_path: Path) -> None:
    pastis(tmp_path)
    data = built("PASTIS", tmp_path, "data.size=32")
    assert data.names == ["10000", "10001", "10002", "10005", "10006", "10007"]
    item = data[1]
    first = int((np.datetime64("2018-09-17") - np.datetime64("1970-01-01")).astype(int))
    assert item["dates"].tolist() == [first, first + 1, first + 2, first + 3]
    stored = np.load(tmp_path / "PASTIS-R/DATA_S2/S2_10001.npy").astype(np.float64) / 10000
    np.testing.assert_allclose(item["image"].double().numpy(), stored, rtol=1e-6)
    target = np.load(tmp_path / "PASTIS-R/ANNOTATIONS/TARGET_10001.npy")[0]
    np.testing.assert_array_equal(item["mask"].numpy(), np.where(target == 19, 255, target))
    four = built("PASTIS", tmp_path, "data.size=32", "data.dates=4")
    assert {tuple(one["image"].shape) for one in four} == {(4, 10, 32, 32)}
    assert sorted({int((one["dates"] == -1).sum()) for one in four}) == [0, 1]


def test_landsat_has_masks_whose_zero_counts_nowhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    codes = [0, 11, 12, 21, 22, 23, 24, 31, 41, 42, 43, 52, 71, 81, 82, 90, 95]  # of NLCD
    truth = {}
    for number in range(10):
        mask, place = rng.choice(np.array(codes, np.uint8), (1, 24, 24)), f"{number:07d}/LC08_{number}_20190601"
        image = rng.integers(1, 255, (7, 24, 24), dtype=np.uint8)
        tif(tmp_path / "ssl4eo_l_oli_sr_benchmark" / place / "all_bands.tif", image)
        tif(tmp_path / "ssl4eo_l_oli_nlcd" / place / "nlcd_2019.tif", mask)
        truth[place] = (image.astype(np.float64) / 255, mask[0])
    seen = []
    for split in ("train", "val", "test"):
        for item in built("SSL4EOLBenchmark", tmp_path, "data.size=24", split=split):
            image, mask = truth[item["id"]]
            seen.append(item["id"])
            np.testing.assert_allclose(item["image"].double().numpy(), image, rtol=1e-6)
            assert item["mask"].tolist() == [[255 if v == 0 else codes.index(v) - 1 for v in row] for row in mask]
    assert sorted(seen) == sorted(truth)


def test_a_target_is_read_without_the_pickle_that_torchgeo_loads(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images, power = rng.integers(0, 255, (2500, 64, 64, 3), dtype=np.uint8), rng.random(2500) * 30
    with h5py.File(tmp_path / "2017_2019_images_pv_processed_nowcast.hdf5", "w") as file:
        for split in ("trainval", "test"):
            file.create_group(split)
            file[split]["images_log"], file[split]["pv_log"] = images[:2500], power

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for split in ("trainval", "test"):
        np.save(tmp_path / f"times_{split}_nowcast.npy", np.array([Bomb()] * 2, dtype=object), allow_pickle=True)
    train, val = (built("SKIPPD", tmp_path, split=split) for split in ("train", "val"))
    item = train[7]
    place = int(item["id"])
    assert float(item["target"]) == pytest.approx(power[place])
    np.testing.assert_allclose(item["image"].double().numpy(), images[place].transpose(2, 0, 1) / 255, rtol=1e-6)
    assert not (tmp_path / "ran").exists()
    assert {int(name) // 1000 for name in train.names}.isdisjoint({int(name) // 1000 for name in val.names})
    assert train.identity["ids"] == "index"


# sets of which nothing is known


def fires(root: Path) -> None:
    """torchgeo's FireRisk, of which no YAML is ours: a folder for each class, pictures of 32 px."""
    rng = np.random.default_rng(4)
    for split in ("train", "val"):
        for name in ("High", "Low"):
            folder = root / "FireRisk" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")


FIRE = ["data.sensor=AERIAL_RGB", "data.size=32", "data.scaling=8bit", "data.label=label", "data.classes=[High, Low]"]


def test_a_set_without_facts_says_what_to_give_and_what_it_has(tmp_path: Path) -> None:
    fires(tmp_path)
    refused(
        lambda: built("FireRisk", tmp_path),
        "too little is known of torchgeo's FireRisk", "data.sensor", "data.size", "data.scaling", "data.label",
        "its first sample has image (float32, 3 x 32 x 32", "label (int64, a number", "High, Low",
    )  # fmt: skip
    refused(lambda: built("FireRisk", tmp_path, *FIRE[:4]), "give data.classes")
    refused(lambda: built("FireRisk", tmp_path, *FIRE, "data.scaling=auto"), "data.scaling is auto", "floating point")
    refused(
        lambda: built("FireRisk", tmp_path, *FIRE, "data.sensor=SENTINEL2"), "data.sensor has 13 bands", "data.channels"
    )


def test_a_root_without_the_set_is_told_what_the_class_itself_names(tmp_path: Path) -> None:
    refused(lambda: built("FireRisk", tmp_path), "must hold what torchgeo's class names (FireRisk, FireRisk.zip); let")
    refused(lambda: built("MADOS", tmp_path), "torchgeo has no data set MADOS", "; there is data=mados")


def test_names_of_files_are_taken_from_whatever_a_class_has_them_in() -> None:
    class Set:
        directory = "images"
        files: ClassVar = {"train": {"filename": "a.zip", "md5": "0" * 32}, "test": ["b.zip", "1" * 32]}
        metadata: ClassVar = {
            "train": {"filename": "c.zip", "place": "nowhere", "url": "https://x.org/c.zip?download=1"}
        }
        md5s: ClassVar = {"d.zip": "2" * 32, "train": "3" * 32}
        urls = ("https://x.org/deadbeef/{}", "https://x.org/e.tar.gz?x=1")
        filename_glob = "*"

    assert held_by(Set) == "what torchgeo's class names (images, a.zip, b.zip, c.zip, d.zip, e.tar.gz)"
    Set.files = [f"{number}.zip" for number in range(9)]
    assert "(images, 0.zip, 1.zip, 2.zip, 3.zip, 4.zip, 5.zip, 6.zip and 5 more)" in held_by(Set)
    assert "names no files" in held_by(object)


def test_a_set_without_facts_is_read_with_a_few_settings(tmp_path: Path) -> None:
    fires(tmp_path)
    data = built("FireRisk", tmp_path, *FIRE)
    assert len(data) == 8
    assert data.names[0].endswith("High/0.png")
    made = datasets.FireRisk(str(tmp_path))
    for item in data:
        theirs = made[data.windows[item["id"]].of]
        np.testing.assert_allclose(item["image"].double().numpy(), theirs["image"].double().numpy() / 255, rtol=1e-6)
        assert int(item["label"]) == int(theirs["label"])
    refused(lambda: built("FireRisk", tmp_path, *FIRE, split="test"), "FireRisk", "split=test", "data.parts")


def test_what_torchgeo_does_not_have_is_one_line(tmp_path: Path) -> None:
    refused(lambda: built("EuroSatt", tmp_path), "torchgeo has no data set EuroSatt", "EuroSAT")
    eurosat(tmp_path)
    refused(lambda: built("EuroSAT", tmp_path, "data.arguments={band: 2}"), "takes no band", "did you mean bands?")
    refused(lambda: built("EuroSAT", tmp_path, "data.parts={train: {split: train}}", split="val"), "no 'val'")
    refused(lambda: built("EuroSAT", tmp_path, "data.ids=nothing"), "has no list nothing", "set data.ids")
    refused(lambda: built("EuroSAT", tmp_path, r"data.ids={of: imgs, as: '[A-Z]'}"), "names several samples", "rule")
    refused(lambda: built("EuroSAT", tmp_path, "data.key=labels")[0], "has no 'labels': it has image, label")
    refused(lambda: built("Potsdam2D", tmp_path, "data.download=true"), "torchgeo does not download Potsdam2D", "ISPRS")
    refused(lambda: built("EuroSAT", tmp_path, "data.parts={train: {share: [0.5, 0.2]}}"), "[0.5, 0.2]", "0 to 1")


def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    eurosat(tmp_path)
    data = built("EuroSAT", tmp_path)
    data.files(data.names[0])[0].write_bytes(b"none")
    refused(lambda: data[0], data.names[0], "cannot be read", "on_error=skip")


# a whole path

QUICK = ["fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=2"]


def path(data: list[str], words: list[str], prepare: list[str]) -> None:
    """extract, train from the store and live, eval, compare with its report."""
    assert main(["extract", *data, *prepare, "store.path=f.zarr"]) == 0
    assert main(["train", *data, *words, *QUICK, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *data, *prepare, *words, *QUICK, "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    assert json.loads(Path("stored/result.json").read_text())["steps"] == 2
    assert main(["compare", *data, *prepare, *words, *QUICK, "fusion=mean,gw", "output=cmp", "resamples=50"]) == 0
    assert list(Path("cmp").rglob("*.html"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label", "multilabel", "mask", "target", "series"])
def test_a_set_is_extracted_learned_from_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root, prepare = tmp_path / "data", list[str]()
    root.mkdir()
    if kind == "label":
        eurosat(root)
        data, words = ["data.dataset=EuroSAT", "data.size=64"], ["task=classification", "decoder=linear"]
    elif kind == "mask":
        chips(root, 64)
        data, words = ["data.dataset=LandCoverAI", "data.size=64"], ["task=segmentation"]
        prepare = ["encoder.prepare.bands=[red,green,blue]"]
    elif kind == "multilabel":
        trees(root, 14)
        data, words = ["data.dataset=TreeSatAI", "data.size=32"], ["task=multilabel", "decoder=linear"]
        prepare = ["encoder.prepare.bands=[red,green,blue]"]
    elif kind == "series":
        pastis(root)
        data, words = ["data.dataset=PASTIS", "data.size=32", "data.dates=2"], ["task=segmentation", "temporal=mean"]
    else:
        rng = np.random.default_rng(6)
        with h5py.File(root / "2017_2019_images_pv_processed_nowcast.hdf5", "w") as file:
            for split in ("trainval", "test"):
                file.create_group(split)
                file[split]["images_log"] = rng.integers(0, 255, (2200, 64, 64, 3), dtype=np.uint8)
                file[split]["pv_log"] = rng.random(2200) * 30
        for split in ("trainval", "test"):
            np.save(root / f"times_{split}_nowcast.npy", np.zeros(1))
        data, words = ["data.dataset=SKIPPD", "data.limit=8"], ["task=regression", "decoder=linear"]
        prepare = ["encoder.prepare.bands=[red,green,blue]"]
    path(["data=torchgeo", f"data.root={root}", *data], words, prepare)
