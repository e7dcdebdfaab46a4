"""Files of a run that are damaged, and disks that are full or refuse: one line each, and the last good state stays."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

UNET = ["encoder=unet", "encoder.width=8", "encoder.levels=2", "fusion=mean", "task=classification"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done."""
    run = tmp_path_factory.mktemp("finished") / "run"
    data = ["data.size=16", *(f"data.splits.{name}.length=6" for name in ("train", "val", "test"))]
    quick = ["trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4", "trainer.eval_every=1"]
    train.run(
        compose("train", [*data, *quick, *UNET, "fusion.projection_dim=16", f"run={run}"]), quiet=True, draw=False
    )
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, in a folder of the same settings."""
    copy = shutil.copytree(finished, tmp_path / "run")
    text = (copy / "config.yaml").read_text().replace(str(finished), str(copy))
    (copy / "config.yaml").write_text(text)
    return copy


def words_of(run: Path, *more: str) -> list[str]:
    data = ["data.size=16", *(f"data.splits.{name}.length=6" for name in ("train", "val", "test"))]
    quick = ["trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4", "trainer.eval_every=1"]
    return [*data, *quick, *UNET, "fusion.projection_dim=16", f"run={run}", *more]


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]
    assert len(lines) == 1, lines
    return lines[0]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)),
    "a list of lists": lambda content: b"[[1], [2]]",
    "a number": lambda content: b"5",
    "deep": lambda content: b"[" * 20_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.yaml", "spec.json", "training-samples.json", "data.json"])
def test_a_damaged_file_of_a_run_is_told_by_name_to_eval_and_to_a_resume(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    file = run / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for words in (["eval", f"run={run}"], ["train", *words_of(run, "resume=true")]):
        said = one_line(capsys, *words)
        if name == "config.yaml" and damage == "half" and "was begun with another" in said:  # half of it is YAML still
            continue
        assert f"{run}/{name}" in said
        assert "remove" in said


@pytest.mark.parametrize("name", ["spec.json", "training-samples.json", "data.json"])
def test_values_of_another_kind_in_a_file_of_a_run_are_told_by_name(
    run: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = run / name
    whole, odd = json.loads(file.read_text()), [None, 5, "x", [1], {"a": 1}]
    changed: list[Any] = [{}, [1, 2], [None]]
    if isinstance(whole, dict):
        changed += [{**whole, key: value} for key in whole for value in odd if value != whole[key]]
        changed += [{key: value for key, value in whole.items() if key != gone} for gone in whole]
    for values in changed:
        file.write_text(json.dumps(values))
        capsys.readouterr()
        code = main(["eval", f"run={run}"])
        said = capsys.readouterr().err
        assert code in (0, 2), (values, said)
        assert code == 0 or said.count("\n") == 1, (values, said)


def test_settings_cut_anywhere_are_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "config.yaml"
    content = file.read_bytes()
    for cut in random.Random(0).sample(range(len(content) - 20), 15):
        file.write_bytes(content[:cut])
        assert f"{run}/config.yaml" in one_line(capsys, "eval", f"run={run}")


def test_a_bomb_in_the_settings_of_a_run_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    with (run / "config.yaml").open("a") as file:
        file.write(bomb)
    for words in (["eval", f"run={run}"], ["train", *words_of(run, "resume=true")]):
        assert f"{run}/config.yaml stands for more than" in one_line(capsys, *words)


def test_a_bit_that_flips_in_a_checkpoint_is_told_by_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("best", ["eval", f"run={run}"]), ("last", ["train", *words_of(run, "resume=true")])):
        file = run / "checkpoints" / f"{name}.safetensors"
        content = bytearray(file.read_bytes())
        content[-5] ^= 4
        file.write_bytes(content)
        assert f"{file} is damaged" in one_line(capsys, *words)


def test_a_run_without_a_number_for_a_score_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from satdifuser.tasks import Classification

    loss = Classification.loss_sum
    monkeypatch.setattr(
        Classification, "loss_sum", lambda self, logits, batch: loss(self, logits, batch) / logits.requires_grad
    )
    said = one_line(capsys, "train", *words_of(tmp_path / "run"))
    assert "loss is inf on the validation split at step 1" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few hundred kilobytes, where this machine lets one be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Leave so many bytes of it."""
    usage = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, usage.f_bavail * usage.f_frsize - leave)))


@pytest.mark.parametrize("leave", [0, 4096, 65_536, 131_072, 200_000])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    run: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], leave: int
) -> None:
    """The run goes on with one more step on a disk that has room for some of its files only."""
    place = small_disk / "run"
    shutil.copytree(run, place)
    text = (place / "config.yaml").read_text().replace(str(run), str(place)).replace("max_steps: 2", "max_steps: 6")
    (place / "config.yaml").write_text(text)
    (place / "result.json").unlink()
    fill(small_disk, leave)
    words = ["train", *words_of(place, "resume=true", "trainer.max_steps=6")]
    said = one_line(capsys, *words)
    assert "the disk filled up while writing" in said
    assert str(place) in said
    assert not list(place.rglob("*.partial"))
    kept = {"best.json", "best.safetensors", "last.json", "last.safetensors"}
    assert {file.name for file in (place / "checkpoints").iterdir()} == kept
    assert load_checkpoint(RunFolder(place).last)[0].step >= 2
    load_checkpoint(RunFolder(place).best)
    (small_disk / "filler").unlink()
    assert main(words) == 0
    assert [row["step"] for row in RunFolder(place).rows()] == [1, 2, 3, 4, 5, 6]


def test_eval_on_a_full_disk_leaves_the_answers_that_were_there(
    run: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = small_disk / "run"
    shutil.copytree(run, place)
    before = (place / "predictions-test.zarr" / "zarr.json").read_bytes()
    fill(small_disk, 0)
    assert "the disk filled up while writing" in one_line(capsys, "eval", f"run={place}")
    assert (place / "predictions-test.zarr" / "zarr.json").read_bytes() == before
    assert not list(place.rglob("*.partial"))


@pytest.mark.parametrize(
    "place", ["x" * 300, "file", "file/run", "/proc/satdifuser/run"], ids=["long", "a file", "below", "proc"]
)
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    (tmp_path / "file").touch()
    run = tmp_path / place
    said = one_line(capsys, "train", *words_of(run))
    assert f"{run} could not be written" in said
    assert str(run) in one_line(capsys, "eval", f"run={run}")


def test_a_read_only_disk_is_one_line(run: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = small_disk / "run"
    shutil.copytree(run, place)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (
        ["eval", f"run={place}"],
        ["train", *words_of(place, "overwrite=true")],
        ["train", *words_of(small_disk / "new")],
    ):
        assert "could not be written (Read-only file system)" in one_line(capsys, *words)
    assert load_checkpoint(RunFolder(place).last)[0].step == 2


def test_every_write_of_a_run_may_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write in turn finds the disk full; of every third, the run goes on to the result of an undisturbed one."""
    whole = train.run(compose("train", words_of(tmp_path / "whole")), quiet=True, draw=False)
    fsync, opened = os.fsync, Path.open
    left = [0]

    def full() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")

    def sync(handle: int) -> None:
        full()
        fsync(handle)

    def opening(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("r", "rb") and self.is_relative_to(tmp_path):
            full()
        return opened(self, mode, *args, **kwargs)

    for number in range(1, 100):
        left[0] = number
        folder = RunFolder(tmp_path / f"run{number}")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            patch.setattr(Path, "open", opening)
            try:
                train.run(compose("train", words_of(folder.path)), quiet=True, draw=False)
                break
            except UserError as error:
                said = str(error)
        assert "the disk filled up" in said
        assert not list(folder.path.rglob("*.partial"))
        if number % 3 == 1:  # a file is opened and then written through: both moments are among these
            again = train.run(compose("train", words_of(folder.path, "resume=true")), quiet=True, draw=False)
            assert again["test"] == whole["test"]
            assert [row["step"] for row in folder.rows()] == [1, 2]
        shutil.rmtree(folder.path)
    assert number > 10
