"""The whole path: labels that are drawn on a scene are checked, learned from in processes, and tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from satdifuser.cli import main
from tests.data.scene_labels import drawn, ground, scene

DATA = ["data=scene", "data.scenes=[scene.tif]", "data.labels=labels.gpkg", "data.sensor=SENTINEL2:B04/B03/B02"]
DATA += ["data.column=class", "data.size=16", "data.split_by={by: blocks, metres: 320, val: 0.25, test: 0.25}"]
QUICK = ["encoder=rcf", "encoder.features=8", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4"]


@pytest.fixture
def _drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scene(tmp_path / "scene.tif", 128, 128)
    grid = [(row, column) for row in range(4, 128, 16) for column in range(4, 128, 16)]
    shapes = [shapely.box(*ground(row + 7, column), *ground(row, column + 7)) for row, column in grid]
    words = np.random.default_rng().permutation(["wood", "lake"] * (len(grid) // 2))
    drawn(tmp_path / "labels.gpkg", shapes, words.tolist())


@pytest.mark.usefixtures("_drawn")
def test_drawn_labels_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *DATA]) == 0
    said = capsys.readouterr().out
    assert "every image is 3 bands of 16 x 16 px" in said
    assert "no sample lies over one of another split" in said
    assert "no image comes twice" in said


@pytest.mark.usefixtures("_drawn")
@pytest.mark.parametrize(
    "words",
    [
        ["task=segmentation", "fusion.projection_dim=8", "encoder.stride=4"],
        ["task=classification", "data.label=label", "fusion=plain", "encoder.stride=null"],
        pytest.param(
            ["task=segmentation", "fusion.projection_dim=8", "encoder.stride=4", "trainer.workers=1"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_drawn_labels_are_learned_from_and_tested(words: list[str]) -> None:
    assert main(["train", *DATA, *QUICK, *words, "run=run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    known = json.loads(Path("run/data.json").read_text())
    assert result["steps"] == 2
    assert 0 <= result["test"]["accuracy"] <= 1
    assert "scene" in json.dumps(known)
    assert main(["eval", "run=run"]) == 0


@pytest.mark.usefixtures("_drawn")
def test_labels_that_were_drawn_anew_are_other_data_for_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *DATA, *QUICK, "fusion=plain", "task=segmentation", "encoder.stride=4", "run=run"]
    assert main(words) == 0
    first = Path("run/data.json").read_text()
    Path("labels.gpkg").unlink()
    drawn(
        Path("labels.gpkg"),
        [shapely.box(*ground(127, 1), *ground(1, 60)), shapely.Point(ground(9, 99))],
        ["wood", "lake"],
    )
    assert main([*words, "resume=true"]) != 0
    assert "satdifuser:" in capsys.readouterr().err
    assert Path("run/data.json").read_text() == first
