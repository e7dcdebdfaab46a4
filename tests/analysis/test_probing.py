"""Linear probes: what is pooled from a store, and the regression against one minimised by SciPy in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from satdifuser.analysis.probing import Pooled, accuracy, pooled, probe_map
from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter

SPEC = BankSpec(
    tuple(Tap(name, t, depth, 4, 8) for t in (21, 61) for depth, name in enumerate("ab")), "toy", "none", (32, 16)
)


def write(path: Path, bank: FeatureBank, labels: torch.Tensor | None, keep: str = "maps") -> FeatureStore:
    ids = [f"s{i}" for i in range(len(bank[SPEC.taps[0]]))]
    form = Form("float32", keep)
    classes = Labels(("x", "y", "z"), ("#000000",) * 3)
    plan = StorePlan(form.spec(SPEC), form, {"train": ids}, classes, {"train": {"name": "made up"}})
    with StoreWriter(path, plan) as writer:
        for rows in writer.todo:
            chosen = slice(rows.start, rows.stop)
            batch = {"id": ids[chosen]} | ({} if labels is None else {"label": labels[chosen]})
            writer.append(bank.samples(chosen), batch)
    return FeatureStore(path)


@pytest.mark.parametrize("keep", ["maps", "mean", "grid2"])
def test_pooled_is_the_mean_over_each_map_in_any_form_of_store(tmp_path: Path, keep: str) -> None:
    bank = FeatureBank(SPEC, {tap: torch.randn(9, *SPEC.shape(tap)) for tap in SPEC.taps})
    labels = torch.randint(0, 3, (9,))
    found = pooled(write(tmp_path / "s.zarr", bank, labels, keep).split("train"), batch_size=4)
    assert found.classes.tolist() == labels.tolist()
    for mine, theirs in zip(found.features.values(), bank, strict=True):
        expected = bank[theirs].double().mean((2, 3)).numpy()
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
    assert found.all_taps().shape == (9, 16)


def test_a_store_without_classes_is_refused_in_one_line(tmp_path: Path) -> None:
    bank = FeatureBank(SPEC, {tap: torch.randn(3, *SPEC.shape(tap)) for tap in SPEC.taps})
    with pytest.raises(UserError, match=r"s\.zarr has no class labels"):
        pooled(write(tmp_path / "s.zarr", bank, None).split("train"))


def test_the_probe_is_penalised_logistic_regression_on_standardised_features() -> None:
    generator = np.random.default_rng(torch.initial_seed() % 2**32)
    centres = generator.normal(size=(3, 5))
    classes = generator.integers(0, 3, 300)
    features = (centres[classes] + 1.2 * generator.normal(size=(300, 5))) * [1, 10, 100, 0.1, 3] + 7
    known, unseen = slice(0, 200), slice(200, 300)
    x = (features - features[known].mean(0)) / features[known].std(0)

    def objective(flat: np.ndarray) -> float:
        weight, bias = flat[:15].reshape(5, 3), flat[15:]
        scores = log_softmax(x[known] @ weight + bias, axis=1)
        return -scores[np.arange(200), classes[known]].sum() + 0.5 / 0.1 * (weight**2).sum()

    best = minimize(objective, np.zeros(18), method="BFGS", options={"gtol": 1e-4}).x
    predicted = (x[unseen] @ best[:15].reshape(5, 3) + best[15:]).argmax(1)
    expected = (predicted == classes[unseen]).mean()
    found = accuracy((features[known], classes[known]), (features[unseen], classes[unseen]), 0.1)
    assert found == pytest.approx(expected, abs=0.011)  # one sample may lie on the border
    assert 0.4 < found < 1.0


def test_the_map_finds_the_tap_that_knows_the_classes() -> None:
    classes = np.arange(120) % 3
    noise = {tap: np.random.default_rng(i).normal(size=(120, 4)).astype("f4") for i, tap in enumerate(SPEC.taps)}
    knowing = SPEC.find("b", 21)
    noise[knowing][:, 1] += 5.0 * classes
    whole = Pooled(noise, classes)
    train, test = (
        Pooled({tap: rows[part] for tap, rows in whole.features.items()}, classes[part])
        for part in (slice(0, 80), slice(80, 120))
    )
    found = probe_map(train, test)
    assert found[knowing] > 0.9
    assert all(value < 0.6 for tap, value in found.items() if tap != knowing)
