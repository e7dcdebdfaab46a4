"""Windows of a scene through a model into units of the output: reading, computing and what follows go on at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from satdifuser.data.files.opened import Place
from satdifuser.diffusion.noise import Placed
from satdifuser.scenes.answers import Answers
from satdifuser.scenes.blending import Blended
from satdifuser.scenes.scene import Scene
from satdifuser.scenes.strip import BLOCK, Batch, Whole, batches, runs_of
from satdifuser.scenes.units import Unit, units_of
from satdifuser.scenes.windows import Windows

Array = np.ndarray[Any, Any]
Given = TypeVar("Given")
SUMS_BYTES = 64 * 2**20
READ_BYTES = 48 * 2**20
Computed = tuple[Unit, Array, Array]


def plan(place: Place, windows: Windows, channels: int, bands: int) -> list[Unit]:
    """The units of an output's grid: as large as memory allows, whoever computes them."""
    for rows in (512, 256, 128, 64, 32, 16):
        for columns in (4096, 2048, 1024, 512) if rows > 16 else (512, 256, 128, 64, 32, 16):
            sums = channels * (rows + windows.cells) * columns * 4
            read = bands * (BLOCK + windows.size) * columns * windows.step * 4
            if (sums <= SUMS_BYTES and read <= READ_BYTES) or (rows, columns) == (16, 16):
                return units_of(place.height, place.width, rows=rows, columns=columns)
    raise AssertionError


def stream(
    scene: Scene,
    answers: Answers,
    windows: Windows,
    units: Sequence[Unit],
    batch_size: int,
    tick: Callable[[int, int], None] | None = None,
) -> Iterator[Computed]:
    """Each unit in order, with its blended answers float32 `[channels, h, w]` and where they count.

    `tick` is told how many windows have gone by, and how many of them were computed.
    """
    blended = Blended(windows, answers.channels)
    first = {run[0].number: max(unit.rows.stop - unit.rows.start for unit in run) for run in runs_of(units)}
    current = iter(units)
    unit = next(current, None)
    if unit is not None:
        blended.begin(unit, first[unit.number])
    waiting: tuple[Batch, Tensor] | None = None
    for item in ahead(batches(scene, windows, units, batch_size)):
        if isinstance(item, Batch):
            found = _answered(scene, answers, windows, blended, item)
            if waiting is not None:  # a GPU is at the next batch while this one is added
                blended.add(*waiting)
            waiting = None if found is None else (item, found)
            if tick is not None:
                tick(len(item.numbers) + item.passed, len(item.numbers))
            continue
        if waiting is not None:
            blended.add(*waiting)
            waiting = None
        yield item.unit, blended.done(item.unit), item.valid
        unit = next(current, None)
        assert isinstance(item, Whole)
        if unit is not None and unit.number in first:
            blended.begin(unit, first[unit.number])


def _answered(scene: Scene, answers: Answers, windows: Windows, blended: Blended, batch: Batch) -> Tensor | None:
    if not batch.numbers:
        return None
    top = windows.start(batch.row)
    ids = [Placed(scene.name, top, windows.start(number), windows.size) for number in batch.numbers]
    return blended.weighted(answers(torch.from_numpy(batch.images), ids), len(ids))


def ahead(items: Iterable[Given], depth: int = 2) -> Iterator[Given]:
    """The same items in order, made in another thread, `depth` before they are asked for."""
    found: queue.Queue[tuple[Any, BaseException | None] | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(value: tuple[Any, BaseException | None] | None) -> bool:
        while not stop.is_set():
            try:
                found.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put(None)
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="scene", daemon=True)
    thread.start()
    try:
        while (got := found.get()) is not None:
            if got[1] is not None:
                raise got[1]
            yield got[0]
    finally:
        stop.set()
        thread.join()


class Behind:
    """One thread that is handed work, a piece ahead at most; errors are raised at the next piece, or at the end."""

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Behind:
        self._thread.start()
        return self

    def do(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        self._raise()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._work.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if self._error is not None:
                continue
            try:
                work()
            except BaseException as error:
                self._error = error
