"""Training on augmented images: repeatable, resumable, in any cut of a batch, and only where there are images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.augment import RandomAugmentation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import Trainer
from satdifuser.errors import UserError

ENCODER = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]"]
Train = Callable[..., dict[str, Any]]


class KilledError(Exception):
    pass


@pytest.fixture
def trained(tmp_path: Path, tiny: list[str]) -> Train:
    """Train in a folder, on images."""

    def run(folder: str, *words: str) -> dict[str, Any]:
        config = compose("train", [*tiny, *ENCODER, f"run={tmp_path / folder}", *words], trust=["my_augmentation"])
        return train.run(config, quiet=True, draw=False)

    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str], Any]]:
    """What was augmented: step, ids, and the images that came out."""
    found: list[tuple[int, list[str], Any]] = []
    augment = RandomAugmentation.__call__

    def call(self: RandomAugmentation, batch: dict[str, Any], step: int) -> dict[str, Any]:
        out = augment(self, batch, step)
        found.append((step, list(batch["id"]), out["image"]))
        return out

    monkeypatch.setattr(RandomAugmentation, "__call__", call)
    return found


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_curve_on_the_same_images(
    tmp_path: Path, trained: Train, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["augmentation=satdifuser", "trainer.eval_every=1"]
    whole = trained("whole", *words)
    first, step = list(seen), Trainer._step
    seen.clear()

    def die(self: Trainer, *given: Any) -> Any:
        if self.state.step == 2:
            raise KilledError
        return step(self, *given)

    monkeypatch.setattr(Trainer, "_step", die)
    with pytest.raises(KilledError):
        trained("broken", *words)
    monkeypatch.setattr(Trainer, "_step", step)
    again = trained("broken", *words, "resume=true")
    assert again["test"] == whole["test"]
    folders = [RunFolder(tmp_path / name) for name in ("whole", "broken")]
    assert folders[0].rows() == folders[1].rows()
    weights = [load_checkpoint(folder.last)[1] for folder in folders]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert [step for step, _, _ in seen] == [step for step, _, _ in first] == [0, 1, 2, 3]  # of training alone
    for (_, ids, images), (_, same, others) in zip(first, seen, strict=True):
        assert ids == same
        assert torch.equal(images, others)


@pytest.mark.slow
def test_micro_batches_are_augmented_as_the_whole_batch_is(trained: Train, seen: list[Any]) -> None:
    for folder, parts in (("whole", 1), ("cut", 3)):
        trained(folder, "augmentation=segmentation", f"trainer.accumulate={parts}", "trainer.max_steps=1")
    assert seen[0][1] == seen[1][1]
    assert torch.equal(seen[0][2], seen[1][2])


@pytest.mark.slow
def test_two_processes_see_the_images_that_one_sees(
    tmp_path: Path, tiny: list[str], trained: Train, agrees_with_two_processes: Callable[..., None]
) -> None:
    one = trained("one", "augmentation=segmentation")
    agrees_with_two_processes([*tiny, *ENCODER, "augmentation=segmentation"], one)


@pytest.mark.parametrize(("begun", "given"), [([], ["augmentation=segmentation"]), (["augmentation=segmentation"], [])])
def test_a_run_does_not_go_on_with_another_augmentation(trained: Train, begun: list[str], given: list[str]) -> None:
    trained("run", *begun)
    with pytest.raises(UserError, match="was begun with another augmentation"):
        trained("run", *given, "resume=true")


@pytest.mark.slow
def test_stored_features_are_not_augmented(tmp_path: Path, tiny_data: list[str], trained: Train) -> None:
    store = f"{tmp_path / 'f.zarr'}"
    extract.run(compose("extract", [*tiny_data, *ENCODER, f"store.path={store}"]))
    with pytest.raises(UserError, match=r"augmentation changes images, and .*f\.zarr holds what was made of them"):
        trained("refused", f"features={store}", "augmentation=classification")
    assert not (tmp_path / "refused").exists()
    first = trained("none", f"features={store}", "augmentation=none")
    never = trained("never", f"features={store}", "augmentation=classification", "augmentation.probability=0.0")
    assert first["test"] == never["test"] == trained("null", f"features={store}")["test"]


def test_a_class_of_ones_own_augments(tmp_path: Path, trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_augmentation.py").write_text(
        "from satdifuser.augment import Augmentation\n"
        "from satdifuser.kinds import Share, checked\n"
        "class Dimmed(Augmentation):\n"
        "    steps = []\n"
        "    @checked('augmentation')\n"
        "    def __init__(self, by: Share = 0.5, **given):\n"
        "        super().__init__(**given)\n"
        "        self.by = by\n"
        "    def __call__(self, batch, step):\n"
        "        self.steps.append((step, self.seed, self.sensor.name, self.ignore_index))\n"
        "        return {**batch, 'image': batch['image'] * self.by}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trained("own", "+augmentation._target_=my_augmentation.Dimmed", "+augmentation.by=0.25", "seed=5")
    from my_augmentation import Dimmed  # type: ignore[import-not-found]

    assert Dimmed.steps == [(step, 5, "Sentinel-2 MSI", 255) for step in range(4)]
    with pytest.raises(UserError, match=r"augmentation\.by is 2\.0: it must be a number from 0 to 1"):
        trained("wrong", "+augmentation._target_=my_augmentation.Dimmed", "+augmentation.by=2.0")
    with pytest.raises(UserError, match="which is only what all of its kind have in common"):
        trained("base", "+augmentation._target_=satdifuser.augment.Augmentation")


def test_a_comparison_reads_images_where_they_are_augmented(tmp_path: Path) -> None:
    from satdifuser.compare.grid import expand
    from satdifuser.compare.shared import Shared

    data = ["data.size=16", *(f"data.splits.{split}.length=4" for split in ("train", "val", "test"))]
    config = compose("compare", [f"output={tmp_path}"])
    plain, moved = expand(config, [*data, "augmentation=none,segmentation"])
    shared = Shared(tmp_path, config.store)
    assert shared.features(plain) is not None
    assert shared.features(moved) is None
    assert shared.key(plain) != shared.key(moved)
    assert json.dumps(moved.settings()["augmentation"]).count("RandomAugmentation") == 1
