"""satdifuser extract: what the store says of itself, when it is kept, replaced, gone on with or refused."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from satdifuser.cli import main
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.synthetic import SyntheticScenes

pytestmark = pytest.mark.slow

LENGTHS = {"train": 8, "val": 5, "test": 7}
DATA = ["data.size=16", *(f"data.splits.{name}.length={length}" for name, length in LENGTHS.items())]
SMALL = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
CUT = ["store.shard_mb=0.016", "store.batch_size=1"]  # two samples a file

Extract = Callable[..., tuple[int, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.zarr"


@pytest.fixture
def extract(path: Path, capsys: pytest.CaptureFixture) -> Extract:
    """Run `satdifuser extract` and give its exit code and what it said, on one line."""

    def run(*words: str) -> tuple[int, str]:
        code = main(["extract", *DATA, *SMALL, *CUT, f"store.path={path}", *words])
        return code, " ".join(capsys.readouterr().err.split())

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def stopped(extract: Extract, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an extraction leaves that could not read its twelfth image."""
    with monkeypatch.context() as patch:
        patch.setattr(SyntheticScenes, "__getitem__", _unreadable(SyntheticScenes.__getitem__, "scene-0-1000003"))
        assert extract()[0] == 1
    partial = path.with_name("f.zarr.partial")
    assert partial.is_dir()
    assert not path.exists()
    return partial


def _unreadable(read: Callable[..., Any], name: str) -> Callable[..., Any]:
    def reading(self: Any, index: int) -> Any:
        if self.sample_id(index) == name:
            raise OSError(errno.EIO, "Input/output error", "tile.tif")
        return read(self, index)

    return reading


def test_the_attributes_have_the_settings_that_the_features_come_from_and_not_where_they_lie(
    path: Path, extract: Extract
) -> None:
    assert extract("store.dtype=bfloat16", "seed=3", "on_error=skip")[0] == 0
    attributes: Any = json.loads((path / "zarr.json").read_text())["attributes"]
    recorded = attributes["configuration"]
    assert recorded["encoder"]["timesteps"] == [21]
    assert recorded["encoder"]["taps"] == ["mid_block", "up_blocks.1.resnets.1.conv2"]
    assert recorded["encoder"]["image_size"] == 16  # resolved: it follows data.size
    assert recorded["data"]["splits"]["val"] == {"split": "val", "length": 5}
    assert (recorded["seed"], recorded["on_error"], recorded["store"]["dtype"]) == (3, "skip", "bfloat16")
    assert not recorded["store"].keys() & {"path", "batch_size", "workers", "reuse", "overwrite"}
    assert str(path) not in json.dumps(attributes)
    assert attributes["splits"] == ["train", "val", "test"]


def test_the_band_statistics_are_those_of_the_pixels_that_have_data(path: Path, extract: Extract) -> None:
    assert extract("data.nodata=0.9")[0] == 0
    bands: Any = zarr.open_group(path, mode="r").attrs["bands"]
    assert bands["names"] == list(SENTINEL2.names)
    for split, length in LENGTHS.items():
        scenes = SyntheticScenes(split, length, size=16, nodata=0.9)
        pixels = np.concatenate([scenes[i]["image"].numpy().reshape(13, -1).T for i in range(length)]).astype(float)
        known = pixels[(pixels != 0).any(1)]
        assert len(known) < len(pixels)
        assert bands[split]["pixels"] == len(known)
        for name, wanted in {
            "mean": known.mean(0),
            "std": known.std(0),
            "min": known.min(0),
            "max": known.max(0),
        }.items():
            np.testing.assert_allclose(bands[split][name], wanted, rtol=1e-6, atol=1e-9, err_msg=f"{split} {name}")


@pytest.mark.parametrize("reader", ["zarr", "xarray"])
def test_other_tools_read_ids_labels_and_dimensions(path: Path, extract: Extract, reader: str) -> None:
    assert extract("store.dtype=int8", "store.splits=[test,train]")[0] == 0
    arrays: dict[str, Any]
    if reader == "zarr":
        group: Any = zarr.open_group(path, mode="r")
        arrays = dict(group.arrays())
        dimensions = {name: array.metadata.dimension_names for name, array in arrays.items()}
    else:
        import xarray

        opened = xarray.open_zarr(path, consolidated=False)
        arrays = {str(name): value.values for name, value in opened.variables.items()}
        dimensions = {name: opened[name].dims for name in arrays}
        assert opened.sizes["sample"] == 15
    for name in ("mid_block@21", "up_blocks.1.resnets.1.conv2@21"):
        assert dimensions[name][0] == dimensions[f"{name}.scale"][0] == "sample"
        assert dimensions[name][1] == dimensions[f"{name}.scale"][1]
    scenes = [SyntheticScenes("test", 7, size=16), SyntheticScenes("train", 8, size=16)]
    samples = [data[row] for data in scenes for row in range(len(data))]
    ids = [bytes(row).rstrip(b"\0").decode() for row in np.asarray(arrays["id"])]
    assert ids == [sample["id"] for sample in samples]
    assert np.asarray(arrays["split"]).tolist() == [0] * 7 + [1] * 8
    for label in ("mask", "label", "multilabel", "target"):
        wanted = np.stack([sample[label].numpy() for sample in samples])  # type: ignore[literal-required]
        np.testing.assert_array_equal(np.asarray(arrays[label]), wanted)


def test_reuse_keeps_a_store_of_these_features_untouched_and_refuses_one_of_others(
    path: Path, extract: Extract
) -> None:
    assert extract("store.reuse=true")[0] == 0  # none is there yet
    before = content(path)
    code, said = extract("store.reuse=true", "store.batch_size=4", "store.workers=1")
    assert code == 0
    assert "already holds these features" in said
    for words, differs in (
        (["encoder.seed=1"], "seed: 0 and 1"),
        (["encoder.timesteps=[61]"], "61"),
        (["store.dtype=int8"], "store.dtype=float16, and asked for is store.dtype=int8"),
        (["store.keep=mean"], "store.keep=mean"),
        (["data.splits.val.length=4"], "other data for val"),
    ):
        code, said = extract("store.reuse=true", *words)
        assert code == 2, words
        assert differs in said, said
    assert content(path) == before


def test_a_store_that_is_there_is_refused_and_with_overwrite_replaced_at_the_very_end(
    path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract()[0] == 0
    before = content(path)
    code, said = extract("encoder.seed=1")
    assert code == 2
    assert "already exists" in said
    assert "store.overwrite=true" in said
    with monkeypatch.context() as patch:
        patch.setattr(SyntheticScenes, "__getitem__", _unreadable(SyntheticScenes.__getitem__, "scene-0-2000006"))
        assert extract("encoder.seed=1", "store.overwrite=true")[0] == 1
    assert content(path) == before  # the new one is not whole yet
    assert extract("encoder.seed=1", "store.overwrite=true")[0] == 0
    assert [file.name for file in path.parent.iterdir()] == ["f.zarr"]
    after = content(path)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before if "@21/c." in name)


def test_what_an_earlier_replacement_left_behind_is_not_in_the_way_of_the_next(path: Path, extract: Extract) -> None:
    assert extract()[0] == 0
    left = path.with_name("f.zarr.partial") / "replaced"  # stopped while the old store was being removed
    left.mkdir(parents=True)
    (left / "zarr.json").touch()
    code, said = extract("encoder.seed=1", "store.overwrite=true")
    assert code == 0, said
    assert [file.name for file in path.parent.iterdir()] == ["f.zarr"]


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (["encoder.seed=1"], r"seed: 0 and 1"),
        (["encoder.timesteps=[61]"], r"21.*61"),
        (["store.dtype=float32"], r"dtype.*float16.*float32"),
        (["store.keep=grid2"], r"grid2"),
        (["data.splits.val.length=4"], r"length.*5.*4"),
        (["data.seed=5"], r"seed.*0.*5"),
        (["store.shard_mb=0.003"], r"unit\.samples: \d+ and \d+"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_was_begun_with_other_settings_is_refused_saying_what_differs(
    stopped: Path, extract: Extract, words: list[str], differs: str
) -> None:
    before = content(stopped)
    code, said = extract(*words)
    assert code == 2
    assert "begun with other settings" in said
    assert re.search(differs, said), said
    assert "store.overwrite=true" in said
    assert content(stopped) == before


def test_with_overwrite_other_settings_begin_anew_and_batch_size_and_workers_may_change(
    stopped: Path, path: Path, extract: Extract
) -> None:
    code, said = extract("encoder.seed=1", "store.overwrite=true")
    assert code == 0
    assert "going on with" not in said
    assert [file.name for file in path.parent.iterdir()] == ["f.zarr"]
    seeded = content(path)
    path.rename(path.with_name("seeded.zarr"))
    assert extract("encoder.seed=1", "store.batch_size=2", "store.workers=1")[0] == 0
    assert content(path).keys() == seeded.keys()


def test_the_same_settings_go_on_with_other_batches_workers_and_place_of_the_store(
    stopped: Path, path: Path, extract: Extract
) -> None:
    moved = path.with_name("moved.zarr")
    stopped.rename(moved.with_name("moved.zarr.partial"))
    code, said = extract("store.batch_size=2", "store.workers=1", f"store.path={moved}")
    assert code == 0
    there = re.search(r"going on with \S+: (\d+) of 20 samples are there", said)
    assert there is not None, said
    assert 6 <= int(there[1]) <= 11  # a few batches that waited for the disk may not be there
    assert extract()[0] == 0
    assert content(moved).keys() == content(path).keys()


def test_a_mistake_before_the_first_sample_was_written_does_not_ask_for_overwrite(path: Path, extract: Extract) -> None:
    code, said = extract("encoder.image_size=32")  # the images are of 16 px
    assert code == 2
    assert "16 x 16" in said
    code, said = extract()
    assert code == 0, said


def test_a_second_run_while_one_is_writing_is_refused_and_touches_nothing(
    stopped: Path, path: Path, extract: Extract
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(stopped / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        before = content(stopped)
        for words in ([], ["store.overwrite=true", "encoder.seed=1"]):
            code, said = extract(*words)
            assert code == 2
            assert "another run is writing" in said
            assert str(path) in said
        assert content(stopped) == before
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    assert extract()[0] == 0


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("at", [1, 2, 3, 7])
def test_a_disk_that_fills_up_while_a_file_is_completed_is_one_line_and_the_same_command_goes_on(
    path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    assert extract(f"store.path={path.with_name('whole.zarr')}")[0] == 0
    sync, count = os.fsync, 0

    def full(file: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = extract()
    assert code == 2, said
    assert re.fullmatch(r"satdifuser: the disk filled up while writing \S+f\.zarr: .*goes on from there", said), said
    code, said = extract()
    assert code == 0, said
    assert content(path) == content(path.with_name("whole.zarr"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["on_error=ignore"], ["on_error is 'ignore'", "stop or skip"]),
        (["encoder.image_size=20"], ["encoder.image_size is 20", "multiple", "encoder.prepare.size"]),
        (["encoder.image_size=4"], ["encoder.image_size is 4", "largest stride of small-diffusion is 8"]),
        (["encoder.timesteps=[1000]"], ["encoder.timesteps is [1000]", "999"]),
        (["encoder.timesteps=[21,61,21]"], ["encoder.timesteps is [21, 61, 21]", "distinct"]),
        (["encoder.timesteps=[]"], ["encoder.timesteps is []"]),
        (["encoder.save_steps=[47,50]"], ["generation step 50 is outside"]),
        (["encoder.metadata=samples"], ["encoder.metadata"]),
        (["store.dtype=float8"], ["store.dtype is 'float8'", "float16"]),
        (["store.keep=means"], ["store.keep is 'means'", "mean"]),
        (["store.dtype=int8", "store.keep=max"], ["store.keep=max", "int8"]),
        (["encoder=unet", "encoder.width=8", "store.keep=latents"], ["store.keep=latents", "diffusion"]),
        (["store.splits=[train,vall]"], ["vall", "train, val, test"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and "=" in value[-1] else "",
)
def test_a_mistake_in_the_settings_is_one_line_and_leaves_nothing(
    path: Path, capsys: pytest.CaptureFixture, words: list[str], expected: list[str]
) -> None:
    taps = [] if words[0] == "encoder=unet" else ["encoder.taps=[mid_block]"]
    assert main(["extract", *DATA, *taps, f"store.path={path}", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(word in err for word in expected), err
    assert list(path.parent.iterdir()) == []
