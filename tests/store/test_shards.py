"""Shard files, compared with what Zarr itself writes and reads."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from satdifuser.store import shards
from satdifuser.store.shards import ShardWriter, shard_bytes, sharded_metadata

CASES = range(16)


def random_case(number: int, most: int = 40) -> tuple[NDArray[Any], int, int]:
    """Values, rows of a chunk, rows of a shard; the values fill one shard or a part of it."""
    pick = random.Random(number)
    chunk = 2 ** pick.randint(0, 3)
    capacity = chunk * pick.randint(1, max(1, most // chunk))
    rows = pick.randint(1, capacity)
    dtype = pick.choice(["float32", "float16", "int8", "uint16"])
    shape = (rows, *(pick.randint(1, 5) for _ in range(pick.randint(0, 3))))
    noise = np.random.default_rng(number)
    values = noise.integers(-100, 100, shape).astype(dtype)
    values[noise.random(rows) < 0.2] = 0  # Zarr leaves out chunks of zeros unless told otherwise
    return values, chunk, capacity


def array_at(path: Path, values: NDArray[Any], chunk: int, capacity: int) -> Any:
    group = zarr.open_group(path, mode="a", zarr_format=3)
    return group.create_array(
        "x",
        **sharded_metadata(
            samples=len(values),
            shape=values.shape[1:],
            dtype=values.dtype.name,
            chunk=chunk,
            unit=capacity,
            dimensions=["sample", "channel", "y", "x"][: values.ndim],
        ),
    )


def file_of(path: Path, unit: int, values: NDArray[Any]) -> Path:
    return path / "x" / ("c." + ".".join(["0"] * values.ndim).replace("0", str(unit), 1))


def put(path: Path, values: NDArray[Any], chunk: int, capacity: int) -> tuple[tuple[int, int], list[int]]:
    """Write a shard in batches of random size."""
    writer = ShardWriter(path, values[0].nbytes, chunk, capacity)
    found: list[int] = []
    while writer.rows < len(values):
        found += writer.append(values[writer.rows : writer.rows + random.randint(1, 7)])
    return writer.seal(), found


@pytest.mark.parametrize("number", CASES)
def test_a_shard_is_byte_for_byte_what_zarr_writes(tmp_path: Path, number: int) -> None:
    values, chunk, capacity = random_case(number)
    array_at(tmp_path / "theirs", values, chunk, capacity)[...] = values
    put(tmp_path / "mine", values, chunk, capacity)
    assert (tmp_path / "mine").read_bytes() == file_of(tmp_path / "theirs", 0, values).read_bytes()


@pytest.mark.parametrize("number", CASES)
def test_zarr_reads_an_array_of_several_shards(tmp_path: Path, number: int) -> None:
    part, chunk, capacity = random_case(number, most=12)
    rows = random.randint(1, 3 * capacity)
    values = np.random.default_rng(number).integers(0, 100, (rows, *part.shape[1:])).astype(part.dtype)
    array = array_at(tmp_path / "store", values, chunk, capacity)
    for unit, first in enumerate(range(0, rows, capacity)):
        put(file_of(tmp_path / "store", unit, values), values[first : first + capacity], chunk, capacity)
    np.testing.assert_array_equal(array[...], values)
    np.testing.assert_array_equal(array[rows // 2], values[rows // 2])


@pytest.mark.parametrize("number", CASES)
def test_size_and_checksums_are_those_of_the_file_and_of_its_rows(
    tmp_path: Path, slow_crc32c: Callable[[bytes], int], number: int
) -> None:
    values, chunk, capacity = random_case(number)
    (size, crc), of_rows = put(tmp_path / "mine", values, chunk, capacity)
    data = (tmp_path / "mine").read_bytes()
    assert (size, crc) == (len(data), slow_crc32c(data))
    assert size == shard_bytes(len(values), values[0].nbytes, chunk, capacity)
    assert of_rows == [slow_crc32c(row.tobytes()) for row in values]


@pytest.mark.parametrize("number", CASES)
def test_a_shard_taken_up_again_is_the_same_whatever_came_after_what_is_known(tmp_path: Path, number: int) -> None:
    values, chunk, capacity = random_case(number)
    put(tmp_path / "whole", values, chunk, capacity)
    known = random.randint(1, len(values))
    first = ShardWriter(tmp_path / "mine", values[0].nbytes, chunk, capacity)
    first.append(values[:known])
    crc = first.crc
    random.choice([lambda: first.append(values[::-1]), first.seal, first.close])()
    first.close()
    second = ShardWriter(tmp_path / "mine", values[0].nbytes, chunk, capacity, known, crc)
    if known < len(values):
        second.append(values[known:])
    second.seal()
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_that_were_begun_can_be_forgotten(tmp_path: Path) -> None:
    values, chunk, capacity = random_case(3)
    put(tmp_path / "whole", values, chunk, capacity)
    writer = ShardWriter(tmp_path / "mine", values[0].nbytes, chunk, capacity)
    half = len(values) // 2
    writer.append(values[:half])
    crc = writer.crc
    writer.append(values[:1])
    writer.rewind(half, crc)
    writer.append(values[half:])
    writer.seal()
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_shard_begun_anew_has_nothing_of_what_lay_there(tmp_path: Path) -> None:
    values, chunk, capacity = random_case(5)
    put(tmp_path / "whole", values, chunk, capacity)
    (tmp_path / "mine").write_bytes(bytes(range(256)) * 100)
    put(tmp_path / "mine", values, chunk, capacity)
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "whole").read_bytes()


def test_writes_that_the_system_cuts_short_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, chunk, capacity = random_case(6)
    put(tmp_path / "whole", values, chunk, capacity)

    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[: random.randint(1, 11)])

    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Slow(self, mode.replace("b", "")))
    put(tmp_path / "mine", values, chunk, capacity)
    monkeypatch.undo()
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_sealed_shard_can_be_closed_again(tmp_path: Path) -> None:
    values, chunk, capacity = random_case(7)
    writer = ShardWriter(tmp_path / "mine", values[0].nbytes, chunk, capacity)
    writer.append(values)
    writer.seal()
    before = (tmp_path / "mine").read_bytes()
    writer.close()
    assert (tmp_path / "mine").read_bytes() == before


@pytest.mark.parametrize("kind", ["random", "empty", "not contiguous", "floats"])
def test_the_checksum_is_castagnolis(slow_crc32c: Callable[[bytes], int], kind: str) -> None:
    noise = np.random.default_rng(1)
    data = {
        "random": noise.integers(0, 256, 1000, np.uint8),
        "empty": np.zeros(0, np.uint8),
        "not contiguous": noise.integers(0, 256, (30, 30), np.uint8).T[::2],
        "floats": noise.random((3, 5)),
    }[kind]
    assert shards.crc32c(data) == slow_crc32c(data.tobytes())
    rest = noise.integers(0, 256, 77, np.uint8)
    assert shards.crc32c(rest, shards.crc32c(data)) == slow_crc32c(data.tobytes() + rest.tobytes())
