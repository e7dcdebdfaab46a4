"""Change detection: two dates, a mask of what has changed between them, and `temporal=difference`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.store import FeatureStore

CHANGES = '''
import torch

from satdifuser.data.base import Labels
from satdifuser.data.synthetic import SyntheticScenes


class Changes(SyntheticScenes):
    """A scene, and the same in other light where a part has become that of another; at times the later comes first."""

    name = "changes"
    labels = Labels(("as before", "changed"), ("#888888", "#d73027"))

    def __getitem__(self, index):
        before, other = super().__getitem__(index), self._other(index)
        draws = torch.rand(6, generator=torch.Generator().manual_seed(index + 7919 * len(self)))
        top, left = (draws[:2] * self.size / 2).long().tolist()
        tall, wide = (self.size / 4 + draws[2:4] * self.size / 4).long().tolist()
        there = torch.zeros(self.size, self.size, dtype=torch.bool)
        there[top : top + tall, left : left + wide] = True
        after = torch.where(there, other["image"], before["image"]) * (0.9 + 0.2 * draws[4])
        changed = there & (before["mask"] != other["mask"])
        images, dates = [before["image"], after], [18000, 18400]
        if draws[5] < 0.5:
            images, dates = images[::-1], dates[::-1]
        return {
            "id": before["id"],
            "image": torch.stack(images),
            "dates": torch.tensor(dates),
            "mask": changed.long(),
        }

    def _other(self, index):
        return SyntheticScenes(self.split, 1_000_000, size=self.size, nodata=0.0, cloud=0.0)[999_999 - index]
'''
DATA = ["data._target_=my_changes.Changes", "data.size=32", "data.nodata=0", "data.cloud=0"]
SPLITS = ["data.splits.train.length=160", "data.splits.val.length=8", "data.splits.test.length=40"]
TRAINER = ["trainer=quick", "trainer.max_steps=150", "trainer.batch_size=16", "trainer.eval_every=150"]
ENCODER = ["encoder=small_vit", "encoder.backbone.image_size=32"]


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "my_changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_changes", raising=False)
    return [*DATA, *SPLITS]


@pytest.mark.slow
def test_change_is_learned_from_the_difference_of_two_dates(tmp_path: Path, changes: list[str]) -> None:
    path = str(tmp_path / "f.zarr")
    extract.run(compose("extract", [*changes, *ENCODER, f"store.path={path}"], trust=["my_changes"]))
    assert FeatureStore(path).spec.dates == 2
    scores: dict[str, Any] = {}
    for name, head in {"size": ["temporal=difference", "temporal.absolute=true"], "mean": ["temporal=mean"]}.items():
        words = [*changes, *ENCODER, *TRAINER, *head, f"features={path}", f"run={tmp_path / name}"]
        words += ["fusion=concat", "fusion.projection_dim=32"]
        scores[name] = train.run(compose("train", words, trust=["my_changes"]), quiet=True)["test"]
    assert scores["size"]["miou"] > 0.55
    assert scores["size"]["miou"] > scores["mean"]["miou"] + 0.1  # the mean does not know what was before
