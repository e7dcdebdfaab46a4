"""The grids of evidence: the same features under each head, the floor beside them, the data folder named once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.augment import RandomAugmentation
from satdifuser.compare import estimate
from satdifuser.compare.folds import folded
from satdifuser.compare.grid import Cell, expand
from satdifuser.compare.shared import Shared
from satdifuser.config import compose
from satdifuser.decoders.fitted import is_fitted
from satdifuser.model import FeatureModel

DATA = os.environ.get("SATDIFUSER_TEST_DATA")


def grid(name: str, words: Sequence[str] = ()) -> list[Cell]:
    return expand(compose("compare", [f"experiment={name}", "seeds=[0]", "budgets=[10]", *words]))


def by_model(cells: Sequence[Cell]) -> dict[str, Any]:
    return {cell.model: cell.config for cell in cells}


def test_the_floor_and_every_head_stand_in_one_grid() -> None:
    """Regression has what gw, lw and moe have: the same encoder with the same settings, pooled alike."""
    found = by_model(grid("evidence"))
    heads = [found[name] for name in ("diffusion + gw", "diffusion + lw", "diffusion + moe", "diffusion, logistic")]
    assert len({(str(one.encoder.plain()), one.pool, str(one.select)) for one in heads}) == 1
    assert heads[0].pool == "quantiles"
    assert [one.fusion.label for one in heads] == ["GlobalWeighted", "LocalizedWeighted", "MixtureOfExperts", "Plain"]
    fitted = [name for name, one in found.items() if is_fitted(one.decoder.target)]
    assert {name.partition(",")[0] for name in fitted} >= {"colours", "random patches 2048", "ImageNet CNN", "Galileo"}
    assert found["random patches 2048, logistic"].encoder["features"] == 4096
    assert all(one.encoder["filters"] == "patches" for name, one in found.items() if name.startswith("random patches"))


def test_nets_from_scratch_are_augmented_and_stop_when_validation_does() -> None:
    found = by_model(grid("evidence", ["scratch=700"]))
    for name in ("CNN from scratch", "ViT from scratch"):
        assert found[name].augmentation.label == "RandomAugmentation"
        assert (found[name].augmentation["turn"], found[name].augmentation["crop"]) == (0.75, 0.5)
        assert found[name].trainer.patience is not None
    assert found["CNN from scratch"].trainer.max_steps == 700
    assert [found[f"ViT + {name}"].init for name in ("LoRA", "DEFLECT")] == ["ViT + gw", "ViT + gw"]


def test_the_folder_of_the_data_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATDIFUSER_TEST_DATA", "/somewhere")
    found = by_model(grid("evidence_forest"))
    assert {config.data["root"] for config in found.values()} == {"/somewhere/real/amazon"}
    assert found["Galileo + gw"].encoder["weights"] == "/somewhere/weights/galileo-nano"
    found = by_model(grid("evidence", ["folder=/other", "eurosat=/unpacked"]))
    assert found["Galileo + gw"].encoder["weights"] == "/other/weights/galileo-nano"
    assert {config.data["root"] for config in found.values()} == {"/unpacked"}


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="SATDIFUSER_TEST_DATA names no folder of real data")
def test_the_forest_has_the_authors_split_and_one_store_for_each_encoder(tmp_path: Path) -> None:
    config = compose("compare", ["experiment=evidence_forest"])
    cells = grid("evidence_forest")
    shared = Shared(tmp_path, config.store)
    assert shared.lengths(cells[0])["test"] == 15 * 64
    stored = [cell for cell in cells if cell.model.startswith(("diffusion", "colours", "random patches", "Galileo"))]
    places = {cell.model: shared.features(cell) for cell in stored}
    assert None not in places.values()
    assert len({place for model, place in places.items() if model.startswith("diffusion")}) == 1
    assert len(set(places.values())) == 4


@pytest.mark.parametrize("half", [True, False])
def test_a_dry_run_times_steps_as_they_will_be_trained(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task=classification", "encoder=unet", "encoder.width=8", "fusion=mean", "fusion.projection_dim=8"]
    words += ["data.size=32", "data.splits.train.length=4", "trainer.batch_size=2", "augmentation=classification"]
    config = compose("train", [*words, f"trainer.mixed_precision={'bf16' if half else 'no'}"])
    changed, halved, forward = list[int](), list[bool](), FeatureModel.forward

    def augment(self: Any, batch: Any, step: int) -> Any:
        changed.append(step)
        return batch

    def seen(self: Any, batch: Any) -> Any:
        halved.append(torch.is_autocast_enabled("cpu"))
        return forward(self, batch)

    monkeypatch.setattr(RandomAugmentation, "__call__", augment)
    monkeypatch.setattr(FeatureModel, "forward", seen)
    monkeypatch.setattr(estimate, "CALLS", 1)
    estimate.pace(Cell("net", "task", 100, 0, config), None)
    assert changed == [0, 0]  # once to warm up, and once measured
    assert halved == 4 * [half]  # two steps, and two batches that are scored


def test_what_is_only_checked_of_the_data_is_no_part_of_a_runs_key() -> None:
    def told(*words: str) -> Any:
        config = compose("compare", ["experiment=evidence_multispectral", "seeds=[0]", "budgets=[10]"])
        return expand(config, words)[0].settings()["data"]

    assert told() == told("data.descriptions=ignore")
    assert told() != told("data.fit=resize")


def test_a_model_can_be_another_one_in_each_fold() -> None:
    """One that was pretrained without what the fold tests; `{fold}` stands for the fold's number."""
    config = compose("compare", ["experiment=evidence_multispectral", "seeds=[0]", "budgets=[100]"])
    mine = ["encoder=unconditional", "encoder.backbone.weights='runs/{fold}/model'"]
    config = config.but(models={"mine": mine, "other": ["encoder=small"]})
    cells = [cell for cell in folded(expand(config), config) if cell.model == "mine"]
    assert [cell.config.encoder["backbone"]["weights"] for cell in cells] == [f"runs/{n}/model" for n in range(5)]
    assert {cell.config.encoder["backbone"].path for cell in cells} == {"satdifuser.diffusion.loading.unconditional"}
    others = {cell.model: cell for cell in folded(expand(config), config)}
    assert others["other"].config.encoder["backbone"]["weights"] == "small"
