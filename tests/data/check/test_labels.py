"""Faults of labels, sizes, dates and files: each is found and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from satdifuser.data.base import Labels
from satdifuser.data.check import Checked, check, first_look
from satdifuser.data.check.whole import FIRST
from satdifuser.data.synthetic import SyntheticScenes

KEYS = ("mask", "label", "multilabel", "target")


def only(*kept: str) -> Any:
    """Samples with these labels alone."""

    def change(split: str, index: int, sample: Any) -> None:
        for key in KEYS:
            if key not in kept:
                del sample[key]

    return change


def test_classes_are_counted_in_every_split(checked: Any) -> None:
    found = checked()
    for split, counts in found.classes().items():
        wanted = np.zeros(8, np.int64)
        for index in range(24):
            mask = SyntheticScenes(split, 24, size=32)[index]["mask"].numpy()
            for number in range(8):
                wanted[number] += (mask == number).sum()
        assert list(counts.values()) == wanted.tolist()
        assert list(counts) == list(SyntheticScenes.labels.classes)
    labels = checked(only("label"))
    assert labels.to_dict()["counted in"] == "images"
    assert sum(labels.classes()["train"].values()) == 24


def test_mask_values_outside_the_table_are_named_with_their_pixels(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        if split == "val" and index < 2:
            sample["mask"][:2, :3] = 11

    there = names(checked(spoil))
    assert set(there) == {"outside"}
    assert there["outside"].verdict == "error"
    assert "11 in 12 pixels" in there["outside"].what
    assert there["outside"].samples == ["val-0", "val-1"]
    assert there["outside"].where.startswith("val, ")


def test_a_label_outside_the_table_is_an_error(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        only("label")(split, index, sample)
        if (split, index) == ("test", 5):
            sample["label"] = torch.tensor(8)

    assert "8 in 1 image" in names(checked(spoil))["outside"].what


def test_classes_that_are_nowhere_or_in_one_split_alone_are_named(checked: Any, names: Any) -> None:
    labels = Labels((*SyntheticScenes.labels.classes, "ice", "sand"), (*SyntheticScenes.labels.colours, "#fff", "#ff0"))

    def some(split: str, index: int, sample: Any) -> None:
        mask = sample["mask"]
        if split != "train":
            mask[mask == 0] = 1
        if split == "test":
            mask[0, 0] = 9

    there = names(checked(some, labels=labels))
    assert "1 class is in no split: ice" in there["class-never"].what
    assert there["class-once"].what == "2 classes are in one split alone: water (train), sand (test)"
    absent = [f for f in checked(some, labels=labels).findings if f.name == "class-absent"]
    assert {f.where: f.what for f in absent} == {
        "train": "no sample shows sand",
        "val": "no sample shows water, sand",
        "test": "no sample shows water",
    }


def test_masks_that_are_ignored_everywhere_or_of_another_size_are_found(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        if (split, index) == ("train", 7):
            sample["mask"].fill_(255)
        if (split, index) == ("train", 8):
            sample["mask"] = sample["mask"].repeat_interleave(2, 0)

    there = names(checked(spoil))
    assert there["mask-ignored"].samples == ["train-7"]
    assert "64 x 32 of 32 x 32" in there["mask-size"].what
    assert there["mask-size"].samples == ["train-8"]


def test_a_target_far_from_the_rest_is_found(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        only("target")(split, index, sample)
        if (split, index) == ("train", 3):
            sample["target"] = torch.tensor(-9999.0)

    assert names(checked(only("target"))) == {}
    there = names(checked(spoil))
    assert set(there) == {"target-far"}
    assert "-9999" in there["target-far"].what
    assert there["target-far"].samples == ["train-3"]

    def flat(split: str, index: int, sample: Any) -> None:
        only("target")(split, index, sample)
        sample["target"] = torch.tensor(2.0)

    assert "every target is 2" in names(checked(flat))["target-flat"].what


def test_samples_that_cannot_be_read_are_listed_with_their_reason(checked: Any, names: Any) -> None:
    def broken(split: str, index: int, sample: Any) -> str | None:
        if split == "val" and index in (2, 9):
            return f"has a mask with 7: name it (it is in {index} pixels)"
        return "is damaged: replace it" if (split, index) == ("test", 1) else None

    found = checked(broken)
    lines = [f.line() for f in found.findings if f.verdict == "error"]
    assert lines == [
        "error    val: val-2 has a mask with 7: name it (it is in 2 pixels) (and 1 more such: val-9)",
        "error    test: test-1 is damaged: replace it",
    ]

    def all_broken(split: str, index: int, sample: Any) -> str:
        return "is damaged: replace it"

    found = checked(all_broken)
    assert found.verdict == "error"
    assert len(found.findings) == 3
    assert "(and 23 more such: train-1, train-2, train-3 and 20 more)" in found.lines()[0]


def test_images_of_several_sizes_are_an_error(checked: Any, names: Any) -> None:
    def cut(split: str, index: int, sample: Any) -> None:
        if (split, index) == ("train", 4):
            sample["image"], sample["mask"] = sample["image"][:, :20], sample["mask"][:20]

    there = names(checked(cut))
    assert set(there) == {"sizes"}
    assert there["sizes"].what == "most samples are 13 bands of 32 x 32 px, and 1 not, as 13 bands of 20 x 32 px"
    assert there["sizes"].samples == ["train-4"]


def series(*dates: int, images: tuple[int, ...] = (0, 1, 2)) -> Any:
    """Three images of a place, the same or others, at these days."""

    def change(split: str, index: int, sample: Any) -> None:
        only()(split, index, sample)
        factors = {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.0}
        sample["image"] = torch.stack([sample["image"] * factors[number] for number in images])
        sample["dates"] = torch.tensor(dates)

    return change


def test_faults_of_dates_are_found(checked: Any, names: Any) -> None:
    assert names(checked(series(10, 20, 30))) == {}
    assert names(checked(series(10, 20, -1))) == {}
    for given, name in (
        (series(20, 10, 30), "dates-order"),
        (series(10, -1, 30), "dates-order"),
        (series(10, 10, 30), "dates-twice"),
        (series(10, 20, 30, images=(0, 3, 1)), "dates-blank"),
        (series(10, 20, 30, images=(0, 0, 1)), "dates-twin"),
    ):
        found = names(checked(given))
        assert set(found) == {name}
        assert "72 samples" in found[name].what


def test_evenly_chosen_samples_say_so(checked: Any) -> None:
    found = checked(samples=6)
    assert "train: 6 of 24, evenly chosen, samples can be read" in "\n".join(found.lines())
    assert [one.name for one in found.looks[0].seen] == [f"train-{n}" for n in (0, 4, 8, 12, 16, 20)]


def test_workers_see_the_same(made: Any) -> None:
    one, two = (check(made(), None, 8, workers).to_dict() for workers in (0, 2))
    assert one == two


def test_a_first_look_reads_a_few_samples_and_compares_none(made: Any) -> None:
    read: list[int] = []

    def count(split: str, index: int, sample: Any) -> None:
        read.append(index)
        sample["image"] = sample["image"] * 10000

    found: Checked = first_look(made(count, splits=("train", "val")), None)
    assert len(read) <= FIRST
    assert {f.name for f in found.findings if f.verdict == "error"} == {"range"}
    assert not {"repeats", "classes"} & {f.name for f in found.findings}
    assert replace(found).verdict == "error"
