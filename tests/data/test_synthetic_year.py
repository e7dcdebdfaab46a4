"""Built-in scenes of one year: the land stays, what grows on it changes with the days, and nothing else is new."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from satdifuser.data.dates import day_text
from satdifuser.data.synthetic.dataset import SyntheticScenes
from satdifuser.data.synthetic.scenes import render, render_year
from satdifuser.data.synthetic.spectra import CLASSES, IGNORE


def test_a_scene_of_a_year_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for index in (0, 1_000_003):
        scene = render_year(1, index, 32, 3)
        for values in (scene.image, scene.mask, scene.multilabel, np.asarray(scene.days)):
            digest.update(np.ascontiguousarray(values).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "0b424960052c3825"


@pytest.mark.parametrize("dates", [1, 2, 5, 12])
def test_days_are_in_order_within_one_year_and_each_scenes_own(dates: int) -> None:
    data = SyntheticScenes("train", 6, size=16, dates=dates)
    days = [sample["dates"].tolist() for sample in data]
    for sample in data:
        assert sample["image"].shape == (dates, 13, 16, 16)
        assert sample["dates"].dtype == torch.int64
    assert all(len(set(row)) == dates and row == sorted(row) for row in days)
    assert {day_text(day)[:4] for row in days for day in row} == {"2020"}
    assert len({tuple(row) for row in days}) > 1


def test_the_land_is_that_of_the_single_scene() -> None:
    for index in range(5):
        one, year = render(4, index, 32, nodata=0, cloud=0), render_year(4, index, 32, 4, nodata=0, cloud=0)
        assert np.array_equal(one.mask, year.mask)
        assert one.label == year.label
        assert one.vegetation == year.vegetation


def test_fields_are_green_in_june_and_conifers_always() -> None:
    greens: dict[str, list[tuple[int, float]]] = {"cropland": [], "conifer": [], "broadleaf": []}
    for index in range(12):
        scene = render_year(0, index, 32, 6, nodata=0, cloud=0)
        red, infrared = scene.image[:, 3].astype(float), scene.image[:, 7].astype(float)
        index_of_green = (infrared - red) / (infrared + red)
        for name, found in greens.items():
            here = scene.mask == CLASSES.index(name)
            if here.sum() > 20:
                found += [(d - 18262, float(v[here].mean())) for d, v in zip(scene.days, index_of_green, strict=True)]

    def mean(name: str, first: int, last: int) -> float:
        return float(np.mean([green for day, green in greens[name] if first <= day < last]))

    assert mean("cropland", 130, 190) > mean("cropland", 0, 60) + 0.1
    assert mean("broadleaf", 150, 250) > mean("broadleaf", 0, 60) + 0.1
    assert abs(mean("conifer", 130, 190) - mean("conifer", 0, 60)) < 0.05


def test_only_what_no_date_shows_has_no_label() -> None:
    hidden = 0
    for index in range(20):
        scene = render_year(2, index, 32, 2, nodata=0.5, cloud=1.0)
        empty = (scene.image == 0).all((0, 1))
        assert (scene.mask[empty] == IGNORE).all()
        assert np.array_equal((scene.image == 0).all(1).all(0), (scene.image == 0).all(1).any(0))  # one margin for all
        hidden += int((scene.mask[~empty] == IGNORE).sum())
    assert hidden
    whole = [render_year(2, index, 32, 8, nodata=0, cloud=0.3) for index in range(10)]
    assert not any((scene.mask == IGNORE).any() for scene in whole)


def test_the_identity_tells_years_from_single_scenes_which_it_does_not_change() -> None:
    assert "dates" not in SyntheticScenes().identity
    assert SyntheticScenes(dates=3).identity["dates"] == 3
    year, one = SyntheticScenes("val", 2, size=16, dates=1), SyntheticScenes("val", 2, size=16)
    assert year[0]["image"].ndim == 4  # the two are remembered apart
    assert one[0]["image"].ndim == 3
    assert "dates" not in one[0]
