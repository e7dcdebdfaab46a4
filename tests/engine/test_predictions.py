"""Predictions kept: they come back as they were, in the order of the split, and give the scores back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.data.base import Labels
from satdifuser.decoders import LinearDecoder
from satdifuser.engine.evaluate import evaluate
from satdifuser.engine.insight import SHOWN
from satdifuser.engine.predictions import PredictionLog, Predictions, compact
from satdifuser.engine.trainer import make_accelerator
from satdifuser.errors import UserError
from satdifuser.fusion import GlobalWeighted, LocalizedWeighted, MixtureOfExperts
from satdifuser.model import FeatureModel
from satdifuser.tasks import Classification, Segmentation

LABELS = Labels(("a", "b", "c"), ("#f00", "#0f0", "#00f"), 255)


def images(samples: int = 5) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        tuple(f"tile/{n}" for n in range(samples)),
        rng.integers(0, 3, samples).astype(np.uint8),
        rng.integers(0, 3, samples).astype(np.uint8),
        rng.normal(size=(samples, 3)).astype(np.float32),
    )


def maps(samples: int = 300) -> Predictions:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (2, samples, 3, 5)).astype(np.uint8)
    return Predictions(tuple(str(n) for n in range(samples)), values[0], values[1])


@pytest.mark.parametrize("make", [images, maps])
def test_what_is_saved_comes_back(tmp_path: Path, make: Callable[[], Predictions]) -> None:
    given = make()
    path = given.save(tmp_path / "predictions.zarr")
    assert path == tmp_path / "predictions.zarr"
    found = Predictions.load(path)
    assert found.ids == given.ids
    for name in ("prediction", "truth", "logits"):
        one, other = getattr(given, name), getattr(found, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_a_second_write_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "predictions.zarr"
    images().save(path)
    maps(7).save(path)
    found = Predictions.load(path)
    assert len(found.ids) == 7
    assert found.logits is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_write_that_breaks_off_leaves_what_was_there_and_the_next_one_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zarr

    path = tmp_path / "predictions.zarr"
    create = zarr.Group.create_array

    def full(self: Any, name: str, **kwargs: Any) -> Any:
        if name == "truth":
            raise OSError(28, "No space left on device")
        return create(self, name, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", full)
        with pytest.raises(UserError, match=r"the disk filled up while writing .*predictions\.zarr: free space"):
            images().save(path)
        assert list(tmp_path.iterdir()) == []
    images(3).save(path)
    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", full)
        with pytest.raises(UserError, match="the disk filled up"):
            images(5).save(path)
    assert Predictions.load(path).ids == images(3).ids
    images(5).save(path)
    assert Predictions.load(path).ids == images(5).ids
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def _gone(path: Path) -> None:
    (path / "zarr.json").unlink()


def _cut_metadata(path: Path) -> None:
    file = path / "truth" / "zarr.json"
    file.write_text(file.read_text()[:40])


def _no_array(path: Path) -> None:
    import shutil

    shutil.rmtree(path / "prediction")


def _no_ids(path: Path) -> None:
    import zarr

    group = zarr.open_group(str(path), mode="r+")
    group.attrs.clear()


def _fewer_ids(path: Path) -> None:
    import zarr

    zarr.open_group(str(path), mode="r+").attrs["ids"] = ["only", "two"]


def _chunks(path: Path, name: str) -> list[Path]:
    return [file for file in (path / name / "c").rglob("*") if file.is_file()]


def _cut_chunk(path: Path) -> None:
    for file in _chunks(path, "truth"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _spoiled_chunk(path: Path) -> None:
    for file in _chunks(path, "prediction"):
        file.write_bytes(b"\x00\xff" * 20)


@pytest.mark.parametrize("damage", [_gone, _cut_metadata, _no_array, _no_ids, _fewer_ids, _cut_chunk, _spoiled_chunk])
def test_a_damaged_folder_is_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = maps(20).save(tmp_path / "predictions.zarr")
    damage(path)
    with pytest.raises(UserError) as refused:
        Predictions.load(path)
    said = " ".join(str(refused.value).split())
    assert str(path) in said
    assert "remove its run, and make it again" in said


def test_every_single_bit_that_flips_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    given = images(40)
    path = given.save(tmp_path / "predictions.zarr")
    draw, said = random.Random(0), list[str]()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for _ in range(150):
        file = draw.choice(files)
        content = file.read_bytes()
        spoilt = bytearray(content)
        spoilt[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(spoilt)
        try:
            found = Predictions.load(path)
        except UserError as error:
            said.append(str(error))
        else:
            assert found.ids == given.ids, file
            for name in ("prediction", "truth", "logits"):
                np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
        file.write_bytes(content)
    assert len(said) > 50
    assert all(str(path) in line and "\n" not in line for line in said)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Predictions.load(tmp_path / "nowhere.zarr")


def test_a_lost_chunk_is_not_read_as_zeros(tmp_path: Path) -> None:
    path = maps(20).save(tmp_path / "predictions.zarr")
    for file in _chunks(path, "prediction"):
        file.unlink()
    with pytest.raises(UserError, match="remove its run"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], "uint8"),
        ([0, 256], "uint16"),
        ([-1, 3], "int8"),
        ([-1, 200], "int16"),
        ([0, 70_000], "uint32"),
        ([0, 2**40], "int64"),
    ],
)
def test_whole_numbers_take_the_fewest_bytes_that_hold_them(values: list[int], dtype: str) -> None:
    found = compact(np.array(values, np.int64))
    assert found.dtype == dtype
    assert found.tolist() == values


def test_other_numbers_and_nothing_stay_as_they_are() -> None:
    floats = np.array([0.5, 300.0], np.float32)
    assert compact(floats).dtype == np.float32
    assert compact(np.array([], np.int64)).dtype == np.int64


def add(log: PredictionLog, indices: Sequence[int], ceiling: int = 3) -> None:
    """A batch whose answers say which sample they are of."""
    where = torch.tensor(list(indices))
    log.add(
        indices, [f"id-{i}" for i in indices], where % ceiling, where * 100, torch.stack([where, -where], 1).double()
    )


def test_batches_of_several_processes_come_in_the_order_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [PredictionLog() for _ in range(3)]  # of a process that has nothing, too
    add(logs[0], [0, 2, 4])
    add(logs[0], [6, 8])
    add(logs[1], [1, 3, 5])
    add(logs[1], [7])
    monkeypatch.setattr("accelerate.utils.gather_object", lambda rows: [row for log in logs for row in log._rows])
    found = logs[0].joined(3)
    assert found.ids == tuple(f"id-{i}" for i in range(9))
    assert found.prediction.tolist() == [i % 3 for i in range(9)]
    assert found.truth.tolist() == [i * 100 for i in range(9)]
    assert found.prediction.dtype == np.uint8
    assert found.truth.dtype == np.uint16
    assert found.logits is not None
    assert found.logits.tolist() == [[i, -i] for i in range(9)]
    assert found.logits.dtype == np.float32


def test_one_process_keeps_its_own_order() -> None:
    log = PredictionLog()
    add(log, [2, 0])
    add(log, [1])
    assert log.joined().ids == ("id-0", "id-1", "id-2")


def test_logits_of_maps_are_not_kept() -> None:
    log = PredictionLog()
    log.add([0], ["a"], torch.zeros(1, 2, 2, dtype=torch.long), torch.zeros(1, 2, 2), torch.zeros(1, 3, 2, 2))
    assert log.joined().logits is None


HEADS = {
    "gw": lambda spec: GlobalWeighted(spec, 16),
    "lw": lambda spec: LocalizedWeighted(spec, 16),
    "moe": lambda spec: MixtureOfExperts(spec, 16, experts=4, top_k=2, warmup_steps=0),
}


@pytest.fixture
def kept(toy_banks: Any) -> Callable[..., Any]:
    """Evaluate an untrained head on toy banks, keeping what it says."""

    def make(head: str, task: Any, samples: int = 11, batch_size: int = 4, keep: bool = True) -> Any:
        torch.manual_seed(3)
        data = toy_banks(samples, seed=5)
        data.sample_id = lambda index: f"toy-{index}"
        kind, fusion = task(LABELS), HEADS[head](data.spec)
        model = FeatureModel(None, fusion, LinearDecoder(fusion.pyramid, 3, kind.dense), kind)
        return evaluate(model, data, make_accelerator("no"), batch_size, keep=keep), kind, data

    return make


@pytest.mark.parametrize("task", [Classification, Segmentation])
def test_predictions_give_the_scores_back(kept: Callable[..., Any], task: Any) -> None:
    found, kind, data = kept("gw", task)
    said = found.predictions
    assert said.ids == tuple(f"toy-{i}" for i in range(11))
    truth = data.classes if task is Classification else data.masks
    np.testing.assert_array_equal(said.truth, truth.numpy())
    again = kind.scores(kind.statistics(said.prediction, said.truth).sum(0))
    for name, value in again.items():
        assert float(value) == pytest.approx(found.scores[name], abs=1e-6), name
    valid = said.truth != 255
    accuracy = float((said.prediction == said.truth)[valid].mean())
    name = "accuracy" if "accuracy" in found.scores else "pixel_accuracy"
    assert found.scores[name] == pytest.approx(accuracy, abs=1e-6)


def test_kept_logits_are_those_of_the_answers_and_of_the_loss(kept: Callable[..., Any]) -> None:
    found, _, data = kept("gw", Classification)
    logits = found.predictions.logits.astype(np.float64)
    np.testing.assert_array_equal(logits.argmax(1), found.predictions.prediction)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(11), data.classes.numpy()]).mean()
    assert found.scores["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("head", ["gw", "lw", "moe"])
def test_keeping_changes_no_score_and_the_size_of_batches_no_answer(kept: Callable[..., Any], head: str) -> None:
    one, _, _ = kept(head, Classification)
    other, _, _ = kept(head, Classification, batch_size=3)
    without, _, _ = kept(head, Classification, keep=False)
    assert without.predictions is None
    assert (without.usage, without.pixels) == ({}, {})
    assert without.scores == one.scores
    np.testing.assert_array_equal(one.predictions.prediction, other.predictions.prediction)
    np.testing.assert_allclose(one.predictions.logits, other.predictions.logits, atol=1e-5)


def test_the_use_of_experts_sums_to_one_at_each_timestep(kept: Callable[..., Any]) -> None:
    found, _, data = kept("moe", Classification)
    other, _, _ = kept("moe", Classification, batch_size=3)
    assert set(found.usage) == set(data.spec.strides)
    for stride, usage in found.usage.items():
        assert usage.shape == (2, 4)
        assert (usage >= 0).all()
        torch.testing.assert_close(usage.sum(1), torch.ones(2))
        torch.testing.assert_close(usage, other.usage[stride])  # a mean over samples, however they are cut
    assert found.pixels == {}


def test_the_weights_of_each_pixel_sum_to_one_over_timesteps_and_taps(kept: Callable[..., Any]) -> None:
    found, _, data = kept("lw", Segmentation)
    assert set(found.pixels) == set(data.spec.strides)
    for stride, weights in found.pixels.items():
        side = 8 // stride
        assert weights.shape == (SHOWN, 2, len(data.spec.names(stride)), side, side)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(SHOWN, side, side))
    assert found.usage == {}


def test_the_weights_of_the_first_samples_are_kept_whatever_the_size_of_batches(kept: Callable[..., Any]) -> None:
    one, _, _ = kept("lw", Segmentation)
    other, _, _ = kept("lw", Segmentation, batch_size=3)
    for stride, weights in one.pixels.items():
        torch.testing.assert_close(other.pixels[stride], weights)
