"""Verify finds every damage there is, by file, tap and sample, and none where there is none."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from satdifuser.bank import BankSpec
from satdifuser.errors import UserError
from satdifuser.store.manifest import Manifest
from satdifuser.store.verify import verify

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "mean"), ("int8", "maps")]
LOST = "only what lies around them"
Files = Callable[[Path], dict[str, bytes]]


def flip(file: Path, offset: int, change: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= change or random.randint(1, 255)
    file.write_bytes(data)


def shards(root: Path) -> list[Path]:
    """The files that hold features."""
    return sorted(file for file in root.rglob("*@*/c.*"))


def layout(root: Path, file: Path) -> tuple[int, int, int]:
    """First sample, samples and bytes of a row of a shard, as Zarr knows them."""
    array: Any = zarr.open_group(root, mode="r")[file.parent.name]
    first = int(file.name.split(".")[1]) * array.shards[0]
    return first, min(array.shards[0], array.shape[0] - first), array.dtype.itemsize * int(np.prod(array.shape[1:]))


def hit(made: Any, root: Path, file: Path, rows: list[int]) -> str:
    """How verify says which rows of a shard are damaged."""
    first, count, _ = layout(root, file)
    if not rows:
        return f": no sample is hit, {LOST}"
    tap = file.parent.name.removesuffix(".scale")
    shown = ", ".join(made.names[first + row] for row in rows[:8]) + (f" and {len(rows) - 8} more" if rows[8:] else "")
    return f": tap {tap} of {len(rows)} of its {count} samples ({shown})"


def lines(path: Path | str) -> list[str]:
    found = verify(str(path))
    assert not any("\n" in line for line in found)
    return found


def outcome(path: Path) -> list[str]:
    """The faults, or the one line of a refusal."""
    try:
        return lines(path)
    except UserError as error:
        return str(error).splitlines()


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://satdifuser-verify/store"
    fsspec.filesystem("memory").rm("/satdifuser-verify", recursive=True)


@pytest.mark.parametrize("shard_bytes", [1, 2**20])
@pytest.mark.parametrize(("dtype", "keep"), FORMS[2:])
def test_a_sound_store_has_no_fault_and_every_byte_of_it_is_read(
    tmp_path: Path, made: Any, files_of: Files, dtype: str, keep: str, shard_bytes: int
) -> None:
    made.write(tmp_path / "store", made.plan(dtype, keep, shard_bytes=shard_bytes))
    told: list[int] = []
    assert verify(str(tmp_path / "store"), told.append) == []
    sizes = {name: len(data) for name, data in files_of(tmp_path / "store").items()}
    assert sum(told) == sum(sizes.values()) - sizes["manifest.json"]


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_changed_byte_of_features_names_the_sample_and_the_tap(
    tmp_path: Path, made: Any, dtype: str, keep: str
) -> None:
    root = tmp_path / "store"
    made.write(root, made.plan(dtype, keep, shard_bytes=random.choice([700, 2000])))
    files = shards(root)
    for file in random.sample(files, min(5, len(files))):
        whole, (_, count, row_bytes) = file.read_bytes(), layout(root, file)
        for offset in (random.randrange(count * row_bytes), random.randrange(len(whole)), len(whole) - 1):
            flip(file, offset)
            row = offset // row_bytes
            key = file.relative_to(root).as_posix()
            wanted = hit(made, root, file, [row] if row < count else [])
            assert lines(root) == [f"{key} is damaged (its checksum differs){wanted}"]
            file.write_bytes(whole)
    assert lines(root) == []


def test_a_changed_byte_of_anything_else_names_the_file(tmp_path: Path, made: Any, files_of: Files) -> None:
    root = tmp_path / "store"
    made.write(root, made.plan("int8"))
    features = {file.relative_to(root).as_posix() for file in shards(root)}
    others = sorted(files_of(root).keys() - features - {"manifest.json"})
    kinds = {key.split("/")[0] for key in others}
    assert kinds > {"zarr.json", "id", "split", "checksum", "mask", "label", "multilabel", "target"}
    for key in others:
        whole = (root / key).read_bytes()
        flip(root / key, random.randrange(len(whole)))
        assert lines(root) == [f"{key} is damaged (its checksum differs)"]
        (root / key).write_bytes(whole)


@pytest.mark.parametrize("place", ["anywhere", "letters", "spaces"])
def test_a_changed_byte_of_the_manifest_is_found(
    tmp_path: Path, make: Any, small_spec: BankSpec, files_of: Files, place: str
) -> None:
    root = tmp_path / "store"
    made = make({"train": 3}, small_spec, mask=(2, 2))
    made.write(root)
    file = root / "manifest.json"
    whole = file.read_bytes()
    missed = []
    for _ in range(40):
        offset, change = random.randrange(len(whole)), 0
        if place == "letters":  # a checksum with another case is the same number
            offset, change = random.choice([i for i, x in enumerate(whole) if chr(x).isalpha()]), 0x20
        elif place == "spaces":  # JSON knows four
            offset = random.choice([i for i, x in enumerate(whole) if chr(x).isspace()])
            change = whole[offset] ^ random.choice([x for x in b" \t\r\n" if x != whole[offset]])
        flip(file, offset, change)
        if not outcome(root):
            missed.append(file.read_bytes()[max(0, offset - 12) : offset + 12])
        file.write_bytes(whole)
    assert missed == []


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_file_cut_short_or_grown_or_gone_names_the_samples_that_are_lost(
    tmp_path: Path, made: Any, dtype: str, keep: str
) -> None:
    root = tmp_path / "store"
    made.write(root, made.plan(dtype, keep, shard_bytes=2000))
    for file in random.sample(shards(root), 3):
        whole, (_, count, row_bytes) = file.read_bytes(), layout(root, file)
        key = file.relative_to(root).as_posix()
        for left in (0, random.randrange(count * row_bytes), random.randrange(len(whole)), len(whole) - 1):
            file.write_bytes(whole[:left])
            wanted = hit(made, root, file, [row for row in range(count) if (row + 1) * row_bytes > left])
            assert lines(root) == [f"{key} has {left} bytes instead of {len(whole)}{wanted}"]
        more = random.randint(1, 3 * row_bytes)
        file.write_bytes(whole + random.randbytes(more))
        wanted = f"{key} has {len(whole) + more} bytes instead of {len(whole)}{hit(made, root, file, [])}"
        assert lines(root) == [wanted]
        file.unlink()
        assert lines(root) == [f"{key} is not there{hit(made, root, file, [*range(count)])}"]
        file.write_bytes(whole)


def test_many_damaged_samples_are_named_up_to_eight(tmp_path: Path, make: Any, small_spec: BankSpec) -> None:
    root = tmp_path / "store"
    made = make({"train": 90}, small_spec, mask=(1, 1))
    made.write(root, made.plan(shard_bytes=2**20), most=20)
    (file,) = [file for file in shards(root) if ".0.0.0.0" in file.name]
    _, count, row_bytes = layout(root, file)
    for damaged in (1, 8, 9, count):
        whole, rows = file.read_bytes(), sorted(random.sample(range(count), damaged))
        for row in rows:
            flip(file, row * row_bytes + random.randrange(row_bytes))
        assert lines(root) == [f"mid@21/{file.name} is damaged (its checksum differs){hit(made, root, file, rows)}"]
        file.write_bytes(whole)


def damage(root: Path, key: str) -> None:
    """One of the things that disks, networks and people do to a file."""
    file, data = root / key, (root / key).read_bytes()
    kind = random.choice(["flip", "flip", "cut", "empty", "gone", "grown", "zeros", "noise", "folder"])
    if kind in ("gone", "folder"):
        file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "flip":
        flip(file, random.randrange(len(data)))
    elif kind != "gone":
        made = {"cut": data[: random.randrange(len(data))], "empty": b"", "grown": data + random.randbytes(5)}
        noise = {"zeros": b"\x01" + bytes(len(data) - 1), "noise": random.randbytes(len(data) + 1)[1:] + b"~~~~"}
        file.write_bytes({**made, **noise}[kind])


@pytest.mark.parametrize("number", range(3))
def test_any_damage_to_any_files_is_said_in_lines_that_name_just_these(
    tmp_path: Path, make: Any, small_spec: BankSpec, files_of: Files, number: int
) -> None:
    random.seed(number)
    made = make({"train": 9, "val": 2}, small_spec, mask=(33, 32))
    made.write(tmp_path / "whole", made.plan(random.choice(["float32", "int8"]), shard_bytes=random.choice([1, 500])))
    keys = sorted(files_of(tmp_path / "whole"))
    root = tmp_path / "store"
    for _ in range(10):
        shutil.copytree(tmp_path / "whole", root)
        among = keys if random.random() < 0.3 else [key for key in keys if key != "manifest.json"]
        chosen = random.sample(among, random.randint(1, 8))
        for key in chosen:
            damage(root, key)
        found = outcome(root)
        assert found
        assert "manifest.json" in chosen or {line.split(" ")[0] for line in found} == set(chosen)
        shutil.rmtree(root)


def test_a_link_that_leads_out_of_the_store_is_the_fault_of_that_file_alone(tmp_path: Path, made: Any) -> None:
    root = tmp_path / "store"
    made.write(root)
    file = random.choice(shards(root))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    (found,) = lines(root)
    key = file.relative_to(root).as_posix()
    assert found.startswith(f"{key} is a link that leads out of the store")


def test_a_description_that_shrank_beside_a_damaged_shard_is_two_faults(tmp_path: Path, made: Any) -> None:
    root = tmp_path / "store"
    made.write(root)
    metadata = root / "mid.block@21" / "zarr.json"
    text = json.loads(metadata.read_text())
    text["shape"][0] = 1
    metadata.write_text(json.dumps(text))
    last = shards(root)[-1]
    flip(last, 0)
    found = lines(root)
    assert len(found) == 2
    assert [line.split(" ")[0] for line in found] == sorted(
        file.relative_to(root).as_posix() for file in (metadata, last)
    )


def test_where_ids_or_checksums_are_damaged_no_sample_is_accused(tmp_path: Path, made: Any) -> None:
    root = tmp_path / "store"
    made.write(root)
    flip(shards(root)[0], 0)
    for name in ("checksum", "id"):
        file = next(file for file in (root / name).rglob("*") if file.is_file() and file.name != "zarr.json")
        whole = file.read_bytes()
        flip(file, random.randrange(len(whole)))
        assert not any(sample in line for line in lines(root) for sample in made.names if len(sample) > 6)
        assert len(lines(root)) == 2
        file.write_bytes(whole)


def test_afar_verify_says_what_it_says_of_a_folder(tmp_path: Path, made: Any, memory: str, files_of: Files) -> None:
    root = tmp_path / "store"
    made.write(root, made.plan("int8"))
    for key in random.sample(sorted(files_of(root).keys() - {"manifest.json", "zarr.json"}), 6):
        data = (root / key).read_bytes()
        (root / key).write_bytes(random.choice([data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:]]))
    shards(root)[0].unlink()
    system = fsspec.filesystem("memory")
    system.put(str(root), memory, recursive=True)
    assert lines(memory) == lines(root)
    assert len(lines(root)) >= 6


def test_verify_lists_a_folder_once_and_not_for_each_of_its_files(
    tmp_path: Path, make: Any, small_spec: BankSpec, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of thousands of files would else be listed thousands of times, on a network each time anew."""
    made = make({"train": 40}, small_spec, mask=(1, 1))
    made.write(tmp_path / "store", made.plan(shard_bytes=1), most=40)
    system: Any = fsspec.filesystem("memory")
    system.put(str(tmp_path / "store"), memory, recursive=True)
    folders = sum(path.is_dir() for path in [tmp_path, *tmp_path.rglob("*")])
    calls: list[str] = []
    scan, find = os.scandir, type(system).find
    monkeypatch.setattr(os, "scandir", lambda path: (calls.append("scandir"), scan(path))[1])
    monkeypatch.setattr(type(system), "find", lambda *args, **kw: (calls.append("find"), find(*args, **kw))[1])
    assert lines(tmp_path / "store") == lines(memory) == []
    assert calls.count("find") <= 2
    assert calls.count("scandir") <= 2 * folders


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "unfinished"])
def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path, made: Any, what: str) -> None:
    path = tmp_path / "store"
    if what == "file":
        path.write_bytes(b"text")
    elif what == "empty":
        path.mkdir()
    elif what == "unfinished":
        made.write(path)
        (path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"store has no manifest\.json") as caught:
        verify(str(path))
    assert "\n" not in str(caught.value)


def seal(root: Path, drop: Callable[[str], bool]) -> None:
    """List the same files without some."""
    manifest = Manifest.from_json((root / "manifest.json").read_text(), root)
    manifest.files = {key: file for key, file in manifest.files.items() if not drop(key)}
    (root / "manifest.json").write_text(manifest.to_json())


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        (lambda key: True, r"manifest\.json lists no file"),
        (lambda key: key == "zarr.json", r"manifest\.json lists \d+ files, and no zarr\.json"),
        (lambda key: key == "up.0@21/zarr.json", r"does not list up\.0@21/zarr\.json"),
        (lambda key: key == "up.0@21/c.1.0.0.0", r"does not list up\.0@21/c\.1\.0\.0\.0"),
        (lambda key: key == "mask/c.0.0.0", r"does not list mask/c\.0\.0\.0"),
        (lambda key: key.startswith("checksum/"), r"does not list checksum/zarr\.json"),
        (lambda key: key.startswith("label/"), r"does not list label/zarr\.json"),
        (lambda key: "@161" in key, r"does not list "),
    ],
)
def test_a_manifest_that_lacks_what_the_description_requires_is_refused(
    tmp_path: Path, make: Any, drop: Callable[[str], bool], says: str
) -> None:
    make(mask=(40, 30)).write(tmp_path / "store")
    seal(tmp_path / "store", drop)
    with pytest.raises(UserError, match=says) as caught:
        verify(str(tmp_path / "store"))
    assert "\n" not in str(caught.value)
