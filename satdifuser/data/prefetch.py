"""Reading ahead in threads: for data whose reading is waiting for a disk, and not work for a processor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")


def prefetched(read: Callable[[Asked], Given], wanted: Iterable[Asked], threads: int = 1) -> Iterator[Given]:
    """`read` of everything that is wanted, in order; while one is used, the next ones are being read.

    An error is raised where the batch that failed would have come. Leaving the loop stops the threads.

    >>> list(prefetched(lambda x: x * x, range(5), threads=2))
    [0, 1, 4, 9, 16]
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    waiting: deque[Future[Given]] = deque()
    rest = iter(wanted)
    try:
        for asked in rest:
            waiting.append(pool.submit(read, asked))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
