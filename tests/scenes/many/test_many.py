"""Many scenes: one that fails stops no other, what is done stays done, and whoever works, the bytes are the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from satdifuser.commands.table import Launch
from satdifuser.config import compose
from satdifuser.errors import UserError
from satdifuser.scenes.done import Done
from satdifuser.scenes.many.flow import many
from satdifuser.scenes.many.manifest import footprint
from satdifuser.scenes.scene import Found

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Pretended:
    """In place of `predict`: it writes a line, and may fail, wait or be asked what it has done."""

    def __init__(self, fails: str = "", seconds: float = 0.0) -> None:
        self.fails, self.seconds, self.calls = fails, seconds, list[str]()

    def __call__(self, settings: Any, found: Found, *, part: tuple[int, int] = (0, 1)) -> Done:
        self.calls.append(f"{found.name}{part}")
        time.sleep(self.seconds)
        if found.name == self.fails:
            raise UserError("this scene has no band B08\nand more")
        Path(settings.out).write_text(f"map of {found.name}")
        return Done((settings.out,), 4, 4, 0.5, True, 100)


def scenes(count: int) -> list[Found]:
    return [Found(f"s{number}", f"/data/s{number}.tif") for number in range(count)]


def settings(out: Path, *words: str) -> Any:
    return compose("predict", ["scene=x.tif", f"out={out}", "run=runs/a", *words])


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_a_scene_that_fails_stops_no_other_and_the_same_command_tries_it_again(tmp_path: Path) -> None:
    first = Pretended(fails="s1")
    with pytest.raises(UserError, match=r"1 of 4 scenes failed \(.*manifest.json lists them\), the first s1: this"):
        many("predict", settings(tmp_path / "maps"), scenes(4), Launch(), first)
    found = manifest(tmp_path / "maps")
    assert (found["done"], found["failed"], found["open"]) == (3, 1, 0)
    assert [row["state"] for row in found["scenes"]] == ["done", "failed", "done", "done"]
    assert found["scenes"][1]["error"] == "this scene has no band B08 and more"  # in one line
    assert found["scenes"][0] | {"out": ""} == {
        "name": "s0", "scene": "/data/s0.tif", "state": "done", "out": "", "seconds": 0.5, "pixels": 100, "windows": 4,
        "error": None,
    }  # fmt: skip
    second = Pretended()
    paths = many("predict", settings(tmp_path / "maps"), scenes(4), Launch(), second)
    assert second.calls == ["s1(0, 1)"]
    assert [Path(path).read_text() for path in paths] == [f"map of s{n}" for n in range(4)]
    assert manifest(tmp_path / "maps")["done"] == 4
    table = (tmp_path / "maps" / "manifest.csv").read_text().splitlines()
    assert len(table) == 5
    assert table[0].startswith("name,scene,state")


def test_what_is_gone_is_made_again_and_overwrite_makes_all(tmp_path: Path) -> None:
    many("predict", settings(tmp_path / "maps"), scenes(3), Launch(), Pretended())
    (tmp_path / "maps" / "s2.tif").unlink()
    again = Pretended()
    many("predict", settings(tmp_path / "maps"), scenes(3), Launch(), again)
    assert again.calls == ["s2(0, 1)"]
    anew = Pretended()
    many("predict", settings(tmp_path / "maps", "overwrite=true"), scenes(3), Launch(), anew)
    assert len(anew.calls) == 3


def test_more_scenes_join_and_what_changes_no_number_may_change(tmp_path: Path) -> None:
    many("predict", settings(tmp_path / "maps"), scenes(2), Launch(), Pretended())
    more = Pretended()
    many("predict", settings(tmp_path / "maps", "window.batch_size=8", "threads=1"), scenes(3), Launch(), more)
    assert more.calls == ["s2(0, 1)"]


def test_a_folder_of_another_command_is_refused_by_what_differs(tmp_path: Path) -> None:
    many("predict", settings(tmp_path / "maps"), scenes(2), Launch(), Pretended())
    with pytest.raises(UserError, match="was begun with another output: give the same, or another out="):
        many("predict", settings(tmp_path / "maps", "output=logits"), scenes(2), Launch(), Pretended())


@pytest.mark.parametrize(
    ("out", "words", "found", "said"),
    [
        ("map.tif", (), scenes(2), "is one file, and there are 2 scenes"),
        (
            "maps",
            (),
            [Found("a", "x/a.tif"), Found("A", "y/A.tif")],
            "y/A.tif would both be written to a.tif",
        ),
        ("maps", ("parts=2", "overwrite=true"), scenes(1), "overwrite=true with parts"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, out: str, words: tuple[str, ...], found: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        many("predict", settings(tmp_path / out, *words), found, Launch(), Pretended())


def test_a_scene_of_the_same_name_from_elsewhere_is_another_scene(tmp_path: Path) -> None:
    many("predict", settings(tmp_path / "maps"), [Found("s0", "/a/s0.tif")], Launch(), Pretended())
    other = Pretended()
    many("predict", settings(tmp_path / "maps"), [Found("s0", "/b/s0.tif")], Launch(), other)
    assert other.calls == ["s0(0, 1)"]


def test_a_scene_that_was_written_anew_is_mapped_anew(tmp_path: Path) -> None:
    scene = tmp_path / "s0.tif"
    scene.write_text("first")
    found, second = [Found("s0", str(scene))], Pretended()
    many("predict", settings(tmp_path / "maps"), found, Launch(), Pretended())
    many("predict", settings(tmp_path / "maps"), found, Launch(), second)
    assert second.calls == []
    scene.write_text("something else")
    many("predict", settings(tmp_path / "maps"), found, Launch(), second)
    assert second.calls == ["s0(0, 1)"]


def test_a_run_that_was_trained_again_is_another_run(tmp_path: Path) -> None:
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.write_text("weights")
    told = settings(tmp_path / "maps", f"run={tmp_path / 'run'}")
    many("predict", told, scenes(1), Launch(), Pretended())
    best.write_text("other weights")
    with pytest.raises(UserError, match="was begun with another run's weights"):
        many("predict", told, scenes(1), Launch(), Pretended())


def test_torchrun_is_for_one_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun shares out one scene"):
        many("predict", settings(tmp_path / "maps"), scenes(2), Launch(), Pretended())


def test_a_dry_run_writes_nothing_and_asks_of_the_first_scene_that_is_left(tmp_path: Path, capfd: Any) -> None:
    asked: list[Any] = []

    def dry(own: Any, found: Found, **_: Any) -> Done:
        asked.append((own.dry_run, found.name))
        return Done((), 0, 0, 0.0, False)

    assert many("predict", settings(tmp_path / "maps", "dry_run=true"), scenes(3), Launch(), dry) == []
    assert asked == [(True, "s0")]
    assert not (tmp_path / "maps").exists()
    assert "3 scenes: 0 done, 3 to do" in capfd.readouterr().err


class Recorded(Pretended):
    """It notes its calls in a file that processes share."""

    def __init__(self, path: Path) -> None:
        super().__init__(seconds=0.02)
        self.path = path

    def __call__(self, settings: Any, found: Found, *, part: tuple[int, int] = (0, 1)) -> Done:
        with self.path.open("a") as file:
            file.write(f"{found.name}\n")
        return super().__call__(settings, found, part=part)


def test_two_processes_at_once_do_each_scene_once(tmp_path: Path) -> None:
    one, told = Recorded(tmp_path / "calls"), settings(tmp_path / "maps")
    fork = multiprocessing.get_context("fork")

    children = [
        fork.Process(target=many, args=("predict", told, scenes(12), Launch(), one), daemon=True) for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert {child.exitcode for child in children} == {0}  # also of those that left the last ones to others
    assert sorted((tmp_path / "calls").read_text().split()) == sorted(f"s{n}" for n in range(12))
    many("predict", told, scenes(12), Launch(), one)
    assert manifest(tmp_path / "maps")["done"] == 12
    assert len((tmp_path / "calls").read_text().split()) == 12


def test_thousands_of_scenes_are_planned_without_opening_one(tmp_path: Path) -> None:
    began = time.process_time()
    many("predict", settings(tmp_path / "maps", "dry_run=true"), scenes(5000), Launch(), lambda *_: None)  # type: ignore[arg-type, return-value]
    assert time.process_time() - began < 20  # 0.1 s a thousand; what is square in the number of scenes takes minutes


def test_a_footprint_is_in_degrees_whatever_the_map_is_in(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=1, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 10, 10),
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 20, 30), np.uint8))
    found = footprint(path)
    assert found is not None
    (left, top), (right, _), (_, low) = (
        found["coordinates"][0][0],
        found["coordinates"][0][1],
        found["coordinates"][0][2],
    )
    assert left == pytest.approx(15.0, abs=1e-6)  # the middle of zone 33
    assert (right - left) * 111_320 * np.cos(np.radians(top)) == pytest.approx(300, rel=5e-3)
    assert (top - low) * 111_132 == pytest.approx(200, rel=5e-3)
    with rasterio.open(path, "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8") as file:
        file.write(np.zeros((1, 2, 3), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert footprint(path) is None  # nowhere on the ground, which is said once, where the scene is opened
    (tmp_path / "note.tif").write_text("no raster")
    assert footprint(tmp_path / "note.tif") is None


# The real thing: a run over small scenes.


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answers for pixels, and three scenes, one of which lacks bands."""
    from satdifuser.cli import main

    folder = tmp_path_factory.mktemp("many")
    words = ["task=segmentation", "encoder=rcf", "fusion=mean", "decoder=linear", "data.size=16", "trainer=quick"]
    words += ["trainer.max_steps=2", *(f"data.splits.{split}.length=4" for split in ("train", "val", "test"))]
    assert main(["train", *words, f"run={folder / 'run'}"]) == 0
    random_ = np.random.default_rng(0)
    for number in range(3):
        bands = 13 if number != 1 else 5
        with rasterio.open(
            folder / f"scene{number}.tif", "w", driver="GTiff", width=90, height=70, count=bands, dtype="uint16",
            crs="EPSG:32633", transform=from_origin(500_000 + 1000 * number, 5_000_000, 10, 10),
        ) as file:  # fmt: skip
            file.write(random_.integers(1, 4000, (bands, 70, 90), dtype=np.uint16))
    return folder


def predicted(ground: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "satdifuser", "predict", f"run={ground / 'run'}", f"out={out}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)


@pytest.mark.slow
def test_a_launchers_workers_make_the_bytes_of_one_process_and_a_failure_is_told(ground: Path, tmp_path: Path) -> None:
    alone = predicted(ground, tmp_path / "alone", f"scene={ground}/scene*.tif")
    assert alone.returncode == 2, alone.stderr
    assert "1 of 3 scenes failed" in alone.stderr
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "parts=3"]
    shared = predicted(ground, tmp_path / "shared", f"scene={ground}/scene*.tif", *words)
    assert shared.returncode == 2, shared.stderr
    for name in ("scene0.tif", "scene2.tif"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert [row["state"] for row in manifest(tmp_path / "shared")["scenes"]] == ["done", "failed", "done"]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_work_that_the_next_one_does_to_the_same_bytes(
    ground: Path, tmp_path: Path
) -> None:
    scene = f"scene=[{ground}/scene0.tif,{ground}/scene2.tif]"
    command = [sys.executable, "-m", "satdifuser", "predict", f"run={ground / 'run'}", f"out={tmp_path / 'killed'}"]
    child = subprocess.Popen([*command, scene, "parts=2"], stderr=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "killed" / "notes").is_dir() and child.poll() is None:
        time.sleep(0.01)
    time.sleep(random.Random(time.time_ns()).uniform(0, 1.5))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert predicted(ground, tmp_path / "killed", scene, "parts=2").returncode == 0
    assert predicted(ground, tmp_path / "whole", scene).returncode == 0
    for name in ("scene0.tif", "scene2.tif"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    places = json.loads((tmp_path / "killed" / "manifest.geojson").read_text())["features"]
    assert [place["geometry"]["type"] for place in places] == ["Polygon", "Polygon"]
