"""Writing to a remote place: what lies there in the end is what a folder would hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter

URL = "memory://satdifuser-tests/written"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    yield memory
    if memory.exists("/satdifuser-tests"):
        memory.rm("/satdifuser-tests", recursive=True)


def files_there(system: Any) -> dict[str, bytes]:
    root = "/satdifuser-tests/written"
    return {name.removeprefix(root + "/"): system.cat(name) for name in system.find(root)}


@pytest.mark.parametrize("after", [-1, 0, 5, 9, 14])
def test_the_bytes_are_those_of_a_store_on_disk_also_after_an_error(
    system: Any, tmp_path: Path, made: Any, files_of: Callable[[Path], dict[str, bytes]], after: int
) -> None:
    made.write(tmp_path / "here")
    if after >= 0:
        made.begin(URL, after)
        with pytest.raises(UserError):
            FeatureStore(URL)
    with StoreWriter(URL, made.plan()) as writer:
        assert writer.rows_done == max(after, 0)
        for bank, batch in made.batches(writer.todo):
            writer.append(bank, batch)
    assert files_there(system) == files_of(tmp_path / "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    assert FeatureStore(URL).split("val").batch([2])["id"] == [made.ids["val"][2]]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_that_is_there_is_refused_and_left_as_it_is(system: Any, made: Any, overwrite: bool) -> None:
    made.write(URL)
    before = files_there(system)
    with pytest.raises(UserError, match="already exists"):
        StoreWriter(URL, made.plan(), overwrite=overwrite)
    assert files_there(system) == before


def test_what_was_uploaded_and_then_lost_is_written_again(system: Any, made: Any) -> None:
    made.begin(URL, 9)
    there = files_there(system)
    assert there
    system.rm(f"{URL}/{sorted(there)[0]}")
    made.write(URL)
    assert FeatureStore(URL).split("train").batch(range(7))["id"] == made.ids["train"]
