"""A store afar is the store on disk, byte for byte, however often its upload was interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from satdifuser.bank import BankSpec
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter
from satdifuser.store.merge import merge
from satdifuser.store.verify import verify

FORMS = [("float32", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float16", "mean")]
Files = Callable[[Path], dict[str, bytes]]


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way lies in the working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/far away/store"
        return
    yield "memory://satdifuser-remote/far away/store"
    system = fsspec.filesystem("memory")
    if system.exists("/satdifuser-remote"):
        system.rm("/satdifuser-remote", recursive=True)


def content(url: str) -> dict[str, bytes]:
    """Names and contents of all files of a place."""
    system, path = fsspec.core.url_to_fs(url)
    found = system.find(path) if system.exists(path) else []
    return {str(name)[len(path) :].lstrip("/"): system.cat_file(name) for name in found}


class Uploads:
    """Notes every file that is put into a place; the nth one fails halfway."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.fail_at, self.error = -1, BaseException()
        for system in (LocalFileSystem, MemoryFileSystem):
            monkeypatch.setattr(system, "put_file", self._watched(system.put_file))

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def put_file(system: Any, local: str, target: str, *args: Any, **kwargs: Any) -> None:
            self.keys.append(str(target).rpartition("store/")[2])
            if len(self.keys) - 1 == self.fail_at:
                if random.random() < 0.5:
                    system.pipe_file(target, Path(local).read_bytes()[:7])
                raise self.error
            real(system, local, target, *args, **kwargs)

        return put_file

    def begin(self, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.keys, self.fail_at, self.error = [], fail_at, error or KeyboardInterrupt("mine")


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    return Uploads(monkeypatch)


@pytest.fixture
def few(make: Any, small_spec: BankSpec) -> Any:
    return make({"train": 5, "val": 2}, small_spec)


def small(few: Any) -> Any:
    plan = few.plan("int8", shard_bytes=25)
    assert len(plan.units) >= 3
    return plan


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_store_afar_has_the_bytes_of_one_on_disk_and_reads_as_it(
    tmp_path: Path, made: Any, files_of: Files, url: str, dtype: str, keep: str
) -> None:
    plan = made.plan(dtype, keep, shard_bytes=random.choice([1, 700, 2**20]))
    made.write(tmp_path / "store", plan)
    made.write(url, plan)
    assert content(url) == files_of(tmp_path / "store")
    assert list(Path.cwd().iterdir()) == []
    assert verify(url) == []
    near, far = FeatureStore(tmp_path / "store"), FeatureStore(url)
    assert (far.spec, far.labels, far.splits, far.path) == (near.spec, near.labels, near.splits, url)
    for split, count in made.counts.items():
        for fits in (True, False):
            order = random.choices(range(count), k=9)
            one, other = near.split(split), far.split(split)
            other._fits = fits
            expected, found = one.batch(order), other.batch(order)
            assert found["id"] == expected["id"]
            assert all(torch.equal(found["bank"][tap], expected["bank"][tap]) for tap in plan.spec.taps)
            assert all(torch.equal(found[name], expected[name]) for name in made.labels)


def test_a_unit_is_uploaded_once_it_is_complete_and_then_no_longer_lies_here(made: Any, url: str) -> None:
    plan = made.plan("int8", shard_bytes=1)
    assert len(plan.units) > 3
    with StoreWriter(url, plan) as writer:
        for number, rows in enumerate(writer.todo):
            writer.append(*made.batch(slice(rows.start, rows.stop)))
            names = {name for name in content(url) if "@" in name}
            assert {name.split("/")[1].split(".")[1] for name in names} == {str(n) for n in range(number + 1)}
            assert len(names) == len(plan.columns) * (number + 1)
            assert [file for file in Path.cwd().rglob("*@*/c.*") if file.is_file()] == []
            with pytest.raises(UserError, match="no feature store at"):
                FeatureStore(url)


def test_the_manifest_comes_last_and_until_then_nobody_reads_a_store(few: Any, url: str, uploads: Uploads) -> None:
    uploads.begin()
    few.write(url, small(few))
    assert uploads.keys[-1] == "manifest.json"
    assert sorted(uploads.keys) == sorted(content(url))  # each once
    last = len(uploads.keys) - 1
    fsspec.core.url_to_fs(url)[0].rm(fsspec.core.url_to_fs(url)[1], recursive=True)
    uploads.begin(last)
    with pytest.raises(KeyboardInterrupt):
        few.write(url, small(few))
    if "manifest.json" not in content(url):
        with pytest.raises(UserError, match=r"no feature store|has no manifest\.json"):
            FeatureStore(url)


@pytest.mark.parametrize("number", range(3))
def test_an_upload_interrupted_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, few: Any, files_of: Files, url: str, uploads: Uploads, number: int
) -> None:
    random.seed(number)
    few.write(tmp_path / "store", small(few))
    expected = files_of(tmp_path / "store")
    for _ in range(2):
        done = 0
        for _ in range(random.randint(1, 3)):
            uploads.begin(random.randrange(len(expected) - 1 - done))
            with pytest.raises(KeyboardInterrupt):
                few.write(url, small(few), most=random.randint(1, 4))
            done = min(len(content(url)), len(expected) - 2)
            assert "manifest.json" not in content(url)
        uploads.begin()
        few.write(url, small(few), most=random.randint(1, 4))
        assert content(url) == expected
        assert list(Path.cwd().iterdir()) == []
        system, path = fsspec.core.url_to_fs(url)
        system.rm(path, recursive=True)


def test_what_is_uploaded_is_not_computed_or_uploaded_again(few: Any, url: str, uploads: Uploads) -> None:
    plan = small(few)
    uploads.begin(2 * len(plan.columns) + 1)  # in the third unit
    with pytest.raises(KeyboardInterrupt):
        few.write(url, plan)
    uploads.begin()
    with StoreWriter(url, plan) as writer:
        assert writer.rows_done == sum(unit.count for unit in list(plan.units)[:3])  # the third is sealed, and here
        for bank, batch in few.batches(writer.todo):
            writer.append(bank, batch)
    assert not [key for key in uploads.keys if "/c.0." in key and "@" in key]


def test_a_unit_that_was_lost_afar_is_written_again(
    tmp_path: Path, few: Any, files_of: Files, url: str, uploads: Uploads
) -> None:
    few.write(tmp_path / "store", small(few))
    uploads.begin(2 * len(small(few).columns))
    with pytest.raises(KeyboardInterrupt):
        few.write(url, small(few))
    system, path = fsspec.core.url_to_fs(url)
    lost = f"{path}/{random.choice([key for key in content(url) if '/c.' in key])}"
    if random.random() < 0.5:
        system.rm(lost)
    else:
        system.pipe_file(lost, b"cut")
    uploads.begin()
    few.write(url, small(few))
    assert content(url) == files_of(tmp_path / "store")


def test_an_error_of_the_network_is_one_line_and_the_run_goes_on(
    tmp_path: Path, few: Any, files_of: Files, url: str, uploads: Uploads
) -> None:
    few.write(tmp_path / "store", small(few))
    for fail_at in (1, len(files_of(tmp_path / "store")) - 3):
        uploads.begin(fail_at, ConnectionResetError(104, "connection reset"))
        with pytest.raises(
            UserError, match=r"could not write .*store: .*connection reset.*goes on from there"
        ) as caught:
            few.write(url, small(few))
        assert "\n" not in str(caught.value)
    uploads.begin()
    few.write(url, small(few))
    assert content(url) == files_of(tmp_path / "store")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_that_is_there_is_never_touched(few: Any, url: str, overwrite: bool) -> None:
    few.write(url, small(few))
    before = content(url)
    for place in (url, url + "/"):
        with pytest.raises(UserError, match=r"store/? already exists: .*remove it first") as caught:
            few.write(place, small(few), overwrite=overwrite)
        assert "\n" not in str(caught.value)
    assert content(url) == before
    assert list(Path.cwd().iterdir()) == []


def test_what_another_plan_left_there_is_no_part_of_the_store(
    tmp_path: Path, make: Any, small_spec: BankSpec, url: str, uploads: Uploads
) -> None:
    """A run that stopped in its last uploads, then one with other settings: readers see only what the second wrote."""
    old, new = make({"train": 5}, small_spec, mask=(2, 2)), make({"train": 4}, small_spec, mask=(2, 2))
    del new.labels["target"]
    uploads.begin()
    old.write(tmp_path.as_uri() + "/measured/store", old.plan(shard_bytes=25))
    uploads.begin(len(uploads.keys) - 1)
    with pytest.raises(KeyboardInterrupt):
        old.write(url, old.plan(shard_bytes=25))
    uploads.begin()
    new.write(url, new.plan(shard_bytes=2**20), overwrite=True)
    assert verify(url) == []
    batch = FeatureStore(url).split("train").batch(range(4))
    assert set(batch) == {"id", "bank", *new.labels}
    assert torch.equal(batch["bank"].map("mid", 21), new.bank.map("mid", 21))
    assert all(torch.equal(batch[name], values) for name, values in new.labels.items())


def test_stores_afar_are_joined_to_one_on_disk(tmp_path: Path, make: Any, url: str, files_of: Files) -> None:
    one, other = make({"train": 3}), make({"train": 2, "val": 2})
    other.names = [name + "~" for name in other.names]
    other.ids = {"train": other.names[:2], "val": other.names[2:]}
    for made, name in ((one, "1"), (other, "2")):
        made.write(url + name, made.plan("int8"))
        made.write(tmp_path / name, made.plan("int8"))
    merge(tmp_path / "far", [url + "1", url + "2"])
    merge(tmp_path / "near", [str(tmp_path / "1"), str(tmp_path / "2")])
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")


@pytest.mark.parametrize("work", ["read", "verify", "write"])
def test_an_unknown_protocol_and_a_missing_package_are_one_line(
    few: Any, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    run: dict[str, Callable[[str], Any]] = {
        "read": FeatureStore,
        "verify": verify,
        "write": lambda url: few.write(url, small(few)),
    }
    with pytest.raises(UserError, match=r"abc://bucket/store cannot be opened: .* or at s3://") as caught:
        run[work]("abc://bucket/store")
    assert "\n" not in str(caught.value)
    entry = {"class": "no_such_package_of_satdifuser.System", "err": "install no-such-package"}
    monkeypatch.setitem(known_implementations, "hf", entry)  # of an address that may be opened
    with pytest.raises(UserError, match=r"hf://bucket/store needs a package.*install no-such.*pip install") as caught:
        run[work]("hf://bucket/store")
    assert "\n" not in str(caught.value)
    assert list(Path.cwd().iterdir()) == []
