"""Training curves: small drawings whose lines are the numbers of the run."""

from __future__ import annotations

import dataclasses
import re

from satdifuser.report.content import Curve
from satdifuser.report.html import page
from satdifuser.report.training import groups


def points(svg):
    """The points of each line, from the drawing."""
    lines = re.findall(r'<path class="curve" d="M([^"]+)"', svg)
    return [[tuple(map(float, point.split())) for point in line.split("L")] for line in lines]


def test_lines_are_the_scores_on_one_scale_for_all_seeds(make) -> None:
    content = make(models=("a", "b"), tasks=("segmentation",), budgets=(10.0, 100.0), samples=1)
    (group,) = groups(content)
    assert (group.task, group.model) == ("segmentation", "a")
    assert [drawn.budget for drawn in group.drawings] == [10.0, 100.0]
    curves = [curve for curve in content.curves if curve.budget == 10.0]
    lines = points(group.drawings[0].scores)
    assert len(lines) == len(curves) == 2
    values = [value for curve in curves for _, value in curve.scores]
    low, high = min(values), max(values)
    top, bottom = min(y for line in lines for _, y in line), max(y for line in lines for _, y in line)
    for curve, line in zip(curves, lines, strict=True):
        for (step, value), (x, y) in zip(curve.scores, line, strict=True):
            assert abs((bottom - y) / (bottom - top) - (value - low) / (high - low)) < 0.01
            assert abs((x - line[0][0]) / (line[-1][0] - line[0][0]) - (step - 20) / 180) < 0.01
    assert f">{high:.3f}<" in group.drawings[0].scores
    assert group.drawings[0].ended == (
        "ended by: validation had stopped rising, 1 of 2 runs; the most steps allowed, 1 of 2 runs"
    )


def test_a_run_of_one_evaluation_is_a_dot_and_one_without_any_is_no_drawing(make) -> None:
    content = make(models=("<a>",), tasks=("segmentation",), budgets=(100.0,), samples=1)
    losses = [(1, 2.0), (2, 2.0)]
    one = Curve("<a>", "segmentation", 100.0, 0, losses, [(2, 0.5)])
    none = Curve("<a>", "segmentation", 50.0, 0, losses, [])
    content = dataclasses.replace(content, curves=[one, none])
    (group,) = groups(content)
    assert group.drawings[0].scores == ""
    assert "<circle" in group.drawings[1].scores
    assert "<a>" not in group.drawings[1].scores
    assert group.sentence == "how its runs ended is not known"
    assert 'id="training"' in page(content)


def test_without_logs_there_is_no_section(make) -> None:
    content = dataclasses.replace(make(models=("a",), tasks=("segmentation",), budgets=(100.0,), samples=1), curves=[])
    assert 'id="training"' not in page(content)
