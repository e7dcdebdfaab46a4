"""A bit that flips on the disk is an error of the reader that meets it, by sample, tap and file, and never a number."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import zarr

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.store.finish import complete, small
from satdifuser.store.manifest import Manifest
from satdifuser.store.merge import merge, prune
from satdifuser.store.verify import verify

Files = Callable[[Path], dict[str, bytes]]
FORMS = [("float32", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float16", "mean")]


def flip(file: Path, offset: int, bit: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << (random.randrange(8) if bit is None else bit)
    file.write_bytes(data)


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    make(mask=(40, 30)).write(tmp_path / "store")
    return tmp_path / "store"


def read_all(path: Path | str) -> None:
    store = FeatureStore(path)
    for split in store.splits:
        data = store.split(split, in_memory=False)
        data.batch(range(len(data)))


def test_a_flipped_bit_in_a_small_array_or_the_description_is_named_on_opening(root: Path, files_of: Files) -> None:
    names = {"id", "split", "checksum", "label", "multilabel", "target"}
    keys = [key for key in files_of(root) if key.split("/")[0] in names and not key.endswith("zarr.json")]
    assert {key.split("/")[0] for key in keys} == names
    for key in [*keys, *["zarr.json"] * 20]:
        whole = (root / key).read_bytes()
        flip(root / key, random.randrange(len(whole)))
        with pytest.raises(UserError, match=r"copy the store again|extract it again|install a newer") as caught:
            FeatureStore(root).split("train")
        assert "\n" not in str(caught.value)
        assert key in str(caught.value) or key == "zarr.json"
        (root / key).write_bytes(whole)
    read_all(root)


def test_band_statistics_that_were_edited_are_not_believed(root: Path) -> None:
    text = (root / "zarr.json").read_text()
    document = json.loads(text)
    document["attributes"]["bands"]["train"]["mean"][0] += 1.0
    edited = json.dumps(document)
    (root / "zarr.json").write_text(edited + " " * (len(text) - len(edited)))
    with pytest.raises(UserError, match=r"zarr\.json (is damaged|has \d+ bytes)"):
        FeatureStore(root)


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_flipped_bit_of_features_names_sample_tap_file_and_what_to_run(
    tmp_path: Path, make: Any, reading: str, dtype: str, keep: str
) -> None:
    root, made = tmp_path / "store", make(mask=(40, 30))
    plan = made.plan(dtype, keep, shard_bytes=random.choice([700, 2000]))
    made.write(root, plan)
    for column in random.sample(plan.columns, 3):
        unit = random.choice(list(plan.units))
        row = random.randrange(unit.count)
        file = root / column.name / f"c.{unit.number}{'.0' * len(column.shape)}"
        whole = file.read_bytes()
        flip(file, row * column.row_bytes + random.randrange(column.row_bytes))
        store, hit = FeatureStore(root), made.names[unit.first + row]
        for split, ids in made.ids.items():
            data, sound = store.split(split), [i for i, name in enumerate(ids) if name != hit]
            if hit in ids:
                with pytest.raises(UserError) as caught:
                    data.batch(range(len(data)))
                said = str(caught.value)
                for word in (f"{root}: {column.name}/{file.name} is damaged", f"{column.tap} of sample {hit} "):
                    assert word in said
                assert f"satdifuser store verify {root}" in said
                assert "\n" not in said
            if reading == "from disk" or hit not in ids:
                data.batch(sound)
        unchecked = FeatureStore(root, check=False)
        for split in made.ids:
            data = unchecked.split(split)
            data.batch(range(len(data)))
        file.write_bytes(whole)
    read_all(root)


def without_sums_of_masks(root: Path) -> None:
    """As an earlier version wrote it."""
    manifest = Manifest.from_json((root / "manifest.json").read_text(), root)
    group: Any = zarr.open_group(root, mode="a")
    sums = group["checksum"][...][:, :-1]
    columns = list(group.attrs["columns"])
    assert columns.pop() == "mask"
    group.attrs.update(columns=columns)
    small(group, "checksum", sums, ("sample", "column"))
    manifest.files = {key: file for key, file in manifest.files.items() if "c." in key}
    complete(root, manifest)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_flipped_bit_of_a_wide_mask_is_met_too(root: Path, earlier: bool) -> None:
    before = FeatureStore(root).split("val").read_labels(range(3))["mask"]
    if earlier:
        without_sums_of_masks(root)
        assert verify(str(root)) == []
    assert torch.equal(FeatureStore(root).split("val").read_labels(range(3))["mask"], before)
    file = random.choice(sorted((root / "mask").glob("c.*")))
    flip(file, random.randrange(40 * 30))
    with pytest.raises(UserError, match=rf"mask/{file.name} is damaged"):
        read_all(root)


def test_masks_keep_the_sum_of_every_row(root: Path, slow_crc32c: Callable[[bytes], int]) -> None:
    group: Any = zarr.open_group(root, mode="r")
    assert group.attrs["columns"][-1] == "mask"
    masks = np.asarray(group["mask"][...])
    assert group["checksum"][...][:, -1].tolist() == [slow_crc32c(mask.tobytes()) for mask in masks]


def test_a_pruned_store_keeps_the_sums_of_masks(root: Path, tmp_path: Path) -> None:
    prune(str(root), tmp_path / "small", [21], ["up.0"])
    group: Any = zarr.open_group(tmp_path / "small", mode="r")
    assert group.attrs["columns"] == ["up.0@21", "mask"]
    assert group["checksum"].shape[1] == 2
    read_all(tmp_path / "small")
    assert verify(str(tmp_path / "small")) == []


def test_a_damaged_row_gets_no_new_checksum_from_a_merge(root: Path, tmp_path: Path, make: Any) -> None:
    other = make(mask=(40, 30))
    other.names = [name + "~" for name in other.names]
    other.ids = {split: [name + "~" for name in names] for split, names in other.ids.items()}
    other.write(tmp_path / "other")
    flip(next((root / "up.1@21").glob("c.0.*")), 3)
    with pytest.raises(UserError, match=r"up\.1@21/c\.0\.0\.0\.0 is damaged"):
        merge(tmp_path / "both", [str(root), str(tmp_path / "other")])
    assert not (tmp_path / "both").exists()


def test_afar_a_flipped_bit_is_met_as_on_disk(root: Path) -> None:
    flip(next((root / "up.1@21").glob("c.0.*")), 3)
    system: Any = fsspec.filesystem("memory")
    system.put(str(root), "memory://satdifuser-flips/store", recursive=True)
    try:
        with pytest.raises(UserError, match=r"up\.1@21/c\.0\.0\.0\.0 is damaged \(up\.1@21 of sample"):
            read_all("memory://satdifuser-flips/store")
    finally:
        system.rm("memory://satdifuser-flips", recursive=True)
