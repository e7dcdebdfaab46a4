"""Reading ahead: the same items in the same order, errors where they belong, and no thread that stays."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator

import pytest

from satdifuser.data.prefetch import prefetched
from satdifuser.errors import UserError


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")] == []


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_everything_comes_in_order_however_long_each_takes(threads: int, count: int) -> None:
    def read(number: int) -> int:
        time.sleep(random.random() / 500)
        return number * number

    assert list(prefetched(read, range(count), threads)) == [n * n for n in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_next_ones_are_read_while_one_is_used_but_not_many_more(threads: int) -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number

    items = prefetched(read, itertools.count(), threads)
    assert next(items) == 0
    assert second.wait(5)  # although nobody has asked for it yet
    for wanted in range(1, 20):
        assert next(items) == wanted
        assert len(begun) <= wanted + 1 + threads + 1
    items.close()  # type: ignore[attr-defined]


def test_as_many_are_read_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(4)

    def read(number: int) -> int:
        barrier.wait(5)  # breaks unless four read at the same time
        return number

    assert list(prefetched(read, range(8), threads=4)) == list(range(8))


@pytest.mark.parametrize("error", [UserError("mine"), OSError("mine"), KeyboardInterrupt("mine")])
@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_is_raised_where_its_batch_would_have_come(error: BaseException, threads: int) -> None:
    def read(number: int) -> int:
        if number == 5:
            raise error
        return number

    seen = []
    items = prefetched(read, range(20), threads)
    with pytest.raises(type(error)) as caught:
        seen.extend(items)
    assert caught.value is error
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_of_what_asks_is_raised_too() -> None:
    def wanted() -> Iterator[int]:
        yield 1
        raise UserError("mine")

    with pytest.raises(UserError, match="mine"):
        list(prefetched(lambda number: number, wanted(), threads=2))


def test_leaving_the_loop_stops_the_threads_and_what_waits_is_not_read() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        return number

    for item in prefetched(read, itertools.count(), threads=2):
        if item == 3:
            break
    time.sleep(0.05)
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count <= 8


def test_nothing_is_read_before_the_first_is_asked_for() -> None:
    begun: list[int] = []
    prefetched(begun.append, range(3))
    time.sleep(0.02)
    assert begun == []
