"""Several splits as one data set of rows, without the samples that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satdifuser.data.base import LabelledDataset


class JoinedSplits:
    """The splits one after the other, in their order; `name` and `labels` are those of the first."""

    def __init__(self, splits: Mapping[str, LabelledDataset]) -> None:
        self.splits = dict(splits)
        first = next(iter(self.splits.values()))
        self.name, self.labels = first.name, first.labels
        self._rows = [(name, index) for name, data in self.splits.items() for index in range(len(data))]

    @property
    def identity(self) -> dict[str, Any]:
        return {name: data.identity for name, data in self.splits.items()}

    def without(self, rows: set[int]) -> JoinedSplits:
        """The same without some rows."""
        rest = JoinedSplits(self.splits)
        rest._rows = [row for number, row in enumerate(self._rows) if number not in rows]
        return rest

    def ids(self) -> dict[str, list[str]]:
        """Sample ids by split; a split may be empty."""
        found: dict[str, list[str]] = {name: [] for name in self.splits}
        for name, index in self._rows:
            found[name].append(self.splits[name].sample_id(index))
        return found

    def sample_id(self, index: int) -> str:
        name, row = self._rows[index]
        return self.splits[name].sample_id(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        name, row = self._rows[index]
        return self.splits[name][row]
