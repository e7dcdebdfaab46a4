"""A number for every pixel: NaN counts nowhere, scores are torchmetrics', and what is learned is in the checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
import zarr
from torch.utils.data import Dataset

from satdifuser.augment.sampled import RandomAugmentation
from satdifuser.cli import main
from satdifuser.data.base import Labels
from satdifuser.data.splits.budgets import label_shares
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.errors import UserError
from satdifuser.tasks import PixelRegression

LABELS = Labels((), ())


def make(samples: int = 5, size: tuple[int, int] = (6, 4), far: float = 0.0) -> tuple[torch.Tensor, dict[str, Any]]:
    target = 3 * torch.randn(samples, *size) + far
    target[torch.rand(target.shape) < 0.3] = math.nan
    target[2] = math.nan  # an image without any truth
    return torch.randn(samples, 1, *size), {"id": [f"s{i}" for i in range(samples)], "target": target}


def counted(said: torch.Tensor, batch: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Said and true, pixel by pixel, where there is a truth."""
    pairs = [
        (float(said[i][0][r][c]), float(batch["target"][i][r][c]))
        for i in range(len(said))
        for r in range(said.shape[2])
        for c in range(said.shape[3])
        if not math.isnan(float(batch["target"][i][r][c]))
    ]
    return np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_the_loss_is_a_slow_sum_over_the_pixels_with_a_truth(loss: str, standardise: bool) -> None:
    logits, batch = make(far=50.0)
    task = PixelRegression(LABELS, loss=loss, delta=0.7, standardise=standardise)  # type: ignore[arg-type]
    task.learn([batch])
    said, true = counted(logits, batch)
    if standardise:
        true = (true - true.mean()) / true.std()
    away = np.abs(said - true)
    each = {"mse": away**2, "l1": away, "huber": np.where(away < 0.7, 0.5 * away**2, 0.7 * (away - 0.35))}
    assert task.loss_sum(logits, batch).item() == pytest.approx(each[loss].sum(), rel=1e-5)
    assert task.count(batch).item() == len(true)


def test_pixels_without_a_truth_have_no_gradient_and_the_others_have() -> None:
    logits, batch = make()
    logits.requires_grad_()
    PixelRegression(LABELS).loss_sum(logits, batch).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 0] == 0, batch["target"].isnan())


@pytest.mark.parametrize("far", [0.0, 3000.0])
def test_scores_are_those_of_torchmetrics_however_the_batches_come(far: float) -> None:
    logits, batch = make(7, far=far)
    task = PixelRegression(LABELS)
    task.learn([batch])
    metrics = task.metrics()
    for first, last in ((0, 2), (2, 3), (3, 7)):  # the middle one has no truth at all
        task.update(metrics, logits[first:last], {k: v[first:last] for k, v in batch.items()})
    said, true = counted(task.predict(logits)[:, None], batch)
    pair = torch.tensor(said), torch.tensor(true)
    expected = {
        "r2": torchmetrics.functional.r2_score(*pair),
        "rmse": torchmetrics.functional.mean_squared_error(*pair, squared=False),
        "mae": torchmetrics.functional.mean_absolute_error(*pair),
    }
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-6)
    rows = task.statistics(task.predict(logits).numpy(), batch["target"].numpy())
    scores = {name: float(value) for name, value in task.scores(rows.sum(0)).items()}
    assert scores == pytest.approx(found, rel=1e-6)
    some = [0, 3, 3, 5]  # scores of any samples are those of their sum
    resampled = task.scores(rows[some].sum(0))
    said, true = counted(task.predict(logits)[some][:, None], {"target": batch["target"][some]})
    assert float(resampled["mae"]) == pytest.approx(np.abs(said - true).mean(), rel=1e-6)
    assert float(resampled["r2"]) == pytest.approx(1 - ((said - true) ** 2).sum() / len(true) / true.var(), rel=1e-6)


def test_what_is_learned_of_the_target_is_its_mean_and_deviation_over_all_batches() -> None:
    _, batch = make(6, far=1e4)
    task = PixelRegression(LABELS)
    task.learn({k: v[i : i + 2] for k, v in batch.items()} for i in range(0, 6, 2))
    true = batch["target"].double().numpy()
    assert float(task.mean) == pytest.approx(np.nanmean(true), rel=1e-12)
    assert float(task.deviation) == pytest.approx(np.nanstd(true), rel=1e-9)
    again = PixelRegression(LABELS)
    again.load_state_dict(task.state_dict())
    logits = torch.randn(2, 1, 3, 3)
    assert torch.equal(again.predict(logits), task.predict(logits))
    expected = logits[:, 0].double() * np.nanstd(true) + np.nanmean(true)
    torch.testing.assert_close(task.predict(logits), expected.float())


def test_what_is_no_map_of_numbers_is_one_line() -> None:
    task, (_, batch) = PixelRegression(LABELS), make()
    with pytest.raises(UserError, match=r"sample s0 has one target for the whole image.*task=regression"):
        task.check({"id": ["s0"], "target": torch.zeros(1)})
    batch["target"][1, 2, 3] = math.inf
    with pytest.raises(UserError, match=r"sample s1: target holds inf, but task=pixel_regression allows finite"):
        task.check(batch)
    with pytest.raises(UserError, match="no pixel of the training samples has a target"):
        task.learn([{"id": ["s0"], "target": torch.full((1, 2, 2), math.nan)}])
    with pytest.raises(UserError, match=r"task.loss is 'mae': it can be mse, l1 or huber"):
        PixelRegression(LABELS, loss="mae")  # type: ignore[arg-type]


def test_the_map_of_the_truth_moves_with_its_image() -> None:
    images = torch.rand(6, 3, 12, 12) + 1
    batch = {"id": [f"s{i}" for i in range(6)], "image": images, "target": images[:, 0].clone()}
    turned = RandomAugmentation(horizontal=0.5, vertical=0.5, turn=0.7)(batch, 3)
    assert not torch.equal(turned["image"], images)
    assert torch.equal(turned["image"][:, 0], turned["target"])
    warped = RandomAugmentation(rotation=40.0, interpolation="nearest")(batch, 3)
    there = ~warped["target"].isnan()
    assert bool((~there).any())
    assert torch.equal(warped["image"][:, 0][there], warped["target"][there])
    assert bool((warped["image"][:, 0][~there] == 0).all())


class Heights(Dataset[Any]):
    """Scenes with the mean reflectance of each pixel as its number, far from zero, and none where there are no data."""

    def __init__(self, scenes: SyntheticScenes) -> None:
        self.scenes, self.labels, self.identity = scenes, scenes.labels, {"name": "heights"}
        self.name, self.sample_id = "heights", scenes.sample_id

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = dict(self.scenes[index])
        height = 500.0 + 100.0 * sample["image"].mean(0)
        height[sample["image"].abs().sum(0) == 0] = math.nan
        return {"id": sample["id"], "image": sample["image"], "target": height}


def test_label_budgets_take_images_of_all_means() -> None:
    data = Heights(SyntheticScenes(length=20, size=16))
    shares = label_shares(data, PixelRegression(LABELS))  # type: ignore[arg-type]
    means = [float(data[i]["target"].nanmean()) for i in range(20)]
    assert shares.values.sum(1).tolist() == [1.0] * 20
    order = np.argsort(means)
    assert (np.diff(shares.values.argmax(1)[order]) >= 0).all()


def test_a_map_is_drawn_with_what_is_blank_in_grey() -> None:
    from satdifuser.report.figures import subplots

    _, axes = subplots(figsize=(1, 1))
    value = torch.tensor([[0.0, 1.0], [math.nan, 0.5]])
    PixelRegression(LABELS).draw(axes, value)
    assert axes.images[0].get_array().mask.tolist() == [[False, False], [True, False]]
    assert PixelRegression(LABELS).describe(value) == "0 to 1"


@pytest.fixture
def heights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A data set of one's own, and the command's words for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "heights_of_mine.py").write_text(
        "import math\n"
        "from satdifuser.data.synthetic import SyntheticScenes\n"
        "class Heights(SyntheticScenes):\n"
        "    name = 'heights'\n"
        "    def __getitem__(self, index):\n"
        "        sample = dict(super().__getitem__(index))\n"
        "        height = 500 + 100 * sample['image'].mean(0)\n"
        "        height[sample['image'].abs().sum(0) == 0] = math.nan\n"
        "        return {'id': sample['id'], 'image': sample['image'], 'target': height}\n"
    )
    (tmp_path / "configs" / "data" / "heights.yaml").write_text(
        "_target_: heights_of_mine.Heights\nsensor: SENTINEL2\nsize: 16\nnodata: 1.0\nsplits:\n"
        "  train: {split: train, length: 40}\n  val: {split: val, length: 5}\n  test: {split: test, length: 6}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return ["--config-dir", "configs"]


QUICK = ["trainer=quick", "trainer.max_steps=30", "trainer.eval_every=15", "trainer.batch_size=4", "trainer.lr=0.01"]


@pytest.mark.slow
def test_the_whole_way_through_train_eval_a_store_and_a_report(heights: list[str], tmp_path: Path) -> None:
    words = ["data=heights", "task=pixel_regression", "fusion=concat", "fusion.projection_dim=16"]
    encoder = ["encoder=unet", "encoder.width=8", "encoder.levels=2", "decoder=linear"]
    assert main(["train", *heights, *words, *encoder, *QUICK, "run=live"]) == 0
    result = json.loads(Path("live/result.json").read_text())
    assert result["metric"] == "r2"
    assert result["test"]["r2"] > 0.2
    assert result["test"]["rmse"] >= result["test"]["mae"] > 0
    answers = zarr.open_group("live/predictions-test.zarr", mode="r")
    assert answers["prediction"].shape == answers["truth"].shape == (6, 16, 16)  # type: ignore[union-attr]
    truth = np.asarray(answers["truth"])
    assert np.isnan(truth).any()
    assert np.nanmin(truth) > 450
    assert main(["eval", *heights, "run=live"]) == 0
    assert main(["extract", *heights, "data=heights", *encoder[:3], "store.path=f.zarr"]) == 0
    assert main(["train", *heights, *words, *encoder, *QUICK, "features=f.zarr", "budget=60", "run=stored"]) == 0
    recipe = [*QUICK, *encoder, "fusion.projection_dim=16"]
    Path("configs/experiment").mkdir()
    Path("configs/experiment/heights.yaml").write_text(
        "# @package _global_\n"
        "models: {one: [fusion=concat], two: [fusion=mean]}\n"
        "tasks: {heights: [data=heights, task=pixel_regression]}\n"
        f"recipe: {json.dumps(recipe)}\nseeds: [0]\nbudgets: [100]\n"
    )
    assert main(["compare", *heights, "experiment=heights", "output=report"]) == 0
    page = next(tmp_path.rglob("report.html")).read_text()
    for word in ("rmse ", "root of the mean squared error", "data:image/png;base64"):
        assert word in page
