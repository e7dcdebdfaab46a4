"""What a report says of its samples: pictures in one stretch, tiles of larger images, the line that repeats it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.cli import main
from satdifuser.compare import command, results
from satdifuser.data.bands import find_sensor
from satdifuser.engine.predictions import Predictions
from satdifuser.report.html import page


def test_pictures_of_a_colour_sensor_are_not_washed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright:
        sensor = find_sensor("AERIAL_RGB")

        def __getitem__(self, index: int) -> Any:
            ramp = torch.linspace(0.4, 0.9, 400).reshape(1, 20, 20)
            return {"id": str(index), "image": ramp.expand(3, 20, 20) + 0.05 * index}

    monkeypatch.setattr(results, "build_data", lambda *_: Bright())
    answers = Predictions(("0", "1"), np.zeros((2, 20, 20)), np.zeros((2, 20, 20)))
    cell = SimpleNamespace(config=SimpleNamespace(data=None), folds=0)
    run: Any = SimpleNamespace(predictions=lambda: answers, cell=cell)
    panel = results.Results([])._panel({"model": run}, 2)
    assert len(np.unique(panel.pictures)) > 200  # all of it was 255
    assert (panel.pictures[1] >= panel.pictures[0]).all()  # one stretch: the brighter one is brighter
    assert (panel.pictures[1] > panel.pictures[0]).mean() > 0.9
    assert "percentiles 2 to 98" in panel.told


def test_tiles_of_larger_images_are_no_independent_samples(make: Any) -> None:
    content = make()
    assert "take tiles as independent" not in page(content)
    first = dataclasses.replace(content.sections[0], tiles=3)
    told = page(dataclasses.replace(content, sections=[first, *content.sections[1:]]))
    assert f"The test samples of {first.name} are tiles of 3 larger images." in told
    assert told.count("take tiles as independent") == 1


def test_the_folder_of_own_settings_and_trusted_packages_reach_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(command, "run", lambda *given: asked.extend(given))
    words = ["--config-dir", "mine", "experiment=demo", "--trust", "my_package"]
    assert main(["compare", *words]) == 0
    assert asked == [["experiment=demo"], ["mine"], ["my_package"]]
