"""What scores are read against: chance by the task's own metrics, and which models are of the floor."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from satdifuser.compare.baseline import chance, check_floor, floor
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.tasks import Classification, MultiLabel, Regression, Segmentation

LABELS = Labels(("water", "forest", "road"), ("#0000ff", "#00ff00", "#ff0000"))


def test_chance_of_classes_is_the_commonest_one_and_no_constant_answer_is_better() -> None:
    truth = np.random.default_rng(0).choice(3, 60, p=[0.2, 0.5, 0.3])
    found = chance(Classification(LABELS), truth)
    assert found is not None
    assert found.told == "always forest, the class of most test images"
    constant = [np.full(60, value) for value in range(3)]
    assert found.scores["accuracy"] == pytest.approx(max(accuracy_score(truth, one) for one in constant))
    of = {"average": "macro", "labels": [0, 1, 2], "zero_division": 0}
    assert found.scores["macro_f1"] == pytest.approx(max(f1_score(truth, one, **of) for one in constant))


def test_chance_of_pixels_leaves_out_what_is_ignored() -> None:
    truth = np.random.default_rng(1).choice([0, 1, 2, 255], (5, 8, 8), p=[0.3, 0.1, 0.1, 0.5])
    found = chance(Segmentation(LABELS), truth)
    assert found is not None
    assert found.told == "always water, the class of most test pixels"
    there = truth[truth != 255]
    assert found.scores["miou"] == pytest.approx(
        jaccard_score(there, np.zeros_like(there), average="macro", labels=[0, 1, 2], zero_division=0)
    )
    only = chance(Segmentation(LABELS, ignore="water"), truth)
    assert only is not None
    assert "water" not in only.told


def test_chance_of_labels_is_the_best_of_all_constant_sets() -> None:
    truth = (np.random.default_rng(2).random((40, 3)) < [0.7, 0.1, 0.45]).astype(np.float32)
    found = chance(MultiLabel(LABELS), truth)
    assert found is not None
    sets = [np.tile(one, (40, 1)) for one in itertools.product((0, 1), repeat=3)]
    best = max(f1_score(truth, one, average="micro", zero_division=0) for one in sets)
    assert found.scores["micro_f1"] == pytest.approx(best)
    assert found.told == "always the 2 most frequent labels of the test images"


def test_chance_of_numbers_is_their_mean() -> None:
    truth = np.random.default_rng(3).normal(5, 2, 50).astype(np.float32)
    found = chance(Regression(LABELS), truth)
    assert found is not None
    assert found.scores["r2"] == pytest.approx(0, abs=1e-6)
    assert found.scores["rmse"] == pytest.approx(truth.astype(np.float64).std(), rel=1e-5)


def run(model: str, encoder: dict[str, Any], trainable: int | None = None) -> Any:
    counted = None if trainable is None else {"trainable": trainable, "total": 10}
    config = SimpleNamespace(encoder=SimpleNamespace(plain=lambda: encoder))
    return SimpleNamespace(cell=SimpleNamespace(model=model, config=config), result={"encoder_parameters": counted})


RUNS = [
    run("colours", {"_target_": "satdifuser.baselines.colours.ColourStatistics"}),
    run("random UNet", {"_target_": "any", "backbone": {"_target_": "any", "weights": "random"}}),
    run("ImageNet CNN", {"_target_": "satdifuser.baselines.cnn.CNNEncoder", "weights": "pretrained"}),
    run("pretrained of another", {"_target_": "deflect.backbones.prithvi", "weights": "pretrained"}),
    run("CNN from scratch", {"_target_": "satdifuser.baselines.cnn.CNNEncoder", "weights": "none"}, trainable=10),
    run("frozen live", {"_target_": "satdifuser.baselines.rcf.RandomFeatures"}, trainable=0),
    run("diffusion gw", {"_target_": "any", "backbone": {"_target_": "any", "weights": "small"}}),
    run("diffusion lw", {"_target_": "any", "backbone": {"_target_": "any", "weights": "small"}}),
]


def test_the_floor_is_told_by_frozen_encoders_or_by_names() -> None:
    assert floor(None, RUNS) == ["colours", "random UNet", "ImageNet CNN", "frozen live"]
    assert floor([], RUNS) == []
    assert floor(["diffusion", "col*"], RUNS) == ["colours", "diffusion gw", "diffusion lw"]


def test_a_name_that_is_of_no_model_is_refused() -> None:
    models = ["colours", "diffusion gw"]
    check_floor(None, models)
    check_floor(["diffusion"], models)
    with pytest.raises(UserError, match=r"floor names colour: no such model; did you mean colours\?"):
        check_floor(["colour"], models)
