"""Writing in a thread: the same store, every error in the main thread, and never a thread that stays or waits."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store import BackgroundWriter, FeatureStore, StoreWriter
from satdifuser.store.background import DEPTH

LABELS = Labels(("a", "b"), ("#000000", "#ffffff"))
Item = tuple[FeatureBank, dict[str, Any], str]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name == "store writer"] == []


@pytest.fixture
def spec(toy_spec: Callable[..., BankSpec]) -> BankSpec:
    return toy_spec(timesteps=(21, 61))


@pytest.fixture
def items(spec: BankSpec, toy_bank: Callable[..., FeatureBank]) -> list[Item]:
    """Six batches of one to three samples of two splits."""
    found: list[Item] = []
    for number, count in enumerate(torch.randint(1, 4, (6,)).tolist()):
        labels = {"id": [f"s{number}-{i}" for i in range(count)], "label": torch.randint(0, 2, (count,))}
        found.append((toy_bank(spec, count, torch.float32), labels, "train" if number % 2 else "val"))
    return found


def open_store(path: Path, spec: BankSpec, items: list[Item]) -> StoreWriter:
    total = sum(bank.batch_size for bank, _, _ in items)
    return StoreWriter(path, spec, samples=total, labels=LABELS, identity={"train": {}, "val": {}}, dtype="float32")


def put_all(path: Path, spec: BankSpec, items: list[Item]) -> None:
    with open_store(path, spec, items) as store, BackgroundWriter(store) as writer:
        for bank, labels, split in items:
            writer.put(bank, labels, split)


class Fake:
    """A store that takes its time, and fails at one of its batches."""

    def __init__(self, wait: float = 0.0, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.wait, self.fail_at, self.error = wait, fail_at, error
        self.taken: list[Any] = []
        self.thread = 0
        self.gate = threading.Event()
        self.gate.set()

    def append(self, bank: Any, labels: Any, split: str) -> None:
        assert threading.current_thread().name == "store writer"
        self.thread = threading.get_ident()
        self.gate.wait(10)
        time.sleep(self.wait)
        if len(self.taken) == self.fail_at:
            assert self.error is not None
            raise self.error
        self.taken.append((bank, labels, split))


def within(seconds: float, work: Callable[[], None]) -> None:
    """Do it in a thread, so that a deadlock is a failure and not the end of the tests; pass on what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"
    if raised:
        raise raised[0]


def test_the_store_is_byte_for_byte_that_of_direct_appends(tmp_path: Path, spec: BankSpec, items: list[Item]) -> None:
    put_all(tmp_path / "background", spec, items)
    with open_store(tmp_path / "direct", spec, items) as store:
        for bank, labels, split in items:
            store.append(bank, labels, split)

    def files(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    assert files(tmp_path / "background") == files(tmp_path / "direct")
    for split in ("train", "val"):
        data = FeatureStore(tmp_path / "background").split(split)
        mine = [(bank, labels) for bank, labels, name in items if name == split]
        batch = data.batch(range(len(data)))
        assert batch["id"] == [name for _, labels in mine for name in labels["id"]]
        wanted = FeatureBank.cat([bank for bank, _ in mine])
        assert all(torch.equal(batch["bank"][tap], wanted[tap]) for tap in spec.taps)


def test_batches_arrive_in_order_and_all_of_them_before_the_block_is_left(items: list[Item]) -> None:
    store = Fake(wait=0.01)
    with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
        for item in items:
            writer.put(*item)
    assert len(store.taken) == len(items)
    assert all(taken[0] is item[0] and taken[1:] == item[1:] for taken, item in zip(store.taken, items, strict=True))


def test_no_more_than_a_few_batches_wait_for_a_slow_disk(items: list[Item]) -> None:
    store, handed = Fake(), []
    store.gate.clear()

    def work() -> None:
        with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
            for item in items:
                writer.put(*item)
                handed.append(item)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.2)
    assert len(handed) <= DEPTH + 1 < len(items)  # those that wait, and the one that is being written
    store.gate.set()
    thread.join(10)
    assert len(store.taken) == len(items)


@pytest.mark.parametrize("error", [UserError("sample x: too large"), OSError(errno.EIO, "lost"), ValueError("odd")])
@pytest.mark.parametrize("fail_at", [0, 2, 5])
def test_an_error_of_the_thread_is_raised_in_the_main_thread_as_it_was(
    items: list[Item], error: Exception, fail_at: int
) -> None:
    store, handed = Fake(wait=0.002, fail_at=fail_at, error=error), []

    def work() -> None:
        with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
            for item in items:
                writer.put(*item)
                handed.append(item)

    with pytest.raises(type(error)) as caught:
        within(10, work)
    assert caught.value is error
    assert len(store.taken) == fail_at  # nothing after the batch that failed
    assert len(handed) <= fail_at + DEPTH + 2


def test_the_next_put_raises_what_went_wrong(items: list[Item]) -> None:
    store = Fake(fail_at=0, error=UserError("sample x: too large"))

    def work() -> None:
        with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
            writer.put(*items[0])
            time.sleep(0.2)
            for _ in range(2):  # not only once
                with pytest.raises(UserError, match="too large"):
                    writer.put(*items[1])

    with pytest.raises(UserError, match="too large"):
        within(10, work)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("store_fails", [False, True])
def test_an_error_of_the_main_thread_passes_with_a_full_queue_and_what_waits_is_not_written(
    items: list[Item], error: BaseException, store_fails: bool
) -> None:
    store = Fake(wait=0.05, fail_at=0 if store_fails else -1, error=UserError("theirs"))
    store.gate.clear()

    def work() -> None:
        with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
            for item in items[: DEPTH + 1]:  # one is being written, and the queue is full
                writer.put(*item)
            threading.Timer(0.05, store.gate.set).start()
            raise error

    with pytest.raises(type(error)) as caught:
        within(10, work)
    assert caught.value is error
    assert len(store.taken) <= (0 if store_fails else 1)


def test_a_disk_that_fills_up_is_one_line_and_nothing_is_left(
    tmp_path: Path, spec: BankSpec, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, calls = StoreWriter._flush, []

    def full(self: StoreWriter, *args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(self, *args, **kwargs)

    monkeypatch.setattr(StoreWriter, "_flush", full)
    with pytest.raises(UserError, match="the disk filled up") as caught:
        within(20, lambda: put_all(tmp_path / "f.zarr", spec, items))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("position", [0, 3, 5])
def test_a_value_that_cannot_be_stored_names_its_sample_and_nothing_is_left(
    tmp_path: Path, spec: BankSpec, items: list[Item], position: int
) -> None:
    bank, labels, _ = items[position]
    bank[spec.taps[1]][-1, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match=f"sample {labels['id'][-1]}: "):
        within(20, lambda: put_all(tmp_path / "f.zarr", spec, items))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the encoder")], ids=repr)
def test_an_interruption_midway_leaves_no_store(
    tmp_path: Path, spec: BankSpec, items: list[Item], error: BaseException
) -> None:
    def work() -> None:
        with open_store(tmp_path / "f.zarr", spec, items) as store, BackgroundWriter(store) as writer:
            for item in items[:4]:
                writer.put(*item)
            raise error

    with pytest.raises(type(error)) as caught:
        within(20, work)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_without_a_batch_the_thread_ends_too() -> None:
    store = Fake()
    within(10, lambda: BackgroundWriter(store).__enter__().__exit__(None, None, None))  # type: ignore[arg-type]
    assert store.taken == []


@pytest.mark.parametrize("waiting", [0, 1, DEPTH])
def test_ctrl_c_while_the_last_batches_are_written_ends_the_thread_before_it_goes_on(
    items: list[Item], waiting: int
) -> None:
    """Else the thread would write into a folder that is being removed."""
    store = Fake(wait=0.3)

    def work() -> None:
        with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
            for item in items[: 1 + waiting]:
                writer.put(*item)
            threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        work()
    # not Thread.is_alive(): Python 3.11 takes a thread whose join was interrupted for a stopped one
    alive, written = store.thread in sys._current_frames(), len(store.taken)
    time.sleep(0.3 * (2 + waiting) if alive else 0)
    assert len(store.taken) == written
    assert not alive
    assert written <= 1
