"""The disk that a store is written to: room, rate, one writer at a time."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from satdifuser.errors import UserError
from satdifuser.store import StoreWriter
from satdifuser.store.disk import disk_errors, existing, lock, sustained_write, write_aside
from satdifuser.store.shards import ShardWriter

FLOATS = 2 * (5 * 2 * 3 + 2 * 3 * 4 * 6)  # of one sample, over both timesteps


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))


@pytest.mark.parametrize(("dtype", "itemsize"), [("float16", 2), ("float32", 4), ("bfloat16", 2)])
def test_a_store_larger_than_the_disk_is_refused_before_anything_is_written(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, itemsize: int
) -> None:
    plan = make({"train": 1000}, mask=(1, 1)).plan(dtype)
    needed = 1000 * FLOATS * itemsize
    assert plan.feature_bytes == needed
    leave(monkeypatch, needed - 1)
    with pytest.raises(UserError, match=r"needs .*, but .* free: use store\.dtype=.*fewer taps") as caught:
        StoreWriter(tmp_path / "store", plan)
    assert "\n" not in str(caught.value)
    assert "store.dtype=int8" in str(caught.value)
    assert ("store.dtype=float16" in str(caught.value)) == (dtype == "float32")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"] == []
    leave(monkeypatch, 2 * needed)
    StoreWriter(tmp_path / "store2", plan)


def test_only_forms_that_fit_are_named(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make({"train": 1000}, mask=(1, 1)).plan()
    leave(monkeypatch, 1000 * FLOATS * 2 - 1)
    with pytest.raises(UserError) as caught:
        StoreWriter(tmp_path / "store", plan)
    assert "float16 (" not in str(caught.value).replace("keep=grid4 store.dtype=float16", "")
    assert "store.dtype=int8 (" in str(caught.value)
    assert "store.keep=mean store.dtype=float32 (" in str(caught.value)


def test_what_an_earlier_run_has_written_needs_no_room_any_more(
    tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.begin(tmp_path / "store", 12)
    leave(monkeypatch, 3 * FLOATS * 4)
    with pytest.raises(UserError, match="needs"):
        StoreWriter(tmp_path / "other", made.plan())
    made.write(tmp_path / "store")


def test_a_lock_is_held_against_other_processes_until_its_holder_ends(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from satdifuser.store.disk import lock\n"
    code += "held = lock(Path(sys.argv[1]), Path('s')); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"another run is writing .*mine"):
            lock(tmp_path / "lock", tmp_path / "mine")
        other.kill()
    lock(tmp_path / "lock", tmp_path / "mine").close()
    lock(tmp_path / "lock", tmp_path / "mine").close()


def test_a_disk_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock(tmp_path / "lock", tmp_path / "store").close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk filled up"),
        (errno.EDQUOT, "the disk filled up"),
        (errno.EIO, "could not write .*Input/output error"),
        (errno.EACCES, "could not write .*Permission denied"),
        (errno.EROFS, "could not write .*Read-only"),
    ],
)
def test_an_error_of_the_disk_is_one_line_that_says_how_to_go_on(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(UserError, match=f"{words}.*the same command goes on from there") as caught:  # noqa: SIM117
        with disk_errors(tmp_path / "store"):
            raise OSError(number, os.strerror(number))
    assert str(tmp_path / "store") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (UserError("mine"), ValueError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
            raise error
        assert caught.value is error


def test_a_file_written_aside_is_whole_or_as_it_was(tmp_path: Path, disk: SimpleNamespace) -> None:
    write_aside(tmp_path / "file", "old")
    disk.room, disk.written = 3, 0
    with pytest.raises(OSError, match="No space"):
        write_aside(tmp_path / "file", "new and longer")
    assert (tmp_path / "file").read_text() == "old"
    disk.room = 100
    write_aside(tmp_path / "file", "new and longer")
    assert (tmp_path / "file").read_text() == "new and longer"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_write_rate_is_measured_on_that_disk_and_leaves_nothing(tmp_path: Path) -> None:
    found = sustained_write(tmp_path, most=40 * 2**20, seconds=5.0)
    assert list(tmp_path.iterdir()) == []
    assert 16 * 2**20 <= found.written <= 64 * 2**20
    assert found.seconds > 0
    assert found.rate == pytest.approx(found.written / found.seconds)
    assert min(found.first, found.last) > 0


def test_the_write_rate_takes_no_longer_and_no_more_room_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sustained_write(tmp_path, seconds=0.0).written == 16 * 2**20
    leave(monkeypatch, 200 * 2**20)
    assert sustained_write(tmp_path).written <= 32 * 2**20


def test_the_nearest_folder_that_exists_is_found(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "a").write_text("")
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path


@pytest.mark.parametrize("call", range(7))
def test_a_disk_that_fills_up_as_a_unit_is_completed_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, made: Any, files_of: Any, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    made.write(tmp_path / "whole")
    seal, calls = ShardWriter.seal, []

    def full(self: ShardWriter) -> Any:
        calls.append(self)
        if len(calls) - 1 == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return seal(self)

    monkeypatch.setattr(ShardWriter, "seal", full)
    with pytest.raises(UserError, match="the disk filled up"):
        made.write(tmp_path / "store")
    made.write(tmp_path / "store")
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
