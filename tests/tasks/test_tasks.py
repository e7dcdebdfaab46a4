from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.tasks import Classification, MultiLabel, Regression, Segmentation

CLASSES, COLOURS = ("water", "forest", "field", "town"), ("#0000ff", "#00ff00", "#ffff00", "#ff0000")
LABELS = Labels(CLASSES, COLOURS)


def make(task, samples=6, size=(5, 4)):
    """Random logits and a batch that fits the task, with every class in it."""
    batch = {"id": [f"scene-{i}" for i in range(samples)]}
    if task is Segmentation:
        mask = torch.randint(0, 4, (samples, *size))
        mask[torch.rand(mask.shape) < 0.3] = 255
        mask[0, 0, :4] = torch.arange(4)
        return torch.randn(samples, 4, *size), {**batch, "mask": mask}
    if task is Classification:
        return torch.randn(samples, 4), {**batch, "label": torch.randint(0, 4, (samples,))}
    if task is MultiLabel:
        return torch.randn(samples, 4), {**batch, "multilabel": torch.randint(0, 2, (samples, 4)).float()}
    return torch.randn(samples, 1) * 3, {**batch, "target": torch.randn(samples)}


def cut(logits, batch, start, stop):
    return logits[start:stop], {key: value[start:stop] for key, value in batch.items()}


def scores(task, parts):
    """Scores of batches given one after the other, as the evaluation does it."""
    metrics = task.metrics()
    for logits, batch in parts:
        task.update(metrics, logits, batch)
    return {name: float(value) for name, value in metrics.compute().items()}


TASKS = [Segmentation, Classification, MultiLabel, Regression]
each_task = pytest.mark.parametrize("kind", TASKS)


# --- losses


def cross_entropy(logits, target):
    return math.log(sum(math.exp(v) for v in logits)) - logits[target]


def slow_loss(kind, logits, batch):
    """Sum and count in float64, one element after the other."""
    total, count = 0.0, 0
    logits = logits.double().tolist()
    for i, sample in enumerate(logits):
        if kind is Segmentation:
            for row, line in enumerate(batch["mask"][i].tolist()):
                for column, target in enumerate(line):
                    if target != 255:
                        total += cross_entropy([channel[row][column] for channel in sample], target)
                        count += 1
        elif kind is Classification:
            total, count = total + cross_entropy(sample, int(batch["label"][i])), count + 1
        elif kind is MultiLabel:
            for logit, there in zip(sample, batch["multilabel"][i].tolist(), strict=True):
                probability = 1 / (1 + math.exp(-logit))
                total -= math.log(probability if there else 1 - probability)
                count += 1
        else:
            total, count = total + (sample[0] - float(batch["target"][i])) ** 2, count + 1
    return total, count


@each_task
def test_loss_agrees_with_a_slow_sum_and_count(kind):
    task = kind(LABELS)
    logits, batch = make(kind)
    total, count = slow_loss(kind, logits, batch)
    assert task.loss_sum(logits, batch).item() == pytest.approx(total, rel=1e-5)
    assert task.count(batch).item() == count
    assert task.loss_sum(logits, batch).ndim == task.count(batch).ndim == 0


@each_task
@pytest.mark.parametrize("ends", [(6,), (1, 6), (1, 2, 3, 4, 5, 6), (4, 6)])
def test_loss_and_gradient_are_the_same_however_the_batch_is_cut(kind, ends):
    task = kind(LABELS)
    logits, batch = make(kind)
    logits = logits.double()
    total, count = slow_loss(kind, logits, batch)
    whole = logits.clone().requires_grad_()
    (task.loss_sum(whole, batch) / task.count(batch)).backward()
    parts = logits.clone().requires_grad_()
    pieces = [cut(parts, batch, a, b) for a, b in zip((0, *ends), ends, strict=False)]
    counted = sum(task.count(piece) for _, piece in pieces)
    loss = sum(task.loss_sum(part, piece) for part, piece in pieces) / counted
    loss.backward()
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(parts.grad, whole.grad)


@each_task
def test_loss_of_half_precision_logits_is_summed_in_single(kind):
    task = kind(LABELS)
    logits, batch = make(kind)
    half = logits.to(torch.bfloat16)
    loss = task.loss_sum(half, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(kind, half, batch)[0], rel=1e-5)


@each_task
def test_loss_of_huge_logits_is_finite(kind):
    task = kind(LABELS)
    logits, batch = make(kind)
    logits = (logits * 1e4).requires_grad_()
    loss = task.loss_sum(logits, batch)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())


def test_segmentation_batch_of_ignored_pixels_has_no_loss_no_count_and_no_gradient():
    task = Segmentation(LABELS)
    logits, batch = make(Segmentation)
    logits.requires_grad_()
    batch["mask"] = torch.full_like(batch["mask"], 255)
    loss = task.loss_sum(logits, batch)
    loss.backward()
    assert loss.item() == 0.0
    assert task.count(batch).item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_segmentation_ignored_pixels_have_no_gradient_and_the_others_have():
    logits, batch = make(Segmentation)
    logits.requires_grad_()
    Segmentation(LABELS).loss_sum(logits, batch).backward()
    assert torch.equal(logits.grad.abs().sum(1) == 0, batch["mask"] == 255)


# --- metrics


@each_task
def test_the_metric_that_chooses_the_checkpoint_is_among_the_metrics(kind):
    task = kind(LABELS)
    assert task.monitor in task.metrics()


@each_task
def test_metrics_of_a_perfect_prediction_are_one(kind):
    task = kind(LABELS)
    _, batch = make(kind)
    truth = batch[task.label]
    if kind is Segmentation:
        logits = torch.nn.functional.one_hot(truth.clamp_max(3), 4).movedim(-1, 1).float()
    elif kind is Classification:
        logits = torch.nn.functional.one_hot(truth, 4).float()
    else:
        logits = truth * 2 - 1 if kind is MultiLabel else truth[:, None]
    perfect = scores(task, [(logits, batch)])
    assert perfect.pop("rmse", 0.0) == pytest.approx(0.0)
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0))


def in_three(logits, batch):
    return [cut(logits, batch, a, b) for a, b in ((0, 1), (1, 4), (4, len(batch["id"])))]


def iou_by_hand(truth, predicted, classes):
    """Mean over the classes seen in truth or prediction of intersection / union, pixel by pixel."""
    both, either = [0] * classes, [0] * classes
    for t, p in zip(truth, predicted, strict=True):
        for c in {t, p}:
            either[c] += 1
            both[c] += t == p
    return float(np.mean([b / e for b, e in zip(both, either, strict=True) if e]))


@pytest.mark.parametrize("absent", [None, "in truth", "in both"])
@pytest.mark.parametrize("ignore", [255, -1])
def test_segmentation_scores_agree_with_scikit_learn_on_the_pixels_that_count(absent, ignore):
    task = Segmentation(Labels(CLASSES, COLOURS, ignore))
    logits, batch = make(Segmentation, size=(8, 7))
    mask = batch["mask"]
    if absent:
        mask[mask == 2] = 1
    if absent == "in both":
        logits[:, 2] = -9
    counts = mask != 255
    mask[~counts] = ignore
    truth, predicted = mask[counts].tolist(), logits.argmax(1)[counts].tolist()
    found = scores(task, in_three(logits, batch))
    assert found["miou"] == pytest.approx(iou_by_hand(truth, predicted, 4), abs=1e-6)
    assert found["miou"] == pytest.approx(sk.jaccard_score(truth, predicted, average="macro"), abs=1e-6)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-6)


def test_segmentation_with_a_class_as_the_ignore_value_averages_over_the_other_classes():
    task = Segmentation(Labels(CLASSES, COLOURS, ignore_index=0))
    logits, batch = make(Segmentation, size=(8, 7))
    batch["mask"][batch["mask"] == 255] = 0
    counts = batch["mask"] != 0
    truth, predicted = batch["mask"][counts].tolist(), logits.argmax(1)[counts].tolist()
    found = scores(task, in_three(logits, batch))
    expected = sk.jaccard_score(truth, predicted, labels=[1, 2, 3], average="macro")
    assert found["miou"] == pytest.approx(expected, abs=1e-6)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-6)


def test_segmentation_batch_of_ignored_pixels_leaves_the_scores_as_they_are():
    task = Segmentation(LABELS)
    logits, batch = make(Segmentation)
    other, ignored = make(Segmentation)
    ignored["mask"] = torch.full_like(ignored["mask"], 255)
    assert scores(task, [(logits, batch), (other, ignored)]) == scores(task, [(logits, batch)])


def harmonic_mean(one, other):
    return 2 * one * other / (one + other)


@pytest.mark.parametrize("absent", [False, True])
def test_classification_scores_agree_with_scikit_learn(absent):
    task = Classification(LABELS)
    logits, batch = make(Classification, samples=40)
    if absent:
        batch["label"][batch["label"] == 2] = 1
        logits[:, 2] = -9
    truth, predicted = batch["label"].numpy(), logits.argmax(1).numpy()
    over = {"labels": range(4), "average": "macro", "zero_division": 0}
    assert scores(task, in_three(logits, batch)) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, predicted),
            "macro_f1": sk.f1_score(truth, predicted, average="macro"),
            "micro_f1": sk.f1_score(truth, predicted, average="micro"),
            "released_f1": harmonic_mean(*sk.precision_recall_fscore_support(truth, predicted, **over)[:2]),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("absent", [False, True])
def test_multilabel_scores_agree_with_scikit_learn(absent):
    task = MultiLabel(LABELS)
    logits, batch = make(MultiLabel, samples=40)
    if absent:
        batch["multilabel"][:, 2] = 0
        logits[:, 2] = -9
    truth, predicted = batch["multilabel"].numpy().astype(int), (logits.numpy() > 0).astype(int)
    assert scores(task, in_three(logits, batch)) == pytest.approx(
        {
            "accuracy": float((truth == predicted).mean()),
            "macro_f1": sk.f1_score(truth, predicted, average="macro", zero_division=0),
            "micro_f1": sk.f1_score(truth, predicted, average="micro"),
        },
        abs=1e-6,
    )


def test_regression_scores_agree_with_scikit_learn():
    task = Regression(LABELS)
    logits, batch = make(Regression, samples=40)
    truth, predicted = batch["target"].numpy(), logits[:, 0].numpy()
    assert scores(task, in_three(logits, batch)) == pytest.approx(
        {"r2": sk.r2_score(truth, predicted), "rmse": sk.root_mean_squared_error(truth, predicted)}, rel=1e-5
    )


def test_regression_score_of_targets_far_from_zero_agrees_with_scikit_learn():
    task = Regression(LABELS)
    logits, batch = make(Regression, samples=500)
    batch["target"] += 2000.0  # years, metres
    logits = batch["target"][:, None] + logits * 0.1
    expected = sk.r2_score(batch["target"].double().numpy(), logits[:, 0].double().numpy())
    assert scores(task, in_three(logits, batch))["r2"] == pytest.approx(expected, abs=1e-3)


# --- predictions


def test_predictions_are_the_class_with_the_highest_logit():
    for kind in (Segmentation, Classification):
        logits, _ = make(kind)
        assert torch.equal(kind(LABELS).predict(logits), torch.from_numpy(logits.numpy().argmax(1)))


def test_multilabel_predicts_the_classes_of_a_probability_above_a_half():
    logits, _ = make(MultiLabel)
    expected = (1 / (1 + np.exp(-logits.double().numpy())) > 0.5).astype(np.int64)
    assert torch.equal(MultiLabel(LABELS).predict(logits), torch.from_numpy(expected))


def test_regression_has_one_output_and_predicts_it():
    task = Regression(LABELS)
    logits, batch = make(Regression)
    assert task.outputs == 1
    assert task.predict(logits).shape == batch["target"].shape
    assert torch.equal(task.predict(logits), logits[:, 0])


def test_tasks_of_classes_have_an_output_for_each():
    assert [kind(LABELS).outputs for kind in (Segmentation, Classification, MultiLabel)] == [4, 4, 4]


def test_only_segmentation_is_dense_and_wants_the_size_of_its_mask():
    assert [kind.dense for kind in TASKS] == [True, False, False, False]
    assert Segmentation(LABELS).size(make(Segmentation, size=(5, 4))[1]) == (5, 4)
    assert Classification(LABELS).size(make(Classification)[1]) is None


# --- labels that do not fit


@each_task
def test_labels_in_range_pass_the_check_and_are_the_truth(kind):
    task = kind(LABELS)
    _, batch = make(kind)
    task.check(batch)
    assert task.truth(batch) is batch[task.label]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Segmentation, 4, r"mask holds 4, but task=segmentation allows 0 to 3 and 255"),
        (Segmentation, -1, r"mask holds -1, but task=segmentation allows 0 to 3 and 255"),
        (Segmentation, 254, r"mask holds 254, "),
        (Classification, 4, r"label holds 4, but task=classification allows 0 to 3"),
        (Classification, -1, r"label holds -1, "),
        (Classification, 255, r"label holds 255, "),
        (MultiLabel, 0.5, r"multilabel holds 0\.5, but task=multilabel allows 0 and 1"),
        (MultiLabel, 2, r"multilabel holds 2\.0, "),
        (MultiLabel, math.nan, r"multilabel holds nan, "),
        (Regression, math.nan, r"target holds nan, but task=regression allows finite numbers"),
        (Regression, -math.inf, r"target holds -inf, "),
    ],
)
def test_a_label_out_of_range_is_an_error_that_names_sample_and_value(kind, value, message):
    task = kind(LABELS)
    _, batch = make(kind)
    place = {Segmentation: (3, 2, 1), MultiLabel: (3, 2)}.get(kind, (3,))
    batch[task.label][place] = value
    with pytest.raises(UserError, match=f"^sample scene-3: {message}"):
        task.check(batch)


def test_the_first_of_several_bad_samples_is_named():
    _, batch = make(Segmentation)
    batch["mask"][4, 0, 0] = 9
    batch["mask"][2, 4, 3] = 7
    with pytest.raises(UserError, match="sample scene-2: mask holds 7"):
        Segmentation(LABELS).check(batch)


@each_task
def test_data_without_the_label_of_the_task_is_an_error_that_says_what_it_has(kind):
    task = kind(LABELS)
    other = Classification if kind is not Classification else Regression
    _, batch = make(other)
    has = other(LABELS).label
    message = f"task={task.name} learns '{task.label}', but the data only has {has}: set task={other.name}$"
    for use in (task.truth, task.check, task.count):
        with pytest.raises(UserError, match=message):
            use(batch)


@pytest.mark.parametrize(
    ("batch", "task"),
    [
        ({"label": torch.zeros(2)}, "classification"),
        ({"multilabel": torch.zeros(2, 4)}, "multilabel"),
        ({"target": torch.zeros(2)}, "regression"),
        ({"target": torch.zeros(2, 8, 8)}, "pixel_regression"),
        ({"label": torch.zeros(2), "multilabel": torch.zeros(2, 4)}, "classification or task=multilabel"),
    ],
)
def test_the_tasks_of_the_labels_that_are_there_are_named(batch, task):
    with pytest.raises(UserError, match=f": set task={task}$"):
        Segmentation(LABELS).truth(batch)


def test_data_without_any_label_is_an_error_that_says_so():
    with pytest.raises(UserError, match="task=regression learns 'target', but the data only has no labels"):
        Regression(LABELS).truth({"id": ["a"]})


# --- descriptions and drawings


def test_answers_for_an_image_are_described_in_words():
    assert Classification(LABELS).describe(torch.tensor(3)) == "town"
    assert MultiLabel(LABELS).describe(torch.tensor([1, 0, 0, 1])) == "water\ntown"
    assert MultiLabel(LABELS).describe(torch.zeros(4)) == ""
    assert Regression(LABELS).describe(torch.tensor(1.239)) == "1.24"


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


@pytest.mark.parametrize("ignore", [255, -1, -100])
def test_segmentation_draws_each_class_in_its_colour_and_ignored_pixels_in_black(axes, ignore):
    value = torch.tensor([[0, 1, 2], [3, ignore, 0]])
    Segmentation(Labels(CLASSES, COLOURS, ignore)).draw(axes, value)
    (image,) = axes.images
    blue, green, yellow, red, black = (0, 0, 1), (0, 1, 0), (1, 1, 0), (1, 0, 0), (0, 0, 0)
    drawn = [[tuple(pixel) for pixel in row] for row in np.asarray(image.get_array()).tolist()]
    assert drawn == [[blue, green, yellow], [red, black, blue]]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [(Classification, torch.tensor(1), "forest"), (Regression, torch.tensor(0.5), "0.50")],
)
def test_answers_for_an_image_are_drawn_as_text(axes, kind, value, text):
    kind(LABELS).draw(axes, value)
    assert [drawn.get_text() for drawn in axes.texts] == [text]


# --- scores from sums over samples


@each_task
@pytest.mark.parametrize("absent", [False, True])
def test_scores_of_summed_statistics_are_the_metrics(kind, absent):
    task = kind(LABELS)
    logits, batch = make(kind, samples=9)
    if absent and kind is not Regression:  # one class is never true and never said
        logits[:, 2] = -100.0
        batch[task.label][batch[task.label] == 2] = 1
        if kind is MultiLabel:
            batch["multilabel"][:, 2] = 0
    sums = task.statistics(task.predict(logits).numpy(), batch[task.label].numpy()).sum(0)
    found = {name: float(value) for name, value in task.scores(sums).items()}
    assert found == pytest.approx(scores(task, [(logits, batch)]), rel=1e-5, abs=1e-6)


@each_task
def test_scores_of_many_sums_at_once_are_those_of_each(kind):
    task = kind(LABELS)
    logits, batch = make(kind, samples=12)
    rows = task.statistics(task.predict(logits).numpy(), batch[task.label].numpy())
    picks = np.random.default_rng(0).integers(0, 12, (2, 5, 12))
    together = task.scores(rows[picks].sum(2))
    for i, j in np.ndindex(2, 5):
        cut_logits, cut_batch = logits[picks[i, j]], {k: v[picks[i, j]] for k, v in batch.items() if k == task.label}
        one = scores(task, [(cut_logits, cut_batch)])
        assert {name: value[i, j] for name, value in together.items()} == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_statistics_of_a_class_that_is_the_ignore_value_are_the_metrics():
    task = Segmentation(Labels(CLASSES, COLOURS, ignore_index=0))
    logits, batch = make(Segmentation)
    batch["mask"][batch["mask"] == 255] = 0
    sums = task.statistics(task.predict(logits).numpy(), batch["mask"].numpy()).sum(0)
    found = {name: float(value) for name, value in task.scores(sums).items()}
    assert found == pytest.approx(scores(task, [(logits, batch)]), rel=1e-5)


def test_regression_statistics_of_one_repeated_value_have_no_r2():
    task = Regression(LABELS)
    rows = task.statistics(np.array([0.1, 0.4, 0.3]), np.array([0.2, 0.5, 0.9]))
    assert np.isnan(task.scores(rows[[1, 1, 1]].sum(0))["r2"])


@pytest.mark.parametrize(("kind", "least"), [(Segmentation, 2), (Classification, 2), (MultiLabel, 2), (Regression, 0)])
def test_too_few_classes_are_one_line_that_names_the_task(kind, least):
    for count in range(3):
        labels = Labels(CLASSES[:count], COLOURS[:count])
        if count >= least:
            assert kind(labels).metrics() is not None
            continue
        with pytest.raises(
            UserError, match=f"task={kind.name} needs {least} classes or more, .* have {count}"
        ) as caught:
            kind(labels)
        assert all(name in str(caught.value) for name in (*labels.classes, "data.classes"))
