"""Probes of tasks with one answer for each image: features to files, learn place by place, score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from satdifuser.settings.studies import ProbeConfig
from satdifuser.store import StoredFeatures
from satdifuser.study.probe.draws import Answers, Draw, Draws
from satdifuser.study.probe.learning import Lesson, learn
from satdifuser.study.probe.ledger import Ledger
from satdifuser.study.probe.questions import Plan, Question
from satdifuser.study.probe.rows import GROUP_BYTES, ROLES, Matrices, groups, truth
from satdifuser.study.probe.scoring import answered, chance
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.views import Column
from satdifuser.study.probe.watch import Watch


def answer(
    source: Source, columns: list[Column], plan: Plan, config: ProbeConfig, drawn_by: int, ledger: Ledger
) -> float:
    """Every question that the ledger has no answer to; gives what guessing would score."""
    samples = sum(len(source.splits[role]) for role in ROLES)
    limit = 2**62 if source.live else GROUP_BYTES  # of a live encoder all taps come at once
    draws: Draws | None = None
    for number, some in enumerate(groups(((column, 4 * samples * column.width) for column in columns), limit)):
        open_ = [question for question in plan.questions(some) if not ledger.done(question.name)]
        if not open_:
            continue
        matrices = Matrices(ledger.work, source, some, number)
        matrices.fill()
        draws = draws or _draws(source, ledger.work, drawn_by, config.refit)
        with Watch("probing", "probes", len(open_)) as watch:
            for question in open_:
                draw = draws.of(question.budget, question.seed)
                _answer(source, matrices, question, draw, config, ledger)
                watch.step(1, str(question.column.tap))
        matrices.remove()
    return chance(source.task, truth(ledger.work, "train"), truth(ledger.work, "test"))


def _draws(source: Source, folder: Path, drawn_by: int, refit: bool) -> Draws:
    train, val = (
        data if isinstance(data, StoredFeatures) else Answers(source.ids(role), truth(folder, role), source.task)
        for role, data in ((role, source.splits[role]) for role in ("train", "val"))
    )
    return Draws(source.task, train, val, drawn_by, refit)


def _answer(
    source: Source, matrices: Matrices, question: Question, draw: Draw, config: ProbeConfig, ledger: Ledger
) -> None:
    task, column, folder = source.task, question.column, ledger.work
    known, val = matrices.counts["train"], matrices.counts["val"]
    truths = np.concatenate([truth(folder, role) for role in ("train", "val")])
    rows = matrices.rows(column, "train", "val")
    if len(draw.train) == known and len(draw.val) in (0, val):  # as they lie on disk
        taught = slice(0, known + len(draw.val))
        lesson_rows, lesson_truth = rows[taught], truths[taught]
    else:
        which = np.concatenate([draw.train, known + draw.val])
        lesson_rows, lesson_truth = rows[which], truths[which]
    lesson = Lesson(lesson_rows, lesson_truth, len(draw.train), rows[known:], truths[known:])
    learned = learn(task, question.probe, lesson, config, str(source.device), question.words)
    values, statistics = answered(task, learned, matrices.rows(column, "test"), truth(folder, "test"), config.bins)
    ledger.add(question.name, values, statistics)
