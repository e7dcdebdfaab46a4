"""Made-up samples for the store's tests, a plain CRC-32C to compare with, and a disk that can be full."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.store import Form, StorePlan, StoreWriter

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
COUNTS = {"train": 7, "val": 3, "test": 4}
ALPHABET = "ab-_/0 éß漢🛰"


class Made:
    """Samples of several splits with every kind of label, and what it takes to write them."""

    def __init__(
        self, counts: Mapping[str, int] = COUNTS, spec: BankSpec = SPEC, mask: tuple[int, int] = (33, 32)
    ) -> None:
        count = sum(counts.values())
        names = [f"{i:x}{''.join(random.choices(ALPHABET, k=random.randint(1, 12)))}" for i in range(count)]
        each = iter(names)
        self.spec, self.counts, self.names = spec, counts, names
        self.ids = {split: [next(each) for _ in range(n)] for split, n in counts.items()}
        self.classes = Labels(("water", "forest", "town"), ("#000000", "#ffffff", "#ff0000"))
        self.identity = {split: {"name": "made up", "length": n} for split, n in counts.items()}
        self.bank = FeatureBank(spec, {tap: torch.randn(count, *spec.shape(tap)) for tap in spec.taps})
        self.labels = {
            "mask": torch.tensor(random.choices([0, 1, 2, 255], k=count * mask[0] * mask[1])).reshape(count, *mask),
            "label": torch.randint(0, 3, (count,)),
            "multilabel": torch.randint(0, 2, (count, 3)).float(),
            "target": torch.rand(count),
        }
        self.images = torch.randn(count, 4, 5, 6) * (torch.rand(count, 1, 5, 6) > 0.2)

    def rows(self, split: str) -> slice:
        """Where a split's samples are among all."""
        before = list(self.counts)[: list(self.counts).index(split)]
        first = sum(self.counts[name] for name in before)
        return slice(first, first + self.counts[split])

    def plan(self, dtype: str = "float32", keep: str = "maps", **options: Any) -> StorePlan:
        form = Form(dtype, keep)
        options = {"shard_bytes": 700, "bands": ["B2", "B3", "B4", "B8"], **options}
        return StorePlan(form.spec(self.spec), form, self.ids, self.classes, self.identity, **options)

    def batch(self, rows: slice) -> tuple[FeatureBank, dict[str, Any]]:
        labels = {name: values[rows] for name, values in self.labels.items()}
        return self.bank.samples(rows), {"id": self.names[rows], "image": self.images[rows], **labels}

    def batches(self, todo: list[range], most: int = 3) -> Iterator[tuple[FeatureBank, dict[str, Any]]]:
        """Batches of one to `most` samples."""
        for rows in todo:
            first = rows.start
            while first < rows.stop:
                stop = min(rows.stop, first + random.randint(1, most))
                yield self.batch(slice(first, stop))
                first = stop

    def write(self, path: Path, plan: StorePlan | None = None, most: int = 3, **options: Any) -> None:
        with StoreWriter(path, plan or self.plan(), **options) as writer:
            for bank, batch in self.batches(writer.todo, most):
                writer.append(bank, batch)

    def begin(self, path: Any, rows: int, plan: StorePlan | None = None) -> None:
        """Write so many rows, and then fail."""
        with contextlib.suppress(StoppedError), StoreWriter(path, plan or self.plan()) as writer:
            for row in range(rows):
                writer.append(*self.batch(slice(row, row + 1)))
            raise StoppedError


class StoppedError(Exception):
    """What stops a run that is only begun."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def make() -> Callable[..., Made]:
    return Made


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def spec() -> BankSpec:
    return SPEC


@pytest.fixture
def small_spec() -> BankSpec:
    """One tap, where a test writes many stores."""
    return BankSpec((Tap("mid", 21, 0, 3, 8),), "toy", "abc", (16, 16))


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Names and contents of all files in a folder."""

    def read(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    return read


@pytest.fixture(params=["in memory", "from disk"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "from disk":
        monkeypatch.setattr("satdifuser.store.reader.IN_MEMORY_BYTES", 0)
    return str(request.param)


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


@pytest.fixture
def slow_crc32c() -> Callable[[bytes], int]:
    """Castagnoli's CRC as RFC 3720 has it, byte by byte."""

    def crc(data: bytes) -> int:
        value = 0xFFFFFFFF
        for byte in data:
            value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
        return value ^ 0xFFFFFFFF

    assert crc(b"123456789") == 0xE3069283
    return crc


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """All files that Python opens for writing lie on a disk with so much `room`; `written` counts bytes.

    As on a real disk, the write that no longer fits writes what does, and the next one fails.
    """
    state = SimpleNamespace(room=2**62, written=0, fault=errno.ENOSPC)
    real = Path.open

    class DiskFile(io.FileIO):
        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            fits = min(len(view), max(0, state.room - state.written))
            if len(view) and not fits:
                raise OSError(state.fault, os.strerror(state.fault))
            state.written += fits
            return super().write(view[:fits])

        def truncate(self, size: int | None = None) -> int:
            before = os.fstat(self.fileno()).st_size
            state.written -= before - super().truncate(size)
            return os.fstat(self.fileno()).st_size

    def opened(self: Path, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real(self, mode, buffering, *args, **kwargs)
        raw = DiskFile(self, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

    monkeypatch.setattr(Path, "open", opened)
    return state
