"""Batches: the same for any number of processes and any resumption, each sample when it is its turn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from traceback import clear_frames
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.data.batches import (
    OrderedBatches,
    RangeBatches,
    ShuffledBatches,
    collate,
    faults,
    loader,
    part,
    to_device,
)
from satdifuser.errors import UserError

SPEC = BankSpec((Tap("mid", 21, 0, 2, 8), Tap("up", 21, 1, 3, 4)), "toy", "none", (16, 16))


def random_bank(count: int) -> FeatureBank:
    return FeatureBank(SPEC, {tap: torch.randn(count, *SPEC.shape(tap)) for tap in SPEC.taps})


class Numbers:
    """Samples that say which they are."""

    name = "numbers"
    labels = Labels((), ())
    identity: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def sample_id(self, index: int) -> str:
        return f"n{index}"

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"id": f"n{index}", "image": torch.full((1, 2, 2), float(index)), "label": torch.tensor(index)}


class Stored(Numbers):
    """As `Numbers`, read by the batch: it gives banks, and notes where it was asked."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.asked: list[tuple[list[int], bool, int, int]] = []

    def packed(self, indices: Sequence[int], pin: bool = False) -> dict[str, object]:
        self.asked.append((list(indices), pin, os.getpid(), threading.get_ident()))
        bank = FeatureBank(
            SPEC, {t: torch.stack([torch.full(SPEC.shape(t), float(i)) for i in indices]) for t in SPEC.taps}
        )
        return {"id": [f"n{i}" for i in indices], "bank": bank}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("length", "size"), [(24, 6), (23, 7), (5, 64)])
def test_the_processes_together_see_the_batch_that_one_process_sees(world: int, length: int, size: int) -> None:
    whole = list(islice(ShuffledBatches(length, size, seed=4), 12))
    shares = [list(islice(ShuffledBatches(length, size, 4, rank=r, world=world), 12)) for r in range(world)]
    for step, batch in enumerate(whole):
        assert len(batch) == min(size, length)
        together = [index for share in shares for index in share[step]]
        assert sorted(together) == sorted(batch)
        sizes = [len(share[step]) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0


@pytest.mark.parametrize("start", [0, 1, 4, 5, 9, 13])
def test_starting_at_a_step_continues_the_sequence_exactly(start: int) -> None:
    sequence = list(islice(ShuffledBatches(17, 4, seed=1), 20))
    assert list(islice(ShuffledBatches(17, 4, seed=1, start=start), 20 - start)) == sequence[start:]


def test_iterating_twice_gives_the_same_batches_whatever_torch_has_drawn() -> None:
    batches = ShuffledBatches(17, 4, seed=1)
    first = list(islice(batches, 6))
    state = torch.random.get_rng_state()
    torch.rand(3)
    assert list(islice(batches, 6)) == first
    torch.random.set_rng_state(state)
    list(islice(batches, 6))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_sample_comes_once_an_epoch_and_epochs_and_seeds_differ() -> None:
    batches = ShuffledBatches(24, 6, seed=2)
    assert batches.per_epoch == 4
    run = list(islice(batches, 12))
    epochs = [[i for batch in run[e * 4 : e * 4 + 4] for i in batch] for e in range(3)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    other = [i for batch in islice(ShuffledBatches(24, 6, seed=3), 4) for i in batch]
    assert other != epochs[0]
    assert list(range(24)) not in epochs


def test_the_samples_that_do_not_fill_a_batch_are_others_each_epoch() -> None:
    batches = ShuffledBatches(11, 4, seed=0)
    assert batches.per_epoch == 2
    run = list(islice(batches, 40))
    left = [frozenset(range(11)) - {*run[e * 2], *run[e * 2 + 1]} for e in range(20)]
    assert all(len(rest) == 3 for rest in left)
    assert frozenset.union(*left) == frozenset(range(11))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_last_batch_that_is_kept_ends_every_epoch(world: int) -> None:
    shares = [ShuffledBatches(11, 4, seed=0, rank=r, world=world, keep_last=True) for r in range(world)]
    assert {share.per_epoch for share in shares} == {3}
    runs = [list(islice(share, 9)) for share in shares]
    whole = [sorted(i for run in runs for i in run[step]) for step in range(9)]
    assert [len(batch) for batch in whole] == [4, 4, 3] * 3
    assert all(sorted(i for batch in whole[e : e + 3] for i in batch) == list(range(11)) for e in (0, 3, 6))
    full = ShuffledBatches(12, 4, seed=0, keep_last=True)
    assert full.per_epoch == 3
    assert list(islice(full, 6)) == list(islice(ShuffledBatches(12, 4, seed=0), 6))


def test_starting_at_a_step_continues_the_sequence_with_short_batches_too() -> None:
    sequence = list(islice(ShuffledBatches(11, 4, seed=1, keep_last=True), 14))
    for start in (1, 2, 3, 7):
        assert list(islice(ShuffledBatches(11, 4, 1, start, keep_last=True), 14 - start)) == sequence[start:]


def test_a_last_batch_too_small_for_the_processes_is_refused() -> None:
    with pytest.raises(UserError, match=r"keep leaves 1 of 9 samples .* and 2 processes need one each"):
        ShuffledBatches(9, 4, seed=0, world=2, keep_last=True)


def test_an_empty_split_and_a_batch_smaller_than_the_world_are_user_errors() -> None:
    with pytest.raises(UserError, match="empty"):
        ShuffledBatches(0, 4, seed=0)
    with pytest.raises(UserError, match=r"trainer\.batch_size is 2: 3 processes"):
        ShuffledBatches(10, 2, seed=0, world=3)


@pytest.mark.parametrize(("length", "size"), [(1, 1), (7, 3), (9, 3), (2, 8)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ordered_batches_cover_each_sample_once_over_all_processes(length: int, size: int, world: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        batches = OrderedBatches(length, size, rank, world)
        listed = list(batches)
        assert len(listed) == len(batches)
        assert all(0 < len(batch) <= size for batch in listed)
        share = [index for batch in listed for index in batch]
        assert share == sorted(share)
        seen += share
    assert sorted(seen) == list(range(length))


def test_the_loader_gives_the_samples_of_each_batch_in_its_order() -> None:
    batches = ShuffledBatches(10, 4, seed=5)
    for indices, batch in islice(zip(batches, loader(Numbers(10), batches), strict=False), 5):
        assert batch["id"] == [f"n{i}" for i in indices]
        assert batch["label"].tolist() == indices
        assert batch["image"][:, 0, 1, 1].tolist() == [float(i) for i in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_reads_batches_is_asked_for_whole_batches_in_threads_of_this_process(workers: int) -> None:
    data = Stored(5)
    read = list(loader(data, OrderedBatches(5, 2), workers))
    assert [batch["id"] for batch in read] == [["n0", "n1"], ["n2", "n3"], ["n4"]]
    for batch in read:
        assert isinstance(batch["bank"], FeatureBank)
        assert batch["bank"].spec == SPEC
        assert [f"n{int(v)}" for v in batch["bank"].map("up", 21)[:, 0, 0, 0]] == batch["id"]
    assert sorted(rows for rows, *_ in data.asked) == [[0, 1], [2, 3], [4]]
    assert {(pin, process) for _, pin, process, _ in data.asked} == {(torch.cuda.is_available(), os.getpid())}
    assert threading.get_ident() not in {thread for *_, thread in data.asked}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_batches_of_ranges_have_every_row_in_order_and_none_runs_over_the_end_of_its_range(size: int) -> None:
    ranges = [range(3, 9), range(9, 10), range(20, 20), range(12, 19)]
    batches = RangeBatches(ranges, size)
    listed = list(batches)
    assert len(batches) == len(listed)
    assert [row for batch in listed for row in batch] == [3, 4, 5, 6, 7, 8, 9, *range(12, 19)]
    for batch in listed:
        assert 0 < len(batch) <= size
        assert any(set(batch) <= set(rows) for rows in ranges)
    for rows in ranges:  # only the last of a range may be smaller
        assert [len(batch) for batch in listed if batch[0] in rows][:-1] == [size] * ((len(rows) - 1) // size)


def test_collating_stacks_every_tensor_and_lists_the_ids() -> None:
    samples = [{"id": f"s{i}", "image": torch.randn(2, 3, 3), "mask": torch.randint(0, 9, (3, 3))} for i in range(3)]
    batch = collate(samples)
    assert batch["id"] == ["s0", "s1", "s2"]
    for i, sample in enumerate(samples):
        assert torch.equal(batch["image"][i], sample["image"])
        assert torch.equal(batch["mask"][i], sample["mask"])


def test_samples_of_two_sizes_are_an_error_that_names_both_with_their_sizes() -> None:
    samples = [{"id": f"s{i}", "image": torch.zeros(2, size, size)} for i, size in enumerate((3, 3, 4))]
    with pytest.raises(UserError) as caught:
        collate(samples)
    for word in ("s0", "s2", "(2, 3, 3)", "(2, 4, 4)", "image"):
        assert word in str(caught.value)


@pytest.mark.parametrize(("count", "parts"), [(6, 1), (6, 2), (7, 3), (3, 3)])
def test_the_parts_of_a_batch_are_the_whole_batch_with_each_sample_once(count: int, parts: int) -> None:
    batch = {"id": [f"s{i}" for i in range(count)], "label": torch.randn(count, 2), "bank": random_bank(count)}
    seen: list[str] = []
    for number in range(parts):
        piece = part(batch, number, parts)
        rows = [int(name[1:]) for name in piece["id"]]
        assert torch.equal(piece["label"], batch["label"][rows])
        assert piece["bank"].batch_size == len(rows)
        for tap in SPEC.taps:
            assert torch.equal(piece["bank"][tap], batch["bank"][tap][rows])
        seen += piece["id"]
    assert sorted(seen) == sorted(batch["id"])


def test_moving_a_batch_moves_tensors_and_banks_and_keeps_the_rest() -> None:
    batch = {"id": ["a", "b"], "label": torch.zeros(2), "bank": random_bank(2)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["id"] == ["a", "b"]
    assert moved["label"].device.type == "meta"
    assert {value.device.type for value in moved["bank"].values()} == {"meta"}
    assert batch["label"].device.type == "cpu"


class Doubtful(Numbers):
    """As `Numbers`; some cannot be read."""

    def __init__(self, length: int, unreadable: Sequence[int] = ()) -> None:
        super().__init__(length)
        self.unreadable = unreadable

    def __getitem__(self, index: int) -> dict[str, object]:
        if index in self.unreadable:
            raise UserError(f"file-{index}.tif is cut short: fetch it again")
        return super().__getitem__(index)


class Above:
    """Samples above a number are bad."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, sample: Any) -> str | None:
        return f"is above {self.most}: take less" if int(sample["label"]) > self.most else None


def complaint(batches: Iterable[Any]) -> tuple[list[list[str]], str]:
    """The ids of the batches before an error, and the error's one line."""
    read: list[list[str]] = []
    said = "no error"
    try:
        read.extend(batch["id"] for batch in batches)
    except UserError as error:
        said = str(error)
        clear_frames(error.__traceback__)  # left to the garbage collector, each worker takes torch 5 s to end
    assert "\n" not in said.strip()
    assert "Traceback" not in said
    return read, said


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_the_check_finds_wrong_is_an_error_that_names_it(workers: int) -> None:
    read, said = complaint(loader(Doubtful(8), OrderedBatches(8, 2), workers, Above(4)))
    assert read == [["n0", "n1"], ["n2", "n3"]]
    assert said == "sample n5 is above 4: take less"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_is_an_error_that_names_it_and_says_why(workers: int) -> None:
    read, said = complaint(loader(Doubtful(6, [3]), OrderedBatches(6, 2), workers, Above(9)))
    assert read == [["n0", "n1"]]
    assert "file-3.tif is cut short: fetch it again" in said
    assert "sample n3" in said


@pytest.mark.parametrize("workers", [0, 2])
def test_faults_are_all_bad_samples_batch_by_batch_with_their_reasons(workers: int) -> None:
    order = [[9, 0, 4], [1, 8], [5, 6], [7, 3, 2]]
    bad = {i: f"sample n{i} is above 6: take less" for i in (7, 8, 9)}
    bad |= {i: f"file-{i}.tif is cut short: fetch it again" for i in (2, 4)}
    found = list(faults(Doubtful(10, [2, 4]), order, workers, Above(6)))  # type: ignore[arg-type]
    assert [[row for row, _ in batch] for batch in found] == [[9, 4], [8], [], [7, 2]]
    for row, reason in (fault for batch in found for fault in batch):
        assert bad[row] in reason
        assert f"n{row}" in reason


def test_there_are_no_faults_in_good_samples_and_without_a_check_only_unreadable_ones() -> None:
    assert list(faults(Doubtful(5), OrderedBatches(5, 2), 0, Above(9))) == [[], [], []]
    found = list(faults(Doubtful(4, [0, 1, 3]), OrderedBatches(4, 2)))
    assert [[row for row, _ in batch] for batch in found] == [[0, 1], [3]]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_processes_together_find_every_fault_once(world: int) -> None:
    data, bad = Doubtful(11, [1, 4, 5]), {1, 4, 5, 9, 10}
    found = [faults(data, OrderedBatches(11, 3, rank, world), 0, Above(8)) for rank in range(world)]
    assert sorted(row for share in found for batch in share for row, _ in batch) == sorted(bad)


@pytest.mark.parametrize("read", [loader, faults])
def test_other_errors_of_the_data_set_are_not_taken_for_bad_samples(read: Callable[..., Iterable[Any]]) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> dict[str, object]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read(Broken(2), OrderedBatches(2, 2)))


@pytest.mark.parametrize("first", [True, False])
def test_a_label_that_only_some_samples_of_a_batch_have_is_an_error_that_names_one(first: bool) -> None:
    samples = [{"id": "with", "image": torch.zeros(1), "label": torch.tensor(3)}]
    samples.insert(1 if first else 0, {"id": "without", "image": torch.zeros(1)})
    with pytest.raises(UserError) as caught:
        collate(samples)
    assert "label" in str(caught.value)
    assert "without" in str(caught.value)
