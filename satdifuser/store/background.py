"""Writing while the next batch is computed: a thread that takes banks and appends them to a store."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch

from satdifuser.bank import FeatureBank
from satdifuser.store.writer import StoreWriter

DEPTH = 2  # batches that may wait: more would only take memory


class BackgroundWriter:
    """Use it inside the store's own context; leaving it waits for the last batch and raises what went wrong.

    with StoreWriter(...) as store, BackgroundWriter(store) as writer:
        writer.put(bank, labels, split="train")
    """

    def __init__(self, store: StoreWriter) -> None:
        self._store = store
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=DEPTH)
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store writer", daemon=True)

    def put(self, bank: FeatureBank, labels: Mapping[str, Any], split: str) -> None:
        """Hand over a batch; its maps travel from the GPU while the next batch is on its way."""
        self._raise()
        arrived = None
        if next(iter(bank.values())).is_cuda:
            bank = bank.to("cpu", non_blocking=True)  # into pinned memory
            arrived = torch.cuda.Event()
            arrived.record()
        self._queue.put((bank, labels, split, arrived))

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._queue.put(None)
                self._thread.join()
            except BaseException as interrupt:
                self._stop(interrupt)
                raise
            self._raise()
        else:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """End the thread; what waits is not written any more."""
        self._error = self._error or error
        while not self._ended.wait(0.02):  # not is_alive(): a thread whose join was interrupted counts as dead
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            bank, labels, split, arrived = item
            try:
                if arrived is not None:
                    arrived.synchronize()
                self._store.append(bank, labels, split)
            except BaseException as error:
                self._error = error
        self._ended.set()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
