"""The questions of a study: each a place, a probe and the labels that teach it, with the name of its answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from satdifuser.study.probe.views import Column


@dataclass(frozen=True)
class Question:
    """A probe of a column with the labels of a budget and seed."""

    column: Column
    probe: str
    budget: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.column.tap} {self.column.view} {self.probe} {self.budget:g} {self.seed}"

    @property
    def words(self) -> str:
        return f"{self.column.tap} ({self.column.view}, {self.probe}, {self.budget:g} % of the labels)"


class Plan:
    """What all places share: kinds of probes, budgets, seeds, and which seed's draw stands for another's."""

    def __init__(self, probes: Sequence[str], budgets: Sequence[float], seeds: Sequence[int], dense: bool) -> None:
        self.probes, self.dense = tuple(probes), dense
        self.budgets, self.seeds = tuple(dict.fromkeys(budgets)), tuple(dict.fromkeys(seeds))

    def drawn(self, budget: float, seed: int) -> int:
        """All labels of whole images are the same for every seed."""
        return self.seeds[0] if budget == 100 and not self.dense else seed

    def draws(self) -> list[tuple[float, int]]:
        """Budgets and seeds that differ in what they teach."""
        every = itertools.product(self.budgets, self.seeds)
        return list(dict.fromkeys((budget, self.drawn(budget, seed)) for budget, seed in every))

    def questions(self, columns: Sequence[Column]) -> list[Question]:
        """Every one that has an answer of its own, place by place."""
        every = itertools.product(columns, self.draws(), self.probes)
        return [Question(column, probe, budget, seed) for column, (budget, seed), probe in every]
