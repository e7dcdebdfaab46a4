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
        writer.put(bank, batch)
    """

    def __init__(self, store: StoreWriter) -> None:
        self._store = store
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=DEPTH)
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store writer", daemon=True)

    def put(self, bank: FeatureBank, batch: Mapping[str, Any]) -> None:
        """Hand over a batch; it is packed on its device, and travels from a GPU while the next one is computed."""
        self._raise()
        packed = self._store.plan.form.pack(bank)
        arrived = None
        if bank.device.type == "cuda":
            packed = packed.to("cpu", non_blocking=True)  # into pinned memory
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(bank.device))
        self._queue.put((packed, batch, arrived))

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
            packed, batch, arrived = item
            try:
                if arrived is not None:
                    arrived.synchronize()
                self._store.append(packed, batch)
            except BaseException as error:
                self._error = error
        self._ended.set()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
