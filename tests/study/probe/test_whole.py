"""Probes of whole images against scikit-learn, written out: standardise, fit each strength, choose, refit, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from satdifuser.analysis.calibration import calibration_error
from satdifuser.analysis.statistics import bootstrap, holm, paired_test
from satdifuser.store import FeatureStore
from satdifuser.study.probe import probed
from satdifuser.tasks.classification import Classification

STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
ONES = f"probe.strengths={STRENGTHS}"


def rows(store: FeatureStore, split: str, label: str = "label") -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Each tap with its means in float64, and the answers."""
    data = store.split(split)
    batch = data.batch(range(len(data)))
    for tap, maps in batch["bank"].items():
        yield tap, maps.double().mean((2, 3)).numpy(), batch[label].numpy()


def three(store: FeatureStore, label: str = "label") -> Iterator[tuple[Any, list[tuple[np.ndarray, np.ndarray]]]]:
    for train, val, test in zip(*(rows(store, split, label) for split in ("train", "val", "test")), strict=True):
        yield train[0], [part[1:] for part in (train, val, test)]


def fitted(strength: float, x: np.ndarray, y: np.ndarray, labels: bool = False) -> Any:
    probe: Any = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(probe) if labels else probe).fit(x, y)


def joined(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate(pair) for pair in zip(first, second, strict=True)]


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_logistic_probes_are_scikit_learns_chosen_on_validation(
    refit: bool, solver: str, made_store: Callable[..., FeatureStore], settings: Callable[..., Any]
) -> None:
    store = made_store()
    chosen = [f"features={store.path}", "probe.probes=[logistic]", ONES, f"probe.refit={refit}"]
    found = probed(settings(*chosen, f"probe.solver={solver}"))
    assert (found.metric, found.samples, len(found.points)) == ("accuracy", 50, 2)
    for point, (tap, (train, val, test)) in zip(found.points, three(store), strict=True):
        on_val = {s: fitted(s, *train).score(*val) for s in STRENGTHS}
        (strength,) = point.strengths
        assert point.place.tap == tap.name
        assert strength is not None
        assert on_val[strength] >= max(on_val.values()) - 1.01 / len(val[1])  # one sample may lie on the border
        probe = fitted(strength, *(joined(train, val) if refit else train))
        assert point.training == (130 if refit else 90)
        assert point.scores["accuracy"].value == pytest.approx(probe.score(*test), abs=1.01 / 50)
        before = calibration_error(probe.predict_proba(test[0]), test[1])
        assert point.calibration is not None
        assert point.calibration[0] == pytest.approx(before, abs=0.03)
        assert point.temperature is not None
        assert point.temperature > 0


def test_of_equal_strengths_the_stronger_penalty_is_chosen(
    made_store: Callable[..., FeatureStore], settings: Callable[..., Any]
) -> None:
    store = made_store()
    found = probed(settings(f"features={store.path}", "probe.probes=[logistic]", "probe.strengths=[1e-9,1e-8,1e-7]"))
    assert all(point.strengths == (1e-9,) for point in found.points)


def test_neighbours_are_scikit_learns(made_store: Callable[..., FeatureStore], settings: Callable[..., Any]) -> None:
    store = made_store()
    found = probed(settings(f"features={store.path}", "probe.probes=[knn]", "probe.neighbours=5"))
    for point, (_, (train, val, test)) in zip(found.points, three(store), strict=True):
        x, y = joined(train, val)
        near = KNeighborsClassifier(5, metric="cosine").fit(x, y)
        assert point.scores["accuracy"].value == pytest.approx(near.score(*test), abs=1e-12)
        assert (point.calibration, point.temperature, point.strengths) == (None, None, (None,))


def test_labels_are_probed_one_against_the_rest(
    made_store: Callable[..., FeatureStore], settings: Callable[..., Any]
) -> None:
    store = made_store(label="multilabel")
    found = probed(settings("task=multilabel", f"features={store.path}", ONES))
    assert found.metric == "micro_f1"
    for point, (_, (train, val, test)) in zip(found.points, three(store, "multilabel"), strict=True):
        (strength,) = point.strengths
        assert strength is not None
        said = fitted(strength, *joined(train, val), labels=True).predict(test[0])
        assert point.scores["micro_f1"].value == pytest.approx(f1_score(test[1], said, average="micro"), abs=0.02)


def test_numbers_are_probed_by_ridge(made_store: Callable[..., FeatureStore], settings: Callable[..., Any]) -> None:
    store = made_store(label="target")
    found = probed(settings("task=regression", f"features={store.path}", ONES))
    assert found.chance == 0.0
    for point, (_, (train, val, test)) in zip(found.points, three(store, "target"), strict=True):

        def ridge(strength: float, x: np.ndarray, y: np.ndarray) -> Any:
            return make_pipeline(StandardScaler(), Ridge(alpha=1 / strength)).fit(x, y)

        best = max(STRENGTHS, key=lambda s: r2_score(val[1], ridge(s, *train).predict(val[0])))
        assert point.strengths == (best,)
        expected = r2_score(test[1], ridge(best, *joined(train, val)).predict(test[0]))
        assert point.scores["r2"].value == pytest.approx(expected, abs=1e-5)


def test_intervals_and_tests_are_those_of_the_statistics(
    made_store: Callable[..., FeatureStore], settings: Callable[..., Any]
) -> None:
    store = made_store(timesteps=(21, 61))
    found = probed(settings(f"features={store.path}", "probe.probes=[knn]"))
    assert [str(point.place) for point in found.points] == [str(tap) for tap in store.spec.taps]
    task = Classification(store.labels)
    statistics = []
    for _, (train, val, test) in three(store):
        said = KNeighborsClassifier(5, metric="cosine").fit(*joined(train, val)).predict(test[0])
        statistics.append(task.statistics(said, test[1])[None])
    scores = [task.scores(each.sum(1))["accuracy"][0] for each in statistics]
    best = int(np.argmax(scores))

    def accuracy(sums: np.ndarray) -> np.ndarray:
        return task.scores(sums)["accuracy"]

    others = [i for i in range(4) if i != best]
    tests = [paired_test(statistics[i], statistics[best], accuracy, resamples=100).p for i in others]
    adjusted = dict(zip(others, holm(tests), strict=True))
    for number, point in enumerate(found.points):
        interval = bootstrap(statistics[number], accuracy, resamples=100)
        estimate = point.scores["accuracy"]
        assert (estimate.value, estimate.low, estimate.high) == (interval.value, interval.low, interval.high)
        assert point.p == adjusted.get(number)
    counts = np.bincount(next(three(store))[1][0][1], minlength=4)
    assert found.chance == pytest.approx((next(three(store))[1][2][1] == counts.argmax()).mean())
