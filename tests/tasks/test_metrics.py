"""The scores beside slow loops in float64, written from what the released code does, and beside scikit-learn."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from satdifuser.data.base import Labels
from satdifuser.tasks import Classification, MultiLabel, PixelRegression, Regression, Segmentation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
LABELS = Labels(tuple("abcdefg"), ("#000000",) * 7)


def released_miou(truth, said, classes):
    """One class after the other, pixel by pixel; every class counts."""
    found = []
    for c in range(classes):
        both = either = 0.0
        for t, s in zip(truth, said, strict=True):
            both += t == c and s == c
            either += t == c or s == c
        found.append(both / (either + 1e-6))
    return sum(found) / classes


def released_f1(truth, said, classes):
    """Macro precision and macro recall over every class, then their harmonic mean."""
    precision, recall = [], []
    for c in range(classes):
        hit = wrong = missed = 0.0
        for t, s in zip(truth, said, strict=True):
            hit += t == c and s == c
            wrong += t != c and s == c
            missed += t == c and s != c
        precision.append(hit / (hit + wrong + 1e-10))
        recall.append(hit / (hit + missed + 1e-10))
    p, r = sum(precision) / classes, sum(recall) / classes
    return 2 * p * r / (p + r + 1e-10)


def drawn(seed, absent=(), never_said=(), never_true=(), count=300):
    """Truth and answers of 7 classes, of which some are nowhere, never said or never true."""
    random = np.random.default_rng(seed)
    there = [c for c in range(7) if c not in absent]
    true = random.choice([c for c in there if c not in never_true], count)
    said = np.where(random.random(count) < 0.4, true, random.choice(there, count))
    for c in never_said:
        said[said == c] = next(other for other in there if other not in never_said)
    return true, said


def both_ways(task, true, said):
    """Scores of batches one after the other, and of sums of statistics: the same."""
    true, said = torch.as_tensor(true), torch.as_tensor(said)
    logits = torch.nn.functional.one_hot(said, task.outputs).double()
    shape = (5, 6, -1) if task.dense else (-1,)
    true, said = true.reshape(shape), said.reshape(shape)
    logits = logits.reshape(*true.shape, task.outputs).movedim(-1, 1)
    metrics = task.metrics()
    for first, last in ((0, 2), (2, 3), (3, len(true))):
        batch = {"id": [""] * (last - first), task.label: true[first:last]}
        task.update(metrics, logits[first:last], batch)
    online = {name: float(value) for name, value in metrics.compute().items()}
    sums = task.statistics(said.numpy(), true.numpy()).sum(0)
    summed = {name: float(value) for name, value in task.scores(sums).items()}
    assert summed == pytest.approx(online, abs=1e-6)
    return summed


ABSENT = [(), (3,), (0,), (1, 4, 6), (0, 1, 2, 3, 4, 5)]


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("seed", range(3))
def test_with_absent_classes_as_zeros_the_miou_is_the_released_one(absent, seed):
    true, said = drawn(seed, absent)
    found = both_ways(Segmentation(LABELS, absent="zero"), true, said)
    assert found["miou"] == pytest.approx(released_miou(true, said, 7), abs=1e-6)
    assert found["accuracy"] == pytest.approx(float((true == said).mean()), abs=1e-6)


@pytest.mark.parametrize("absent", ABSENT)
def test_with_absent_classes_left_out_the_miou_is_that_of_scikit_learn(absent):
    true, said = drawn(7, absent)
    left = both_ways(Segmentation(LABELS, absent="leave"), true, said)["miou"]
    assert left == pytest.approx(sk.jaccard_score(true, said, average="macro"), abs=1e-9)
    assert both_ways(Segmentation(LABELS), true, said)["miou"] == left
    zero = both_ways(Segmentation(LABELS, absent="zero"), true, said)["miou"]
    assert left == pytest.approx(zero * 7 / (7 - len(absent)), rel=1e-9)


def test_a_class_that_is_only_said_or_only_true_counts_as_zero_either_way():
    true, said = drawn(3, never_said=(2,), never_true=(5,))
    left, zero = (both_ways(Segmentation(LABELS, absent=absent), true, said) for absent in ("leave", "zero"))
    assert left == zero
    assert left["miou"] == pytest.approx(released_miou(true, said, 7), abs=1e-6)


CASES = [((), (), ()), ((3,), (), ()), ((), (2, 4), ()), ((), (), (1, 5)), ((0,), (2,), (5,)), ((1, 2, 3), (4,), (6,))]


@pytest.mark.parametrize(("absent", "never_said", "never_true"), CASES)
def test_the_released_f1_is_that_of_a_slow_loop_and_of_scikit_learn_s_macro_means(absent, never_said, never_true):
    true, said = drawn(11, absent, never_said, never_true)
    found = both_ways(Classification(LABELS), true, said)
    assert found["released_f1"] == pytest.approx(released_f1(true, said, 7), abs=1e-9)
    over = {"labels": range(7), "average": "macro", "zero_division": 0}
    p, r = sk.precision_score(true, said, **over), sk.recall_score(true, said, **over)
    assert found["released_f1"] == pytest.approx(2 * p * r / (p + r), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(true, said, average="macro"), abs=1e-9)
    assert abs(found["released_f1"] - found["macro_f1"]) > 1e-4
    assert found["micro_f1"] == found["accuracy"]


def test_the_released_f1_without_a_right_answer_is_zero_and_of_right_ones_one():
    true = np.arange(70) % 7
    assert both_ways(Classification(LABELS), true, (true + 1) % 7)["released_f1"] == 0
    assert both_ways(Classification(LABELS), true, true)["released_f1"] == 1


@pytest.mark.parametrize("absent", [False, True])
def test_the_micro_f1_of_many_labels_is_the_released_one(absent):
    random = np.random.default_rng(5)
    true, logits = random.integers(0, 2, (60, 7)), random.normal(size=(60, 7))
    if absent:
        true[:, 2], logits[:, 2] = 0, -1
    task = MultiLabel(LABELS)
    metrics = task.metrics()
    for part in np.split(np.arange(60), (10, 11, 40)):
        batch = {"id": [""] * len(part), "multilabel": torch.as_tensor(true[part]).float()}
        task.update(metrics, torch.as_tensor(logits[part]), batch)
    expected = sk.precision_recall_fscore_support(true, logits > 0, average="micro")[2]
    assert float(metrics["micro_f1"].compute()) == pytest.approx(expected, abs=1e-6)
    summed = task.scores(task.statistics(logits > 0, true).sum(0))
    assert float(summed["micro_f1"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", [Segmentation(LABELS, absent="zero"), Segmentation(LABELS), Classification(LABELS)])
def test_scores_of_many_resamples_are_those_of_each(task):
    random = np.random.default_rng(2)
    shape = (8, 4, 3) if task.dense else (8,)
    true, said = random.integers(0, 3, shape), random.integers(1, 5, shape)
    rows = task.statistics(said, true)
    picks = random.integers(0, 8, (3, 4, 8))
    together = task.scores(rows[picks].sum(2))
    for i, j in np.ndindex(3, 4):
        one = both_ways_of(task, true[picks[i, j]], said[picks[i, j]])
        assert {name: value[i, j] for name, value in together.items()} == pytest.approx(one, abs=1e-6)


def both_ways_of(task, true, said):
    metrics = task.metrics()
    metrics.update(torch.as_tensor(said), torch.as_tensor(true))
    return {name: float(value) for name, value in metrics.compute().items()}


# --- in words


TASKS = {
    "leave": Segmentation(LABELS),
    "zero": Segmentation(LABELS, absent="zero"),
    "one label": Classification(LABELS),
    "many": MultiLabel(LABELS),
    "number": Regression(LABELS),
    "numbers": PixelRegression(LABELS),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_metric_is_explained_and_the_page_on_metrics_has_each_sentence(name):
    task = TASKS[name]
    said = task.explain()
    assert said.keys() == task.metrics().keys()
    page = " ".join(PAGE.read_text().split())
    for sentence in said.values():
        assert " ".join(sentence.split()) in page


def test_the_numbers_of_the_page_on_metrics_are_those_that_its_examples_give():
    tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried.attempted >= 8
    assert tried.failed == 0
