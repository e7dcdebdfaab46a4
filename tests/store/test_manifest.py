"""The manifest: it lists every file as it is, and nothing that it names can lead out of the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.store.manifest import Manifest, check_inside, checked

Files = Callable[[Path], dict[str, bytes]]
OUTSIDE = [
    "../x",
    "a/../../x",
    "a/..",
    "..",
    "/etc/passwd",
    "//host/share",
    "a\\b",
    "..\\x",
    "C:\\x",
    "C:x",
    "a//b",
    "./a",
    "a/./b",
    "a/",
    "",
    ".",
    "a\x00b",
]


@pytest.fixture
def store(tmp_path: Path, made: Any) -> Path:
    made.write(tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_it_lists_every_file_with_its_size_and_checksum(
    tmp_path: Path, made: Any, files_of: Files, slow_crc32c: Callable[[bytes], int], dtype: str
) -> None:
    made.write(tmp_path / "store", made.plan(dtype))
    listed = json.loads((tmp_path / "store" / "manifest.json").read_text())
    files = files_of(tmp_path / "store")
    del files["manifest.json"]
    assert listed["checksum"] == "crc32c"
    assert listed["files"] == {key: [len(data), f"{slow_crc32c(data):08x}"] for key, data in files.items()}


def test_it_survives_being_written_and_read() -> None:
    manifest = Manifest({"b/c.0.0": (12, 0xFFFFFFFF), "a": (0, 0), "é/漢": (2**40, 7)})
    again = Manifest.from_json(manifest.to_json(), "x")
    assert again == manifest
    assert again.to_json() == manifest.to_json()


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_path_that_could_lead_out_of_the_store_is_refused(store: Path, key: str) -> None:
    with pytest.raises(UserError, match="not a path inside the store"):
        check_inside(key, store)
    with pytest.raises(UserError, match="not a path inside the store"):
        checked(store, key)
    path = store / "manifest.json"
    listed = json.loads(path.read_text())
    listed["files"][key] = [1, "00000000"]
    path.write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"manifest\.json names .*do not use this store"):
        FeatureStore(store)


@pytest.mark.parametrize("key", ["a", "mid@21/c.0.0.0.0", "mid@21.scale/c.3.0", "...", "..a/b", "é/漢 x", "-x"])
def test_a_plain_path_is_accepted(tmp_path: Path, key: str) -> None:
    check_inside(key, tmp_path)
    assert checked(tmp_path, key) == tmp_path / key


@pytest.mark.parametrize("what", ["file", "folder", "label", "metadata"])
def test_a_link_that_leads_out_of_the_store_is_refused(store: Path, tmp_path: Path, what: str) -> None:
    inside = {
        "file": store / "up.0@21" / "c.0.0.0.0",
        "folder": store / "up.0@21",
        "label": store / "label" / "c" / "0",
        "metadata": store / "up.0@21" / "zarr.json",
    }[what]
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside", target_is_directory=what == "folder")
    with pytest.raises(UserError, match="link that leads out of the store"):
        FeatureStore(store)


def test_a_store_that_is_itself_a_link_and_links_inside_it_are_read(store: Path, tmp_path: Path, made: Any) -> None:
    file = store / "up.0@21" / "c.0.0.0.0"
    file.rename(store / "up.0@21" / "data")
    file.symlink_to("data")
    (tmp_path / "link").symlink_to(store)
    assert FeatureStore(tmp_path / "link").split("val").batch([1])["id"] == [made.ids["val"][1]]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "3", "null", '{"files": []}', '{"files": null}', '{"files": {"a": 3}}'),
        *('{"files": {"a": [1]}}', '{"files": {"a": [1, 2]}}', '{"files": {"a": ["x", "00"]}}'),
        '{"files": {"a": [1, "zz"]}}',
    ],
)
def test_a_manifest_that_cannot_be_read_is_damage(store: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is damaged: copy the store again"):
        Manifest.from_json(text, store)
    (store / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is damaged: copy the store again"):
        FeatureStore(store)


def test_a_manifest_that_is_not_text_is_damage(store: Path) -> None:
    (store / "manifest.json").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        FeatureStore(store)


def test_a_store_without_a_manifest_was_not_copied_whole(store: Path) -> None:
    (store / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json.*was not copied whole"):
        FeatureStore(store)


@pytest.mark.parametrize("harm", ["lost", "cut", "longer", "empty"])
def test_any_file_that_is_lost_or_of_another_size_is_named(store: Path, files_of: Files, harm: str) -> None:
    for key, data in files_of(store).items():
        if key in ("manifest.json", "zarr.json") or (harm == "lost" and key.endswith("zarr.json")):
            continue
        path = store / key
        if harm == "lost":
            path.unlink()
        else:
            path.write_bytes({"cut": data[:-1], "longer": data + b"x", "empty": b""}[harm])
        with pytest.raises(UserError) as caught:
            FeatureStore(store)
        assert key in str(caught.value) or key.endswith("zarr.json")
        assert "\n" not in str(caught.value)
        path.write_bytes(data)
    FeatureStore(store)


@pytest.mark.parametrize("key", ["zarr.json", "up.0@21/zarr.json", "label/zarr.json"])
@pytest.mark.parametrize("harm", ["cut", "empty", "lost", "null"])
def test_descriptions_that_are_cut_or_lost_are_a_user_error(store: Path, key: str, harm: str) -> None:
    path = store / key
    text = path.read_text()
    if harm == "lost":
        path.unlink()
    else:
        path.write_text({"cut": text[: len(text) // 2], "empty": "", "null": "null"}[harm])
    with pytest.raises(UserError, match="store"):
        FeatureStore(store).split("train")


def test_a_manifest_that_lacks_a_units_file_is_refused(store: Path) -> None:
    path = store / "manifest.json"
    manifest = Manifest.from_json(path.read_text(), store)
    del manifest.files["up.1@161/c.1.0.0.0"]
    path.write_text(manifest.to_json())
    with pytest.raises(UserError, match=r"does not list up\.1@161/c\.1\.0\.0\.0"):
        FeatureStore(store)


def test_a_file_that_goes_while_the_store_is_open_is_named(store: Path, reading: str) -> None:
    data = FeatureStore(store).split("train")
    (store / "up.0@21" / "c.0.0.0.0").unlink()
    with pytest.raises(UserError, match=r"up\.0@21/c\.0\.0\.0\.0 is not there"):
        data.batch([0, 1])


def test_a_file_that_is_cut_while_the_store_is_open_is_named(store: Path, reading: str) -> None:
    data = FeatureStore(store).split("train")
    (store / "up.0@21" / "c.0.0.0.0").write_bytes(b"123")
    with pytest.raises(UserError, match=r"up\.0@21/c\.0\.0\.0\.0 is cut short"):
        data.batch([0, 1])
