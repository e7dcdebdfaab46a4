"""Sentences of the report: fewer labels that beat more, convergence, when the runs were made, and its words."""

from __future__ import annotations

import dataclasses

import pytest

from satdifuser.report.content import Estimate, Made
from satdifuser.report.glossary import GLOSSARY, OF_DEPTH
from satdifuser.report.html import page
from satdifuser.report.ranking import places
from satdifuser.report.words import convergence, fewer, runs


def scored(content, values, reach=0.001):
    """The content with these main scores by (model, budget)."""
    rows = []
    for row in content.rows:
        value = values[row.model, row.budget]
        score = Estimate(value, value - reach, value + reach, (value,))
        rows.append(dataclasses.replace(row, scores={**row.scores, "miou": score}))
    return dataclasses.replace(content, rows=rows)


@pytest.fixture
def small(make):
    return make(models=("a", "b"), tasks=("segmentation",), budgets=(1.0, 10.0, 100.0), samples=1)


def test_fewer_labels_that_beat_more_are_a_sentence_with_the_largest_gap(small) -> None:
    values = {("a", 1.0): 0.5, ("a", 10.0): 0.8, ("a", 100.0): 0.7, ("b", 1.0): 0.1, ("b", 10.0): 0.2}
    content = scored(small, {**values, ("b", 100.0): 0.3})
    (said,) = fewer(places(content))
    assert said == (
        "a on segmentation: with 10 % of the labels it scores higher than with 100 % (mIoU 0.800 and 0.700)."
    )
    assert said in page(content).replace("\n", " ")
    wide = fewer(places(scored(small, {**values, ("b", 100.0): 0.3}, reach=0.06)))
    assert wide[0].endswith("; their intervals overlap, so this may be luck.")
    cut = [dataclasses.replace(row, ended={"max_steps": 2}) for row in content.rows]
    assert "with more labels training had not converged" in fewer(places(dataclasses.replace(content, rows=cut)))[0]


def test_where_more_labels_are_better_nothing_is_said_of_fewer(small) -> None:
    content = scored(small, {(row.model, row.budget): row.budget / 200 for row in small.rows})
    assert fewer(places(content)) == []
    assert "Fewer labels beat more" not in page(content)


def test_convergence_is_counted_over_all_runs(small) -> None:
    def ended(*ways):
        return [dataclasses.replace(row, ended=way) for row, way in zip(small.rows, ways, strict=False)]

    assert convergence(ended({"patience": 2}, {"fitted": 1})) == "Training had converged in all 3 runs."
    assert convergence(ended({"patience": 2}, {"max_steps": 3})).startswith(
        "Training had converged in 2 of 5 runs: the"
    )
    assert convergence(ended({"max_steps": 2})).startswith("Training had converged in no run: all of them")
    assert convergence(ended({})) == ""


def test_the_page_says_when_and_with_which_commits_the_runs_were_made(small) -> None:
    said = "The runs were made from 2026-01-01 to 2026-01-02 (UTC) with satdifuser 0.2.0, commit 0123456789ab."
    assert said in page(small)
    assert runs(Made("2026-01-01", "2026-01-01")) == "The runs were made on 2026-01-01 (UTC), of an unknown commit."
    assert runs(Made()) == ""


def test_every_word_of_the_glossary_is_on_the_page(small) -> None:
    text = page(small)
    for word in (
        "tap",
        "stride",
        "bank",
        "gw",
        "lw",
        "moe",
        "mIoU",
        "budget",
        "chance",
        "floor",
        "converged",
        "interval",
    ):
        assert f"<dt>{word}</dt>" in text
    assert {*OF_DEPTH} <= {*GLOSSARY}
    assert all(meaning.endswith(".") for meaning in GLOSSARY.values())
