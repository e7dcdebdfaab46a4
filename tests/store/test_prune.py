"""A pruned store is the same files, fewer of them: it costs no space, and its source stays as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.store.merge import merge, prune
from satdifuser.store.verify import verify

KEPT: list[Any] = [([161], None), (None, ["up.1", "mid.block"]), ([21], ["up.0"])]
CASES = [
    ("float32", "maps", KEPT[0], True),
    ("float16", "maps", KEPT[1], True),
    ("bfloat16", "maps", KEPT[2], True),
    ("int8", "maps", KEPT[0], True),
    ("int8", "maps", KEPT[1], False),
    ("float16", "mean", KEPT[2], True),
]
Files = Callable[[Path], dict[str, bytes]]


def refused(match: str, work: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=match) as caught:
        work()
    assert "\n" not in str(caught.value)


def no_link(*_: Any) -> None:
    raise OSError("another disk")


@pytest.mark.parametrize(("dtype", "keep", "kept", "links"), CASES)
def test_a_pruned_store_is_the_remaining_taps_and_costs_no_space(
    tmp_path: Path,
    made: Any,
    files_of: Files,
    monkeypatch: pytest.MonkeyPatch,
    links: bool,
    dtype: str,
    keep: str,
    kept: Any,
) -> None:
    source, out = tmp_path / "store", tmp_path / "new folder" / "small"
    made.write(source, made.plan(dtype, keep))
    if not links:
        monkeypatch.setattr("satdifuser.store.merge.os", SimpleNamespace(link=no_link))
    before = files_of(source)
    spec = prune(str(source), out, *kept)
    taps = [
        t for t in made.spec.taps if t.timestep in (kept[0] or (21, 161)) and t.name in (kept[1] or made.spec.names())
    ]
    assert [str(tap) for tap in spec.taps] == [str(tap) for tap in taps]
    assert files_of(source) == before
    assert verify(str(source)) == verify(str(out)) == []
    assert [path.name for path in out.parent.iterdir()] == ["small"]

    plain, full, small = zarr.open_group(source, mode="r"), FeatureStore(source), FeatureStore(out)
    small.require(made.spec.select(timesteps=kept[0], names=kept[1]))
    held: Any = zarr.open_group(out, mode="r")
    dropped = {str(tap) for tap in made.spec.taps} - {str(tap) for tap in taps}
    wanted = {name for name, _ in plain.arrays() if name.removesuffix(".scale") not in dropped}
    assert {name for name, _ in held.arrays()} == wanted
    assert held["sample"][:].tolist() == plain["sample"][:].tolist()
    for name in wanted - {"checksum", "sample"}:
        assert held[name][:].tobytes() == plain[name][:].tobytes()
    seen = xarray.open_zarr(out, consolidated=False)
    assert set(seen.variables) == wanted
    np.testing.assert_array_equal(seen[str(taps[0])].values, plain[str(taps[0])][:])
    for split, count in made.counts.items():
        one, other = full.split(split).batch(range(count)), small.split(split).batch(range(count))
        assert one["id"] == other["id"]
        assert all(
            torch.equal(one["bank"].map(t.name, t.timestep), other["bank"].map(t.name, t.timestep)) for t in taps
        )
        assert all(torch.equal(one[label], other[label]) for label in made.labels)
    for file in out.rglob("*@*/c.*"):
        assert (file.stat().st_ino == (source / file.relative_to(out)).stat().st_ino) == links


def test_pruned_stores_are_joined_pruned_again_and_damage_in_them_has_a_name(tmp_path: Path, make: Any) -> None:
    several = [make({"train": 4}), make({"train": 3, "val": 2})]
    several[1].names = [name + "~" for name in several[1].names]
    several[1].ids = {"train": several[1].names[:3], "val": several[1].names[3:]}
    for number, made in enumerate(several):
        made.write(tmp_path / str(number), made.plan("int8"))
        prune(str(tmp_path / str(number)), tmp_path / f"small{number}", [161], None)
    merge(tmp_path / "all", [str(tmp_path / f"small{number}") for number in range(2)])
    assert prune(str(tmp_path / "all"), tmp_path / "one", None, ["up.0"]).names() == ("up.0",)
    file = next((tmp_path / "one" / "up.0@161").glob("c.0.*"))
    data = file.read_bytes()
    file.unlink()  # a link: its other name must not change
    file.write_bytes(bytes([data[0] ^ 4]) + data[1:])
    assert verify(str(tmp_path / "all")) == []
    (found,) = verify(str(tmp_path / "one"))
    assert found.endswith(f"tap up.0@161 of 1 of its 2 samples ({several[0].names[0]})")


def test_what_cannot_be_pruned_is_refused_with_what_there_is(tmp_path: Path, made: Any) -> None:
    path, out = str(tmp_path / "store"), tmp_path / "small"
    made.write(Path(path))
    refused(r"store: no timestep 22; .*\[21, 161\]", lambda: prune(path, out, [21, 22], None))
    refused(r"no tap up\.2; .*mid\.block.*up\.0.*up\.1", lambda: prune(path, out, None, ["up.2"]))
    refused("no taps are left", lambda: prune(path, out, [], None))
    refused("already exists", lambda: prune(path, Path(path), [21], None))
    refused("no feature store at", lambda: prune(str(out), tmp_path / "other", [21], None))
    refused("copy it first", lambda: prune(f"file://{path}", out, [21], None))
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    (tmp_path / "store" / "up.0@21" / "zarr.json").unlink()
    refused(r"up\.0@21/zarr\.json is not there", lambda: prune(path, out, [161], None))


def test_an_interrupted_prune_leaves_no_store_and_begins_anew(
    tmp_path: Path, made: Any, files_of: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(tmp_path / "store")
    prune(str(tmp_path / "store"), tmp_path / "unbroken", [21], None)
    real, calls = os.link, []

    def link(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 9:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr("satdifuser.store.merge.os", SimpleNamespace(link=link))
        with pytest.raises(KeyboardInterrupt):
            prune(str(tmp_path / "store"), tmp_path / "small", [21], None)
    assert not (tmp_path / "small").exists()
    prune(str(tmp_path / "store"), tmp_path / "small", [21], None)
    assert files_of(tmp_path / "small") == files_of(tmp_path / "unbroken")
