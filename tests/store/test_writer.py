"""Writing a store: what goes in comes out, other tools can read it, and what does not fit the plan is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float16", "grid2")]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_zarr_opens_it_without_our_code(tmp_path: Path, made: Any, dtype: str, keep: str) -> None:
    plan = made.plan(dtype, keep)
    made.write(tmp_path / "store", plan)
    group = zarr.open_group(tmp_path / "store", mode="r")
    packed = plan.form.pack(made.bank)
    for tap in packed.spec.taps:
        values, *scale = packed.of(tap)
        array = group[f"{tap.name}@{tap.timestep}"]
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names[0] == "sample"
        assert len(set(array.metadata.dimension_names)) == 4
        found = array[...]
        if dtype == "bfloat16":  # as its attribute says, these are the upper 16 bits of a float32
            assert array.attrs["bits"] == "bfloat16"
            found = (found.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(found, values.float().numpy() if dtype == "bfloat16" else values.numpy())
        if scale:
            np.testing.assert_array_equal(group[f"{tap}.scale"][...], scale[0].numpy())
    assert [bytes(row).rstrip(b"\0").decode() for row in group["id"][...]] == made.names
    assert group["split"][...].tolist() == [0] * 7 + [1] * 3 + [2] * 4
    assert group["label"][...].tolist() == made.labels["label"].tolist()
    assert group["mask"].dtype == np.uint8
    np.testing.assert_array_equal(group["mask"][...], made.labels["mask"].numpy())
    assert list(group.attrs["labels"]["classes"]) == list(made.classes.classes)
    attributes = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]
    assert BankSpec.from_dict(attributes["spec"]) == plan.spec


def test_xarray_opens_it_as_one_data_set_with_named_dimensions(tmp_path: Path, made: Any, spec: BankSpec) -> None:
    made.write(tmp_path / "store")
    with xarray.open_zarr(tmp_path / "store", consolidated=False) as data:
        labels = {"id", "split", "mask", "label", "multilabel", "target", "checksum"}
        assert set(data.data_vars) == set(map(str, spec.taps))
        assert set(data.coords) == {"sample", *labels}
        assert all(array.dims[0] == "sample" for array in data.variables.values())
        assert data.sizes["sample"] == 14
        assert data["mid.block@21"].shape == (14, 5, 2, 3)
        assert data["mask"].dims == ("sample", "mask_y", "mask_x")
        for number, split in enumerate(made.counts):
            mine = data.isel(sample=np.flatnonzero(data["split"].values == number))
            rows = made.rows(split)
            assert (mine["up.0@161"].values == made.bank.map("up.0", 161)[rows].numpy()).all()
            assert (mine["label"].values == made.labels["label"][rows].numpy()).all()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_row_has_its_checksum(tmp_path: Path, made: Any, slow_crc32c: Callable[[bytes], int], dtype: str) -> None:
    made.write(tmp_path / "store", made.plan(dtype))
    group = zarr.open_group(tmp_path / "store", mode="r")
    for number, name in enumerate(group.attrs["columns"]):
        wanted = [slow_crc32c(np.ascontiguousarray(row).tobytes()) for row in group[name][...]]
        assert group["checksum"][:, number].tolist() == wanted
    assert group["checksum"].shape[1] == number + 1


def test_the_description_has_what_made_the_store(tmp_path: Path, made: Any) -> None:
    skipped = [{"id": "gone", "reason": "it is cut short"}]
    config = {"encoder": {"name": "toy"}, "seed": 3}
    made.write(tmp_path / "store", made.plan("int8", config=config, skipped=skipped))
    attributes = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]
    assert attributes["satdifuser_store"] == 3
    assert attributes["form"] == {"dtype": "int8", "keep": "maps"}
    assert attributes["splits"] == ["train", "val", "test"]
    assert attributes["data"] == made.identity
    assert attributes["configuration"] == config
    assert attributes["skipped"] == skipped
    assert attributes["bands"]["names"] == ["B2", "B3", "B4", "B8"]


@pytest.mark.parametrize(
    ("shard_bytes", "dtype"), [(1, "float32"), (700, "float16"), (700, "float32"), (2**28, "int8")]
)
@pytest.mark.parametrize("sizes", [1, 14])
def test_the_bytes_do_not_depend_on_how_samples_were_batched(
    tmp_path: Path, made: Any, files_of: Callable[[Path], Any], shard_bytes: int, dtype: str, sizes: int
) -> None:
    made.write(tmp_path / "a", made.plan(dtype, shard_bytes=shard_bytes))
    made.write(tmp_path / "b", made.plan(dtype, shard_bytes=shard_bytes), most=sizes)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("shard_bytes", [1, 300, 700, 1000, 2**28])
@pytest.mark.parametrize("count", [1, 40])
def test_units_hold_every_sample_once_and_no_file_is_much_larger_than_asked(
    tmp_path: Path, make: Any, count: int, shard_bytes: int
) -> None:
    made = make({"train": count}, mask=(2, 2))
    plan = made.plan(shard_bytes=shard_bytes)
    assert [row for unit in plan.units for row in range(unit.first, unit.first + unit.count)] == list(range(count))
    assert len({unit.count for unit in list(plan.units)[:-1]}) <= 1
    made.write(tmp_path / "store", plan)
    row = 3 * 4 * 6 * 4
    for tap in made.spec.taps:
        files = [path for path in (tmp_path / "store" / str(tap)).iterdir() if path.name.startswith("c.")]
        assert len(files) == len(plan.units)
        assert max(path.stat().st_size for path in files) <= max(3 * shard_bytes, row) + 16 * 16 + 4


def test_a_small_store_has_units_for_several_processes(make: Any) -> None:
    spec = BankSpec((Tap("mid", 21, 0, 64, 1),), "toy", "none", (16, 24))  # a row fills a chunk
    made = make({"train": 64}, spec, mask=(1, 1))
    assert len(made.plan(shard_bytes=2**28).units) == 8


def test_while_it_is_written_there_is_no_store_at_its_path(tmp_path: Path, made: Any) -> None:
    with StoreWriter(tmp_path / "store", made.plan()) as writer:
        for bank, batch in made.batches(writer.todo):
            writer.append(bank, batch)
            assert left_in(tmp_path) == ["store.partial"]
    assert left_in(tmp_path) == ["store"]
    assert not [name for name in (tmp_path / "store").rglob("*") if name.name.endswith((".part", ".partial"))]


def test_what_another_program_left_aside_is_not_taken_into_the_store(
    tmp_path: Path, made: Any, files_of: Callable[[Path], Any]
) -> None:
    for folder in ("old", "store", "progress"):
        (tmp_path / "a.partial" / folder).mkdir(parents=True)
        (tmp_path / "a.partial" / folder / "junk").write_text("junk")
    for path in ("a", "b"):
        made.write(tmp_path / path)
    assert left_in(tmp_path) == ["a", "b"]
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("kind", ["file", "folder", "store"])
def test_a_path_that_exists_is_refused_and_left_as_it_is(
    tmp_path: Path, made: Any, files_of: Callable[[Path], Any], kind: str
) -> None:
    path = tmp_path / "store"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        made.write(path)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"already exists.*store\.overwrite=true"):
        StoreWriter(path, made.plan())
    assert files_of(tmp_path) == before
    assert left_in(tmp_path) == ["store"]


@pytest.mark.parametrize("kind", ["file", "folder", "store"])
def test_overwrite_replaces_only_at_the_end(
    tmp_path: Path, made: Any, make: Any, files_of: Callable[[Path], Any], kind: str
) -> None:
    path, other = tmp_path / "store", make()
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
        (path / "thing").write_text("precious")
    else:
        other.write(path)
    before = path.read_bytes() if kind == "file" else files_of(path)
    with StoreWriter(path, made.plan(), overwrite=True) as writer:
        for bank, batch in made.batches(writer.todo):
            writer.append(bank, batch)
            assert (path.read_bytes() if kind == "file" else files_of(path)) == before
    made.write(tmp_path / "fresh")
    assert files_of(path) == files_of(tmp_path / "fresh")
    assert left_in(tmp_path) == ["fresh", "store"]


def test_a_store_in_folders_that_do_not_exist_yet_is_made_with_them(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "a" / "b" / "store")
    assert left_in(tmp_path / "a" / "b") == ["store"]


def test_another_run_on_the_same_path_is_refused(tmp_path: Path, made: Any) -> None:
    with StoreWriter(tmp_path / "store", made.plan()) as writer:
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"another run is writing .*store"):
                StoreWriter(tmp_path / "store", made.plan(), overwrite=overwrite)
        for bank, batch in made.batches(writer.todo):
            writer.append(bank, batch)
    FeatureStore(tmp_path / "store").require(made.spec)


def test_a_packed_batch_may_be_given_instead_of_a_bank(
    tmp_path: Path, made: Any, files_of: Callable[[Path], Any]
) -> None:
    plan = made.plan("int8")
    made.write(tmp_path / "a", plan)
    with StoreWriter(tmp_path / "b", plan) as writer:
        for bank, batch in made.batches(writer.todo):
            writer.append(plan.form.pack(bank), batch)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_an_error_of_the_data_is_not_taken_for_one_of_the_disk(tmp_path: Path, made: Any) -> None:
    with pytest.raises(FileNotFoundError, match="tile"), StoreWriter(tmp_path / "store", made.plan()):
        raise FileNotFoundError("tile.tif")


def test_an_empty_batch_changes_nothing(tmp_path: Path, made: Any) -> None:
    empty = FeatureBank(made.spec, {tap: torch.zeros(0, *made.spec.shape(tap)) for tap in made.spec.taps})
    with StoreWriter(tmp_path / "store", made.plan()) as writer:
        writer.append(empty, {"id": []})
        for bank, batch in made.batches(writer.todo):
            writer.append(bank, batch)
    assert len(FeatureStore(tmp_path / "store").split("train")) == 7
