"""Tortillas: read as tacoreader reads them, on the real ones too; what is damaged or missing; and a whole path."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from satdifuser.build import build_data
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.readers.geobench.tortilla import index_of
from satdifuser.data.readers.geobench.v2 import GeoBench2
from satdifuser.data.splits.budgets import label_shares
from satdifuser.errors import UserError, expected
from satdifuser.optional import missing
from satdifuser.tasks import Segmentation

Array = np.ndarray[Any, Any]
Part = tuple[dict[str, Any], bytes]


def packed(parts: Sequence[Part], letters: bytes = b"#y") -> bytes:
    rows, body = [], b""
    for said, content in parts:
        rows.append({**said, "tortilla:offset": 200 + len(body), "tortilla:length": len(content)})
        body += content
    index = io.BytesIO()
    names = {name: None for row in rows for name in row}
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), index)
    head = letters + struct.pack("<QQ", 200 + len(body), len(index.getvalue()))
    return head.ljust(200, b"\0") + body + index.getvalue()


def part(name: str, form: str, content: bytes, **said: Any) -> Part:
    return {"tortilla:id": name, "tortilla:file_format": form, "tortilla:data_split": "train", **said}, content


def tiff(numbers: Array) -> bytes:
    count, height, width = numbers.shape
    kind = {"driver": "GTiff", "dtype": str(numbers.dtype), "count": count, "height": height, "width": width}
    with rasterio.MemoryFile() as memory, warnings.catch_warnings(action="ignore"):
        with memory.open(**kind) as file:
            file.write(numbers)
        return bytes(memory.read())


def sample(name: str, split: str = "train", seed: int = 0, side: int = 16, **others: bytes | None) -> Part:
    rng = np.random.default_rng(seed)
    usual: dict[str, bytes | None] = {
        "img": tiff(rng.integers(0, 250, (1, side, side), np.uint8)),
        "mask": tiff(rng.integers(0, 4, (1, side, side), np.uint8)),
    }
    held = {key: value for key, value in {**usual, **others}.items() if value is not None}
    inner = packed([part(key, "GTiff", value) for key, value in held.items()])
    return part(name, "TORTILLA", inner, **{"tortilla:data_split": split, "labels": ["rock"]})


def caffe(folder: Path, samples: Sequence[Part], name: str = "geobench_caffe.tortilla") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(packed(samples))
    return folder / name


def built(root: Path, *words: str, split: str = "train", task: str = "caffe") -> Any:
    said = ["data=geobench2", f"data.task={task}", f"data.root={root}", "data.size=16", *words]
    return build_data(compose("train", said).data, split)


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# as others read them


def as_tacoreader(path: Path) -> list[dict[str, Any]]:
    """Every sample: its id, its split, and its parts as rasterio or h5py open what tacoreader gives."""
    tacoreader = pytest.importorskip("tacoreader", "0.6", reason="tacoreader<1 is not installed")
    if not hasattr(tacoreader, "v1"):
        pytest.skip("tacoreader<1 is not installed: this one does not read version 1")
    frame, found = tacoreader.load(str(path)), []
    for row in range(len(frame)):
        inner = frame.read(row)
        parts = {inner.iloc[n]["tortilla:id"]: content_of(inner.read(n)) for n in range(len(inner))}
        found.append({"row": dict(frame.iloc[row]), "parts": parts})
    return found


def content_of(place: str) -> Any:
    offset, length, path = re.fullmatch(r"/vsisubfile/(\d+)_(\d+),(.+)", place).groups()  # type: ignore[union-attr]
    content = Path(path).read_bytes()[int(offset) : int(offset) + int(length)]
    if content[:4] == b"\x89HDF":
        with h5py.File(io.BytesIO(content)) as file:
            return file["data"][()] if "data" in file else dict(file.attrs)
    with warnings.catch_warnings(action="ignore"), rasterio.open(place) as file:
        return file.read()


def test_what_is_written_here_is_what_tacoreader_reads(tmp_path: Path) -> None:
    path = caffe(tmp_path, [sample("a", seed=1), sample("b", "test", seed=2)])
    theirs, ours = as_tacoreader(path), index_of(path)
    assert [each["row"]["tortilla:id"] for each in theirs] == [entry.id for entry in ours] == ["a", "b"]
    data = [built(tmp_path)[0], built(tmp_path, split="test")[0]]
    for each, found in zip(theirs, data, strict=True):
        np.testing.assert_allclose(found["image"].double().numpy(), each["parts"]["img"] / 255, rtol=1e-6)
        np.testing.assert_array_equal(found["mask"].numpy(), each["parts"]["mask"][0])


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("SATDIFUSER_TEST_DATA")
    if not folder:
        pytest.skip("SATDIFUSER_TEST_DATA is not set: it names the folder that holds layouts/geobench2")
    return Path(folder) / "layouts" / "geobench2"


def in_float64(task: str, parts: dict[str, Array], row: dict[str, Any]) -> tuple[Array, Array]:
    """Image and answer of a sample as tacoreader, rasterio and h5py give it, by what is known of the set."""
    wide = {name: np.asarray(value, np.float64) for name, value in parts.items() if not isinstance(value, dict)}
    if task == "benv2":
        return np.concatenate([wide["s2"] / 10000, wide["s1"][::-1]]), np.array(sorted(row["labels"]))
    if task == "caffe":
        return wide["img"] / 255, wide["mask"][0]
    if task == "flair2":
        return wide["aerial"][:4] / 255, np.minimum(wide["mask"][0], 13) - 1
    if task == "pastis":
        mask = wide["semantic"][0]
        return wide["s2"] / 10000, np.where(mask == 19, 255, mask)
    months = [m for m in wide if "_S1_" in m]
    dates = []
    for name in months:  # in the order of the season
        radar = np.where(wide[name] == -9999, 0, wide[name])
        light = wide.get(name.replace("_S1_", "_S2_"))
        dates.append(np.concatenate([np.zeros((10, *radar.shape[1:])) if light is None else light[:10] / 10000, radar]))
    return np.stack(dates), wide[next(name for name in wide if name.endswith("_AGBM"))][0]


@pytest.mark.parametrize("task", ["benv2", "biomassters", "caffe", "flair2", "pastis"])
def test_real_samples_are_as_tacoreader_reads_them(real: Path, task: str) -> None:
    sides = {"benv2": 120, "biomassters": 32, "caffe": 512, "flair2": 512, "pastis": 32}
    theirs = as_tacoreader(real / f"{task}.tortilla")
    names = {"train": "train", "val": "validation", "test": "test"}
    for split, named in names.items():
        data = built(real, f"data.size={sides[task]}", split=split, task=task)
        wanted = [each for each in theirs if each["row"]["tortilla:data_split"] == named]
        assert [data.sample_id(n) for n in range(len(data))] == [each["row"]["tortilla:id"] for each in wanted]
        for found, each in zip(data, wanted, strict=True):
            image, answer = in_float64(task, each["parts"], each["row"])
            np.testing.assert_allclose(found["image"].double().numpy(), image, rtol=2e-6, atol=1e-7)
            truth = found[data.label].numpy()
            if task == "benv2":
                truth = np.array(sorted(np.array(data.labels.classes)[truth == 1]))
            np.testing.assert_array_equal(truth, answer)
            if task == "pastis":
                days = [np.datetime64(f"{d}"[:4] + "-" + f"{d}"[4:6] + "-" + f"{d}"[6:]) for d in each["row"]["dates"]]
                assert found["dates"].tolist() == [int(day.astype(int)) for day in days]


def test_in_bigearthnets_files_vh_is_before_vv(real: Path) -> None:
    """Echoes of the polarisation that was sent are the stronger ones, over land and sea."""
    for each in as_tacoreader(real / "benv2.tortilla"):
        first, second = each["parts"]["s1"].mean((1, 2))
        assert first < second - 3
    image = built(real, "data.size=120", "data.sensor=SENTINEL1", task="benv2")[0]["image"]
    assert image[0].mean() > image[1].mean() + 3  # VV, VH


def test_where_a_picture_of_a_glacier_has_no_data_its_mask_has_none(real: Path) -> None:
    for found in built(real, "data.size=512"):
        assert not found["image"][0][found["mask"] == 0].any()


# what is refused


def test_files_that_are_missing_are_one_line(tmp_path: Path) -> None:
    refused(lambda: built(tmp_path / "no"), "no has no geobench_caffe.tortilla: set GEO_BENCH_2_DIR", "hf download")
    (tmp_path / "pastis").mkdir()
    for number in (0, 2):
        caffe(tmp_path / "pastis", [sample("a")], f"geobench_pastis.000{number}.part.tortilla")
    refused(
        lambda: built(tmp_path, task="pastis"), "has 2 of the 3 files of pastis: geobench_pastis.0001.part.tortilla"
    )
    caffe(tmp_path, [sample("a")])
    refused(lambda: built(tmp_path, split="val"), "caffe has no samples for val in geobench_caffe.tortilla")
    other = "data.splits.val.split=validation"
    refused(lambda: built(tmp_path, other, split="val"), "no split 'validation': it has train, val, test")
    refused(lambda: built(tmp_path, task="cafe"), "nothing is known of the geobench2 set 'cafe'", "caffe")


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = caffe(tmp_path, [sample("a"), sample("b")])
    whole = path.read_bytes()
    for content, said in [
        (b"", "does not begin as one"),
        (b"PK" + whole[2:], "does not begin as one"),
        (whole[:-20], "ends before its index does"),
        (whole[:-60] + b"\0" * 60, "has an index that cannot be read"),
        (b"#y" + struct.pack("<QQ", 2**63, 2**63) + whole[18:], "ends before its index does"),
    ]:
        path.write_bytes(content)
        refused(lambda: built(tmp_path), "geobench_caffe.tortilla", said, "download the set again")
    path.write_bytes(packed([part("a", "TORTILLA", b"#y")])[:2] + whole[2:])
    assert len(built(tmp_path)) == 2
    caffe(tmp_path, [sample("a"), sample("a")])
    refused(lambda: built(tmp_path), "has a sample a that is there twice")
    caffe(tmp_path, [sample("a\nb")])
    refused(lambda: built(tmp_path), r"has a sample a\nb that has control characters")


def test_an_index_that_points_beside_the_file_is_refused(tmp_path: Path) -> None:
    path = caffe(tmp_path, [sample("a")])
    for column, value in (("tortilla:offset", 10**9), ("tortilla:length", 10**9), ("tortilla:length", -1)):
        table = {"tortilla:id": ["a"], "tortilla:file_format": ["TORTILLA"], "tortilla:data_split": ["train"]}
        index = io.BytesIO()
        pq.write_table(pa.table({**table, "tortilla:offset": [200], "tortilla:length": [9], column: [value]}), index)
        path.write_bytes((b"#y" + struct.pack("<QQ", 200, len(index.getvalue()))).ljust(200, b"\0") + index.getvalue())
        refused(lambda: built(tmp_path), "ends before its part 'a' does")


@pytest.mark.parametrize(
    ("others", "words", "said"),
    [
        ({"img": None}, [], "a in /.*has no part img, where amplitude is: it has mask; set data.bands"),
        ({"mask": None}, [], "has 0 parts 'mask': it has img; set data.answer"),
        ({"img": tiff(np.ones((2, 16, 16), np.uint8))}, [], "has 2 bands in its part 'img', but data.bands names 1"),
        ({"mask": tiff(np.ones((2, 16, 16), np.uint8))}, [], "has 2 layers in its part 'mask': set data.layer"),
        ({"mask": tiff(np.ones((1, 8, 8), np.uint8))}, [], "is 16 x 16 px, but its mask is 8 x 8"),
        ({"mask": tiff(np.full((1, 16, 16), 7, np.uint8))}, [], "has a mask with 7, but the class table has 0 to 3"),
        ({"img": b"<VRTDataset rasterXSize='16' rasterYSize='16'></VRTDataset>"}, [], "cannot be read"),
        ({}, ["data.layer=2"], "has 1 layers in its part 'mask'"),
        ({}, ["data.when=month"], "has no 'month' for its part 'img': set data.when"),
        ({}, ["data.label=label", "data.answer=kind"], "has no 'kind' in its index: set data.answer"),
        (
            {},
            ["data.label=multilabel", "data.answer=labels", "data.classes=[a,b]"],
            "has a label rock, but the classes",
        ),
        ({}, ["data.bands={img: [amplitude, '...', x]}"], "data.bands.img is"),
    ],
)
def test_samples_of_another_kind_are_one_line(tmp_path: Path, others: Any, words: list[str], said: str) -> None:
    caffe(tmp_path, [sample("a", **others)])
    with pytest.raises(UserError, match=said) as caught:
        built(tmp_path, *words)[0]
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffe(tmp_path, [sample("a")])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        built(tmp_path)
    assert expected(caught.value)
    assert str(missing(caught.value)).endswith("which is not installed: pip install 'satdifuser[data]'")


# what is done with it


def test_identity_is_of_what_is_in_the_samples_wherever_they_lie(tmp_path: Path) -> None:
    caffe(tmp_path / "one", [sample("a", seed=1)])
    caffe(tmp_path / "two", [sample("z", "test"), sample("a", seed=1)], "caffe.tortilla")
    caffe(tmp_path / "three", [sample("a", seed=2)])
    one, two, three = (built(tmp_path / name).identity for name in ("one", "two", "three"))
    assert one == two != three
    assert json.dumps(one)


def test_images_alone_need_no_mask(tmp_path: Path) -> None:
    caffe(tmp_path, [sample("a", mask=None)])
    assert set(built(tmp_path, "data.label=null")[0]) == {"id", "image"}


def test_budgets_read_masks_and_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffe(tmp_path, [sample(f"s{n}", seed=n) for n in range(12)])
    data = built(tmp_path)
    masks = [data[n]["mask"].numpy() for n in range(12)]
    monkeypatch.setattr(GeoBench2, "read", None)
    for row, mask in zip(label_shares(data, Segmentation(data.labels)).values, masks, strict=True):
        np.testing.assert_allclose(row, np.bincount(mask.ravel(), minlength=4) / mask.size, atol=1e-12)


@pytest.mark.slow
def test_a_set_is_extracted_learned_from_compared_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    splits = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    caffe(tmp_path / "data", [sample(f"s{n}", split, n, side=32) for n, split in enumerate(splits)])
    data = ["data=geobench2", "data.task=caffe", "data.root=data", "data.size=32"]
    grey = "encoder.prepare.bands=[amplitude,amplitude,amplitude]"
    quick = ["task=segmentation", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=2"]
    quick += ["decoder=linear", "fusion.projection_dim=16"]
    assert main(["extract", *data, grey, "store.path=f.zarr"]) == 0
    assert main(["train", *data, grey, *quick, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *data, grey, *quick, "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    assert main(["compare", *data, grey, *quick, "fusion=gw,concat", "budgets=[100]", "seeds=[0]"]) == 0
    assert "concat" in (tmp_path / "comparison" / "tables.md").read_text("utf-8")
    assert (tmp_path / "comparison" / "report.html").is_file()
    assert json.loads((tmp_path / "stored" / "result.json").read_text())["steps"] == 2
