"""Calibration against torchmetrics, a slow loop, and a grid of temperatures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, softmax
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from satdifuser.analysis import calibration
from satdifuser.analysis.calibration import CalibrationCounts, calibration_error, temperature


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(list(request.node.name.encode()))


def drawn(rng: np.random.Generator, logits: Any) -> Any:
    """Classes drawn from what the logits say."""
    shares = softmax(logits, axis=1).cumsum(1)
    return (rng.random((len(logits), 1)) > shares[:, :-1]).sum(1)


def loss(logits: Any, truth: Any, heat: float) -> float:
    if truth.ndim == 1:
        return -float(log_softmax(logits / heat, axis=1)[np.arange(len(truth)), truth].mean())
    return -float(log_expit(np.where(truth > 0, logits, -logits) / heat).mean())


# --- calibration error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_of_classes_it_is_torchmetrics(rng: np.random.Generator, bins: int) -> None:
    logits = rng.normal(size=(800, 6)) * 3
    shares, truth = softmax(logits, axis=1), drawn(rng, logits / 2)
    metric = MulticlassCalibrationError(6, n_bins=bins, norm="l1")
    wanted = float(metric(torch.from_numpy(shares), torch.from_numpy(truth)))
    assert calibration_error(shares, truth, bins) == pytest.approx(wanted, abs=1e-6)  # it computes in float32
    assert wanted > 0.05


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_of_labels_it_is_torchmetrics_over_all_of_them(rng: np.random.Generator, bins: int) -> None:
    shares = rng.random((300, 4))
    truth = (rng.random((300, 4)) < shares**2).astype(int)
    metric = BinaryCalibrationError(n_bins=bins, norm="l1")
    wanted = float(metric(torch.from_numpy(shares).ravel(), torch.from_numpy(truth).ravel()))
    assert calibration_error(shares, truth, bins) == pytest.approx(wanted, abs=1e-9)
    assert calibration_error(shares[:, 0], truth[:, 0] > 0, bins) == pytest.approx(
        float(BinaryCalibrationError(n_bins=bins)(*(torch.from_numpy(a[:, 0]) for a in (shares, truth)))), abs=1e-9
    )


def test_confidences_at_the_ends_of_bins_and_of_1_fall_as_in_torchmetrics(rng: np.random.Generator) -> None:
    shares = rng.choice([0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0], 500)
    truth = (rng.random(500) < 0.6).astype(int)
    wanted = float(BinaryCalibrationError(n_bins=8)(torch.from_numpy(shares), torch.from_numpy(truth)))
    assert calibration_error(shares, truth, 8) == pytest.approx(wanted, abs=1e-9)


def test_it_is_a_slow_loop_over_the_bins(rng: np.random.Generator) -> None:
    shares, truth = rng.dirichlet([1, 1, 1], 400), rng.integers(0, 3, 400)
    wanted = 0.0
    for low in np.arange(5) / 5:
        chosen = [i for i in range(400) if low <= shares[i].max() < low + 0.2]
        if chosen:
            sure = np.mean([shares[i].max() for i in chosen])
            right = np.mean([shares[i].argmax() == truth[i] for i in chosen])
            wanted += len(chosen) / 400 * abs(sure - right)
    assert calibration_error(shares, truth, 5) == pytest.approx(wanted, abs=1e-12)


def test_a_classifier_that_is_as_sure_as_right_has_almost_none(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(40_000, 5)) * 2
    truth = drawn(rng, logits)
    assert calibration_error(softmax(logits, axis=1), truth) < 0.01
    assert calibration_error(softmax(3 * logits, axis=1), truth) > 0.1


@pytest.mark.parametrize("labels", [False, True])
def test_pixels_part_by_part_give_the_same_number(rng: np.random.Generator, labels: bool) -> None:
    shares = rng.random((1000, 4)) if labels else rng.dirichlet([1] * 4, 1000)
    truth = rng.integers(0, 2, (1000, 4)) if labels else rng.integers(0, 4, 1000)
    counts = CalibrationCounts(15)
    for part in np.split(np.arange(1000), [1, 30, 30, 700]):
        counts.add(shares[part], truth[part])
    assert counts.error == pytest.approx(calibration_error(shares, truth), abs=1e-12)
    assert counts.counts.sum() == (4000 if labels else 1000)
    assert counts.counts.shape == (16,)


def test_nothing_has_no_error_and_what_does_not_fit_is_refused() -> None:
    assert math.isnan(CalibrationCounts(15).error)
    with pytest.raises(ValueError, match=r"truth \(3,\) belongs to no probabilities \(4, 2\)"):
        calibration_error(np.full((4, 2), 0.5), np.zeros(3, int))
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            calibration_error(np.full((4, 2), wrong), np.zeros(4, int))
    with pytest.raises(ValueError, match="bins must be 1 or more"):
        CalibrationCounts(0)


# --- temperature


@pytest.mark.parametrize("heat", [0.05, 0.7, 1.0, 4.0, 60.0])
def test_the_temperature_is_the_best_of_a_fine_grid(rng: np.random.Generator, heat: float) -> None:
    logits = rng.normal(size=(500, 7)) * 2
    truth = drawn(rng, logits)
    labels = (rng.random((500, 7)) < expit(logits)).astype(int)
    for answers in (truth, labels):
        found = temperature(logits * heat, answers)
        grid = found * np.geomspace(0.5, 2, 401)
        losses = [loss(logits * heat, answers, each) for each in grid]
        assert np.argmin(losses) == 200  # the one found, in the middle
        wide = np.geomspace(1e-3, 1e3, 200)
        assert loss(logits * heat, answers, found) <= min(loss(logits * heat, answers, each) for each in wide)


def test_the_temperature_that_spoiled_logits_is_found(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(30_000, 5)) * 2
    assert temperature(logits * 3, drawn(rng, logits)) == pytest.approx(3, rel=0.05)
    labels = (rng.random(logits.shape) < expit(logits)).astype(int)
    assert temperature((logits * 0.2).astype(np.float32), labels) == pytest.approx(0.2, rel=0.05)
    assert temperature((logits * 0.2)[:, 0], labels[:, 0]) == pytest.approx(0.2, rel=0.05)


def test_an_offset_of_all_logits_of_a_sample_changes_nothing(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(300, 4))
    truth = drawn(rng, logits)
    moved = logits + 1e4 * rng.normal(size=(300, 1))
    assert temperature(moved, truth) == pytest.approx(temperature(logits, truth), rel=1e-6)


def test_parts_of_a_large_set_give_the_same_temperature(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = rng.normal(size=(500, 4))
    truth = drawn(rng, logits * 0.4)
    whole = temperature(logits, truth)
    monkeypatch.setattr(calibration, "CHUNK", 36)
    assert temperature(logits, truth) == pytest.approx(whole, rel=1e-8)


def test_logits_that_are_never_wrong_or_always_end_the_search_at_its_ends(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(50, 4)) * 30
    for truth in (logits.argmax(1), (logits > 0).astype(int)):
        assert temperature(logits, truth) == 1e-3
    for truth in (logits.argmin(1), (logits < 0).astype(int)):
        assert temperature(logits, truth) == 1e3
    assert temperature(np.zeros((9, 3)), np.zeros(9, int)) == 1e3  # says nothing


def test_a_class_that_is_never_predicted_says_nothing(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(400, 4))
    truth = drawn(rng, logits * 0.5)
    wanted = temperature(logits, truth)
    more = np.concatenate([logits, np.full((400, 1), -np.inf)], 1)
    assert temperature(more, truth) == pytest.approx(wanted, rel=1e-8)
    unknown = np.concatenate([more, more[:20]])
    assert temperature(unknown, np.concatenate([truth, np.full(20, 4)])) == pytest.approx(wanted, rel=1e-8)
    assert math.isnan(temperature(more[:3], np.full(3, 4)))


def test_logits_that_are_no_numbers_are_refused(rng: np.random.Generator) -> None:
    for wrong in (math.nan, math.inf):
        logits = rng.normal(size=(20, 3))
        logits[3, 1] = wrong
        with pytest.raises(ValueError, match="logits must be finite"):
            temperature(logits, np.zeros(20, int))
    with pytest.raises(ValueError, match=r"truth \(19,\) belongs to no logits \(20, 3\)"):
        temperature(logits, np.zeros(19, int))
