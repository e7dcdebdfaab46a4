"""Reading a store, in any order, by threads and workers, from disk, memory and afar: always what was written."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float32", "max")]


@pytest.fixture
def memory() -> Iterator[str]:
    """A place that only fsspec knows."""
    yield "memory://satdifuser-tests/store"
    if fsspec.filesystem("memory").exists("/satdifuser-tests"):
        fsspec.filesystem("memory").rm("/satdifuser-tests", recursive=True)


def expected(made: Any, plan: Any, split: str) -> tuple[list[str], FeatureBank, dict[str, torch.Tensor]]:
    rows = made.rows(split)
    return (
        made.names[rows],
        plan.form.pack(made.bank).unpack().samples(rows),
        {k: v[rows] for k, v in made.labels.items()},
    )


def check(batch: dict[str, Any], wanted: tuple[Any, ...], order: Sequence[int]) -> None:
    ids, bank, labels = wanted
    order = list(order)
    assert batch["id"] == [ids[i] for i in order]
    assert set(batch) == {"id", "bank", *labels}
    for tap in batch["bank"].spec.taps:
        assert batch["bank"][tap].dtype == bank[tap].dtype
        assert torch.equal(batch["bank"][tap], bank[tap][order])
    for name, values in labels.items():
        assert torch.equal(batch[name], values[order]), name
        assert batch[name].dtype == values.dtype, name


@pytest.mark.parametrize(
    ("dtype", "keep", "shard_bytes"),
    [*((*form, 700) for form in FORMS), ("float32", "maps", 1), ("int8", "maps", 2**20)],
)
def test_what_is_written_is_read_bit_for_bit(
    tmp_path: Path, made: Any, reading: str, dtype: str, keep: str, shard_bytes: int
) -> None:
    plan = made.plan(dtype, keep, shard_bytes=shard_bytes)
    made.write(tmp_path / "store", plan)
    store = FeatureStore(tmp_path / "store")
    assert (store.spec, store.form, store.labels) == (plan.spec, plan.form, made.classes)
    for split, count in made.counts.items():
        data, wanted = store.split(split), expected(made, plan, split)
        assert len(data) == count
        assert [data.sample_id(i) for i in range(count)] == wanted[0]
        assert data.identity == {"store": str(tmp_path / "store"), **made.identity[split]}
        for order in (
            [*range(count)],
            random.sample(range(count), count),
            [count - 1, 0, 0],
            [1],
            [*range(count)][::-1],
        ):
            check(data.batch(order), wanted, order)


@pytest.mark.parametrize("number", range(6))
def test_random_access_gives_the_rows_of_a_plain_array(tmp_path: Path, make: Any, reading: str, number: int) -> None:
    random.seed(number)
    torch.manual_seed(number)
    counts = {"train": random.randint(1, 40), "val": random.randint(0, 9)}
    taps = tuple(Tap(f"t{i}", 7, i, random.randint(1, 6), random.choice([2, 4])) for i in range(random.randint(1, 3)))
    made = make(counts, BankSpec(taps, "toy", "abc", (8, 12)), mask=random.choice([(2, 3), (40, 30)]))
    plan = made.plan(shard_bytes=random.choice([1, 300, 2000]))
    made.write(tmp_path / "store", plan, most=9)
    data = FeatureStore(tmp_path / "store").split("train")
    plain = {tap: made.bank[tap].numpy() for tap in taps}
    for _ in range(20):
        order = random.choices(range(counts["train"]), k=random.randint(1, 50))
        batch = data.batch(order)
        for tap in taps:
            np.testing.assert_array_equal(batch["bank"][tap].numpy(), plain[tap][order])
        np.testing.assert_array_equal(batch["mask"].numpy(), made.labels["mask"].numpy()[order])


def test_several_threads_read_at_once(tmp_path: Path, made: Any, reading: str) -> None:
    made.write(tmp_path / "store")
    data, wanted = FeatureStore(tmp_path / "store").split("train"), expected(made, made.plan(), "train")
    orders = [random.choices(range(7), k=random.randint(1, 9)) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(data.batch, orders), strict=True):
            check(batch, wanted, order)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_data_loader_read_what_the_process_itself_reads(
    tmp_path: Path, made: Any, reading: str, context: str
) -> None:
    if context == "spawn" and reading == "from disk":
        pytest.skip("a spawned worker reads from disk anyway")
    made.write(tmp_path / "store", made.plan("int8"))
    data = FeatureStore(tmp_path / "store").split("train")
    first = data.batch(range(7))  # in memory now, where it fits
    read = torch.utils.data.DataLoader(
        Unpacked(data),
        batch_size=None,
        sampler=list(OrderedBatches(7, 3)),
        num_workers=1 if context == "spawn" else 2,
        multiprocessing_context=context,
        collate_fn=list,
    )
    maps = torch.cat([found for (found,) in read])
    assert torch.equal(maps, first["bank"].map("up.0", 161))


class Unpacked(torch.utils.data.Dataset[Any]):
    """One tap of a batch, as plain tensors."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitem__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self.data.batch(indices)["bank"].map("up.0", 161)]


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_loader_gives_packed_batches_in_order(
    tmp_path: Path, made: Any, reading: str, workers: int, dtype: str
) -> None:
    plan = made.plan(dtype)
    made.write(tmp_path / "store", plan)
    wanted = expected(made, plan, "train")
    batches = list(loader(FeatureStore(tmp_path / "store").split("train"), OrderedBatches(7, 3), workers=workers))
    for order, batch in zip(([0, 1, 2], [3, 4, 5], [6]), batches, strict=True):
        check(to_device(batch, torch.device("cpu")), wanted, order)


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_store_afar_is_read_through_fsspec(tmp_path: Path, made: Any, memory: str, dtype: str, keep: str) -> None:
    plan = made.plan(dtype, keep)
    made.write(tmp_path / "store", plan)
    fsspec.filesystem("memory").put(str(tmp_path / "store"), memory, recursive=True)
    for place in (memory, memory + "/"):
        store = FeatureStore(place)
        assert store.path == memory
        for split, count in made.counts.items():
            data, wanted = store.split(split), expected(made, plan, split)
            for order in ([*range(count)], random.choices(range(count), k=9)):
                data._fits = random.random() < 0.5
                check(data.batch(order), wanted, order)


@pytest.mark.parametrize("harm", ["lost", "cut", "no manifest", "nothing"])
def test_damage_afar_is_refused_by_the_file(tmp_path: Path, made: Any, memory: str, harm: str) -> None:
    made.write(tmp_path / "store")
    system = fsspec.filesystem("memory")
    if harm != "nothing":
        system.put(str(tmp_path / "store"), memory, recursive=True)
    file = next(name for name in system.find("/satdifuser-tests") if "up.0@21/c." in name) if harm != "nothing" else ""
    if harm == "lost":
        system.rm(file)
    elif harm == "cut":
        system.pipe(file, system.cat(file)[:-1])
    elif harm == "no manifest":
        system.rm(f"{memory}/manifest.json")
    wanted = {"no manifest": "has no manifest.json", "nothing": "no feature store at memory://"}.get(
        harm, r"up\.0@21/c\."
    )
    with pytest.raises(UserError, match=wanted):
        FeatureStore(memory)


def test_an_unknown_protocol_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"abc://x.*cannot be opened"):
        FeatureStore("abc://x/store")


def test_one_sample_is_a_batch_of_one(tmp_path: Path, made: Any, reading: str) -> None:
    made.write(tmp_path / "store")
    sample = FeatureStore(tmp_path / "store").split("val")[2]
    assert sample["id"] == [made.names[9]]
    assert torch.equal(sample["bank"].map("up.1", 161), made.bank.map("up.1", 161)[9:10])


def test_a_reader_that_changes_its_batch_does_not_change_the_next(tmp_path: Path, made: Any, reading: str) -> None:
    made.write(tmp_path / "store")
    data, wanted = FeatureStore(tmp_path / "store").split("train"), expected(made, made.plan(), "train")
    first = data.batch(range(7))
    for value in (*first["bank"].values(), first["label"], first["mask"], first["target"]):
        value.zero_()
    check(data.batch(range(7)), wanted, range(7))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_smaller_spec_reads_only_its_taps(tmp_path: Path, made: Any, reading: str, dtype: str) -> None:
    plan = made.plan(dtype)
    made.write(tmp_path / "store", plan)
    spec = made.spec.select(timesteps=[161], names=["up.1", "mid.block"])
    batch = FeatureStore(tmp_path / "store").split("test", spec).batch([3, 1])
    assert batch["bank"].spec == spec
    assert len(batch["bank"]) == 2
    check(batch, expected(made, plan, "test"), [3, 1])


def test_all_timesteps_of_a_tap_are_read_side_by_side(tmp_path: Path, made: Any, reading: str) -> None:
    made.write(tmp_path / "store")
    bank = FeatureStore(tmp_path / "store").split("train").batch([4, 2])["bank"]
    assert bank.stack("up.0").data_ptr() == bank.map("up.0", 21).data_ptr()
    assert torch.equal(bank.stack("up.0"), torch.cat([made.bank.map("up.0", t)[[4, 2]] for t in (21, 161)]))


def test_labels_that_the_data_does_not_have_are_not_there(tmp_path: Path, made: Any) -> None:
    made.labels = {"label": made.labels["label"]}
    made.write(tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert set(store.split("train").batch([0])) == {"id", "bank", "label"}
    assert store.column("mask") is None


@pytest.mark.parametrize("values", [[-1, 0, 3], [0, 7, 256], [0, 255, 255], [-(2**40), 2**33], [0, 70_000]])
@pytest.mark.parametrize("size", [(4, 4), (40, 40)])
def test_mask_values_come_back_whatever_type_they_need(
    tmp_path: Path, made: Any, reading: str, values: Sequence[int], size: tuple[int, int]
) -> None:
    """Also where only some of the samples need it."""
    made.labels["mask"] = torch.randint(0, 3, (14, *size))
    made.labels["mask"][6] = torch.tensor(random.choices(values, k=size[0] * size[1])).reshape(size)
    made.write(tmp_path / "store")
    assert torch.equal(FeatureStore(tmp_path / "store").split("train").batch(range(7))["mask"], made.labels["mask"][:7])


@pytest.mark.parametrize("size", [(4, 4), (40, 40)])
def test_labels_are_read_without_the_features(
    tmp_path: Path, make: Any, reading: str, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    made = make(mask=size)
    made.write(tmp_path / "store")
    data, wanted = FeatureStore(tmp_path / "store").split("train"), expected(made, made.plan(), "train")
    monkeypatch.setattr(data, "_features", lambda *_: pytest.fail("features were read"))
    for order in ([5, 0, 0], range(7), []):
        found = data.read_labels(order)
        assert found.pop("id") == [wanted[0][i] for i in order]
        assert set(found) == set(wanted[2])
        for name, values in found.items():
            assert torch.equal(values, wanted[2][name][list(order)])
            assert values.dtype == wanted[2][name].dtype
    assert set(data.read_labels([1], ["mask", "metadata"])) == {"id", "mask"}
    assert set(data.read_labels([1], ["label"])) == {"id", "label"}


def test_a_subset_has_the_samples_asked_for_and_reads_only_them(tmp_path: Path, made: Any, reading: str) -> None:
    made.write(tmp_path / "store")
    data, wanted = FeatureStore(tmp_path / "store").split("train"), expected(made, made.plan(), "train")
    part = data.subset([1, 3, 4, 6])
    assert (len(part), part.ids, part.spec, part.name) == (4, [wanted[0][i] for i in (1, 3, 4, 6)], data.spec, "store")
    check(part.batch([2, 0, 3, 3]), wanted, [4, 1, 6, 6])
    check(part.subset([3, 0]).batch([0, 1]), wanted, [6, 1])
    check(pickle.loads(pickle.dumps(part)).batch([1]), wanted, [3])
    if reading == "in memory":
        assert part._memory is not None
        assert all(stack.shape[1] == 4 for stack in part._memory.stacks.values())
    assert data._memory is None
    assert data.subset([]).batch([])["id"] == []


def test_the_identity_of_a_subset_tells_it_from_others(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "store")
    data = FeatureStore(tmp_path / "store").split("train")
    one, other = data.subset([0, 2]), data.subset([0, 3])
    assert {key: value for key, value in one.identity.items() if key != "budget"} == data.identity
    assert one.identity["budget"]["samples"] == 2
    assert one.identity != other.identity
    assert one.identity == data.subset([0, 1, 2]).subset([0, 2]).identity


def test_a_part_of_a_split_that_is_too_large_for_memory_may_fit_there(
    tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    monkeypatch.setattr("satdifuser.store.reader.IN_MEMORY_BYTES", 3 * store.form.bytes_per_sample(store.spec))
    data = store.split("train")
    assert not data._fits
    assert data.subset([0, 1, 5])._fits
    assert not store.split("train", in_memory=False).subset([0])._fits


def test_numbers_that_come_with_samples_are_kept(tmp_path: Path, made: Any, reading: str) -> None:
    made.labels["metadata"] = torch.randn(14, 7)
    made.write(tmp_path / "store")
    found = FeatureStore(tmp_path / "store").split("test").batch([2, 0])["metadata"]
    assert torch.equal(found, made.labels["metadata"][[12, 10]])


def test_a_split_that_got_no_samples_is_empty(tmp_path: Path, make: Any, reading: str) -> None:
    make({"train": 2, "val": 0}).write(tmp_path / "store")
    data = FeatureStore(tmp_path / "store").split("val")
    assert len(data) == 0
    assert data.batch([])["bank"].batch_size == 0


def test_a_moved_store_is_read_from_its_new_place(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    assert FeatureStore(tmp_path / "elsewhere").split("val").batch([0, 1, 2])["id"] == made.ids["val"]
