"""Outputs on their way: any order, any process and any kill give the same bytes, and what is not ours is left alone."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from satdifuser.errors import UserError
from satdifuser.scenes.out import open_output, partial
from satdifuser.scenes.out.base import Form
from satdifuser.scenes.units import units_of
from tests.scenes.out.conftest import CLASSES, files_of

KINDS = [".tif", ".zarr", ".parquet"]


@pytest.fixture(params=KINDS)
def suffix(request):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return request.param


def test_any_order_of_units_gives_the_same_bytes(tmp_path, target, write, suffix):
    write(tmp_path / "a" / f"map{suffix}", target())
    wanted = files_of(tmp_path / "a" / f"map{suffix}")
    for number in range(3):
        path = tmp_path / str(number) / f"map{suffix}"
        write(path, target(), shuffle=np.random.default_rng())
        assert files_of(path) == wanted
        assert sorted(one.name for one in path.parent.iterdir() if "partial" in one.name) == []


def test_two_processes_share_units_and_whoever_is_last_makes_the_file(tmp_path, target, write, numbers, suffix):
    write(tmp_path / "a" / f"map{suffix}", target())
    path = tmp_path / f"map{suffix}"
    values, valid = numbers(target())
    one, other = (open_output(str(path), target()) for _ in range(2))
    one.begin(False)
    other.begin(False)
    units = units_of(70, 90, rows=32, columns=64)
    for output, own in ((one, units[:4]), (other, units[4:])):
        assert output.finish() == []
        for unit in output.todo(own):
            part = unit.rows, unit.columns
            output.write(unit, values[(slice(None), *part)], valid[part])
    assert one.finish() == [str(path)]
    assert other.finish() == [str(path)]  # which finds it made
    assert files_of(path) == files_of(tmp_path / "a" / f"map{suffix}")
    late = open_output(str(path), target())
    late.begin(False)
    assert late.todo(units) == []
    assert late.finish() == [str(path)]


class KilledError(BaseException):
    """Nothing is done after it."""


@pytest.fixture
def killing(monkeypatch):
    """Die at the n-th event of files, before or after it; from then on nothing reaches the disk any more."""
    state = {"left": -1, "after": False, "events": 0}

    def events(owner, name):
        real = getattr(owner, name)

        def event(*args, **kwargs):
            if threading.current_thread() is not threading.main_thread():
                return real(*args, **kwargs)
            if state["left"] == 0:
                raise KilledError
            state["events"] += 1
            state["left"] -= 1
            if state["left"] == 0 and not state["after"]:
                raise KilledError
            found = real(*args, **kwargs)
            if state["left"] == 0:
                raise KilledError
            return found

        monkeypatch.setattr(owner, name, event)

    for owner, name in (
        (os, "fsync"),
        (Path, "replace"),
        (Path, "rename"),
        (Path, "mkdir"),
        (Path, "unlink"),
        (Path, "write_text"),
        (shutil, "rmtree"),
        (partial, "write_text"),
    ):
        events(owner, name)
    return state


def test_a_kill_at_any_event_ends_in_the_same_bytes(tmp_path, target, write, suffix, killing):
    write(tmp_path / "a" / f"map{suffix}", target(height=40, width=60))
    wanted = files_of(tmp_path / "a" / f"map{suffix}")
    count = killing["events"]
    assert count > 12
    for after in (False, True):
        for number in range(1, count + 1):
            path = tmp_path / f"{after}{number}" / f"map{suffix}"
            killing |= {"left": number, "after": after}
            with pytest.raises(KilledError):
                write(path, target(height=40, width=60))
            killing |= {"left": -1}
            if path.exists():
                assert path.name in files_of(path) or suffix == ".zarr"
            write(path, target(height=40, width=60))
            assert files_of(path) == wanted
            assert not [one.name for one in path.parent.iterdir() if one.name.endswith(".partial")]


def test_a_kill_within_the_making_of_a_file_leaves_nothing_under_its_name(tmp_path, target, write, monkeypatch):
    import rasterio.shutil

    write(tmp_path / "a.tif", target())
    real = rasterio.shutil.copy

    def half(source, result, **how):
        real(source, result, **how)
        content = Path(result).read_bytes()
        Path(result).write_bytes(content[: len(content) // 2])
        Path(f"{result}.ovr.tmp").write_bytes(content)
        raise KilledError

    monkeypatch.setattr(rasterio.shutil, "copy", half)
    with pytest.raises(KilledError):
        write(tmp_path / "b.tif", target())
    assert not (tmp_path / "b.tif").exists()
    monkeypatch.setattr(rasterio.shutil, "copy", real)
    write(tmp_path / "b.tif", target())
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()


def test_what_is_there_is_replaced_only_where_that_is_asked_for(tmp_path, target, write, suffix):
    path = tmp_path / f"map{suffix}"
    write(path, target())
    before = files_of(path)
    with pytest.raises(UserError, match="is there already: give another out, or overwrite=true"):
        open_output(str(path), target(seen="otherwise")).begin(False)
    assert files_of(path) == before
    write(path, target(Form("values", "float32", ("value",))), overwrite=True)
    assert files_of(path) != before
    assert not path.with_name(f"{path.name}.aux.xml").exists()
    write(path, target(), overwrite=True)
    assert files_of(path) == before


def test_what_is_half_done_of_something_else_is_refused_by_name(tmp_path, target, suffix):
    path = tmp_path / f"map{suffix}"
    open_output(str(path), target(run="one")).begin(False)
    with pytest.raises(UserError, match=r"half done of something else \(run is not the same\): remove it, set overw"):
        open_output(str(path), target(run="two")).begin(False)
    open_output(str(path), target(run="two")).begin(True)
    open_output(str(path), target(run="two")).begin(False)
    strange = tmp_path / f"b{suffix}.partial"
    strange.mkdir()
    (strange / "thesis.docx").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds thesis\.docx, which is not of this command"):
            open_output(str(tmp_path / f"b{suffix}"), target()).begin(overwrite)
    assert (strange / "thesis.docx").read_text() == "precious"


def test_units_of_two_sizes_are_refused(tmp_path, target, numbers):
    values, valid = numbers(target())
    output = open_output(str(tmp_path / "map.tif"), target())
    output.begin(False)
    for rows in (32, 70):
        unit = units_of(70, 90, rows=rows, columns=90)[0]
        output.write(unit, values[:, unit.rows], valid[unit.rows])
    with pytest.raises(UserError, match="units of two sizes"):
        output.finish()


@contextlib.contextmanager
def small_files(most):
    """A limit on the size of a file stands for a full disk: the system refuses to write beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("most", [10_000, 200_000, 700_000])
def test_a_full_disk_is_one_line_and_what_is_there_is_gone_on_with(tmp_path, target, numbers, suffix, most):
    wanted = target(Form("values", "float32", ("value",)), 600, 600)
    values, valid = numbers(wanted)
    path = tmp_path / f"map{suffix}"
    output = open_output(str(path), wanted)
    output.begin(False)
    units = units_of(600, 600, rows=100, columns=600)
    for unit in units:
        output.write(unit, values[:, unit.rows], valid[unit.rows])
    with small_files(most), pytest.raises(UserError, match=f"map{suffix}.*give the same command again") as error:
        output.finish()
    assert "\n" not in str(error.value)
    assert not path.exists()
    again = open_output(str(path), wanted)
    again.begin(False)
    assert again.todo(units) == []
    assert again.finish() == [str(path)]


def test_a_full_disk_while_a_unit_is_written_is_one_line(tmp_path, target, numbers):
    values, valid = numbers(target(CLASSES, 400, 400))
    output = open_output(str(tmp_path / "map.tif"), target(CLASSES, 400, 400))
    output.begin(False)
    unit = units_of(400, 400, rows=400, columns=400)[0]
    with small_files(1000), pytest.raises(UserError, match="the disk filled up while writing"):
        output.write(unit, values, valid)
    assert list((tmp_path / "map.tif.partial" / "units").iterdir()) == []
    output.write(unit, values, valid)
    assert output.finish() == [str(tmp_path / "map.tif")]
