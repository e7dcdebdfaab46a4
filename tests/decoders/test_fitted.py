"""Fitted decoders and the fusion before them, against scikit-learn and slow sums on fresh random rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec
from satdifuser.data.base import Labels
from satdifuser.decoders import KNN, Fitted, Logistic, Ridge
from satdifuser.decoders.fitted import Rows
from satdifuser.errors import UserError
from satdifuser.fusion import GlobalWeighted, Plain, PyramidSpec
from satdifuser.pooling import Pooling
from satdifuser.tasks import Classification, MultiLabel, Regression, Segmentation, Task

LABELS = Labels(("a", "b", "c"), ("#f00", "#0f0", "#00f"), 255)
PYRAMID = PyramidSpec((8,), 3, (16, 16))  # 3 channels of 2 x 2 cells
FEATURES = 12


def rows(task: Task, samples: int, seed: int) -> Rows:
    """Features of very different sizes that know something of the truth."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(samples, FEATURES))
    if task.label == "label":
        truth: Any = g.integers(0, 3, samples)
        x[np.arange(samples), truth] += 1.2
    elif task.label == "multilabel":
        truth = (g.random((samples, 3)) < 0.5).astype(np.float32)
        x[:, :3] += truth
    else:
        truth = (x[:, :3] @ [1.0, -2.0, 0.5] + 0.5 * g.normal(size=samples) + 7).astype(np.float32)
    return Rows((x * np.logspace(-2, 2, FEATURES) + 3).astype(np.float32), truth)


def maps(features: np.ndarray) -> dict[int, Tensor]:
    return {8: torch.from_numpy(features).view(-1, 3, 2, 2)}


def test_the_strength_that_scores_best_on_validation_is_scikit_learns_and_so_are_the_answers() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    task, strengths = Classification(LABELS), [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    train, val, test = rows(task, 60, 0), rows(task, 80, 1), rows(task, 50, 2)
    decoder = Logistic(PYRAMID, 3, False, strengths)
    fit = decoder.fit(train, val, task)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    fits = [LogisticRegression(C=c, tol=1e-8, max_iter=10000) for c in strengths]
    right = []
    for one in fits:
        one.fit(scaler.transform(train.features.astype(np.float64)), train.truth)
        right.append((one.predict(scaler.transform(val.features.astype(np.float64))) == val.truth).mean())
    best = int(np.argmax(right))
    assert fit.log == {"strength": strengths[best]}
    probabilities = decoder(maps(test.features)).softmax(1).numpy()
    theirs = fits[best].predict_proba(scaler.transform(test.features.astype(np.float64)))
    np.testing.assert_allclose(probabilities, theirs, atol=1e-3)


def test_labels_of_several_are_each_a_fit_of_its_own() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    task = MultiLabel(LABELS)
    train, test = rows(task, 90, 0), rows(task, 40, 2)
    decoder = Logistic(PYRAMID, 3, False, [0.1])
    decoder.fit(train, test, task)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    found = decoder(maps(test.features)).sigmoid().numpy()
    for label in range(3):
        one = LogisticRegression(C=0.1, tol=1e-8, max_iter=10000)
        one.fit(scaler.transform(train.features.astype(np.float64)), train.truth[:, label])
        theirs = one.predict_proba(scaler.transform(test.features.astype(np.float64)))[:, 1]
        np.testing.assert_allclose(found[:, label], theirs, atol=1e-3)


@pytest.mark.parametrize("refit", [False, True])
def test_ridge_is_the_solution_of_its_normal_equations_on_what_it_may_learn_from(refit: bool) -> None:
    task, strengths = Regression(LABELS), [1e-4, 1e-2, 1.0]
    train, val, test = rows(task, 30, 0), rows(task, 30, 1), rows(task, 20, 2)

    def solved(some: Rows, strength: float, x: np.ndarray) -> np.ndarray:
        features, numbers = some.features.astype(np.float64), some.truth.astype(np.float64)
        mean, deviation = features.mean(0), features.std(0)
        z = (features - mean) / deviation
        w = np.linalg.solve(z.T @ z + np.eye(FEATURES) / strength, z.T @ (numbers - numbers.mean()))
        return (x - mean) / deviation @ w + numbers.mean()

    errors = [((solved(train, c, val.features) - val.truth) ** 2).mean() for c in strengths]
    best = strengths[int(np.argmin(errors))]
    decoder = Ridge(PYRAMID, 1, False, strengths, refit)
    assert decoder.fit(train, val, task).log == {"strength": best}
    wanted = solved(train + val if refit else train, best, test.features)
    np.testing.assert_allclose(decoder(maps(test.features)).squeeze(1).numpy(), wanted, rtol=1e-4)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", [Classification, MultiLabel, Regression])
def test_neighbours_answer_as_scikit_learns(kind: type[Task], distance: Any) -> None:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    task = kind(LABELS)
    train, test = rows(task, 50, 0), rows(task, 30, 2)
    decoder = KNN(PYRAMID, task.outputs, False, 5, distance)
    decoder.fit(train, test, task)
    logits = decoder(maps(test.features))
    theirs: Any = (KNeighborsRegressor if kind is Regression else KNeighborsClassifier)(5, metric=distance)
    theirs.fit(train.features.astype(np.float64), train.truth)
    said = theirs.predict(test.features.astype(np.float64))
    if kind is Regression:
        np.testing.assert_allclose(task.predict(logits).numpy(), said, rtol=1e-5)
        return
    np.testing.assert_array_equal(task.predict(logits).numpy(), said)
    shares = theirs.predict_proba(test.features.astype(np.float64))
    if kind is MultiLabel:
        shares = np.stack([each[:, 1] for each in shares], 1)
    found = logits.softmax(1) if kind is Classification else logits.sigmoid()
    np.testing.assert_allclose(found.numpy(), shares, atol=1e-5)


@pytest.mark.parametrize("kind", [Classification, MultiLabel, Regression])
def test_what_is_learned_is_in_the_state_and_a_new_decoder_takes_it_up(kind: type[Task]) -> None:
    task = kind(LABELS)
    train, test = rows(task, 40, 0), rows(task, 20, 2)
    makes: list[type[Fitted]] = [KNN, Ridge if kind is Regression else Logistic]
    for make in makes:
        decoder, other = (make(PYRAMID, task.outputs, False) for _ in range(2))
        decoder.fit(train, test, task)
        answers = decoder(maps(test.features))
        other.fit(rows(task, 31, 5), test, task)
        assert not torch.equal(other(maps(test.features)), answers)
        other.load_state_dict({name: value.clone() for name, value in decoder.state_dict().items()})
        assert torch.equal(other(maps(test.features)), answers)
        assert not any(p.requires_grad for p in decoder.parameters())


def test_plain_lays_the_pooled_maps_side_by_side_in_the_order_of_the_taps(toy_spec: Any, toy_bank: Any) -> None:
    spec: BankSpec = toy_spec()
    bank = toy_bank(spec, batch=2, dtype=torch.float32)
    head = Plain(spec)
    assert not list(head.parameters())
    fused = head(bank)
    (vector,) = fused.maps.values()
    wanted = [bank[tap].mean((2, 3)) for tap in spec.taps]
    torch.testing.assert_close(vector.flatten(1), torch.cat(wanted, 1))
    assert head.pyramid.channels == vector.shape[1]
    assert fused.weights.keys() == set(spec.strides)
    assert sum(float(value.sum()) for value in fused.weights.values()) == pytest.approx(1)
    for name in ("moments", "grid2"):
        pooled = Pooling(name).bank(bank)
        (vector,) = Plain(pooled.spec)(pooled).maps.values()
        torch.testing.assert_close(vector, torch.cat([pooled[tap] for tap in pooled.spec.taps], 1))


def test_a_map_weighs_its_share_of_the_squared_coefficients(toy_spec: Any, toy_bank: Any) -> None:
    spec: BankSpec = toy_spec()
    pooled = Pooling("grid2").bank(toy_bank(spec, batch=2, dtype=torch.float32))
    head = Plain(pooled.spec)
    importance = torch.rand(4 * sum(tap.channels for tap in spec.taps)).double()
    head.weigh(importance)
    fused, place = head(pooled), 0
    (weights,) = fused.weights.values()
    for tap in pooled.spec.taps:
        some = importance[place : place + 4 * tap.channels].sum() / importance.sum()
        row, column = spec.timesteps.index(tap.timestep), head.names[head.spec.strides[0]].index(tap.name)
        assert float(weights[row, column]) == pytest.approx(float(some), rel=1e-5)
        place += 4 * tap.channels


def test_a_fit_says_which_features_it_reads() -> None:
    """Of standardised features, so that a feature's unit changes nothing."""
    task = Regression(LABELS)
    train = rows(task, 400, 0)
    importance = Ridge(PYRAMID, 1, False, [1.0]).fit(train, train, task).importance
    assert importance is not None
    shares = (importance / importance.sum()).numpy()
    np.testing.assert_allclose(shares[:3], np.array([1, 4, 0.25]) / 5.25, atol=0.05)
    assert shares[3:].sum() < 0.02


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: KNN(PYRAMID, 3, True), "decoder=knn gives one answer for each image, but the task wants a map"),
        (lambda: KNN(PYRAMID, 3, False, 0), "decoder.k is 0: it must be a whole number of 1 or more"),
        (lambda: Logistic(PYRAMID, 3, False, []), r"decoder.strengths is \[\]"),
        (lambda: Logistic(PYRAMID, 3, False, solver="lbfgs"), "decoder.solver is 'lbfgs'"),  # type: ignore[arg-type]
        (lambda: Logistic(PYRAMID, 1, False).check_path(Regression(LABELS)), "decoder=logistic is for task=classif"),
        (lambda: Ridge(PYRAMID, 3, False).check_path(Classification(LABELS)), "decoder=ridge is for task=regression"),
        (lambda: KNN(PYRAMID, 3, False).check_path(Segmentation(LABELS)), "decoder=knn is for task=classification or"),
        (
            lambda: KNN(PYRAMID, 3, False).check_path(Classification(LABELS), temporal=nn.Linear(2, 2)),
            r"nothing would train temporal \(Linear\): set temporal=mean",
        ),
    ],
)
def test_what_cannot_be_is_one_line(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_a_fusion_that_would_have_to_learn_is_refused(toy_spec: Any) -> None:
    fusion = GlobalWeighted(toy_spec(), 16)
    with pytest.raises(UserError, match=r"nothing would train fusion \(GlobalWeighted\): set fusion=plain"):
        KNN(fusion.pyramid, 3, False).check_path(Classification(LABELS), encoder=None, fusion=fusion)


def test_too_few_samples_and_a_single_class_are_told() -> None:
    task = Classification(LABELS)
    few = rows(task, 4, 0)
    with pytest.raises(UserError, match=r"decoder\.k is 5, and there are 4 training samples"):
        KNN(PYRAMID, 3, False).check_samples(4)
    one = Rows(few.features, np.zeros(4, np.int64))
    with pytest.raises(UserError, match="decoder=logistic cannot be fitted: all 4 samples are of class 0"):
        Logistic(PYRAMID, 3, False).fit(one, few, task)
