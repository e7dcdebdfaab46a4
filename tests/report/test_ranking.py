"""Ranks, marks and the Pareto front, against what is counted by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from satdifuser.report.content import Comparison, Estimate
from satdifuser.report.ranking import cells, floors, front, largest, places, standings


@pytest.fixture
def content(make):
    return make(models=("a", "b", "c"), tasks=("segmentation", "regression"), budgets=(10.0, 100.0))


def scored(content, values):
    """The content with the main score of each (model, task, budget) as given, and no tests."""
    rows = []
    for row in content.rows:
        metric = "miou" if row.task == "segmentation" else "r2"
        value = values(row)
        rows.append(dataclasses.replace(row, scores={**row.scores, metric: Estimate(value, value, value, (value,))}))
    return dataclasses.replace(content, rows=rows, comparisons=[])


def test_rows_come_by_task_budget_and_score_and_count_ranks_from_the_best(content) -> None:
    for group in cells(places(content)):
        scores = [place.score for place in group]
        assert scores == sorted(scores, reverse=True)
        assert [place.rank for place in group] == [1, 2, 3]
    order = [(place.row.task, place.row.budget) for place in places(content)]
    assert list(dict.fromkeys(order)) == [
        ("segmentation", 10.0), ("segmentation", 100.0), ("regression", 10.0), ("regression", 100.0)
    ]  # fmt: skip


def judged(content, pairs):
    """The content with these adjusted p for all tasks and budgets."""
    groups = dict.fromkeys((row.task, row.budget) for row in content.rows)
    tests = [Comparison(*group, *pair, 0.0, 0.0, 0.0, p, p) for group in groups for pair, p in pairs.items()]
    return dataclasses.replace(content, comparisons=tests)


def test_equal_scores_share_a_rank_and_none_is_best(content) -> None:
    plain = scored(content, lambda row: 0.5 if row.model == "c" else 0.7)
    found = places(judged(plain, {("a", "b"): 1.0, ("a", "c"): 0.01, ("b", "c"): 0.01}))
    assert [(place.row.model, place.rank, place.average, place.best, place.close) for place in found[:3]] == [
        ("a", 1, 1.5, False, True),
        ("b", 1, 1.5, False, True),
        ("c", 3, 3.0, False, False),
    ]


def test_best_is_who_beats_each_of_the_others_and_no_one_where_that_was_not_tested(content) -> None:
    plain = scored(content, lambda row: {"a": 0.9, "b": 0.8, "c": 0.7}[row.model])
    for pairs, best, close in (
        ({("a", "b"): 0.04, ("a", "c"): 0.01}, [True, False, False], [False, False, False]),
        ({("a", "b"): 0.05, ("a", "c"): 0.01}, [False, False, False], [True, True, False]),
        ({("a", "b"): 0.04}, [False, False, False], [False, False, False]),  # nobody knows about c
        ({}, [False, False, False], [False, False, False]),
    ):
        found = places(judged(plain, pairs))[:3]
        assert [place.best for place in found] == best, pairs
        assert [place.close for place in found] == close, pairs


def test_a_model_alone_is_not_called_best(make) -> None:
    found = places(make(models=("alone",), tasks=("segmentation",)))
    assert not any(place.best or place.close for place in found)


def test_the_floor_is_the_best_of_its_models_with_the_same_labels(content) -> None:
    plain = scored(content, lambda row: {"a": 0.9, "b": 0.8, "c": row.budget / 1000}[row.model])
    found = places(dataclasses.replace(plain, floor=("b", "c")))
    lowest = floors(found)
    assert {key: (place.row.model, place.score) for key, place in lowest.items()} == {
        (task, budget): ("b", 0.8) for task in ("segmentation", "regression") for budget in (10.0, 100.0)
    }
    assert floors(places(dataclasses.replace(plain, floor=()))) == {}
    assert {place.row.model for place in found if place.floor} == {"b", "c"}


def test_a_score_that_is_no_number_has_no_rank_and_comes_last(content) -> None:
    found = places(scored(content, lambda row: math.nan if row.model == "a" else 0.1 if row.model == "b" else 0.2))
    assert [(place.row.model, place.rank) for place in found[:3]] == [("c", 1), ("b", 2), ("a", None)]
    assert not any(place.best for place in found if place.row.model == "a")


def test_only_what_the_test_cannot_tell_from_the_best_is_marked(content) -> None:
    plain = scored(content, lambda row: {"a": 0.9, "b": 0.8, "c": 0.7}[row.model])
    tests = [
        Comparison("segmentation", 10.0, "b", "a", -0.1, -0.2, 0.0, 0.03, 0.05),  # either way round, and at the bar
        Comparison("segmentation", 10.0, "a", "c", 0.2, 0.1, 0.3, 0.01, 0.0499),
        Comparison("segmentation", 10.0, "b", "c", 0.1, 0.0, 0.2, 0.9, 0.9),  # says nothing about the best
        Comparison("segmentation", 100.0, "a", "b", 0.1, 0.0, 0.2, 0.9, 0.9),  # of another budget
    ]
    found = places(dataclasses.replace(plain, comparisons=tests))
    assert [(place.row.model, place.p, place.close) for place in found[:3]] == [
        ("a", None, True),
        ("b", 0.05, True),
        ("c", 0.0499, False),
    ]
    assert [place.close for place in found[3:6]] == [True, True, False]
    assert not any(place.close for place in found[6:])  # no test, no mark


def test_mean_ranks_are_over_tasks_and_budgets_and_incomplete_models_come_last(content) -> None:
    values = {"a": 0.9, "b": 0.8, "c": 0.7}
    whole = scored(content, lambda row: values[row.model] if row.budget == 10 else -values[row.model])
    beats = judged(whole, {("a", "b"): 0.01, ("a", "c"): 0.01, ("b", "c"): 0.01})
    assert [(s.model, s.mean, s.best) for s in standings(places(beats))] == [("a", 2, 2), ("b", 2, 0), ("c", 2, 2)]
    assert [(s.best, s.best_or_close) for s in standings(places(whole))] == [(0, 0)] * 3  # nothing was tested
    gone = [row for row in whole.rows if (row.model, row.task, row.budget) != ("a", "regression", 100.0)]
    found = standings(places(dataclasses.replace(whole, rows=gone)))
    assert [(s.model, s.cells, s.of) for s in found] == [("b", 4, 4), ("c", 4, 4), ("a", 3, 4)]
    assert found[2].by_task == {"segmentation": 2.0, "regression": 1.0}


def test_the_largest_budget_of_a_task_is_its_own(content) -> None:
    rows = [row for row in content.rows if (row.task, row.budget) != ("regression", 100.0)]
    found = places(dataclasses.replace(content, rows=rows))
    assert {place.row.budget for place in largest(found, "regression")} == {10.0}
    assert {place.row.budget for place in largest(found, "segmentation")} == {100.0}


def test_the_front_holds_equals_and_leaves_out_what_is_dearer_or_worse() -> None:
    assert front([(1, 1), (1, 1), (1, 0.5), (2, 1), (2, 2)]) == [True, True, False, False, True]
    assert front([]) == []
