"""What a store says of itself: its version, its splits, and whether it holds the features that are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from satdifuser.bank import Tap
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float32", "max")]


def test_an_unknown_split_is_an_error_that_lists_the_splits_and_suggests_one(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "store")
    with pytest.raises(UserError, match=r"'tset'.*train, val, test.*did you mean test"):
        FeatureStore(tmp_path / "store").split("tset")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (0, "version 0.*extract it again"),
        (1, "version 1.*reads 2.*again"),
        (4, "version 4.*newer"),
        (99, "version 99.*newer"),
    ],
)
def test_a_store_of_another_version_is_refused_by_its_number(
    tmp_path: Path, made: Any, version: int, words: str
) -> None:
    change(tmp_path, made, lambda attributes: attributes.update(satdifuser_store=version))
    with pytest.raises(UserError, match=words):
        FeatureStore(tmp_path / "store")


def test_another_zarr_group_is_said_to_be_no_store(tmp_path: Path, made: Any) -> None:
    change(tmp_path, made, lambda attributes: attributes.clear())
    with pytest.raises(UserError, match="no feature store"):
        FeatureStore(tmp_path / "store")


@pytest.mark.parametrize("key", ["spec", "form", "labels", "splits", "data", "unit"])
@pytest.mark.parametrize("value", [None, 3, {}])
def test_a_description_that_lost_a_part_is_a_user_error(tmp_path: Path, made: Any, key: str, value: Any) -> None:
    change(tmp_path, made, lambda attributes: attributes.pop(key) if value is None else attributes.update({key: value}))
    if (key, value) != ("data", {}):
        with pytest.raises(UserError, match="store"):
            FeatureStore(tmp_path / "store").split("train")


def test_units_of_no_samples_are_a_user_error(tmp_path: Path, made: Any) -> None:
    change(tmp_path, made, lambda attributes: attributes.update(unit={"samples": 0, "chunk_bytes": 1}))
    with pytest.raises(UserError):
        FeatureStore(tmp_path / "store")


def change(tmp_path: Path, made: Any, how: Callable[[dict[str, Any]], Any]) -> None:
    made.write(tmp_path / "store")
    path = tmp_path / "store" / "zarr.json"
    document = json.loads(path.read_text())
    how(document["attributes"])
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("there", [False, True])
def test_a_path_without_a_store_is_a_user_error_that_says_how_to_make_one(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match=rf"no feature store at .*satdifuser extract store\.path={tmp_path}/store"):
        FeatureStore(tmp_path / "store")


def test_a_run_in_place_of_a_store_is_told_from_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=rf"^{tmp_path} is the folder of a run, not a feature store: .* extract .*$"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_require_accepts_the_same_features_or_some_of_them(tmp_path: Path, made: Any, dtype: str, keep: str) -> None:
    made.write(tmp_path / "store", made.plan(dtype, keep))
    store = FeatureStore(tmp_path / "store")
    store.require(made.spec)
    store.require(made.spec.select(timesteps=[161], names=["up.0"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "def"}, ["weights", "'abc'", "'def'"]),
        ({"encoder": "else"}, ["encoder", "'toy'", "'else'"]),
        ({"settings": (("seed", 1),)}, ["seed", "0 and 1"]),
        ({"image_size": (32, 24)}, ["image_size", "(16, 24)", "(32, 24)"]),
        ({"taps": (Tap("mid.block", 7, 0, 5, 8),)}, ["timestep 7", "[21, 161]"]),
        ({"taps": (Tap("down", 21, 0, 5, 8),)}, ["tap down", "mid.block"]),
        ({"taps": (Tap("mid.block", 21, 0, 6, 8),)}, ["mid.block@21", "(5, 2, 3)", "(6, 2, 3)"]),
    ],
)
def test_require_says_what_differs(tmp_path: Path, made: Any, change: dict[str, Any], words: list[str]) -> None:
    made.write(tmp_path / "store")
    with pytest.raises(UserError) as caught:
        FeatureStore(tmp_path / "store").require(replace(made.spec, **change))
    for word in [*words, str(tmp_path / "store")]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
