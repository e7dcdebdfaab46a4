"""The sets of the transfer study that are read by no older reader: NeuCo-Bench's, and AI4SmallFarms by its folders."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.config import compose
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
COUNTS = {"s1": 2, "s2l1c": 13, "s2l2a": 12}


def numbers(kind: str, name: str, side: int) -> Array:
    rng = np.random.default_rng(abs(hash((kind, name))) % 2**32)
    values = rng.integers(300, 4000, (4, COUNTS[kind], side, side))
    return (-values / 200.0).astype(np.float32) if kind == "s1" else values.astype(np.int16)


def packed(file: Path, values: Array, version: int = 2, **given: Any) -> None:
    import zarr
    from zarr.storage import ZipStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with ZipStore(file, mode="w") as store:
        group = zarr.open_group(store, mode="w", zarr_format=version)  # type: ignore[arg-type]
        group.create_array("bands", data=values, chunks=(1, *values.shape[1:]), **given)


def neuco(root: Path, places: int = 20, side: int = 16, version: int = 2, folder: str = "data") -> list[str]:
    """The set with a table of all its places but one, and one place more without images."""
    names = [f"{place:07d}" for place in range(places)]
    for kind in COUNTS:
        for number, name in enumerate(names):
            packed(
                root / folder / kind / f"part-{number % 2:06d}" / f"{name}.zarr.zip", numbers(kind, name, side), version
            )
    (root / "labels").mkdir()
    rows = [f"{name},{0.5 * number}" for number, name in enumerate(names[1:])]
    (root / "labels" / "biomass_mean__regr.csv").write_text(
        "\n".join(["id,label", *rows, "9999999,3.0", f"{names[0]},"])
    )
    (root / "labels" / "crops__regr.csv").write_text("id,label\n" + "\n".join(f"{name},1" for name in names))
    return names[1:]


def read(name: str, root: Path, split: str = "train", *words: str) -> Any:
    part = compose("data", [f"data={name}", f"data.root={root}", *words]).data
    return part.split(split)


@pytest.mark.parametrize(("version", "folder"), [(2, "data"), (3, "data_eval")])
def test_neuco_has_the_mean_of_the_seasons_and_the_number_of_the_table(
    tmp_path: Path, version: int, folder: str
) -> None:
    names = neuco(tmp_path, version=version, folder=folder)
    splits = {split: read("neuco", tmp_path, split, "data.size=16") for split in ("train", "val", "test")}
    found = sorted(sample["id"] for data in splits.values() for sample in data)
    assert found == sorted(names)  # each in one split, and none without a number or images
    assert len(splits["train"]) > len(splits["test"]) >= len(splits["val"]) > 0
    for sample in splits["train"]:
        wanted = numbers("s2l2a", sample["id"], 16).astype(np.float64).mean(0) / 10000
        torch.testing.assert_close(sample["image"].double(), torch.from_numpy(wanted), rtol=0, atol=1e-6)
        assert float(sample["target"]) == 0.5 * names.index(sample["id"])


def test_neuco_reads_one_season_of_any_sensor(tmp_path: Path) -> None:
    neuco(tmp_path)
    words = ["data.size=16", "data.season=2", "data.level=l1c", "data.sensor=SENTINEL1+SENTINEL2:B10/B02"]
    sample = read("neuco", tmp_path, "train", *words)[0]
    radar, light = (numbers(kind, sample["id"], 16)[2] for kind in ("s1", "s2l1c"))
    expected = np.concatenate([radar[:2], light[[10, 1]] / 10000]).astype(np.float32)
    torch.testing.assert_close(sample["image"], torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_neuco_of_another_target_has_other_answers_and_is_other_data(tmp_path: Path) -> None:
    neuco(tmp_path)
    one, other = (
        read("neuco", tmp_path, "test", "data.size=16", f"data.target={t}") for t in ("biomass_mean", "crops")
    )
    assert one.identity != other.identity
    assert {float(sample["target"]) for sample in other} == {1.0}
    assert "target" not in read("neuco", tmp_path, "test", "data.size=16", "data.label=null")[0]


def test_what_neuco_lacks_is_one_line(tmp_path: Path) -> None:
    neuco(tmp_path)
    for words, said in (
        (["data.target=biomas"], "biomass_mean, crops"),
        (["data.sensor=NAIP"], "has no"),
        (["data.sensor=SENTINEL2"], "has no B10"),
        (["data.size=8"], "data.size is 8"),
    ):
        with pytest.raises(UserError, match=said) as error:
            read("neuco", tmp_path, "train", "data.size=16", *words)[0]
        assert "\n" not in str(error.value)
    table = tmp_path / "labels" / "crops__regr.csv"
    for text in ("id,label\nx,many\n", "name,label\nx,1\n", "id,label\n", "id,label\nx,nan\n"):
        table.write_text(text)
        with pytest.raises(UserError, match=r"crops__regr\.csv"):
            read("neuco", tmp_path, "train", "data.target=crops")
    table.write_text("id,label\nnobody,1\n")
    with pytest.raises(UserError, match="has no images of the places of crops"):
        read("neuco", tmp_path, "train", "data.target=crops")


def test_a_neuco_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    neuco(tmp_path)
    data = read("neuco", tmp_path, "train", "data.size=16")
    file = data.files(data.names[0])[0]
    packed(file, np.zeros((4, 11, 16, 16), np.int16))
    with pytest.raises(UserError, match=r"has bands of the shape \(4, 11, 16, 16\)"):
        data[0]
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        data[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"filters": [{"id": "pickle", "protocol": 5}]},
        {"compressor": {"id": "pickle", "protocol": 5}},
        {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]},
    ],
)
def test_a_neuco_file_that_would_be_unpickled_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    neuco(tmp_path)
    data = read("neuco", tmp_path, "train", "data.size=16")
    file = data.files(data.names[0])[0]
    with zipfile.ZipFile(file) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    said = json.loads(parts["bands/.zarray"])
    parts["bands/.zarray"] = json.dumps({**said, **changed}).encode()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in parts.items():
            opened.writestr(name, content)
    with pytest.raises(UserError, match=r"pickle|bands of object"):
        data[0]


def test_ai4smallfarms_is_tiles_of_its_three_folders(tmp_path: Path) -> None:
    import rasterio

    rng, kept = np.random.default_rng(0), {}
    for split, side in (("train", 300), ("validate", 224), ("test", 230)):
        image, mask = rng.integers(1, 6000, (4, side, side)), rng.integers(0, 2, (side, side))
        kept[split] = image, mask
        for kind, values in (("images", image), ("masks", mask[None])):
            file = tmp_path / "sentinel-2-asia" / split / kind / f"tile_{split}.tif"
            file.parent.mkdir(parents=True)
            shape = {"height": side, "width": side, "count": len(values)}
            with rasterio.open(
                file, "w", driver="GTiff", dtype="float32" if kind == "images" else "uint8", **shape
            ) as out:
                out.write(values.astype(np.float32 if kind == "images" else np.uint8))
    train, val = read("ai4smallfarms", tmp_path), read("ai4smallfarms", tmp_path, "val")
    assert (len(train), len(val), len(read("ai4smallfarms", tmp_path, "test"))) == (4, 1, 4)
    image, mask = kept["validate"]
    torch.testing.assert_close(val[0]["image"], torch.from_numpy(image / 10000).float(), rtol=0, atol=1e-6)
    assert torch.equal(val[0]["mask"], torch.from_numpy(mask))
    assert val.labels.classes == ("background", "crop field")
