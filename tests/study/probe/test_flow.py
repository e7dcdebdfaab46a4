"""A study as a whole: budgets, seeds, going on after a kill, a folder for one set of settings, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.data.splits.budgets import budget_size, label_shares, order, within_budget
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Probed
from satdifuser.store import FeatureStore
from satdifuser.study.probe import dense, probed, whole
from satdifuser.study.probe.draws import Answers, Draws
from satdifuser.study.saved import load
from satdifuser.tasks.classification import Classification

Make = Callable[..., Any]
FEW = "probe.strengths=[0.01,1]"


def without_time(found: Probed) -> Any:
    return {**found.__dict__, "about": None}


@pytest.mark.parametrize("percent", [20, 50.0, 100])
def test_a_draw_is_the_budget_that_compare_takes_and_the_same_share_of_validation(
    percent: float, made_store: Callable[..., FeatureStore]
) -> None:
    store = made_store()
    train, val, task = store.split("train"), store.split("val"), Classification(store.labels)
    for seed in (0, 3):
        draw = Draws(task, train, val, 7, True).of(percent, seed)
        expected = within_budget(train, task, percent, 7 + seed)
        assert [train.sample_id(i) for i in draw.train] == [expected.sample_id(i) for i in range(len(expected))]
        first = order(val.ids, label_shares(val, task).values, 7 + seed)[: budget_size(40, percent)]
        assert draw.val.tolist() == sorted(first)
        truth = train.read_labels(range(90))["label"].numpy()
        known = Draws(task, Answers(train.ids, truth, task), val, 7, False).of(percent, seed)
        assert known.train.tolist() == draw.train.tolist()
        assert not len(known.val)


def test_budgets_and_seeds_each_teach_with_their_own_labels(
    made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, taught = made_store(), []
    learn = whole.learn

    def watched(task: Any, probe: str, lesson: Any, *rest: Any) -> Any:
        taught.append((probe, lesson.known, len(lesson.rows), len(lesson.chosen), lesson.truth.tolist()))
        return learn(task, probe, lesson, *rest)

    monkeypatch.setattr(whole, "learn", watched)
    found = probed(settings(f"features={store.path}", FEW, "budgets=[30,100]", "seeds=[0,1]", "select.taps=[blocks.1]"))
    assert [(p.probe, p.budget, p.training) for p in found.points] == [
        *(("logistic", 30.0, 39), ("logistic", 100.0, 130)),
        *(("knn", 30.0, 39), ("knn", 100.0, 130)),
    ]
    logistic = [one[1:] for one in taught if one[0] == "logistic"]
    assert [one[:3] for one in logistic] == [(27, 39, 40), (27, 39, 40), (90, 130, 40)]  # all labels teach once
    assert logistic[0][3] != logistic[1][3]
    for point in found.points:
        seeds = point.scores["accuracy"].seeds
        assert len(seeds) == 2
        assert (point.budget < 100) or seeds[0] == seeds[1]
        assert point.scores["accuracy"].value == pytest.approx(np.mean(seeds))


@pytest.mark.parametrize("label", ["label", "mask"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(
    label: str, after: int, made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, room = made_store(label=label), whole if label == "label" else dense
    chosen = [f"features={store.path}", FEW, "budgets=[60,100]", "probe.pixels=2000"]
    chosen += ["task=segmentation"] if label == "mask" else []
    expected, learn, calls = probed(settings(*chosen, output="whole")), room.learn, []  # type: ignore[attr-defined]

    def killed(*args: Any) -> Any:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(args[1])
        return learn(*args)

    monkeypatch.setattr(room, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        probed(settings(*chosen))
    folder = Path(settings().output)
    assert not (folder / "probe.json").exists()
    with (folder / "points.jsonl").open("a") as file:
        file.write('{"name": "half a li')
    monkeypatch.setattr(room, "learn", lambda *args: calls.append(args[1]) or learn(*args))
    found = probed(settings(*chosen, "probe.workers=2", f"features={store.path}/"))
    assert without_time(found) == without_time(expected)
    assert len(calls) == (8 if label == "label" else 4)  # none twice
    assert not (folder / "work").exists()
    assert load(folder) == found
    for line in (folder / "points.jsonl").read_text().splitlines():
        json.loads(line)


def test_what_is_done_is_read_and_other_settings_are_refused(
    made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made_store()
    chosen = [f"features={store.path}", FEW, "probe.probes=[knn]"]
    found = probed(settings(*chosen))
    monkeypatch.setattr(whole, "learn", lambda *_: pytest.fail("it is done"))
    assert probed(settings(*chosen)) == found
    with pytest.raises(UserError, match=r"out holds probes with another probe\.neighbours: give another output="):
        probed(settings(*chosen, "probe.neighbours=3"))
    with pytest.raises(UserError, match=r"another data\.test|another features|another data"):
        probed(settings(f"features={made_store('other.zarr', timesteps=(3,)).path}", *chosen[1:]))
    monkeypatch.undo()
    other = probed(settings(*chosen, "probe.neighbours=3", "overwrite=true"))
    assert other != found
    assert load(Path(settings().output)) == other


def test_a_damaged_result_and_a_folder_of_something_else_say_so(
    made_store: Callable[..., FeatureStore], settings: Make
) -> None:
    store = made_store()
    chosen = [f"features={store.path}", FEW, "probe.probes=[knn]"]
    probed(settings(*chosen))
    folder = Path(settings().output)
    (folder / "probe.json").write_text("{")
    with pytest.raises(UserError, match=r"probe\.json is damaged"):
        probed(settings(*chosen))
    (folder / "points.jsonl").write_text("nothing\n")
    with pytest.raises(UserError, match=r"points\.jsonl is damaged"):
        probed(settings(*chosen))
    (folder / "points.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds a probe\.json, and not what it was made of"):
        probed(settings(*chosen))
    (folder / "cka.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds what satdifuser cka has found"):
        probed(settings(*chosen))


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["split=val"], r"split=val is one that probes learn"),
        (["split=tests"], r"has no split 'tests'.*did you mean test"),
        (["probe.probes=[ridge]"], r"probe\.probes names ridge, and task=classification is probed by logistic or knn"),
        (["task=segmentation"], r"task=segmentation learns 'mask', but the data only has label"),
        (["probe.neighbours=200"], r"blocks\.0 \(mean, knn, 100 % of the labels\).*probe\.neighbours is 200"),
        (["budgets=[2]"], r"budget: 2.* too few to show"),
        (["probe.views=[class]"], r"needs the class token"),
        (["select.taps=[blocks.7]"], r"blocks\.7"),
        (["output=/proc/nothing"], r"could not be written"),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_line(
    overrides: list[str], error: str, made_store: Callable[..., FeatureStore], settings: Make
) -> None:
    with pytest.raises(UserError, match=error) as raised:
        probed(settings(f"features={made_store().path}", FEW, *overrides))
    assert "\n" not in str(raised.value)


def test_a_split_with_samples_that_probes_learn_from_is_refused(settings: Make) -> None:
    again = "+data.splits.again={split: train, length: 40}"
    with pytest.raises(UserError, match=r"split=again has 40 of its 40 samples in train or val, such as scene-0-"):
        probed(settings("encoder=colours", "data.splits.train.length=60", again, "split=again"))


def test_features_of_several_dates_are_refused(made_store: Callable[..., FeatureStore], settings: Make) -> None:
    with pytest.raises(UserError, match=r"has 2 dates of each sample: probe features of one image"):
        probed(settings("data.dates=2", "encoder=small_vit"))


def test_a_sample_that_is_not_finite_is_named_with_its_place(
    made_store: Callable[..., FeatureStore], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satdifuser.study.probe.views import Column

    rows = Column.rows
    monkeypatch.setattr(
        Column, "rows", lambda self, bank: rows(self, bank).masked_fill(torch.ones(()).bool(), torch.nan)
    )
    with pytest.raises(UserError, match=r"the probe of blocks\.0 \(mean, logistic.*cannot learn: features hold nan"):
        probed(settings(f"features={made_store().path}", FEW))
