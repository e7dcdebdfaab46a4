"""The built-in data set: splits, samples, and the same through any number of workers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from satdifuser.data.base import LABELS
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.data.synthetic.dataset import FIRST, Remembered, SyntheticScenes
from satdifuser.data.synthetic.scenes import SCALE, render
from satdifuser.data.synthetic.spectra import CLASSES, COLOURS, IGNORE
from satdifuser.errors import UserError


def small(split: str = "train", length: int = 5, **options: float) -> SyntheticScenes:
    return SyntheticScenes(split, length, size=16, **options)


def test_a_sample_is_the_scene_in_reflectance_with_its_labels() -> None:
    index, seed = int(np.random.default_rng().integers(1000)), 9
    sample = small(length=1000, seed=seed)[index]
    scene = render(seed, index, 16)
    assert sample["id"] == f"scene-{seed}-{index}"
    assert sample["image"].dtype == torch.float32
    np.testing.assert_allclose(sample["image"].double().numpy(), scene.image.astype(np.float64) / SCALE, rtol=1e-6)
    assert sample["mask"].dtype == torch.int64
    assert sample["mask"].tolist() == scene.mask.tolist()
    assert sample["label"].item() == scene.label
    assert sample["multilabel"].tolist() == scene.multilabel.tolist()
    assert sample["multilabel"].dtype == sample["target"].dtype == torch.float32
    assert sample["target"].item() == pytest.approx(scene.vegetation, abs=1e-6)
    assert set(sample) == {"id", "image", *LABELS}


def test_splits_share_no_id_and_no_scene_even_at_their_greatest_length() -> None:
    ranges = {split: SyntheticScenes(split, 1_000_000) for split in FIRST}
    numbers = sorted(
        tuple(int(data.sample_id(i).rpartition("-")[2]) for i in (0, len(data) - 1)) for data in ranges.values()
    )
    assert len(numbers) == 4
    assert all(last < following for (_, last), (following, _) in pairwise(numbers))
    images = {small(split)[0]["image"].numpy().tobytes() for split in FIRST}
    assert len(images) == 4


def test_an_unknown_split_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'tran'.*train, val, test.*did you mean train"):
        SyntheticScenes("tran")


@pytest.mark.parametrize(
    ("options", "named"),
    [({"length": 0}, "data.length"), ({"length": 1_000_001}, "data.length"), ({"size": 15}, "data.size")],
)
def test_lengths_and_sizes_that_cannot_be_are_user_errors(options: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        SyntheticScenes("train", **options)


def test_an_index_beyond_the_length_ends_iteration() -> None:
    data = small(length=3)
    assert len(list(data)) == len(data) == 3
    for index in (3, -1):
        with pytest.raises(IndexError):
            data[index]


def test_a_remembered_scene_is_the_rendered_one_and_cannot_be_spoilt_by_its_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = small()
    first = data[2]
    for value in first.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    again = data[2]
    monkeypatch.setattr("satdifuser.data.synthetic.dataset.REMEMBERED", Remembered(0))
    fresh = data[2]
    for name in ("image", *LABELS):
        assert torch.equal(again[name], fresh[name]), name
    assert again["image"].abs().sum() > 0


def test_scenes_are_remembered_while_there_is_room_and_data_sets_share_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rendered: list[int] = []

    def counted(seed: int, index: int, *args: int, **options: float) -> object:
        rendered.append(index)
        return render(seed, index, *args, **options)

    monkeypatch.setattr("satdifuser.data.synthetic.dataset.render", counted)
    one = small()[0]["image"].numel() * 2  # digital numbers of 16 bits
    monkeypatch.setattr("satdifuser.data.synthetic.dataset.REMEMBERED", Remembered(2 * one + 1))
    for data in (small(), small()):
        for index in range(3):
            data[index]
    assert rendered == [0, 1, 2, 2]


def test_settings_reach_the_scenes_and_the_identity() -> None:
    plain, cut = small(cloud=0.0, nodata=0.0), small(cloud=0.0, nodata=1.0)
    assert not any((sample["mask"] == IGNORE).any() for sample in plain)
    assert all((sample["image"] == 0).any() for sample in cut)
    assert plain.identity != cut.identity
    assert SyntheticScenes(**{k: v for k, v in cut.identity.items() if k != "name"}).identity == cut.identity


def test_every_class_has_a_name_and_a_colour_of_its_own() -> None:
    labels = SyntheticScenes.labels
    assert labels.classes == CLASSES
    assert len(set(COLOURS)) == len(set(CLASSES)) == 8
    assert labels.ignore_index not in range(len(CLASSES))
    assert type(labels).from_dict(labels.to_dict()) == labels


def test_two_workers_give_the_batches_that_none_gives() -> None:
    data = small(length=7, seed=3)
    alone, helped = (list(loader(data, OrderedBatches(7, 3), workers)) for workers in (0, 2))
    assert [batch["id"] for batch in alone] == [batch["id"] for batch in helped]
    assert [len(batch["id"]) for batch in alone] == [3, 3, 1]
    for one, two in zip(alone, helped, strict=True):
        for name in ("image", *LABELS):
            assert torch.equal(one[name], two[name]), name
            assert one[name].dtype == two[name].dtype
