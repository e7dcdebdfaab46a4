"""Probes of pixels: which are taken, what is read there, and the scores, against slow computations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from satdifuser.analysis.calibration import calibration_error
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.study.probe import probed
from satdifuser.study.probe.ledger import Ledger
from satdifuser.study.probe.pixels import PixelSet, batch_positions, counts, kinds, quotas, sampled
from satdifuser.tasks.segmentation import Segmentation

Make = Callable[..., Any]
LABELS = Labels(tuple("wxyz"), ("#000000",) * 4)


def largest_remainders(totals: list[int], most: int) -> list[int]:
    """Slowly: what each is due, rounded down, and one more for those that lost the most."""
    due = [total * most / sum(totals) for total in totals]
    found = [int(each) for each in due]
    while sum(found) < most:
        lost = [each - have for each, have in zip(due, found, strict=True)]
        found[lost.index(max(lost))] += 1
    return found


def test_quotas_are_each_class_by_its_share_and_spread_over_the_samples() -> None:
    generator = np.random.default_rng()
    there = generator.integers(0, 90, (50, 5)) * generator.integers(0, 2, (50, 5))
    there[:, 3] = 0
    for most in (1, 17, 1000):
        found = quotas(there, most, seed=3)
        assert found.sum(0).tolist() == largest_remainders(there.sum(0).tolist(), most)
        due = there * found.sum(0) / np.maximum(there.sum(0), 1)
        assert (np.abs(found - due) < 1).all()
        assert (found <= there).all()
        assert (found == quotas(there, most, seed=3)).all()
    assert (quotas(there, 1000, seed=3) != quotas(there, 1000, seed=4)).any()
    assert (quotas(there, int(there.sum()), seed=3) == there).all()


def test_a_sets_pixels_are_of_the_classes_asked_for_and_each_is_taken_once(
    made_store: Callable[..., FeatureStore],
) -> None:
    data, task = made_store(label="mask").split("train"), Segmentation(LABELS, ignore="z")
    there = counts(task, data)
    masks = data.batch(range(len(data)))["mask"].numpy()
    expected = [[int((mask == number).sum()) for number in (0, 1, 2)] + [0] for mask in masks]
    assert there.tolist() == expected
    chosen = PixelSet("some", {"train": quotas(there, 700, 5)}, 5)
    assert chosen.total == 700
    for sample in range(len(data)):
        found = chosen.positions("train", sample, kinds(task, masks[sample]))
        assert len(set(found.tolist())) == len(found)
        taken = masks[sample].ravel()[found]
        assert np.bincount(taken, minlength=4).tolist() == chosen.quotas["train"][sample].tolist()
    classes = [kinds(task, mask) for mask in masks[8:12]]
    samples, positions = batch_positions(chosen, "train", 8, classes)
    assert positions[samples == 2].tolist() == chosen.positions("train", 10, classes[2]).tolist()


@pytest.mark.parametrize("size", [(24, 20), (4, 6), (3, 5), (8, 6), (31, 17)])
def test_what_is_read_of_a_pixel_is_the_map_brought_to_the_labels_size(size: tuple[int, int]) -> None:
    maps = torch.randn(3, 5, 4, 6)
    whole = F.interpolate(maps.double(), size, mode="bilinear", align_corners=False)
    samples = torch.arange(3).repeat_interleave(size[0] * size[1])
    positions = torch.arange(size[0] * size[1]).repeat(3)
    found = sampled(maps, size, samples, positions)
    expected = whole.flatten(2).transpose(1, 2).flatten(0, 1)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-5)


def whole_pixels(store: FeatureStore, split: str, tap: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and answers of all pixels, and which of them count."""
    batch = store.split(split).batch(range(len(store.split(split))))
    mask = batch["mask"].numpy()
    maps = F.interpolate(batch["bank"][tap].double(), mask.shape[-2:], mode="bilinear", align_corners=False)
    features = maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return features, mask.ravel(), mask.ravel() != 255


def miou(said: np.ndarray, true: np.ndarray) -> float:
    """Slowly, of pixels that count."""
    found = []
    for number in range(4):
        union = ((said == number) | (true == number)).sum()
        found += [((said == number) & (true == number)).sum() / union] if union else []
    return float(np.mean(found))


def test_pixels_are_probed_as_scikit_learn_does_on_interpolated_features(
    made_store: Callable[..., FeatureStore], settings: Make
) -> None:
    store = made_store(label="mask")
    found = probed(settings("task=segmentation", f"features={store.path}", "probe.strengths=[1e-5,1e-3]"))
    assert (found.metric, found.samples) == ("miou", 50)
    for point, tap in zip(found.points, store.spec.taps, strict=True):
        assert (point.view, point.probe) == ("pixels", "logistic")
        train, val, test = (whole_pixels(store, split, tap) for split in ("train", "val", "test"))
        (strength,) = point.strengths
        x, y = (np.concatenate([part[i][part[2]] for part in (train, val)]) for i in (0, 1))
        assert point.training == len(y)
        probe: Any = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-6, max_iter=1000)).fit(x, y)
        features, truth, there = test
        expected = miou(probe.predict(features[there]), truth[there])
        assert point.scores["miou"].value == pytest.approx(expected, abs=2e-3)
        error = calibration_error(probe.predict_proba(features[there]), truth[there])
        assert point.calibration is not None
        assert point.calibration[0] == pytest.approx(error, abs=5e-3)
    said = np.bincount(train[1][train[2]]).argmax()
    assert found.chance == pytest.approx(miou(np.full(there.sum(), said), truth[there]))


def test_at_most_so_many_pixels_teach_and_the_same_share_of_validation(
    made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satdifuser.study.probe import dense

    store, lessons, learn = made_store(label="mask"), [], dense.learn
    monkeypatch.setattr(dense, "learn", lambda *args: lessons.append(args[2]) or learn(*args))
    chosen = ["task=segmentation", f"features={store.path}", "probe.strengths=[1e-3]", "probe.pixels=3000"]
    probed(settings(*chosen, "seeds=[0,1]", "budgets=[50]", "select.taps=[blocks.1]"))
    there = {s: (store.split(s).batch(range(len(store.split(s))))["mask"] != 255).sum() for s in ("train", "val")}
    assert [lesson.known for lesson in lessons] == [3000, 3000]
    share = 3000 / (0.5 * int(there["train"]))
    for lesson in lessons:
        assert len(lesson.rows) - lesson.known == pytest.approx(share * 0.5 * int(there["val"]), rel=0.05)
        assert len(lesson.chosen) == 3000
    assert not np.array_equal(lessons[0].rows, lessons[1].rows)


def test_numbers_of_pixels_are_probed_by_ridge_and_nan_counts_nowhere(
    made_store: Callable[..., FeatureStore], settings: Make
) -> None:
    store = made_store(label="map")
    chosen = ["task=pixel_regression", "probe.strengths=[1e-2,1]", "probe.batch_size=8"]
    found = probed(settings(*chosen, f"features={store.path}"))
    for point, tap in zip(found.points, store.spec.taps, strict=True):
        parts = {}
        for split in ("train", "val", "test"):
            batch = store.split(split).batch(range(len(store.split(split))))
            target = batch["target"].numpy()
            maps = F.interpolate(batch["bank"][tap].double(), target.shape[-2:], mode="bilinear", align_corners=False)
            there = np.isfinite(target.ravel())
            parts[split] = maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()[there], target.ravel()[there]
        (strength,) = point.strengths
        assert strength is not None
        x, y = (np.concatenate([parts["train"][i], parts["val"][i]]) for i in (0, 1))
        probe = make_pipeline(StandardScaler(), Ridge(alpha=1 / strength)).fit(x, y)
        expected = r2_score(parts["test"][1], probe.predict(parts["test"][0]))
        assert point.scores["r2"].value == pytest.approx(expected, abs=1e-4)
        assert set(point.scores) == {"r2", "rmse", "mae"}
        assert (point.calibration, point.temperature) == (None, None)
    assert (found.metric, found.chance) == ("r2", 0.0)


def test_what_is_kept_of_each_sample_does_not_depend_on_the_batch_size(
    made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed may go on with another one, and its places are tested against each other."""
    store = made_store(label="map")
    found: list[dict[str, Any]] = []
    add = Ledger.add

    def adding(self: Ledger, name: str, values: Any, statistics: Any) -> None:
        found[-1][name] = statistics
        add(self, name, values, statistics)

    monkeypatch.setattr(Ledger, "add", adding)
    for size in (7, 16):
        found.append({})
        words = ["task=pixel_regression", "probe.strengths=[1]", f"probe.batch_size={size}", "overwrite=true"]
        probed(settings(*words, f"features={store.path}"))
    assert found[0].keys() == found[1].keys()
    for name, statistics in found[0].items():
        np.testing.assert_allclose(statistics, found[1][name], rtol=1e-4, atol=1e-3)


def test_a_split_without_an_answer_says_so(made_store: Callable[..., FeatureStore], settings: Make) -> None:
    store = made_store(label="mask", blank=True)
    with pytest.raises(UserError, match=r"no pixel of the split train has an answer that counts"):
        probed(settings("task=segmentation", f"features={store.path}"))
