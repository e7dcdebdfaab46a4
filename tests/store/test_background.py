"""Writing in a thread: the same store, every error in the main thread, and never a thread that stays or waits."""

from __future__ import annotations

import errno
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError
from satdifuser.store import BackgroundWriter, Form, StoreWriter
from satdifuser.store.background import DEPTH

Item = tuple[FeatureBank, dict[str, Any]]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name == "store writer"] == []


@pytest.fixture
def items(made: Any) -> list[Item]:
    """Seven batches of two samples."""
    return [made.batch(slice(first, first + 2)) for first in range(0, 14, 2)]


def put_all(path: Path, made: Any, items: list[Item]) -> None:
    with StoreWriter(path, made.plan()) as store, BackgroundWriter(store) as writer:
        for bank, batch in items:
            writer.put(bank, batch)


class Fake:
    """A store that takes its time, and fails at one of its batches."""

    def __init__(self, wait: float = 0.0, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.wait, self.fail_at, self.error = wait, fail_at, error
        self.taken: list[Any] = []
        self.thread = 0
        self.gate = threading.Event()
        self.gate.set()
        self.plan = SimpleNamespace(form=Form("float32"))

    def append(self, packed: Any, batch: Any) -> None:
        assert threading.current_thread().name == "store writer"
        self.thread = threading.get_ident()
        self.gate.wait(10)
        time.sleep(self.wait)
        if len(self.taken) == self.fail_at:
            assert self.error is not None
            raise self.error
        self.taken.append((packed, batch))


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


def test_the_store_is_byte_for_byte_that_of_direct_appends(
    tmp_path: Path, made: Any, items: list[Item], files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    put_all(tmp_path / "background", made, items)
    made.write(tmp_path / "direct")
    assert files_of(tmp_path / "background") == files_of(tmp_path / "direct")


def test_batches_arrive_in_order_and_all_of_them_before_the_block_is_left(items: list[Item]) -> None:
    store = Fake(wait=0.01)
    with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
        for item in items:
            writer.put(*item)
    assert len(store.taken) == len(items)
    for (packed, taken), (bank, batch) in zip(store.taken, items, strict=True):
        assert taken is batch
        assert all(torch.equal(packed.unpack()[tap], bank[tap]) for tap in bank)


def test_a_bank_may_be_used_for_the_next_batch_as_soon_as_it_is_handed_over(items: list[Item]) -> None:
    store = Fake(wait=0.05)
    wanted = [bank.map("mid.block", 21).clone() for bank, _ in items]
    with BackgroundWriter(store) as writer:  # type: ignore[arg-type]
        for bank, batch in items:
            writer.put(bank, batch)
            bank.map("mid.block", 21).zero_()
    for (packed, _), values in zip(store.taken, wanted, strict=True):
        assert torch.equal(packed.unpack().map("mid.block", 21), values)


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


def test_a_disk_that_fills_up_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path,
    made: Any,
    items: list[Item],
    disk: SimpleNamespace,
    files_of: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("satdifuser.store.unit.SAVE_SECONDS", -1.0)  # a full disk takes no journal any more
    disk.room = 8 * 1400  # about eight samples
    with pytest.raises(UserError, match="the disk filled up") as caught:
        within(20, lambda: put_all(tmp_path / "store", made, items))
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()
    disk.room = 2**62
    with StoreWriter(tmp_path / "store", made.plan()) as store, BackgroundWriter(store) as writer:
        assert 0 < store.rows_done < 14
        for bank, batch in made.batches(store.todo):
            writer.put(bank, batch)
    made.write(tmp_path / "direct")
    assert files_of(tmp_path / "store") == files_of(tmp_path / "direct")


@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_value_that_cannot_be_stored_names_its_sample_and_what_came_before_is_kept(
    tmp_path: Path, made: Any, items: list[Item], position: int
) -> None:
    bank, batch = items[position]
    bank.map("up.0", 21)[-1, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match="NaN or infinite") as caught:
        within(20, lambda: put_all(tmp_path / "store", made, items))
    assert f"sample {batch['id'][-1]}: " in str(caught.value)
    del caught
    gc.collect()
    assert StoreWriter(tmp_path / "store", made.plan()).rows_done >= 2 * position


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the encoder")], ids=repr)
def test_an_interruption_midway_leaves_no_store_and_the_next_run_goes_on(
    tmp_path: Path,
    made: Any,
    items: list[Item],
    error: BaseException,
    files_of: Callable[[Path], dict[str, bytes]],
) -> None:
    def work() -> None:
        with StoreWriter(tmp_path / "store", made.plan()) as store, BackgroundWriter(store) as writer:
            for item in items[:5]:
                writer.put(*item)
            raise error

    with pytest.raises(type(error)) as caught:
        within(20, work)
    assert caught.value is error
    assert not (tmp_path / "store").exists()
    made.write(tmp_path / "store")
    made.write(tmp_path / "direct")
    assert files_of(tmp_path / "store") == files_of(tmp_path / "direct")


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
