"""The feature store: what goes in comes out, other tools can read it, and it is either whole or not there."""

from __future__ import annotations

import errno
import itertools
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter

SPEC = BankSpec(
    taps=tuple(
        Tap(name, t, depth, channels, stride)
        for t in (21, 161)
        for depth, (name, channels, stride) in enumerate([("mid.block", 5, 8), ("up.0", 3, 4), ("up.1", 3, 4)])
    ),
    encoder="toy",
    weights="abc",
    image_size=(16, 24),
    settings=(("seed", 0),),
)
LABELS = Labels(("water", "forest", "town"), ("#000000", "#ffffff", "#ff0000"))
IDENTITY = {"train": {"name": "made up", "length": 7}, "val": {"name": "made up", "length": 3}, "test": {"n": 4}}
COUNTS = {"train": 7, "val": 3, "test": 4}
ALPHABET = "ab-_/0 éß漢🛰"
Batches = list[tuple[str, FeatureBank, dict[str, Any]]]


def make_batch(count: int, spec: BankSpec = SPEC) -> tuple[FeatureBank, dict[str, Any]]:
    bank = FeatureBank(spec, {tap: torch.randn(count, *spec.shape(tap)) for tap in spec.taps})
    names = ["".join(random.choices(ALPHABET, k=random.randint(1, 12))) for _ in range(count)]
    batch = {
        "id": [f"{random.getrandbits(40):x}{name}" for name in names],
        "mask": torch.tensor(random.choices([0, 1, 2, 255], k=count * 16 * 24)).reshape(count, 16, 24),
        "label": torch.randint(0, 3, (count,)),
        "multilabel": torch.randint(0, 2, (count, 3)).float(),
        "target": torch.rand(count),
    }
    return bank, batch


def random_batches(counts: Mapping[str, int] = COUNTS) -> Batches:
    """Every split cut into batches of one to three, in an order that mixes the splits."""
    cuts: list[tuple[str, int]] = []
    for split, count in counts.items():
        while count:
            size = min(count, random.randint(1, 3))
            cuts.append((split, size))
            count -= size
    random.shuffle(cuts)
    return [(split, *make_batch(size)) for split, size in cuts]


def write(path: Path, batches: Batches, dtype: str = "float32", samples: int | None = None) -> None:
    total = sum(bank.batch_size for _, bank, _ in batches)
    with StoreWriter(path, SPEC, samples=samples or total, labels=LABELS, identity=IDENTITY, dtype=dtype) as writer:
        for split, bank, batch in batches:
            writer.append(bank, batch, split)


def expected(batches: Batches, split: str) -> tuple[list[str], FeatureBank, dict[str, torch.Tensor]]:
    mine = [(bank, batch) for name, bank, batch in batches if name == split]
    labels = {k: torch.cat([batch[k] for _, batch in mine]) for k in ("mask", "label", "multilabel", "target")}
    return [i for _, batch in mine for i in batch["id"]], FeatureBank.cat([bank for bank, _ in mine]), labels


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["in memory", "from disk"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "from disk":
        monkeypatch.setattr("satdifuser.store.reader.IN_MEMORY_BYTES", 0)
    return request.param


@pytest.mark.parametrize(
    ("dtype", "shard_bytes"),
    [("float32", 1), ("float16", 2 * 3 * 4 * 6 * 4), ("float32", 2**20)],
    ids=["a file a sample", "some files, half", "one file"],
)
def test_what_is_written_is_read_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: str, dtype: str, shard_bytes: int
) -> None:
    monkeypatch.setattr("satdifuser.store.layout.SHARD_BYTES", shard_bytes)
    batches = random_batches()
    write(tmp_path / "store", batches, dtype)
    store = FeatureStore(tmp_path / "store")
    assert store.spec == SPEC
    assert store.labels == LABELS
    for split, count in COUNTS.items():
        ids, bank, labels = expected(batches, split)
        data = store.split(split)
        assert len(data) == len(ids) == count
        assert [data.sample_id(i) for i in range(count)] == ids
        assert data.identity == {"store": str(tmp_path / "store"), **IDENTITY[split]}
        for order in ([*range(count)], random.sample(range(count), count), [count - 1, 0, 0], [1]):
            batch = data.batch(order)
            assert batch["id"] == [ids[i] for i in order]
            for tap in SPEC.taps:
                wanted = bank[tap][order]
                assert batch["bank"][tap].dtype == getattr(torch, dtype)
                assert torch.equal(batch["bank"][tap], wanted.half() if dtype == "float16" else wanted)
            for name, values in labels.items():
                assert torch.equal(batch[name], values[order]), name
                assert batch[name].dtype == values.dtype, name


@pytest.mark.parametrize(("shard_bytes", "files"), [(1, 5), (2 * 5 * 2 * 3 * 4, 3), (2**20, 1)])
def test_a_tap_is_cut_into_files_of_about_the_shard_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int, files: int
) -> None:
    monkeypatch.setattr("satdifuser.store.layout.SHARD_BYTES", shard_bytes)
    write(tmp_path / "store", random_batches({"train": 5}))
    assert sum(path.is_file() for path in (tmp_path / "store" / "mid.block@21" / "c").rglob("*")) == files


def test_one_sample_is_a_batch_of_one(tmp_path: Path, reading: str) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    ids, bank, _ = expected(batches, "val")
    sample = FeatureStore(tmp_path / "store").split("val")[2]
    assert sample["id"] == [ids[2]]
    assert torch.equal(sample["bank"].map("up.1", 161), bank.map("up.1", 161)[2:3])


def test_a_reader_that_changes_its_batch_does_not_change_the_next(tmp_path: Path, reading: str) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    data = FeatureStore(tmp_path / "store").split("train")
    order = list(range(len(data)))
    first = data.batch(order)
    for value in (*first["bank"].values(), first["label"], first["mask"], first["target"]):
        value.zero_()
    _, bank, labels = expected(batches, "train")
    again = data.batch(order)
    assert all(torch.equal(again["bank"][tap], bank[tap]) for tap in SPEC.taps)
    assert all(torch.equal(again[name], labels[name]) for name in labels)


def test_a_smaller_spec_reads_only_its_taps(tmp_path: Path, reading: str) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    spec = SPEC.select(timesteps=[161], names=["up.1", "mid.block"])
    batch = FeatureStore(tmp_path / "store").split("test", spec).batch([3, 1])
    _, bank, _ = expected(batches, "test")
    assert batch["bank"].spec == spec
    assert len(batch["bank"]) == 2
    for tap in spec.taps:
        assert torch.equal(batch["bank"][tap], bank[tap][[3, 1]])


def test_workers_read_what_the_process_itself_reads(tmp_path: Path, reading: str) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    ids, bank, _ = expected(batches, "train")
    read = list(loader(FeatureStore(tmp_path / "store").split("train"), OrderedBatches(7, 3), workers=2))
    assert [i for batch in read for i in batch["id"]] == ids
    joined = FeatureBank.cat([batch["bank"] for batch in read])
    assert all(torch.equal(joined[tap], bank[tap]) for tap in SPEC.taps)


def test_labels_that_the_data_does_not_have_are_not_there(tmp_path: Path) -> None:
    batches = [(split, bank, {"id": batch["id"], "label": batch["label"]}) for split, bank, batch in random_batches()]
    write(tmp_path / "store", batches)
    store = FeatureStore(tmp_path / "store")
    assert set(store.split("train").batch([0])) == {"id", "bank", "label"}
    assert store.column("mask") is None


@pytest.mark.parametrize("values", [[-1, 0, 3], [0, 7, 256], [0, 255, 255]])
def test_mask_values_come_back_whatever_type_they_need(tmp_path: Path, values: Sequence[int]) -> None:
    bank, batch = make_batch(2)
    batch["mask"] = torch.tensor(random.choices(values, k=2 * 16 * 24)).reshape(2, 16, 24)
    write(tmp_path / "store", [("train", bank, batch)])
    assert torch.equal(FeatureStore(tmp_path / "store").split("train").batch([0, 1])["mask"], batch["mask"])


def test_zarr_opens_it_without_our_code(tmp_path: Path) -> None:
    batches = random_batches({"train": 5})
    write(tmp_path / "store", batches, "float16")
    group = zarr.open(tmp_path / "store", mode="r")
    ids, bank, labels = expected(batches, "train")
    for tap in SPEC.taps:
        array = group[f"{tap.name}@{tap.timestep}"]
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names[0] == "sample"
        assert len(set(array.metadata.dimension_names)) == 4
        assert (array[...] == bank[tap].half().numpy()).all()
    assert [bytes(row).rstrip(b"\0").decode() for row in group["id"][...]] == ids
    assert group["label"][...].tolist() == labels["label"].tolist()
    assert group["mask"].dtype == np.uint8
    assert list(group.attrs["labels"]["classes"]) == list(LABELS.classes)
    assert BankSpec.from_dict(json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]["spec"]) == SPEC


def test_xarray_opens_it_as_one_data_set_with_named_dimensions(tmp_path: Path) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    with xarray.open_zarr(tmp_path / "store", consolidated=False) as data:
        assert set(data.data_vars) == {*map(str, SPEC.taps), "id", "split", "mask", "label", "multilabel", "target"}
        assert all(data[name].dims[0] == "sample" for name in data.data_vars)
        assert data.sizes["sample"] == sum(COUNTS.values())
        assert data["mid.block@21"].shape == (14, 5, 2, 3)
        assert data["mask"].dims == ("sample", "mask_y", "mask_x")
        for number, split in enumerate(COUNTS):
            _, bank, labels = expected(batches, split)
            mine = data.isel(sample=np.flatnonzero(data["split"].values == number))
            assert (mine["up.0@161"].values == bank.map("up.0", 161).numpy()).all()
            assert (mine["label"].values == labels["label"].numpy()).all()


@pytest.mark.parametrize("error", [UserError("mine"), RuntimeError("mine"), KeyboardInterrupt("mine")])
@pytest.mark.parametrize("after", [0, 2])
def test_an_exception_midway_is_passed_on_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int
) -> None:
    monkeypatch.setattr("satdifuser.store.layout.SHARD_BYTES", 1)

    def fail_midway() -> None:
        with StoreWriter(tmp_path / "store", SPEC, samples=9, labels=LABELS, identity=IDENTITY) as writer:
            for _ in range(after):
                writer.append(*make_batch(2), "train")
            assert left_in(tmp_path) == ["store.partial"]  # it was on its way
            raise error

    with pytest.raises(type(error), match="mine"):
        fail_midway()
    assert left_in(tmp_path) == []


def test_while_it_is_written_there_is_no_store_at_its_path(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", SPEC, samples=2, labels=LABELS, identity=IDENTITY) as writer:
        writer.append(*make_batch(2), "train")
        assert not (tmp_path / "store").exists()
    assert left_in(tmp_path) == ["store"]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store.partial" / "old").mkdir(parents=True)
    (tmp_path / "store.partial" / "old" / "junk").write_text("junk")
    write(tmp_path / "store", random_batches())
    assert left_in(tmp_path) == ["store"]
    assert not (tmp_path / "store" / "old").exists()


@pytest.mark.parametrize(
    ("kind", "method", "allowed"),
    [
        (zarr.Array, "__setitem__", 0),
        (zarr.Array, "__setitem__", 3),
        (zarr.storage.LocalStore, "set", 0),
        (zarr.storage.LocalStore, "set", 3),
        (Path, "rename", 0),
    ],
)
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, method: str, allowed: int
) -> None:
    monkeypatch.setattr("satdifuser.store.layout.SHARD_BYTES", 1)
    full = OSError(errno.ENOSPC, "No space left on device")
    count = itertools.count()
    real = getattr(kind, method)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if next(count) >= allowed:
            raise full
        return real(*args, **kwargs)

    writer = StoreWriter(tmp_path / "store", SPEC, samples=4, labels=LABELS, identity=IDENTITY)
    with monkeypatch.context() as patch:
        patch.setattr(kind, method, failing)
        with pytest.raises(UserError) as caught, writer:
            writer.append(*make_batch(4), "train")
    message = str(caught.value)
    assert "disk filled up" in message
    assert str(tmp_path / "store") in message
    assert "\n" not in message
    assert next(count) > allowed
    assert left_in(tmp_path) == []


def test_a_disk_that_fills_up_while_labels_are_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(tmp_path / "store", SPEC, samples=2, labels=LABELS, identity=IDENTITY)

    def failing(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Group, "create_array", failing)
    with pytest.raises(UserError, match="disk filled up"), writer:
        writer.append(*make_batch(2), "train")
    assert left_in(tmp_path) == []


def test_a_disk_that_is_full_from_the_start_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Group, "create_array", failing)
    with pytest.raises(UserError, match="disk filled up"):
        StoreWriter(tmp_path / "store", SPEC, samples=2, labels=LABELS, identity=IDENTITY)
    assert left_in(tmp_path) == []


def test_another_error_of_the_disk_is_one_line_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: StoreWriter, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(StoreWriter, "_flush", broken)
    with (
        pytest.raises(UserError, match=r"could not write .*Input/output error"),
        StoreWriter(tmp_path / "store", SPEC, samples=2, labels=LABELS, identity=IDENTITY),
    ):
        pass
    assert left_in(tmp_path) == []


def test_an_error_of_the_data_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="tile"),
        StoreWriter(tmp_path / "store", SPEC, samples=2, labels=LABELS, identity=IDENTITY),
    ):
        raise FileNotFoundError("tile.tif")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "store"])
def test_a_path_that_exists_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "store"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        write(path, random_batches())
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="already exists"):
        StoreWriter(path, SPEC, samples=1, labels=LABELS, identity=IDENTITY)
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert left_in(tmp_path) == ["store"]


@pytest.mark.parametrize(("dtype", "itemsize"), [("float16", 2), ("float32", 4)])
def test_a_store_larger_than_the_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, itemsize: int
) -> None:
    floats = 2 * (5 * 2 * 3 + 2 * 3 * 4 * 6)  # of one sample, over both timesteps
    needed = 1000 * floats * itemsize
    usage = shutil.disk_usage(tmp_path)
    options: dict[str, Any] = {"samples": 1000, "labels": LABELS, "identity": IDENTITY, "dtype": dtype}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"GB free.*store\.dtype=float16"):
        StoreWriter(tmp_path / "store", SPEC, **options)
    assert left_in(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * needed))
    StoreWriter(tmp_path / "store", SPEC, **options)
    assert left_in(tmp_path) == ["store.partial"]


@pytest.mark.parametrize("bad", [65_520.0, -1e9])
def test_a_value_that_half_precision_cannot_hold_names_its_tap_and_the_remedy(tmp_path: Path, bad: float) -> None:
    bank, batch = make_batch(2)
    bank.map("up.0", 161)[1, 2, 3, 1] = bad
    with pytest.raises(UserError, match=r"up\.0@161.*float16.*store\.dtype=float32"):
        write(tmp_path / "store", [("train", bank, batch)], "float16")
    assert left_in(tmp_path) == []


def test_a_value_that_half_precision_cannot_hold_names_its_sample(tmp_path: Path) -> None:
    bank, batch = make_batch(6)
    bank.map("up.0", 161)[5, 2, 3, 1] = 1e6
    with pytest.raises(UserError) as caught:
        write(tmp_path / "store", [("train", bank, batch)], "float16")
    assert batch["id"][5] in str(caught.value)
    assert batch["id"][0] not in str(caught.value)


def test_the_largest_half_is_kept(tmp_path: Path) -> None:
    bank, batch = make_batch(1)
    bank.map("up.0", 161)[0, 0, 0, 0] = 65504.0
    write(tmp_path / "store", [("train", bank, batch)], "float16")
    assert FeatureStore(tmp_path / "store").split("train")[0]["bank"].map("up.0", 161)[0, 0, 0, 0] == 65504


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_features_that_are_not_finite_are_refused_without_blaming_their_type(
    tmp_path: Path, dtype: str, bad: float
) -> None:
    bank, batch = make_batch(2)
    bank.map("up.0", 161)[1, 0, 0, 0] = bad
    with pytest.raises(UserError, match=r"up\.0@161") as caught:
        write(tmp_path / "store", [("train", bank, batch)], dtype)
    assert left_in(tmp_path) == []
    assert "store.dtype=float32" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, 99, None])
def test_a_store_of_another_version_is_refused_by_its_number(tmp_path: Path, version: int | None) -> None:
    write(tmp_path / "store", random_batches())
    path = tmp_path / "store" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["satdifuser_store"] = version
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=rf"version {version}\b.*version 1\b"):
        FeatureStore(tmp_path / "store")


@pytest.mark.parametrize("there", [False, True])
def test_a_path_without_a_store_is_a_user_error_that_says_how_to_make_one(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match=rf"no feature store at .*satdifuser extract store\.path={tmp_path}/store"):
        FeatureStore(tmp_path / "store")


def test_an_unknown_split_is_an_error_that_lists_the_splits_and_suggests_one(tmp_path: Path) -> None:
    write(tmp_path / "store", random_batches())
    with pytest.raises(UserError, match=r"'tset'.*train, val, test.*did you mean test"):
        FeatureStore(tmp_path / "store").split("tset")


def test_require_accepts_the_same_features_or_some_of_them(tmp_path: Path) -> None:
    write(tmp_path / "store", random_batches())
    store = FeatureStore(tmp_path / "store")
    store.require(SPEC)
    store.require(SPEC.select(timesteps=[161], names=["up.0"]))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(SPEC, weights="def"), ["weights", "'abc'", "'def'"]),
        (replace(SPEC, encoder="else"), ["encoder", "'toy'", "'else'"]),
        (replace(SPEC, settings=(("seed", 1),)), ["seed", "0 and 1"]),
        (replace(SPEC, image_size=(32, 24)), ["image_size", "(16, 24)", "(32, 24)"]),
        (replace(SPEC, taps=(Tap("mid.block", 7, 0, 5, 8),)), ["timestep 7", "[21, 161]"]),
        (replace(SPEC, taps=(Tap("down", 21, 0, 5, 8),)), ["tap down", "mid.block"]),
        (replace(SPEC, taps=(Tap("mid.block", 21, 0, 6, 8),)), ["mid.block@21", "(5, 2, 3)", "(6, 2, 3)"]),
    ],
)
def test_require_says_what_differs(tmp_path: Path, other: BankSpec, words: list[str]) -> None:
    bank, batch = make_batch(1)
    write(tmp_path / "store", [("train", bank, batch)])
    with pytest.raises(UserError) as caught:
        FeatureStore(tmp_path / "store").require(other)
    for word in [*words, str(tmp_path / "store")]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("promised", "given"), [(15, 14), (13, 14), (2, 14)])
def test_another_number_of_samples_than_promised_is_an_error_that_leaves_nothing(
    tmp_path: Path, promised: int, given: int
) -> None:
    with pytest.raises(UserError, match=rf"promised {promised} samples, but got {given}"):
        write(tmp_path / "store", random_batches(), samples=promised)
    assert left_in(tmp_path) == []


def test_a_bank_of_another_spec_is_refused_by_its_tap(tmp_path: Path) -> None:
    other = replace(SPEC, taps=(Tap("mid.block", 21, 0, 5, 8),))
    with pytest.raises(ValueError, match=r"up\.0@21"):
        write(tmp_path / "store", [("train", *make_batch(1, other))])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "half"])
def test_an_unknown_type_is_a_user_error_that_lists_the_types(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UserError, match=f"{dtype}.*float16 or float32"):
        StoreWriter(tmp_path / "store", SPEC, samples=1, labels=LABELS, identity=IDENTITY, dtype=dtype)
    assert left_in(tmp_path) == []


def test_a_store_in_folders_that_do_not_exist_yet_is_made_with_them(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "store", random_batches())
    assert left_in(tmp_path / "a" / "b") == ["store"]


def test_a_moved_store_is_read_from_its_new_place(tmp_path: Path) -> None:
    batches = random_batches()
    write(tmp_path / "store", batches)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    ids, _, _ = expected(batches, "val")
    assert FeatureStore(tmp_path / "elsewhere").split("val").batch([0, 1, 2])["id"] == ids


def test_a_store_that_lost_a_file_is_refused_rather_than_read_as_zeros(tmp_path: Path, reading: str) -> None:
    write(tmp_path / "store", random_batches({"train": 3}))
    next(path for path in (tmp_path / "store" / "up.0@21" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(UserError, match=r"up\.0@21"):
        FeatureStore(tmp_path / "store").split("train").batch([0, 1, 2])


def test_labels_that_only_some_batches_have_are_refused(tmp_path: Path) -> None:
    """They would otherwise be read as the labels of other samples."""
    (bank, batch), (other, bare) = make_batch(2), make_batch(2)
    del bare["label"]
    with pytest.raises(UserError, match="label"):
        write(tmp_path / "store", [("train", other, bare), ("test", bank, batch)])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["id", "label"])
def test_a_batch_with_another_number_of_ids_or_labels_than_maps_is_refused(tmp_path: Path, name: str) -> None:
    bank, batch = make_batch(3)
    batch[name] = batch[name][:2]
    with pytest.raises(UserError, match=name):
        write(tmp_path / "store", [("train", bank, batch)])
    assert left_in(tmp_path) == []


def test_a_split_that_got_no_samples_is_empty(tmp_path: Path, reading: str) -> None:
    write(tmp_path / "store", random_batches({"train": 2}))
    data = FeatureStore(tmp_path / "store").split("val")
    assert len(data) == 0
    assert data.batch([])["bank"].batch_size == 0
