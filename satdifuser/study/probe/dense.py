"""Probes of tasks with an answer for each pixel: pixels to files, learn place by place, score all of the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from satdifuser.analysis.linear import Linear
from satdifuser.settings.studies import ProbeConfig
from satdifuser.study.probe.draws import Draws
from satdifuser.study.probe.learning import Learned, Lesson, learn
from satdifuser.study.probe.ledger import Ledger
from satdifuser.study.probe.pixels import Ints, PixelSet, counts, quotas, require_pixels
from satdifuser.study.probe.questions import Plan, Question
from satdifuser.study.probe.rows import GROUP_BYTES, groups
from satdifuser.study.probe.samples import PixelRows
from satdifuser.study.probe.scoring import kept
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.streaming import Scored, score
from satdifuser.study.probe.views import Column
from satdifuser.study.probe.watch import Watch

CHOICE = "choice"  # the name of the pixels that strengths are chosen on


def answer(
    source: Source, columns: list[Column], plan: Plan, config: ProbeConfig, drawn_by: int, ledger: Ledger
) -> float:
    """Every question that the ledger has no answer to; gives what guessing would score."""
    questions = plan.questions(columns)
    if not all(ledger.done(question.name) for question in questions):
        sets, known = _sets(source, plan, config, drawn_by)
        size = 4 * sum(chosen.total for chosen in sets.values())
        limit = 2**62 if source.live else GROUP_BYTES
        for number, some in enumerate(groups(((column, size * column.width) for column in columns), limit)):
            open_ = [question for question in plan.questions(some) if not ledger.done(question.name)]
            if open_:
                rows = PixelRows(ledger.work, source, some, list(sets.values()), number)
                _answer(source, rows, open_, sets, config, ledger, known)
                rows.remove()
    return float(ledger.values[questions[0].name]["chance"])


def _sets(source: Source, plan: Plan, config: ProbeConfig, drawn_by: int) -> tuple[dict[Any, PixelSet], Ints]:
    """The pixels that each draw learns from, and those that strengths are chosen on; and what train has of classes."""
    task, train, val = source.task, source.splits["train"], source.splits["val"]
    there = {role: counts(task, source.splits[role], config.workers) for role in ("train", "val")}
    for role, each in there.items():
        require_pixels(each, role, task)
    draws = Draws(task, train, val, drawn_by, config.refit, config.workers)
    found: dict[Any, PixelSet] = {CHOICE: PixelSet(CHOICE, {"val": quotas(there["val"], config.pixels, 0)}, 0)}
    for budget, seed in plan.draws():
        draw = draws.of(budget, seed)
        own = {"train": _only(there["train"], draw.train), "val": _only(there["val"], draw.val)}
        require_pixels(own["train"], f"train ({budget:g} % of it)", task)
        whole = int(own["train"].sum())
        most = {"train": config.pixels, "val": max(1, round(own["val"].sum() * min(1, config.pixels / whole)))}
        taken = {role: quotas(each, most[role], seed) for role, each in own.items()}  # the same share of both
        found[budget, seed] = PixelSet(f"{budget:g}-{seed}", taken, seed)
    return found, there["train"].sum(0)


def _only(there: Ints, samples: Ints) -> Ints:
    """The counts of some samples, and nothing of the others."""
    found = np.zeros_like(there)
    found[samples] = there[samples]
    return found


def _answer(
    source: Source,
    rows: PixelRows,
    questions: list[Question],
    sets: dict[Any, PixelSet],
    config: ProbeConfig,
    ledger: Ledger,
    known: Ints,
) -> None:
    """Learn what is not learned yet, then score all of a group in one pass over the test split."""
    learned = {question: _remembered(ledger, question) for question in questions}
    if not all(learned.values()):
        rows.fill()
    with Watch("probing", "probes", len(questions)) as watch:
        for question in questions:
            if learned[question] is None:
                learned[question] = _learn(source, rows, question, sets, config)
                _remember(ledger, question, learned[question])
            watch.step(1, str(question.column.tap))
    ready = {question: Scored(each, config.bins) for question, each in learned.items() if each is not None}
    guess = score(source, ready, known)
    for question, scored in ready.items():
        values = {**kept(scored.learned, scored.calibration), "chance": guess}
        ledger.add(question.name, values, scored.statistics)


def _learn(
    source: Source, rows: PixelRows, question: Question, sets: dict[Any, PixelSet], config: ProbeConfig
) -> Learned:
    chosen, column = sets[question.budget, question.seed], question.column
    lesson = Lesson(
        rows.rows(column, chosen),
        rows.truth(chosen),
        chosen.count("train"),
        rows.rows(column, sets[CHOICE]),
        rows.truth(sets[CHOICE]),
    )
    return learn(source.task, question.probe, lesson, config, str(source.device), question.words)


def _remember(ledger: Ledger, question: Question, learned: Learned | None) -> None:
    """A probe waits on disk for the pass that scores it."""
    assert learned is not None
    assert isinstance(learned.model, Linear)
    numbers = [learned.training, learned.strength, learned.temperature]
    values = np.array([np.nan if number is None else number for number in numbers])
    ledger.keep(
        f"probe {question.name}", {"weight": learned.model.weight, "bias": learned.model.bias, "values": values}
    )


def _remembered(ledger: Ledger, question: Question) -> Learned | None:
    found = ledger.arrays(f"probe {question.name}")
    if found is None:
        return None
    training, strength, heat = (None if np.isnan(value) else float(value) for value in found["values"])
    return Learned(Linear(found["weight"], found["bias"]), int(training or 0), strength, heat)
