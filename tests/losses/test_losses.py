"""Losses against slow sums in float64 and the libraries' own; what is ignored, weighed, cut and refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.losses import Combined, CrossEntropy, Dice, Focal, Jaccard, Loss, Lovasz
from satdifuser.tasks import Classification, MultiLabel, PixelRegression, Regression, Segmentation, Task

CLASSES = ("no data", "water", "forest", "field")
LABELS = Labels(CLASSES, ("#000", "#00f", "#0f0", "#ff0"), 255)
WEIGHTS = [0.3, 2.0, 0.0, 1.25]
Batch = dict[str, Any]


def segmentation(own: int = 255, ignore: list[str] | None = None) -> Segmentation:
    return Segmentation(Labels(CLASSES, LABELS.colours, own), ignore=ignore)


def make(task: Task, seed: int = 0, images: int = 5) -> tuple[Tensor, Batch]:
    """Logits and truth; of masks an image without a class, one of nothing that counts, and ignored pixels all over."""
    draw = torch.Generator().manual_seed(seed)
    batch: Batch = {"id": [f"scene-{i}" for i in range(images)]}
    if task.label == "mask":
        mask = torch.randint(0, 4, (images, 5, 6), generator=draw)
        mask[1][mask[1] == 3] = 1
        mask[torch.rand(mask.shape, generator=draw) < 0.2] = task.labels.ignore_index
        mask[2] = task.labels.ignore_index
        return torch.randn(images, 4, 5, 6, generator=draw), {**batch, "mask": mask}
    if task.label == "label":
        return torch.randn(images, 4, generator=draw), {
            **batch,
            "label": torch.randint(0, 4, (images,), generator=draw),
        }
    there = torch.rand(images, 4, generator=draw) < 0.4
    return torch.randn(images, 4, generator=draw), {**batch, "multilabel": there.float()}


def elements(task: Task, logits: Tensor, batch: Batch) -> list[tuple[list[float], int]]:
    """Logits and class of each pixel or image that counts."""
    if task.label == "label":
        return list(zip(logits.double().tolist(), batch["label"].tolist(), strict=True))
    flat = logits.double().permute(0, 2, 3, 1).reshape(-1, 4).tolist()
    return [(v, t) for v, t in zip(flat, batch["mask"].flatten().tolist(), strict=True) if t not in task.ignored]


def softmax(values: list[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


def slow_elements(
    task: Task, logits: Tensor, batch: Batch, weights: list[float], smoothing: float, gamma: float
) -> Any:
    total = count = 0.0
    for values, true in elements(task, logits, batch):
        p = softmax(values)
        spread = sum(-w * math.log(q) for w, q in zip(weights, p, strict=True)) / len(p)
        sure = -weights[true] * math.log(p[true]) * (1 - p[true]) ** gamma
        total += (1 - smoothing) * sure + smoothing * spread
        count += weights[true]
    return total, count


def slow_labels(logits: Tensor, batch: Batch, weights: list[float], smoothing: float, gamma: float) -> Any:
    total = count = 0.0
    for values, truth in zip(logits.double().tolist(), batch["multilabel"].tolist(), strict=True):
        for value, there, weight in zip(values, truth, weights, strict=True):
            yes = 1 / (1 + math.exp(-value))
            wanted = there * (1 - smoothing) + smoothing / 2
            right = yes if there else 1 - yes
            total -= weight * (1 - right) ** gamma * (wanted * math.log(yes) + (1 - wanted) * math.log(1 - yes))
            count += weight
    return total, count


def slow_image(kind: type[Loss], said: list[list[float]], true: list[int], smooth: float, which: int) -> float:
    """Of one class of one image, from the probabilities and classes of the pixels that count."""
    here = [1.0 if t == which else 0.0 for t in true]
    p = [pixel[which] for pixel in said]
    both = sum(a * b for a, b in zip(p, here, strict=True))
    if kind is Dice:
        return 1 - (2 * both + smooth) / (sum(p) + sum(here) + smooth)
    if kind is Jaccard:
        return 1 - (both + smooth) / (sum(p) + sum(here) - both + smooth)
    total, before = 0.0, 0.0
    wrong: list[int] = []
    for place in sorted(range(len(p)), key=lambda i: -abs(here[i] - p[i])):  # the sets of the Lovasz extension, in turn
        wrong.append(place)
        missed = sum(here[i] for i in wrong)
        union = sum(here) + sum(1 - here[i] for i in wrong)
        lost = 1 - (sum(here) - missed) / union
        total, before = total + abs(here[place] - p[place]) * (lost - before), lost
    return total


def slow_overlap(
    task: Task, kind: type[Loss], logits: Tensor, batch: Batch, weights: list[float], smooth: float
) -> Any:
    total, count = 0.0, 0
    for image, mask in zip(logits, batch["mask"], strict=True):
        pixels = elements(task, image[None], {"mask": mask[None]})
        said, true = [softmax(values) for values, _ in pixels], [t for _, t in pixels]
        has = {which: weights[which] for which in sorted(set(true))}
        if sum(has.values()):
            each = sum(w * slow_image(kind, said, true, smooth, which) for which, w in has.items())
            total, count = total + each / sum(has.values()), count + 1
    return total, count


WAYS = [(255, None), (-1, ["no data"]), (0, ["forest"]), (255, ["no data"])]
each_way = pytest.mark.parametrize(("own", "ignore"), WAYS)
each_weights = pytest.mark.parametrize("weights", [None, WEIGHTS])


@each_way
@each_weights
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_pixels_is_a_slow_sum_and_torchs_own(
    own: int, ignore: Any, weights: Any, smoothing: float
) -> None:
    task = segmentation(own, ignore)
    logits, batch = make(task)
    loss = CrossEntropy(task, smoothing, weights)
    total, count = slow_elements(task, logits, batch, weights or [1.0] * 4, smoothing, 0)
    assert loss.loss_sum(logits, batch).item() == pytest.approx(total, rel=1e-5)
    assert loss.count(batch).item() == pytest.approx(count, rel=1e-6)
    counted = torch.where(torch.isin(batch["mask"], torch.tensor(task.ignored)), -100, batch["mask"])
    torchs = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
    torch.testing.assert_close(loss.loss_sum(logits, batch) / loss.count(batch), torchs(logits, counted))


@pytest.mark.parametrize("task", [segmentation(), Classification(LABELS), MultiLabel(LABELS)])
def test_cross_entropy_as_it_comes_is_the_tasks_own_loss(task: Task) -> None:
    logits, batch = make(task)
    loss = CrossEntropy(task)
    assert torch.equal(loss.loss_sum(logits, batch), task.loss_sum(logits, batch))
    assert loss.count(batch).item() == task.count(batch).item()


@each_weights
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_a_slow_sum_of_pixels_and_of_images(weights: Any, gamma: float) -> None:
    for task in (segmentation(255, ["field"]), Classification(LABELS)):
        logits, batch = make(task)
        loss = Focal(task, gamma, weights)
        total, count = slow_elements(task, logits, batch, weights or [1.0] * 4, 0.0, gamma)
        assert loss.loss_sum(logits, batch).item() == pytest.approx(total, rel=1e-5)
        assert loss.count(batch).item() == pytest.approx(count, rel=1e-6)


@each_weights
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.3, 0.0), (0.0, 2.0)])
def test_losses_of_labels_are_slow_sums(weights: Any, smoothing: float, gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    task = MultiLabel(LABELS)
    logits, batch = make(task)
    loss = Focal(task, gamma, weights) if gamma else CrossEntropy(task, smoothing, weights)
    total, count = slow_labels(logits, batch, weights or [1.0] * 4, smoothing, gamma)
    assert loss.loss_sum(logits, batch).item() == pytest.approx(total, rel=1e-5)
    assert loss.count(batch).item() == pytest.approx(count, rel=1e-6)
    if gamma and weights is None:
        torchs = sigmoid_focal_loss(logits, batch["multilabel"], alpha=-1, gamma=gamma, reduction="sum")
        torch.testing.assert_close(loss.loss_sum(logits, batch), torchs)


@each_way
@each_weights
@pytest.mark.parametrize(("kind", "smooth"), [(Dice, 0.0), (Dice, 1.0), (Jaccard, 0.0), (Jaccard, 1.0), (Lovasz, 0.0)])
def test_losses_of_overlap_are_slow_sums_over_images(
    own: int, ignore: Any, weights: Any, kind: type, smooth: float
) -> None:
    task = segmentation(own, ignore)
    logits, batch = make(task)
    loss = kind(task, weights=weights) if kind is Lovasz else kind(task, smooth, weights)
    total, count = slow_overlap(task, kind, logits, batch, weights or [1.0] * 4, smooth)
    assert loss.loss_sum(logits, batch).item() == pytest.approx(total, rel=1e-5)
    assert loss.count(batch).item() == count
    assert count < 5  # one image has nothing


@pytest.mark.parametrize("kind", [Dice, Jaccard, Lovasz])
def test_losses_of_overlap_are_those_of_segmentation_models_pytorch_on_each_image(kind: type) -> None:
    """Which leaves out of its mean no class that an image lacks: here weights of 0 do it (Lovasz does it itself)."""
    from segmentation_models_pytorch.losses import DiceLoss, JaccardLoss, LovaszLoss

    task = segmentation()
    logits, batch = make(task)
    for image, mask in zip(logits, batch["mask"], strict=True):
        if (mask == 255).all():
            continue
        has = [float((mask == which).any()) for which in range(4)]
        if kind is Lovasz:
            theirs = LovaszLoss("multiclass", per_image=True, ignore_index=255)
        else:
            theirs = {Dice: DiceLoss, Jaccard: JaccardLoss}[kind]("multiclass", ignore_index=255, class_weights=has)
        ours = kind(task).loss_sum(image[None], {"mask": mask[None]})
        torch.testing.assert_close(ours, theirs(image[None], mask[None]))


def test_a_sure_and_right_answer_has_no_loss_and_lovasz_of_sure_answers_is_the_iou() -> None:
    task = segmentation()
    _, batch = make(task)
    truth = batch["mask"].masked_fill(batch["mask"] == 255, 0)
    right = 200.0 * torch.nn.functional.one_hot(truth, 4).permute(0, 3, 1, 2)
    for kind in (CrossEntropy, Focal, Dice, Jaccard, Lovasz):
        assert kind(task).loss_sum(right, batch).item() == pytest.approx(0, abs=1e-6)
    sure = right.roll(1, 0)
    said, total = sure.argmax(1), 0.0
    for answer, mask in zip(said, batch["mask"], strict=True):
        valid, lost = mask != 255, []
        for which in mask[valid].unique():
            both = ((answer == which) & (mask == which)).sum()
            lost.append(1 - float(both / (valid & ((answer == which) | (mask == which))).sum()))
        total += sum(lost) / len(lost) if lost else 0
    assert Lovasz(task).loss_sum(sure, batch).item() == pytest.approx(total, rel=1e-5)
    assert Jaccard(task).loss_sum(sure, batch).item() == pytest.approx(total, rel=1e-5)


def every(task: Task) -> list[Loss]:
    kinds: list[Loss] = [CrossEntropy(task, 0.1, list(WEIGHTS)), Focal(task), Focal(task, 0.5, list(WEIGHTS))]
    if task.label == "mask":
        kinds += [Dice(task), Jaccard(task, 1.0, list(WEIGHTS)), Lovasz(task), Combined(task)]
        kinds += [Combined(task, [{"name": "lovasz", "factor": 0.5}, {"name": "focal", "weights": list(WEIGHTS)}])]
    return kinds


@pytest.mark.parametrize("task", [segmentation(0, ["forest"]), Classification(LABELS), MultiLabel(LABELS)])
@pytest.mark.parametrize("ends", [(5,), (1, 5), (1, 2, 3, 4, 5), (3, 5)])
def test_loss_and_gradient_are_the_same_however_the_batch_is_cut(task: Task, ends: tuple[int, ...]) -> None:
    logits, batch = make(task)
    for loss in every(task):
        whole, parts = (logits.double().requires_grad_() for _ in range(2))
        mean = (loss.loss_sum(whole, batch) / loss.count(batch)).sum()
        mean.backward()
        pieces = [
            (parts[a:b], {name: value[a:b] for name, value in batch.items()})
            for a, b in zip((0, *ends), ends, strict=False)
        ]
        count = torch.stack([loss.count(piece) for _, piece in pieces]).sum(0)
        cut = (torch.stack([loss.loss_sum(part, piece) for part, piece in pieces]).sum(0) / count).sum()
        cut.backward()
        assert cut.item() == pytest.approx(mean.item(), rel=1e-6)
        torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-6, atol=1e-9)


@each_way
def test_ignored_pixels_have_no_gradient_and_those_that_count_have(own: int, ignore: Any) -> None:
    task = segmentation(own, ignore)
    logits, batch = make(task)
    nothing = torch.isin(batch["mask"], torch.tensor(task.ignored))
    for loss in (CrossEntropy(task, 0.1), Focal(task), Dice(task), Jaccard(task), Lovasz(task), Combined(task)):
        leaf = logits.clone().requires_grad_()
        loss.loss_sum(leaf, batch).sum().backward()
        assert leaf.grad is not None
        assert torch.equal(leaf.grad.abs().sum(1) == 0, nothing), loss.name
        other = torch.where(nothing[:, None], 9.0, logits)
        torch.testing.assert_close(loss.loss_sum(other, batch), loss.loss_sum(logits, batch))


def test_a_batch_of_nothing_has_no_loss_no_count_and_no_gradient() -> None:
    task = segmentation()
    logits, batch = make(task)
    batch["mask"] = torch.full_like(batch["mask"], 255)
    for loss in every(task):
        leaf = logits.clone().requires_grad_()
        loss.loss_sum(leaf, batch).sum().backward()
        assert not loss.loss_sum(logits, batch).any()
        assert not loss.count(batch).any()
        assert not leaf.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("task", [segmentation(), Classification(LABELS), MultiLabel(LABELS)])
def test_huge_logits_and_half_precision_are_summed_in_single_without_a_nan(task: Task) -> None:
    logits, batch = make(task)
    for loss in every(task):
        for values in (logits * 1e4, logits.bfloat16()):
            leaf = values.clone().requires_grad_()
            found = loss.loss_sum(leaf, batch)
            found.sum().backward()
            assert found.dtype == torch.float32
            assert bool(found.isfinite().all())
            assert bool(leaf.grad.isfinite().all())  # type: ignore[union-attr]


def test_a_combination_is_the_sum_of_its_parts_means() -> None:
    task = segmentation()
    logits, batch = make(task)
    loss = Combined(task, [{"name": "cross_entropy", "smoothing": 0.1, "factor": 2}, {"name": "lovasz", "factor": 0.5}])
    means = [part.loss_sum(logits, batch) / part.count(batch) for part in (CrossEntropy(task, 0.1), Lovasz(task))]
    assert loss.parts == 2
    assert (loss.loss_sum(logits, batch) / loss.count(batch)).sum().item() == pytest.approx(
        (2 * means[0] + 0.5 * means[1]).item(), rel=1e-6
    )


# --- weights of the labels


def frequencies(task: Task, batches: list[Batch]) -> list[int]:
    counts = [0] * 4
    for batch in batches:
        if task.label == "multilabel":
            for row in batch["multilabel"].tolist():
                counts = [n + int(there) for n, there in zip(counts, row, strict=True)]
        else:
            for value in batch[task.label].flatten().tolist():
                if task.label == "label" or value not in task.ignored:
                    counts[value] += 1
    return counts


@pytest.mark.parametrize(("rule", "power"), [("inverse", 1.0), ("inverse_sqrt", 0.5)])
@pytest.mark.parametrize(
    "task", [segmentation(255, ["water"]), segmentation(0), Classification(LABELS), MultiLabel(LABELS)]
)
def test_weights_fall_with_how_often_the_training_labels_have_a_class(task: Task, rule: Any, power: float) -> None:
    batches = [make(task, seed)[1] for seed in range(3)]
    for batch in batches:  # a class that none has
        if task.label == "multilabel":
            batch["multilabel"][:, 3] = 0
        else:
            batch[task.label][batch[task.label] == 3] = 2
    loss, counts = Focal(task, weights=rule), frequencies(task, batches)
    loss.learn(iter(batches))
    assert loss.weights is not None
    weights = loss.weights.tolist()
    assert counts[3] == 0
    seen = [which for which, n in enumerate(counts) if n]
    for one in seen:
        for other in seen:
            assert weights[one] / weights[other] == pytest.approx((counts[other] / counts[one]) ** power, rel=1e-5)
    assert all(weights[which] == 0 for which, n in enumerate(counts) if not n)
    assert sum(n * w for n, w in zip(counts, weights, strict=True)) == pytest.approx(sum(counts), rel=1e-5)
    if rule == "inverse":
        assert weights[seen[0]] == pytest.approx(sum(counts) / (len(seen) * counts[seen[0]]), rel=1e-5)


def test_given_weights_and_none_learn_nothing() -> None:
    task = Classification(LABELS)
    loss, plain = Focal(task, weights=list(WEIGHTS)), Focal(task)
    for one in (loss, plain):
        one.learn(batch for batch in [{"label": torch.tensor([99])}])  # which would be refused
    assert loss.weights is not None
    assert loss.weights.tolist() == pytest.approx(WEIGHTS)
    assert plain.weights is None
    assert not plain.state_dict()


def test_labels_without_a_class_that_counts_give_no_weights() -> None:
    task = segmentation()
    with pytest.raises(UserError, match="no training label"):
        Dice(task, weights="inverse").learn([{"id": ["a"], "mask": torch.full((1, 2, 2), 255)}])


# --- what is refused


@pytest.mark.parametrize(
    ("task", "make_loss", "says"),
    [
        (Classification(LABELS), Dice, r"loss=dice is for task=segmentation: for task=classification set loss=own"),
        (MultiLabel(LABELS), Lovasz, r"loss=lovasz is for task=segmentation: for task=multilabel"),
        (Regression(LABELS), Focal, r"loss=focal is for task=segmentation or .*: for task=regression"),
        (PixelRegression(LABELS), Combined, r"loss=combined is for .*: for task=pixel_regression"),
        (
            segmentation(),
            lambda t: Dice(t, weights=[1.0, 2.0]),
            r"loss.weights has 2 numbers: .* 4 classes.*no data, water",
        ),
        (segmentation(), lambda t: Dice(t, weights=[0.0] * 4), r"loss.weights has 4 numbers: give one above 0"),
        (
            segmentation(),
            lambda t: Dice(t, weights="often"),
            r"loss.weights is 'often': it must be inverse or inverse_sqrt",
        ),
        (segmentation(), lambda t: Focal(t, gamma=-1), r"loss.gamma is -1: it must be a number of 0 or more"),
        (
            segmentation(),
            lambda t: Combined(t, [{"name": "dise"}]),
            r"loss.parts.0.name is 'dise': .*did you mean dice",
        ),
        (
            segmentation(),
            lambda t: Combined(t, [{"name": "dice", "factor": 0}]),
            r"loss.parts.0.factor is 0: it must be",
        ),
        (
            segmentation(),
            lambda t: Combined(t, [{"name": "dice", "gamma": 1}]),
            r"dice has no setting gamma: it has factor, smooth",
        ),
        (Classification(LABELS), lambda t: Combined(t, [{"name": "dice"}]), r"loss=dice is for task=segmentation"),
        (segmentation(), lambda t: Combined(t, []), r"loss.parts is \[\]: it must be a list of \{name: dice"),
    ],
)
def test_what_cannot_be_is_one_line(task: Task, make_loss: Callable[[Task], Loss], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        make_loss(task)
    assert "\n" not in str(refused.value)
