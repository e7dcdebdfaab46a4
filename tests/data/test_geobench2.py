"""GEO-Bench-2's tortillas, written here byte for byte: every set, faults, and what is done with them."""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from satdifuser.build import build_data
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
Part = tuple[dict[str, Any], bytes]
FACTS = Path(__file__).resolve().parents[2] / "configs" / "facts" / "geobench2"
PUBLISHED = {  # classes, side
    "benv2": (19, 120), "biomassters": (0, 256), "burn_scars": (2, 512), "caffe": (4, 512), "cloudsen12": (4, 512),
    "dynamic_earthnet": (7, 512), "flair2": (13, 512), "forestnet": (12, 332), "fotw": (3, 256), "kuro_siwo": (3, 224),
    "pastis": (19, 128), "so2sat": (17, 32), "spacenet2": (2, 512), "spacenet6": (2, 450), "spacenet7": (2, 512),
    "spacenet8": (5, 512), "substation": (2, 228), "treesatai": (15, 304),
}  # fmt: skip
each_set = pytest.mark.parametrize("task", PUBLISHED)
SIDE = 12


def facts(task: str) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(OmegaConf.load(FACTS / f"{task}.yaml"))
    return dict(found)


# a tortilla


def packed(parts: Sequence[Part], letters: bytes = b"#y") -> bytes:
    """A header of 200 bytes, what the parts hold, and their index."""
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


def sample(name: str, split: str, parts: Sequence[Part], **said: Any) -> Part:
    return part(name, "TORTILLA", packed(parts), **{"tortilla:data_split": split, "lon": 1.0, "lat": 2.0, **said})


def tiff(numbers: Array) -> bytes:
    with rasterio.MemoryFile() as memory:
        count, height, width = numbers.shape
        kind = {"driver": "GTiff", "dtype": str(numbers.dtype), "count": count, "height": height, "width": width}
        with (
            warnings.catch_warnings(action="ignore"),
            memory.open(**kind, compress="zstd", tiled=True, blockxsize=16, blockysize=16) as file,
        ):
            file.write(numbers)
        return bytes(memory.read())


def hdf5(numbers: Array | None = None, **attributes: Any) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        if numbers is not None:
            file["data"] = numbers
        file.attrs.update(attributes)
    return content.getvalue()


def written(root: Path, samples: Sequence[Part], name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(packed(samples))
    return root / name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEO_BENCH_2_DIR", str(tmp_path / "geobench2"))
    return tmp_path / "geobench2"


# every set

MONTHS = ["September", "November", "January"]
DAYS = {"September": date(2000, 9, 15), "November": date(2000, 11, 15), "January": date(2001, 1, 15)}
LINES = [[1, 1, 8, 1, 8, 6, 1, 6], [9.5, 9, 11, 9, 11, 11]]


def parts_of(said: dict[str, Any], pattern: str, form: str) -> list[tuple[str, dict[str, Any], int]]:
    """Ids of the parts that a pattern is of, what the index says of them, and how many dates are in one (0: none)."""
    if form == "HDF5":
        return [(pattern, {"dates": [20180917, 20180922, 20181001]}, 3)]
    if "_*" in pattern:
        if said["when"] == "month":
            return [(f"abc{pattern[1:-1]}{month}", {"month": month}, 0) for month in MONTHS]
        return [(pattern.replace("*", str(n)), {"stac:time_start": 86400.0 * (17000 + n)}, 0) for n in range(3)]
    return [({"0": "image", "1": "target"}.get(pattern, pattern), {"stac:time_start": 86400.0 * 17000}, 0)]


def numbers_of(said: dict[str, Any], band: str | None, shape: tuple[int, ...], rng: Any) -> tuple[Array, Array]:
    """As a file has them, and what they are in the sensor's unit (float64, by the words of the facts)."""
    scaling = {**said["scaling"], **said["scaling"].get("bands", {}).get(band, {})}
    draw = rng.random(shape)
    if scaling["numbers"] == "power":
        return draw.astype(np.float32), 10 * np.log10(draw.astype(np.float32).astype(np.float64))
    if scaling["numbers"] == "as_is":
        found = (draw * (-20 if band and band[0] in "VH" else 0.5)).astype(np.float32)
        return found, found.astype(np.float64)
    unit = scaling.get("unit", 10000 if band and band[0] == "B" else 255)
    found = np.rint(draw * min(unit, 250 if unit < 300 else 9000))
    return found, found / unit


def known(root: Path, task: str, count: int = 1) -> list[dict[str, Any]]:
    """Samples of a set in its layout, in as many files as it has; how they are to come out."""
    said, rng = {"when": None, "valid": None, **facts(task)}, np.random.default_rng()
    sensor, wanted, samples = find_sensor(said["sensor"]), [], []
    for number in range(count):
        parts: list[Part] = []
        planes: dict[str, list[Array]] = {name: [] for name in sensor.names}
        for pattern, names in said["bands"].items():
            form = "HDF5" if task == "pastis" else "GTiff"
            for name, more, dates in parts_of(said, pattern, form):
                shape = (dates, SIDE, SIDE) if dates else (SIDE, SIDE)
                stored = [numbers_of(said, band, shape, rng) for band in names if band != "..."]
                whole = np.stack([numbers for numbers, _ in stored], -3)
                kinds = (
                    np.float32 if whole.min() < 0 or whole.max() <= 1 else np.uint8 if whole.max() < 256 else np.uint16
                )
                whole = whole.astype(kinds)
                parts.append(part(name, form, (hdf5 if form == "HDF5" else tiff)(whole), **more))
                for band, (_, values) in zip(names, stored, strict=False):
                    planes.get(band, []).extend(values if dates else [values])
        truth, more = answer_of(said, parts, rng)
        if said["valid"]:
            parts.append(part(said["valid"], "GTiff", tiff(np.ones((1, SIDE, SIDE), np.uint8))))
        image = np.stack([np.stack(found) for found in planes.values()], 1)
        series = said["when"] is not None or len(image) > 1
        wanted.append({"image": image if series else image[0], "truth": truth, "id": f"sample_{number}"})
        samples.append(sample(f"sample_{number}", ("train", "validation", "test")[number % 3], parts, **more))
    for place, file in enumerate(said["files"]):
        written(root / task, samples[place :: len(said["files"])], file)
    return wanted


def answer_of(said: dict[str, Any], parts: list[Part], rng: Any) -> tuple[Any, dict[str, Any]]:
    """Adds what is to be answered; gives it as it is to come out, and what the index of samples says of it."""
    table, label, key = said["classes"], said["label"], said["answer"]
    values = dict(table) if isinstance(table, dict) else dict(enumerate(table or []))
    names = list(dict.fromkeys(values.values()))
    if label in ("label", "multilabel"):
        chosen = rng.permutation(len(names))[: 1 if label == "label" else 3]
        given = [names[number] for number in chosen]
        truth: Any = chosen[0] if label == "label" else np.isin(np.arange(len(names)), chosen).astype(float)
        return truth, {key: given[0] if label == "label" else given}
    if key == "annotations":
        boxes = [{"category_id": 1, "bbox": [1, 1, 7, 5], "mask": [line]} for line in LINES]
        text = json.dumps({"sample_annotations": boxes, "image_size": [SIDE, SIDE]})
        parts.append(part(key, "HDF5", hdf5(annotation=text)))
        picture = Image.new("L", (SIDE, SIDE))
        for line in LINES:
            ImageDraw.Draw(picture).polygon(line, fill=1)
        return np.asarray(picture), {}
    name = {"1": "target", "*_AGBM": "abc_AGBM"}.get(key, key)
    if label == "target":
        truth = rng.random((SIDE, SIDE)).astype(np.float32)
        parts.append(part(name, "GTiff", tiff(truth[None])))
        return truth, {}
    stored = rng.choice([*values, *([] if said["ignore"] is None else [said["ignore"]])], (SIDE, SIDE))
    truth = np.vectorize(lambda value: names.index(values[value]) if value in values else 255)(stored)
    layers = np.stack([stored, *[np.full_like(stored, 99)] * (2 if "layer" in said else 0)]).astype(np.int16)
    parts.append(part(name, "HDF5", hdf5(layers)) if "layer" in said else part(name, "GTiff", tiff(layers)))
    return truth, {}


def built(task: str, *words: str, split: str = "train") -> Any:
    return build_data(compose("train", ["data=geobench2", f"data.task={task}", *words]).data, split)


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_the_facts_are_of_the_eighteen_sets_without_boxes() -> None:
    assert {path.stem for path in FACTS.glob("*.yaml")} == PUBLISHED.keys()


@each_set
def test_the_facts_of_a_set_agree_with_its_sensor_and_with_what_is_published(task: str) -> None:
    said = facts(task)
    named = {name for names in said["bands"].values() for name in names}
    assert set(find_sensor(said["sensor"]).names) <= named
    classes = said["classes"].values() if isinstance(said["classes"], dict) else said["classes"] or []
    assert (len(set(classes)), said["size"]) == PUBLISHED[task]
    assert all(file.startswith(f"geobench_{task}.") for file in said["files"])
    assert (said["label"] == "target") == (task == "biomassters")


@each_set
def test_a_set_is_read_by_its_name_alone(root: Path, task: str) -> None:
    wanted = known(root, task, 3)
    for place, split in enumerate(("train", "val", "test")):
        data = built(task, f"data.size={SIDE}", split=split)
        assert [data.sample_id(0), len(data)] == [wanted[place]["id"], 1]
        found = data[0]
        image = found["image"].double().numpy()
        np.testing.assert_allclose(image, wanted[place]["image"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[data.label].numpy(), wanted[place]["truth"])
        labels = data.read_labels([0])
        assert torch.equal(labels[data.label][0], found[data.label])
    refused(lambda: built(task)[0], f"is {SIDE} x {SIDE} px, but data.size is", "in /")


@pytest.mark.parametrize(
    ("task", "days"),
    [
        ("pastis", [date(2018, 9, 17), date(2018, 9, 22), date(2018, 10, 1)]),
        ("biomassters", list(DAYS.values())),
        ("dynamic_earthnet", [date.fromordinal(date(1970, 1, 1).toordinal() + 17000 + n) for n in range(3)]),
    ],
)
def test_dates_come_from_the_index(root: Path, task: str, days: list[date]) -> None:
    wanted = known(root, task, 3)[0]["image"]
    counted = [(day - date(1970, 1, 1)).days for day in days]
    assert built(task, f"data.size={SIDE}")[0]["dates"].tolist() == counted
    middle = built(task, f"data.size={SIDE}", "data.dates=1")[0]
    assert middle["dates"].tolist() == counted[1:2]
    np.testing.assert_allclose(middle["image"].double().numpy(), wanted[1:2], rtol=1e-5, atol=1e-6)
    five = built(task, f"data.size={SIDE}", "data.dates=5")[0]
    assert five["dates"].tolist() == [*counted, -1, -1]
    assert not five["image"][3:].any()


def test_a_month_that_one_sensor_lacks_is_no_data_of_its_bands(root: Path) -> None:
    s1, s2 = np.full((4, SIDE, SIDE), -7, np.float32), np.full((11, SIDE, SIDE), 5000, np.uint16)
    s1[2:, :3] = -9999
    parts = [part(f"a_S1_{month}", "GTiff", tiff(s1), month=month) for month in MONTHS]
    parts += [part("a_S2_November", "GTiff", tiff(s2), month="November")]
    parts += [part("a_AGBM", "GTiff", tiff(np.ones((1, SIDE, SIDE), np.float32)))]
    for file in facts("biomassters")["files"]:
        written(root, [sample(file, "train", parts)], file)
    image = built("biomassters", f"data.size={SIDE}")[0]["image"]
    assert image[:, :10].amax((1, 2, 3)).tolist() == [0.0, 0.5, 0.0]
    assert (image[:, 10:12] == -7).all()
    assert (image[:, 12:, :3] == 0).all()
    assert (image[:, 12:, 3:] == -7).all()


def test_more_bands_are_read_where_the_sensor_has_them_and_one_of_a_series_alone(root: Path) -> None:
    known(root, "flair2")
    assert built("flair2", f"data.size={SIDE}", "data.sensor=AERIAL+HEIGHT")[0]["image"].shape[0] == 5
    wanted = known(root, "kuro_siwo")[0]["image"]
    data = built("kuro_siwo", f"data.size={SIDE}", "data.sensor=SENTINEL1+HEIGHT")
    heights = data[0]["image"][:, 2]
    assert torch.equal(heights[0], heights[2])  # one of three images
    last = built("kuro_siwo", f"data.size={SIDE}", "data.bands={post_event: [VV, VH]}")[0]["image"]
    np.testing.assert_allclose(last.double().numpy(), wanted[2], rtol=1e-5, atol=1e-5)
    refused(lambda: built("caffe", "data.sensor=SENTINEL1"), "data.bands has no VV, VH")
