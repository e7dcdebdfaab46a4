"""What a study has found comes back from its file as it was; a file that is damaged says so in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from satdifuser.errors import UserError
from satdifuser.report.content import Estimate
from satdifuser.report.depth.content import Likeness, Place, Point, Probed, Shape
from satdifuser.study.saved import load, save


def numbers(count: int) -> list[float]:
    return np.random.default_rng().normal(size=count).tolist()


def probed() -> Probed:
    a, b, c, d = numbers(4)
    first = Point(
        Place("up_blocks.1", 21, 3, 64, 8, "block", "up_blocks.1"),
        "mean",
        "logistic",
        10.0,
        200,
        {"accuracy": Estimate(a, b, c, (d, math.nan))},
        strengths=(0.1, None),
        p=math.nan,
        calibration=(a, math.inf),
        temperature=d,
    )
    second = Point(Place("blocks.3", None, 3, 64, 8), "grid2", "knn", 100.0, 7, {"r2": Estimate(a, b, c, ())})
    about = {"settings": {"list": [1, 2.5, None, "x"], "odd": -math.inf}, "seconds": a}
    return Probed("encoder", "task", "accuracy", "test", 12, (0, 1), (first, second), 0.25, about)


def likeness() -> Likeness:
    rows = tuple(Place(f"blocks.{i}", None, i, 8, 8) for i in range(3))
    values = np.random.default_rng().normal(size=(3, 2))
    values[1, 1] = np.nan
    shapes = (tuple(Shape(*numbers(2)) for _ in rows), ())
    return Likeness("a", "b", rows, rows[:2], values, values**2, 10, 5, "mean", "test", True, shapes, {"x": 1})


@pytest.mark.parametrize("build", [probed, likeness])
def test_what_is_saved_is_read_back_to_the_last_digit(build: object, tmp_path: Path) -> None:
    result = build()  # type: ignore[operator]
    path = save(result, tmp_path / "new")
    found = load(tmp_path / "new")
    assert type(found) is type(result)
    assert repr(found) == repr(result)  # of floats it is exact, and NaN equals itself
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [file.name for file in (tmp_path / "new").iterdir()] == [path.name]
    if isinstance(result, Likeness):
        np.testing.assert_array_equal(found.values, result.values)  # type: ignore[union-attr]
        assert found.values.dtype == np.float64  # type: ignore[union-attr]


def test_an_empty_result_is_one_too(tmp_path: Path) -> None:
    result = Probed("m", "t", "accuracy", "test", 0, (), ())
    save(result, tmp_path)
    assert load(tmp_path) == result


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = save(probed(), tmp_path)
    whole = path.read_text()
    for text in (
        whole[: len(whole) // 2],
        "[]",
        "{}",
        whole.replace('"budget": 10.0', '"budget": 11.0'),
        whole.replace('"tap": "blocks.3"', '"tap": "blocks.4"'),
    ):
        assert text != whole
        path.write_text(text)
        with pytest.raises(UserError, match=r"probe\.json is damaged \(.*\): remove it, and start the command again"):
            load(tmp_path)


def test_a_folder_without_a_result_and_one_with_both_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has neither probe\.json nor cka\.json"):
        load(tmp_path)
    save(probed(), tmp_path)
    save(likeness(), tmp_path)
    with pytest.raises(UserError, match=r"has both probe\.json and cka\.json"):
        load(tmp_path)
