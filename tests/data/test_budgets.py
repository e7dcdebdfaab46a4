"""Label budgets: nested, like the whole, the same for every model, run and order of the samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Labels
from satdifuser.data.batches import OrderedBatches, ShuffledBatches, loader
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.splits.budgets import Shares, budget, label_shares, order, within_budget
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter
from satdifuser.tasks import Classification, MultiLabel, PixelRegression, Regression, Segmentation, Task

PERCENTS = (1, 5, 10, 25, 50, 100)
TASKS = [Classification, MultiLabel, Segmentation, Regression]
LABELS = Labels(("water", "forest", "field", "town"), ("#00f", "#0f0", "#ff0", "#f00"), 255)
each_task = pytest.mark.parametrize("kind", TASKS)


class Images:
    """Samples held in memory, with whatever labels they are given."""

    name, labels = "made up", LABELS
    identity = {"name": "made up"}  # noqa: RUF012

    def __init__(self, ids: Sequence[str], **values: torch.Tensor) -> None:
        self.ids, self.values = list(ids), values

    def __len__(self) -> int:
        return len(self.ids)

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def __getitem__(self, index: int) -> Any:
        values = {name: rows[index] for name, rows in self.values.items()}
        return {"id": self.ids[index], "image": torch.full((1, 2, 2), float(index)), **values}


def names(count: int) -> list[str]:
    return [f"tile-{number}" for number in random.sample(range(10 * count), count)]


def one_class_each(count: int, classes: int, rng: np.random.Generator) -> Shares:
    drawn = rng.choice(classes, count, p=rng.dirichlet(np.full(classes, 2.0)))
    return Shares(np.eye(classes)[drawn], tuple(f"class {number}" for number in range(classes)))


def several_classes(count: int, rng: np.random.Generator) -> Shares:
    values = (rng.random((count, 6)) < [0.02, 0.1, 0.2, 0.3, 0.5, 0.9]).astype(float)
    return Shares(values, tuple("abcdef"))


def areas(count: int, rng: np.random.Generator) -> Shares:
    values = rng.dirichlet([0.03, 0.1, 0.3, 0.5, 1.0], count)
    values[values < 0.02] = 0
    return Shares(values / values.sum(1, keepdims=True), tuple("abcde"))


MAKERS: list[Callable[..., Shares]] = [lambda n, rng: one_class_each(n, 5, rng), several_classes, areas]


@pytest.fixture(autouse=True)
def _seeded_names() -> None:
    random.seed(0)


# --- the order


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(3))
def test_smaller_budgets_are_parts_of_larger_ones_and_all_is_all_in_its_order(make: Any, seed: int) -> None:
    shares, ids = make(1500, np.random.default_rng(seed)), names(1500)
    chosen = [budget(ids, shares, percent, seed) for percent in PERCENTS]
    assert [len(indices) for indices in chosen] == [15, 75, 150, 375, 750, 1500]
    assert all(indices == sorted(set(indices)) for indices in chosen)
    assert all(set(small) < set(large) for small, large in pairwise(chosen))
    assert chosen[-1] == list(range(1500))


@pytest.mark.parametrize("seed", range(6))
def test_every_beginning_has_as_many_of_a_class_as_is_its_share(seed: int) -> None:
    shares = one_class_each(800, 3 + seed, np.random.default_rng(seed)).values
    counts = shares[order(names(800), shares, seed)].cumsum(0)
    away = counts - np.arange(1, 801)[:, None] * shares.mean(0)
    allowed = slice(2 + seed, None)  # from where every class is shown
    assert away[allowed].min() > -2  # what the early showing of rare classes takes from the others
    assert np.where(counts > 1, away, 0)[allowed].max() < 1.5
    assert np.abs(away[100:]).max() < 1.5


@pytest.mark.parametrize("make", [several_classes, areas])
def test_a_budget_is_much_more_like_the_whole_than_random_samples_are(make: Any) -> None:
    ours, randoms = [], []
    for trial in range(4):
        rng = np.random.default_rng(trial)
        shares = make(2000, rng).values
        chosen = order(names(2000), shares, trial)
        for count in (40, 100, 200, 500, 1000):
            ours.append(np.abs(shares[chosen[:count]].mean(0) - shares.mean(0)).mean())
            away = [shares[rng.permutation(2000)[:count]].mean(0) - shares.mean(0) for _ in range(20)]
            randoms.append(np.abs(away).mean())
    assert np.mean(ours) < 0.2 * np.mean(randoms)


@pytest.mark.parametrize("make", MAKERS)
def test_the_order_of_the_samples_in_the_data_does_not_matter_and_the_seed_does(make: Any) -> None:
    shares, ids = make(600, np.random.default_rng(1)).values, names(600)
    found = [ids[index] for index in order(ids, shares, 3)]
    for trial in range(3):
        moved = np.random.default_rng(trial).permutation(600)
        again = order([ids[index] for index in moved], shares[moved], 3)
        assert [ids[moved[index]] for index in again] == found
    assert sorted(found) == sorted(ids)
    other = [ids[index] for index in order(ids, shares, 4)]
    assert other != found
    assert len(set(other[:60]) & set(found[:60])) < 40


@pytest.mark.parametrize("seed", range(5))
def test_the_first_samples_show_every_class_the_rarest_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.eye(7)[np.repeat(np.arange(7), [1, 2, 4, 8, 50, 100, 300])]
    assert values[order(names(465), values, seed)[:7]].argmax(1).tolist() == list(range(7))
    several = several_classes(400, rng).values
    chosen = order(names(400), several, seed)
    assert several[chosen[:6]].any(0).all()
    assert several[chosen[0], 0]


def test_each_sample_is_the_nearest_of_the_next_that_show_the_class_that_lacks_most() -> None:
    """A slow loop over the definition."""
    rng = np.random.default_rng(0)
    shares, ids = areas(150, rng).values, [f"{number:03d}" for number in range(150)]
    left = [int(i) for i in np.random.Generator(np.random.PCG64(9)).permutation(150)]
    whole, found = shares.mean(0), list[int]()

    def take(number: int) -> None:
        lacking = whole * (len(found) + 1) - shares[found].sum(0)
        candidates = [i for i in left if shares[i, number] > 0][:32]
        best = min(candidates, key=lambda i: ((shares[i] - lacking) ** 2).sum())
        found.append(best)
        left.remove(best)

    for number in np.argsort((shares > 0).sum(0), kind="stable"):
        if not shares[found, number].any():
            take(int(number))
    while left:
        lacking = whole * (len(found) + 1) - shares[found].sum(0)
        take(max((c for c in range(5) if shares[left, c].any()), key=lambda c: lacking[c]))
    assert order(ids, shares, 9) == found


def test_samples_of_no_class_are_spread_over_the_order() -> None:
    shares = np.concatenate([one_class_each(300, 3, np.random.default_rng(0)).values, np.zeros((100, 3))])
    place = np.flatnonzero(np.array(order(names(400), shares, 0)) >= 300)
    assert np.abs(place - (np.arange(100) * 4)).max() <= 8
    assert sorted(order(names(9), np.zeros((9, 3)), 0)) == list(range(9))
    assert order([], np.zeros((0, 3)), 0) == []


# --- the budget


@pytest.mark.parametrize(
    ("samples", "percent", "count"),
    [(250, 1, 3), (249, 1, 2), (150, 0.33, 1), (30, 5, 2), (7, 50, 4), (1000, 99.96, 1000)],
)
def test_a_percentage_is_rounded_half_up_and_gives_at_least_one(samples: int, percent: float, count: int) -> None:
    assert len(budget(names(samples), Shares(np.ones((samples, 1)), ("all",)), percent, 0)) == count
    assert len(budget(names(7), Shares(np.ones((7, 1)), ("all",)), 0.001, 0)) == 1


def test_too_small_a_budget_is_refused_with_what_is_missing_and_the_smallest_that_is_not() -> None:
    shares = Shares(np.eye(5)[np.repeat([0, 1, 3, 4], [60, 100, 2, 38])], ("a", "b", "never", "d", "e"))
    ids = names(200)
    wanted = r"budget: 1 % of 200 training samples are 2, too few to show a, b: ask for 1\.75 % or more"
    with pytest.raises(UserError, match=wanted):
        budget(ids, shares, 1, 0)
    with pytest.raises(UserError, match="too few"):
        budget(ids, shares, 1.74, 0)
    assert {int(shares.values[i].argmax()) for i in budget(ids, shares, 1.75, 0)} == {0, 1, 3, 4}


@pytest.mark.parametrize("percent", [0, -1, 100.5, float("nan"), float("inf"), "10", None, True])
def test_a_percentage_that_is_none_is_refused(percent: Any) -> None:
    with pytest.raises(UserError, match=r"budget is .*: give the percentage of the training samples"):
        within_budget(Images([]), Classification(LABELS), percent, 0)


def test_nothing_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="the training split is empty"):
        within_budget(Images([]), Classification(LABELS), 10, 0)


# --- the labels


def test_shares_are_what_the_labels_say() -> None:
    masks = torch.tensor([[[0, 0], [1, 255]], [[255, 255], [255, 255]], [[3, 3], [3, 3]]])
    target = torch.tensor([3.0, 1.0, 2.0])
    multilabel = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    data = Images(names(3), label=torch.tensor([2, 0, 3]), mask=masks, multilabel=multilabel, target=target)
    assert label_shares(data, Classification(LABELS)).values.tolist() == np.eye(4)[[2, 0, 3]].tolist()
    assert label_shares(data, MultiLabel(LABELS)).values.tolist() == multilabel.tolist()
    wanted = [[2 / 3, 1 / 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert label_shares(data, Segmentation(LABELS)).values.tolist() == wanted
    assert label_shares(data, Segmentation(LABELS)).names == LABELS.classes
    assert label_shares(data, Regression(LABELS)).values.argmax(1).tolist() == [9, 0, 5]


@pytest.mark.parametrize("trial", range(3))
def test_shares_of_masks_are_those_of_a_plain_count(trial: int) -> None:
    masks = torch.from_numpy(np.random.default_rng(trial).choice([0, 1, 2, 3, 255], (20, 5, 7)))
    found = label_shares(Images(names(20), mask=masks), Segmentation(LABELS)).values
    for row, mask in zip(found, masks.tolist(), strict=True):
        pixels = [pixel for line in mask for pixel in line if pixel != 255]
        assert row.tolist() == [pixels.count(number) / len(pixels) for number in range(4)]
    ignoring_a_class = Segmentation(Labels(LABELS.classes, LABELS.colours, 1))
    masks[masks == 255] = 1
    assert not label_shares(Images(names(20), mask=masks), ignoring_a_class).values[:, 1].any()


def test_targets_are_binned_by_their_deciles_and_equal_ones_stay_together() -> None:
    target = torch.from_numpy(np.random.default_rng(0).permutation(200)).float()
    shares = label_shares(Images(names(200), target=target), Regression(LABELS))
    assert shares.values.sum(0).tolist() == [20] * 10
    assert shares.values.argmax(1).tolist() == (target // 20).int().tolist()
    assert shares.names[0] == "targets of 0 to 19.9"
    same = label_shares(Images(names(50), target=torch.full((50,), 2.5)), Regression(LABELS))
    assert sorted(same.values.sum(0).tolist()) == [0] * 9 + [50]


def test_a_label_that_is_missing_or_out_of_range_is_the_tasks_own_error() -> None:
    data = Images(["a", "b"], label=torch.tensor([1, 7]))
    with pytest.raises(UserError, match="task=segmentation learns 'mask', but the data only has label"):
        within_budget(data, Segmentation(LABELS), 50, 0)
    with pytest.raises(UserError, match="sample b: label holds 7"):
        within_budget(data, Classification(LABELS), 50, 0)

    class Other(Classification):
        name, label = "other", "boxes"

    with pytest.raises(UserError, match="task=other learns 'boxes', whose classes are not known"):
        within_budget(data, Other(LABELS), 50, 0)


# --- readers


class Made(Reader):
    """A reader with whatever answers."""

    name = "made"

    def __init__(self, answers: dict[str, Any], **settings: Any) -> None:
        self.answers = answers
        super().__init__(list(answers), sensor="SENTINEL2:B02", size=8, **settings)

    def read(self, name: str) -> Raw:
        return Raw([np.full((8, 8), 500, np.uint16)], self.answers[name])

    def answer(self, name: str) -> Any:
        return self.answers[name]


def words(count: int, rng: np.random.Generator) -> list[Any]:
    return [str(one) for one in rng.choice(LABELS.classes, count, p=[0.5, 0.3, 0.15, 0.05])]


def lists(count: int, rng: np.random.Generator) -> list[Any]:
    some = np.array(LABELS.classes)
    return [tuple(some[rng.random(4) < [0.6, 0.3, 0.1, 0.05]].tolist()) for _ in range(count)]


def rasters(count: int, rng: np.random.Generator) -> list[Any]:
    values = np.array([10, 20, 30, 40, 255])
    return [rng.choice(values, (8, 8), p=rng.dirichlet([0.5, 0.3, 0.1, 0.05, 0.2])) for _ in range(count)]


def numbers(count: int, rng: np.random.Generator) -> list[Any]:
    return [float(one) for one in rng.gamma(2, 3, count)]


def maps(count: int, rng: np.random.Generator) -> list[Any]:
    return [rng.gamma(2, 3) + rng.random((8, 8)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "make", "table"),
    [
        (Classification, words, list(LABELS.classes)),
        (MultiLabel, lists, list(LABELS.classes)),
        (Segmentation, rasters, {10 * n: name for n, name in enumerate(LABELS.classes, 1)}),
        (Regression, numbers, None),
        (PixelRegression, maps, None),
    ],
)
def test_a_reader_has_the_budgets_of_its_samples_without_reading_an_image(
    kind: Any, make: Callable[..., list[Any]], table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = dict(zip(names(1200), make(1200, np.random.default_rng(5)), strict=True))
    data = Made(answers, label=kind.label, classes=table, ignore=255 if kind is Segmentation else None)
    task: Task = kind(data.labels)
    samples: list[Any] = [data[index] for index in range(len(data))]
    plain = Images(data.names, **{kind.label: torch.stack([sample[kind.label] for sample in samples])})
    monkeypatch.setattr(Made, "read", lambda *_: pytest.fail("an image was read"))
    shares = label_shares(data, task)
    assert (shares.values == label_shares(plain, task).values).all()
    before = set[str]()
    for percent in (1, 5, 20):
        part, wanted = within_budget(data, task, percent, 3), within_budget(plain, task, percent, 3)
        ids = [part.sample_id(index) for index in range(len(part))]
        assert ids == [wanted.sample_id(index) for index in range(len(wanted))]
        assert len(ids) == 12 * percent
        assert before < set(ids)
        before = set(ids)
        rows = [data.names.index(name) for name in ids]
        assert (shares.values[rows].any(0) == shares.values.any(0)).all()  # every class, the rarest too
        assert np.abs(shares.values[rows].mean(0) - shares.values.mean(0)).max() < 3 / len(ids)


# --- data sets


@cache
def scenes(length: int = 120) -> SyntheticScenes:
    return SyntheticScenes("train", length, size=16)


@each_task
def test_the_built_in_data_has_budgets_for_every_task(kind: type[Task]) -> None:
    data = scenes()
    task = kind(data.labels)
    shares = label_shares(data, task).values
    before: set[str] = set()
    for percent in (10, 25, 50):
        part = within_budget(data, task, percent, 0)
        ids = [part.sample_id(index) for index in range(len(part))]
        assert len(part) == round(120 * percent / 100)
        assert before < set(ids)
        before = set(ids)
        rows = [index for index in range(120) if data.sample_id(index) in before]
        assert (shares[rows].any(0) == shares.any(0)).all()
        assert [data.sample_id(row) for row in rows] == ids
    assert within_budget(data, task, 100, 0) is data


def test_a_part_is_a_data_set_of_its_own() -> None:
    data = Images(names(40), label=torch.arange(40) % 4)
    part = within_budget(data, Classification(LABELS), 25, 0)
    assert (part.name, part.labels, len(part)) == (data.name, data.labels, 10)
    for index in range(10):
        assert part[index]["id"] == part.sample_id(index) == data.ids[int(part[index]["image"][0, 0, 0])]
    with pytest.raises(IndexError):
        part[10]
    assert part.identity["name"] == "made up"
    assert part.identity["budget"]["samples"] == 10
    again, other = (within_budget(data, Classification(LABELS), 25, seed) for seed in (0, 1))
    assert again.identity == part.identity != other.identity


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_reads_the_samples_of_a_part(workers: int) -> None:
    data = scenes(40)
    part = within_budget(data, Classification(data.labels), 30, 0)
    batches = list(loader(part, OrderedBatches(len(part), 5), workers))
    wanted = [part.sample_id(index) for index in range(12)]
    assert [name for batch in batches for name in batch["id"]] == wanted
    images = {data.sample_id(index): data[index]["image"] for index in range(40)}
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), torch.stack([images[i] for i in wanted]))
    batch = next(iter(loader(part, ShuffledBatches(len(part), 12, seed=0))))
    assert sorted(batch["id"]) == sorted(wanted)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticScenes]:
    """A store of 120 scenes and a few of another split, whose one feature is a number of the sample."""
    path, data, val = tmp_path_factory.mktemp("budgets") / "store", scenes(), SyntheticScenes("val", 3, size=16)
    spec = BankSpec((Tap("mid", 21, 0, 2, 8),), "toy", "abc", (16, 16))
    splits = {"val": val, "train": data}
    ids = {name: [split.sample_id(i) for i in range(len(split))] for name, split in splits.items()}
    identity = {name: split.identity for name, split in splits.items()}
    form = Form("float32", "maps")
    with StoreWriter(path, StorePlan(spec, form, ids, data.labels, identity, shard_bytes=3000, bands=["B2"])) as writer:
        for rows in loader(val, OrderedBatches(3, 3)), loader(data, OrderedBatches(120, 16)):
            for batch in rows:
                numbers = torch.tensor([float(name.rpartition("-")[2]) for name in batch["id"]])
                maps = numbers[:, None, None, None].expand(-1, *spec.shape(spec.taps[0])).contiguous()
                batch["image"] = batch["image"][:, :1]
                writer.append(FeatureBank(spec, {spec.taps[0]: maps}), batch)
    return path, data


@each_task
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_store_has_the_budgets_of_the_images_it_was_made_of(
    stored: tuple[Path, SyntheticScenes], kind: type[Task], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = stored
    store = FeatureStore(path)
    data, task = store.split("train", in_memory=in_memory), kind(images.labels)
    monkeypatch.setattr(type(data), "_features", lambda *_: pytest.fail("features were read"))
    for percent in (10, 33.3):
        part, wanted = (within_budget(source, task, percent, 7) for source in (data, images))
        assert [part.sample_id(i) for i in range(len(part))] == [wanted.sample_id(i) for i in range(len(wanted))]
        assert part.identity["budget"] == wanted.identity["budget"]
        assert part.identity["store"] == store.path
    monkeypatch.undo()
    assert type(part) is type(data)
    for batch in loader(part, OrderedBatches(len(part), 9)):
        numbers = batch["bank"].unpack().map("mid", 21)[:, 0, 0, 0]
        assert [int(name.rpartition("-")[2]) for name in batch["id"]] == numbers.int().tolist()


def test_a_store_without_the_label_says_which_it_has(stored: tuple[Path, SyntheticScenes]) -> None:
    class Other(Classification):
        name, label = "other", "boxes"

    data = FeatureStore(stored[0]).split("train")
    with pytest.raises(UserError, match="whose classes are not known"):
        within_budget(data, Other(data.labels), 50, 0)
    del data._labels["label"]
    with pytest.raises(UserError, match="learns 'label', but the data only has mask, multilabel, target"):
        within_budget(data, Classification(data.labels), 50, 0)
