"""Stores of the version before: they are read, gone on with, joined and pruned; what they lack is not made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, open_xarray
from satdifuser.store.manifest import Manifest
from satdifuser.store.merge import merge, prune
from satdifuser.store.shards import crc32c
from satdifuser.store.verify import verify


def as_version_2(root: Path) -> None:
    """Take away what stores of that version did not have."""
    for name in ("sample", "left", "bottom", "right", "top", "crs"):
        for file in sorted((root / name).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    document = json.loads((root / "zarr.json").read_text())
    document["attributes"]["satdifuser_store"] = 2
    del document["attributes"]["coordinates"]
    for name in ("sample", "left", "bottom", "right", "top", "crs"):
        document["consolidated_metadata"]["metadata"].pop(name, None)
    (root / "zarr.json").write_text(json.dumps(document))
    manifest = Manifest()
    for file in (file for file in root.rglob("*") if file.is_file() and file.name != "manifest.json"):
        data = np.fromfile(file, np.uint8)
        manifest.files[file.relative_to(root).as_posix()] = (len(data), crc32c(data))
    (root / "manifest.json").write_text(manifest.to_json())


def test_a_store_of_the_version_before_opens_as_well(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "a", made.plan("int8"))
    now = open_xarray(tmp_path / "a").load()
    as_version_2(tmp_path / "a")
    assert verify(str(tmp_path / "a")) == []
    xarray.testing.assert_identical(open_xarray(tmp_path / "a").load(), now)
    prune(str(tmp_path / "a"), tmp_path / "b", [21], None)
    merge(tmp_path / "c", [str(tmp_path / "a")])
    assert FeatureStore(tmp_path / "b").attributes["satdifuser_store"] == 2
    with xarray.open_zarr(tmp_path / "c") as data:
        assert data["sample"].values.tolist() == made.names


def test_a_store_that_was_begun_by_the_version_before_is_gone_on_with(
    tmp_path: Path, made: Any, files_of: Callable[[Path], Any]
) -> None:
    made.begin(tmp_path / "a", 5)
    plan = tmp_path / "a.partial" / "progress" / "plan.json"
    plan.write_text(plan.read_text().replace('"satdifuser_store": 3', '"satdifuser_store": 2'))
    assert '"satdifuser_store": 2' in plan.read_text()
    journals = files_of(plan.parent)
    assert len(journals) > 1
    made.write(tmp_path / "a")
    made.write(tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_description_without_the_names_is_refused(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "a")
    as_version_2(tmp_path / "a")
    text = (tmp_path / "a" / "zarr.json").read_text().replace('"satdifuser_store": 2', '"satdifuser_store": 3')
    manifest = Manifest.from_json((tmp_path / "a" / "manifest.json").read_text(), "a")
    (tmp_path / "a" / "zarr.json").write_text(text)
    manifest.files["zarr.json"] = (len(text), crc32c(np.frombuffer(text.encode(), np.uint8)))
    (tmp_path / "a" / "manifest.json").write_text(manifest.to_json())
    with pytest.raises(UserError, match="lost a part of its description"):
        FeatureStore(tmp_path / "a")
