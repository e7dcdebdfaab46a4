"""A store that is open stays that store to the end, or is an error: never rows of another one."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

MASK = (40, 30)  # wide: read row by row, as features are
WAYS = ["moved away", "written anew", "removed", "copied over", "copied over, manifest last"]


@pytest.fixture
def two(tmp_path: Path, make: Any) -> tuple[Any, Any]:
    """Two stores of one spec, with the same ids and other numbers: nothing but their content tells them apart."""
    one, other = make(mask=MASK), make(mask=MASK)
    other.names, other.ids = one.names, one.ids
    one.write(tmp_path / "store", one.plan("float32", shard_bytes=700))
    other.write(tmp_path / "other", other.plan("float32", shard_bytes=700))
    return one, other


def replace(tmp_path: Path, other: Any, way: str) -> None:
    store = tmp_path / "store"
    if way == "moved away":
        store.rename(tmp_path / "old")
        (tmp_path / "other").rename(store)
    elif way == "written anew":
        other.write(store, other.plan("float32", shard_bytes=700), overwrite=True)
    elif way == "removed":
        shutil.rmtree(store)
    elif way == "copied over":
        shutil.copytree(tmp_path / "other", store, dirs_exist_ok=True)
    else:
        for file in tmp_path.joinpath("other").rglob("*"):
            if file.is_file() and file.name != "manifest.json":
                shutil.copyfile(file, store / file.relative_to(tmp_path / "other"))


def gives(read: Callable[[], Any], made: Any, rows: slice) -> str:
    """What a read gives: the numbers of the store that was opened, or an error; all else fails."""
    try:
        batch = read()
    except UserError as error:
        return str(error)
    for tap in made.spec.taps:
        assert torch.equal(batch["bank"][tap], made.bank[tap][rows])
    for name, values in made.labels.items():
        assert torch.equal(batch[name], values[rows]), name
    return "the same"


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("way", WAYS[:4])
def test_an_open_store_that_is_replaced_gives_its_own_numbers_or_an_error(
    tmp_path: Path, two: tuple[Any, Any], reading: str, way: str, check: bool
) -> None:
    one, other = two
    store = FeatureStore(tmp_path / "store", check=check)
    train, val = store.split("train"), store.split("val")
    assert gives(lambda: train.batch(range(3)), one, slice(0, 3)) == "the same"
    replace(tmp_path, other, way)
    said = gives(lambda: train.batch(range(7)), one, one.rows("train"))
    said_of_val = gives(lambda: val.batch(range(3)), one, one.rows("val"))
    said_of_test = gives(lambda: store.split("test").batch(range(4)), one, one.rows("test"))
    if way == "moved away":
        assert said == said_of_val == said_of_test == "the same"
    else:
        for text in (said_of_val, said_of_test):
            assert "\n" not in text
            assert text.startswith(f"{tmp_path / 'store'} was replaced or removed while it was read: ")


def test_rows_of_another_store_under_the_manifest_of_this_one_are_damage(tmp_path: Path, two: tuple[Any, Any]) -> None:
    one, other = two
    data = FeatureStore(tmp_path / "store").split("train", in_memory=False)
    replace(tmp_path, other, "copied over, manifest last")
    said = gives(lambda: data.batch(range(7)), one, one.rows("train"))
    assert "is damaged" in said
    assert "satdifuser store verify" in said


def test_the_rest_of_a_store_that_was_moved_away_is_read_where_it_went(tmp_path: Path, two: tuple[Any, Any]) -> None:
    store = FeatureStore(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    read = store.split("test", in_memory=False)
    assert gives(lambda: read.batch(range(4)), two[0], two[0].rows("test")) == "the same"


@pytest.mark.parametrize("way", ["moved away", "written anew", "removed", "copied over"])
def test_a_store_that_is_opened_anew_by_a_worker_must_be_the_same(
    tmp_path: Path, two: tuple[Any, Any], way: str
) -> None:
    one, other = two
    data = FeatureStore(tmp_path / "store", check=False).split("train")
    text = pickle.dumps(data)
    again = pickle.loads(text)
    assert (again.store.check, again.ids) == (False, data.ids)
    assert gives(lambda: again.batch(range(7)), one, one.rows("train")) == "the same"
    replace(tmp_path, other, way)
    with pytest.raises(UserError, match=r"was replaced or removed while it was read|no feature store at"):
        pickle.loads(text)


def test_the_same_store_copied_to_its_place_again_goes_on(tmp_path: Path, two: tuple[Any, Any]) -> None:
    """A manifest that was only touched is not another one."""
    data = FeatureStore(tmp_path / "store", check=False).split("train", in_memory=False)
    text = pickle.dumps(data)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", tmp_path / "store", dirs_exist_ok=True)
    os.utime(tmp_path / "store" / "manifest.json", (1, 1))
    for read in (data, pickle.loads(text)):
        assert gives(lambda read=read: read.batch(range(7)), two[0], two[0].rows("train")) == "the same"


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://satdifuser-replaced/store"
    system = fsspec.filesystem("memory")
    if system.exists("/satdifuser-replaced"):
        system.rm("/satdifuser-replaced", recursive=True)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("gone", [True, False])
def test_afar_a_store_that_is_replaced_is_an_error(
    tmp_path: Path, two: tuple[Any, Any], memory: str, check: bool, gone: bool
) -> None:
    system: Any = fsspec.filesystem("memory")
    system.put(str(tmp_path / "store"), memory, recursive=True)
    data = FeatureStore(memory, check=check).split("train", in_memory=False)
    assert gives(lambda: data.batch(range(7)), two[0], two[0].rows("train")) == "the same"
    text = pickle.dumps(data)
    system.rm(memory, recursive=True)
    if not gone:
        system.put(str(tmp_path / "other"), memory, recursive=True)
    assert "was replaced or removed while it was read" in gives(
        lambda: data.batch(range(7)), two[0], two[0].rows("train")
    )
    with pytest.raises(UserError, match=r"was replaced or removed while it was read|no feature store at"):
        pickle.loads(text)


def test_open_stores_hold_one_descriptor_each_and_give_it_back(tmp_path: Path, two: tuple[Any, Any]) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not list them")
    before = len(list(folder.iterdir()))
    stores = [FeatureStore(tmp_path / "store") for _ in range(20)]
    for store in stores:
        store.split("train").batch(range(7))
    assert len(list(folder.iterdir())) <= before + 20
    del stores, store
    assert len(list(folder.iterdir())) <= before
