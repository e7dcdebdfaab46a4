"""A description that asks for what no disk has is refused at once, whatever its checksums say: nothing is allocated."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.store.manifest import Manifest
from satdifuser.store.shards import crc32c
from satdifuser.store.verify import verify

HUGE = 10**13
ROOM = 64 * 2**20  # bytes that a refusal may take


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    make(mask=(40, 30)).write(tmp_path / "store")
    return tmp_path / "store"


def seal(root: Path) -> None:
    """List the files as they are by now, as somebody who means it would."""
    manifest = Manifest()
    for file in root.rglob("*"):
        if file.is_file() and file.name != "manifest.json":
            data = file.read_bytes()
            manifest.files[file.relative_to(root).as_posix()] = (len(data), crc32c(np.frombuffer(data, np.uint8)))
    (root / "manifest.json").write_text(manifest.to_json())


def edit(root: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change the attributes and the arrays' metadata, in both places where Zarr keeps these."""
    document = json.loads((root / "zarr.json").read_text())
    arrays = document["consolidated_metadata"]["metadata"]
    change(document["attributes"], arrays)
    (root / "zarr.json").write_text(json.dumps(document))
    for name, metadata in arrays.items():
        if isinstance(metadata, dict) and (root / name).is_dir():
            (root / name / "zarr.json").write_text(json.dumps(metadata))
    seal(root)


def read_all(path: Path | str) -> None:
    store = FeatureStore(path)
    for split in store.splits:
        data = store.split(split)
        data.batch(range(len(data)))


def refused(path: Path) -> str:
    """What is said; nobody may allocate much to find out."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_all(path)
        found = verify(str(path))
    except UserError:
        found = []
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < ROOM
    assert not any("\n" in line for line in found)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


ODD = [HUGE, 10**400, -1, 0, 1.5, True, None, "7", [], {}]
ARRAYS = ["id", "split", "checksum", "label", "multilabel", "target", "mask", "up.0@21"]


@pytest.mark.parametrize("place", ["shape", "files", "chunks"])
@pytest.mark.parametrize("name", ARRAYS)
def test_sides_of_an_array_that_cannot_be_are_refused(root: Path, place: str, name: str) -> None:
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for value in [HUGE, *random.sample(ODD, 2)]:
        for side in (0, -1):

            def change(_: Any, arrays: Any, value: Any = value, side: int = side) -> None:
                grid = arrays[name]["chunk_grid"]["configuration"]["chunk_shape"]
                sides = {"shape": arrays[name]["shape"], "files": grid}
                inner = arrays[name]["codecs"][0].get("configuration", {}).get("chunk_shape")
                sides.get(place, inner if inner is not None else grid)[side] = value

            edit(root, change)
            refused(root)
            for file, data in before.items():
                file.write_bytes(data)
    read_all(root)


def test_shape_and_files_that_agree_on_something_absurd_are_refused(root: Path) -> None:
    """Every array says the same of samples that there are not, or of rows as large as the disk."""

    def samples(attributes: Any, arrays: Any) -> None:
        attributes["unit"]["samples"] = HUGE
        for metadata in arrays.values():
            metadata["shape"][0] = HUGE
            metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = HUGE

    def rows(_: Any, arrays: Any) -> None:
        for name in ("id", "label", "target", "multilabel", "mask"):
            arrays[name]["shape"] = [arrays[name]["shape"][0], HUGE]
            grid = arrays[name]["chunk_grid"]["configuration"]
            grid["chunk_shape"] = [grid["chunk_shape"][0], HUGE]

    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for change in (samples, rows):
        edit(root, change)
        refused(root)
        for file, data in before.items():
            file.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, _: a["spec"].update(image_size=[HUGE, HUGE]),
        lambda a, _: a["spec"].update(image_size=[8 * HUGE, 24]),
        lambda a, _: a["spec"]["taps"][0].update(channels=HUGE),
        lambda a, _: a["spec"]["taps"][0].update(channels=-1),
        lambda a, _: a["spec"]["taps"][0].update(channels=0),
        lambda a, _: a["spec"]["taps"][0].update(stride=0),
        lambda a, _: a["spec"].update(taps=[]),
        lambda a, _: a["unit"].update(samples=HUGE),
        lambda a, _: a["unit"].update(samples=-3),
        lambda a, _: a["unit"].update(chunk_bytes=0),
        lambda a, _: a.update(splits=[]),
        lambda a, _: a.update(columns=[]),
        lambda a, _: a.update(columns=a["columns"][::-1]),
        lambda a, _: a["columns"].append("mask"),
        lambda a, _: a["columns"].append("label"),
        lambda _, m: m.pop("split"),
        lambda _, m: m.pop("checksum"),
        lambda _, m: m.pop("up.0@21"),
        lambda _, m: m.update(split=None),
        lambda _, m: m["id"].update(data_type="string"),
        lambda _, m: m["id"].update(data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": HUGE}}),
        lambda _, m: m["label"].update(data_type="float128"),
        lambda _, m: m["label"].update(codecs=[]),
        lambda _, m: m["label"].update(codecs=[{"name": "numcodecs.pickle"}]),
        lambda _, m: m["label"].update(codecs=[{"name": "bytes"}, {"name": "blosc"}]),
        lambda _, m: m["label"].update(shape=[14] + [1] * 40),
        lambda _, m: m["up.0@21"].update(data_type="float64"),
        lambda _, m: m["checksum"].update(data_type="uint64"),
    ],
)
def test_parts_that_cannot_be_or_do_not_fit_each_other_are_refused(root: Path, change: Any) -> None:
    edit(root, change)
    refused(root)


def test_a_chunk_that_unpacks_to_more_than_its_array_is_refused(root: Path) -> None:
    from numcodecs.zstd import Zstd

    file = next(file for file in (root / "label" / "c").rglob("*") if file.is_file())
    file.write_bytes(Zstd().encode(bytes(10**6)))
    seal(root)
    with pytest.raises(UserError, match=r"label cannot be read"):
        read_all(root)


@pytest.mark.parametrize("key", ["zarr.json", "manifest.json"])
@pytest.mark.parametrize("afar", [False, True])
def test_a_huge_description_or_manifest_is_refused_before_it_is_read(root: Path, key: str, afar: bool) -> None:
    os.truncate(root / key, 300 * 2**20)  # of zeros, which take no room on the disk
    path: Any = root
    if afar:
        path = root.as_uri()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"{key} has 314572800 bytes, and must not have more"):
            read_all(path)
        if key == "manifest.json":
            with pytest.raises(UserError, match=rf"{key} has 314572800 bytes, and must not have more"):
                verify(str(path))
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()


BAD_JSON = {
    "lists": "[" * 10**6,
    "objects": '{"a":' * 10**5,
    "a number": "1" * 10**6,
    "no attributes": '{"node_type": "group", "attributes": 3}',
    "NaN": "NaN",
}


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("key", ["zarr.json", "manifest.json"])
def test_nested_and_endless_json_is_one_line(root: Path, what: str, key: str) -> None:
    (root / key).write_text(BAD_JSON[what])
    with pytest.raises(UserError, match=rf"{key} (cannot be read|is damaged)") as caught:
        read_all(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", range(3))
def test_random_changes_to_a_description_are_refused_or_harmless(root: Path, number: int) -> None:
    random.seed(number)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}

    def places(value: Any) -> list[tuple[Any, Any]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for key, part in pairs for found in [(value, key), *places(part)]]

    for _ in range(15):

        def change(attributes: Any, arrays: Any) -> None:
            for _ in range(random.randint(1, 2)):
                container, key = random.choice(places(attributes) + places(arrays) * 3)
                container[key] = random.choice([*ODD, HUGE, 2**31, "../../x", {"a": 1}, [HUGE, HUGE]])

        edit(root, change)
        tracemalloc.start()
        with contextlib.suppress(UserError):
            read_all(root)
            verify(str(root))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < ROOM
        for file, data in before.items():
            file.write_bytes(data)


def test_an_id_longer_than_any_path_is_refused_when_it_is_written(make: Any) -> None:
    made = make({"train": 2})
    made.ids = {"train": ["a" * 4096, "é" * 2049]}
    with pytest.raises(UserError, match=r"id of 4098 bytes.*4096"):
        made.plan()
    made.ids = {"train": ["a" * 4096, "é" * 2048]}
    made.plan()


def test_a_place_afar_is_refused_as_a_folder_is(root: Path) -> None:
    edit(root, lambda _, arrays: arrays["id"]["shape"].__setitem__(1, HUGE))
    system: Any = fsspec.filesystem("memory")
    system.put(str(root), "memory://satdifuser-hostile/store", recursive=True)
    try:
        with pytest.raises(UserError, match="has lost a part of its description"):
            read_all("memory://satdifuser-hostile/store")
    finally:
        system.rm("memory://satdifuser-hostile", recursive=True)
