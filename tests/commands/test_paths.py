"""Paths as people have them, on every command's line: blanks, brackets, quotes, letters of any language, and home."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from satdifuser.cli import main

NAMES = ["a b", "a=b", "(c", "é ü", "it's", '"q"', "^x", "d, e", "100 %", "#1", "{f}", "a\\b", "$x", "[g", "~h"]
TINY = [
    "encoder=unet",
    "encoder.width=8",
    "encoder.levels=2",
    "fusion=mean",
    "fusion.projection_dim=16",
    "data.size=16",
]
DATA = ["data=image_folder", "data.size=16", "data.val=0.25", "data.test=0.25", "task=classification"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Pictures of two classes."""
    for number, name in enumerate(("one", "two")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            colour = (60 * number + index, 90, 120)
            Image.new("RGB", (16, 16), colour).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("name", NAMES)
def test_a_run_reads_and_writes_folders_of_any_name(tmp_path: Path, images: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    root, run = tmp_path / name / "images", tmp_path / name / "run"
    images.rename(root)
    words = [*TINY, *DATA, "trainer.max_steps=1", "trainer.batch_size=2", "trainer.tensorboard=false"]
    assert main(["train", *words, f"data.root={_typed(root, name)}", f"run={_typed(run, name)}"]) == 0
    assert (run / "result.json").is_file()
    assert main(["eval", f"run={_typed(run, name)}"]) == 0


def _typed(path: Path, name: str) -> str:
    """As one types it: a comma and what Hydra's grammar reads as its own needs quotes, and the error says so."""
    return f"'{path}'" if name in QUOTED else str(path)


QUOTED = ("d, e",)


def test_a_comma_is_a_sweep_and_the_error_says_how_to_quote_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"run={tmp_path}/a,b"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"run='{tmp_path}/a,b'" in said


def test_home_is_where_a_path_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]", "data.size=16"]
    lengths = [f"data.splits.{split}.length=2" for split in ("train", "val", "test")]
    assert main(["extract", *small, *lengths, "store.path=~/features.zarr"]) == 0
    assert (tmp_path / "features.zarr" / "zarr.json").is_file()
    words = ["fusion=mean", "fusion.projection_dim=16", "trainer.max_steps=1", "trainer.batch_size=2"]
    assert main(["train", "features=~/features.zarr", "run=~/run", *words, "trainer.tensorboard=false"]) == 0
    assert (tmp_path / "run" / "result.json").is_file()
    assert main(["eval", "run=~/run", "features=~/features.zarr"]) == 0
    assert "~" not in [path.name for path in tmp_path.iterdir()]
