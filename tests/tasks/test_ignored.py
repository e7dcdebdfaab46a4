"""Classes that are ignored by name: in loss, counts, metrics, kept predictions, label budgets and pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from satdifuser.data.base import Labels
from satdifuser.data.splits.budgets import label_shares
from satdifuser.engine.predictions import PredictionLog, Predictions
from satdifuser.errors import UserError
from satdifuser.tasks import Segmentation

CLASSES = ("no data", "water", "forest", "field", "town")
COLOURS = ("#111111", "#0000ff", "#00ff00", "#ffff00", "#ff0000")

# the data's own ignore value (a class of its own, one of those ignored, or none), and what is ignored by name
WAYS = [
    (255, ["no data"]),
    (-1, ["no data", "town"]),
    (-100, "town"),
    (0, ["forest"]),
    (0, ["no data", "field"]),
    (4, ["water", "no data"]),
]
each_way = pytest.mark.parametrize(("own", "names"), WAYS)


def ignored_of(own, names):
    return {own, *(CLASSES.index(name) for name in ([names] if isinstance(names, str) else names))}


def make(own, seed=0, samples=5):
    """Logits and masks that have every class and the data's ignore value."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 5, (samples, 8, 7), generator=draw)
    mask[torch.rand(mask.shape, generator=draw) < 0.2] = own
    batch = {"id": [f"scene-{i}" for i in range(samples)], "mask": mask}
    return torch.randn(samples, 5, 8, 7, generator=draw), batch


def pixels(logits, batch, ignored):
    """Truth and answer of each pixel that counts, one after the other."""
    truth, said = batch["mask"].flatten().tolist(), logits.argmax(1).flatten().tolist()
    kept = [(t, s) for t, s in zip(truth, said, strict=True) if t not in ignored]
    return [t for t, _ in kept], [s for _, s in kept]


@each_way
def test_ignored_pixels_are_in_no_loss_and_no_count(own, names):
    task, ignored = Segmentation(Labels(CLASSES, COLOURS, own), ignore=names), ignored_of(own, names)
    logits, batch = make(own)
    total, count = 0.0, 0
    for sample, mask in zip(logits.double().tolist(), batch["mask"].tolist(), strict=True):
        for y, x in np.ndindex(8, 7):
            if mask[y][x] not in ignored:
                values = [channel[y][x] for channel in sample]
                total += math.log(sum(map(math.exp, values))) - values[mask[y][x]]
                count += 1
    logits.requires_grad_()
    loss = task.loss_sum(logits, batch)
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert task.count(batch).item() == count
    nothing = torch.isin(batch["mask"], torch.tensor(sorted(ignored)))
    assert torch.equal(logits.grad.abs().sum(1) == 0, nothing)
    task.check(batch)


@each_way
@pytest.mark.parametrize("absent", ["leave", "zero"])
@pytest.mark.parametrize("gone", [None, 2, 3])
def test_scores_are_of_the_other_pixels_and_classes_alone(own, names, absent, gone):
    """A class that is gone is in neither truth nor prediction; a pixel taken for an ignored class is wrong."""
    task = Segmentation(Labels(CLASSES, COLOURS, own), absent=absent, ignore=names)
    ignored = ignored_of(own, names)
    learned = [c for c in range(5) if c not in ignored]
    logits, batch = make(own, seed=3)
    if gone is not None:
        batch["mask"][batch["mask"] == gone] = learned[0] if learned[0] != gone else learned[1]
        logits[:, gone] = -99.0
    truth, said = pixels(logits, batch, ignored)
    assert any(s in ignored for s in said)
    both = {c: sum(t == s == c for t, s in zip(truth, said, strict=True)) for c in learned}
    either = {c: sum(c in pair for pair in zip(truth, said, strict=True)) for c in learned}
    mean = [both[c] / either[c] if either[c] else 0.0 for c in learned if either[c] or absent == "zero"]
    expected = {"miou": np.mean(mean), "accuracy": sk.accuracy_score(truth, said)}
    if absent == "zero":  # scikit-learn takes the classes it is given
        assert expected["miou"] == pytest.approx(
            sk.jaccard_score(truth, said, labels=learned, average="macro", zero_division=0)
        )
    metrics = task.metrics()
    for some in ([0], [1, 2, 3], [4]):
        task.update(metrics, logits[some], {"id": some, "mask": batch["mask"][some]})
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(expected, abs=1e-6)
    rows = task.statistics(logits.argmax(1).numpy(), batch["mask"].numpy())
    assert {k: float(v) for k, v in task.scores(rows.sum(0)).items()} == pytest.approx(expected, abs=1e-12)


@each_way
def test_kept_predictions_give_the_scores_back(own, names, tmp_path):
    task = Segmentation(Labels(CLASSES, COLOURS, own), ignore=names)
    metrics, log = task.metrics(), PredictionLog()
    for seed in (1, 2):
        logits, batch = make(own, seed)
        task.update(metrics, logits, batch)
        log.add(range(5 * seed, 5 * seed + 5), batch["id"], task.predict(logits), task.truth(batch), logits)
    kept = Predictions.load(log.joined().save(tmp_path / "predictions.zarr"))
    again = task.scores(task.statistics(kept.prediction, kept.truth).sum(0))
    online = {name: float(value) for name, value in metrics.compute().items()}
    assert {name: float(value) for name, value in again.items()} == pytest.approx(online, abs=1e-6)
    other = Segmentation(Labels(CLASSES, COLOURS, own), ignore=None)  # the truth is kept as it was: it scores anew
    assert float(other.scores(other.statistics(kept.prediction, kept.truth).sum(0))["miou"]) != online["miou"]


def test_nothing_that_counts_is_no_loss_and_leaves_the_scores_as_they_are():
    task = Segmentation(Labels(CLASSES, COLOURS), ignore=["no data", "town"])
    logits, batch = make(255)
    metrics, more = task.metrics(), task.metrics()
    task.update(metrics, logits, batch)
    task.update(more, logits, batch)
    nothing = {"id": batch["id"], "mask": torch.where(batch["mask"] < 3, 0, 4)}
    task.update(more, logits, nothing)
    assert {k: float(v) for k, v in more.compute().items()} == {k: float(v) for k, v in metrics.compute().items()}
    assert task.loss_sum(logits, nothing).item() == task.count(nothing).item() == 0


class Masks:
    """A data set of masks alone."""

    def __init__(self, own, masks):
        self.labels, self.masks, self.name = Labels(CLASSES, COLOURS, own), masks, "masks"

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        return {"id": str(index), "mask": self.masks[index]}


@each_way
def test_label_budgets_count_the_pixels_that_count(own, names):
    masks = make(own, 9)[1]["mask"]
    masks[3] = CLASSES.index(names if isinstance(names, str) else names[0])  # a sample of ignored pixels alone
    data = Masks(own, masks)
    found = label_shares(data, Segmentation(data.labels, ignore=names)).values
    ignored = ignored_of(own, names)
    for row, mask in zip(found, masks.flatten(1).tolist(), strict=True):
        kept = [value for value in mask if value not in ignored]
        assert row.tolist() == pytest.approx([kept.count(c) / max(len(kept), 1) for c in range(5)])


@pytest.mark.parametrize(
    ("own", "names", "said"),
    [
        (255, "no date", "task.ignore names 'no date', which is no class of the data; did you mean no data?"),
        (255, ["town", "sea"], "names 'sea', which is no class of the data: the data's are no data, water, forest, "),
        (255, ["no data", "water", "forest", "town"], "task.ignore leaves field to learn: leave two classes or more"),
        (3, ["no data", "water", "forest"], "task.ignore leaves town to learn: leave two classes or more"),
        (255, list(CLASSES), "task.ignore leaves no class to learn: leave two classes or more"),
        (255, [], "task.ignore is .*it must be a word, or a list of 1 or more"),
        (255, 3, "task.ignore is 3: it must be a word, or a list"),
    ],
)
def test_what_cannot_be_ignored_is_one_line(own, names, said):
    with pytest.raises(UserError, match=said) as caught:
        Segmentation(Labels(CLASSES, COLOURS, own), ignore=names)
    assert "\n" not in str(caught.value)


def test_a_word_that_absent_does_not_know_is_one_line():
    with pytest.raises(UserError, match=r"task\.absent is 'zeros': it can be leave or zero; did you mean zero"):
        Segmentation(Labels(CLASSES, COLOURS), absent="zeros")


def test_one_name_is_a_list_of_one_and_a_class_may_be_named_that_is_ignored_already():
    one, many = (Segmentation(Labels(CLASSES, COLOURS), ignore=names) for names in ("town", ["town"]))
    assert one.ignored == many.ignored == (255, 4)
    task = Segmentation(Labels(CLASSES, COLOURS, 0), ignore="no data")
    assert task.learned.tolist() == [False, True, True, True, True]


def test_the_words_on_a_metric_name_what_is_ignored():
    said = Segmentation(Labels(CLASSES, COLOURS, 1), absent="zero", ignore=["town", "no data"]).explain()
    assert "over the classes other than no data and water and town of" in said["miou"]
    assert "counts as 0, as in the released SatDiFuser code" in said["miou"]
    for sentence in said.values():
        assert sentence.endswith("; pixels whose truth is no data or water or town are ignored")
