"""What a run knows of the data it learns from: who takes it up again goes on with just that, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from satdifuser.engine.files import DamagedError, json_text, read_json
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.data.base import LabelledDataset
    from satdifuser.data.batches import Check
    from satdifuser.tasks.base import Task

NAME = "data.json"
AGAIN = "resume it with those, or use another run="


@dataclass(frozen=True)
class Known:
    """The form in which features are stored (None: they come from images), and of each split which samples it has."""

    form: dict[str, str] | None
    splits: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, splits: Mapping[str, LabelledDataset]) -> Known:
        """As the files will say it."""
        from satdifuser.store import StoredFeatures

        first = next(iter(splits.values()))
        stored = first.store.form if isinstance(first, StoredFeatures) else None
        form = None if stored is None else {"dtype": stored.dtype, "keep": stored.keep}
        return cls(form, {name: _about(data) for name, data in splits.items()})

    @classmethod
    def by(cls, folder: RunFolder) -> Known | None:
        """What a run wrote down; None where it is of a version that did not."""
        path = folder.path / NAME
        if not path.is_file():
            return None
        remedy = "remove it if the features and samples are still those that the run began with"
        values = read_json(path, dict, remedy)
        try:
            found = cls(values["form"], values["splits"])
            whole = isinstance(found.form, dict | None) and all(
                isinstance(about["samples"], int) and isinstance(about["ids"], str) and isinstance(about["data"], dict)
                for about in found.splits.values()
            )
        except (TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise DamagedError(f"{path} is damaged (not the samples of a run): {remedy}")
        return found

    @property
    def words(self) -> str:
        return "images" if self.form is None else f"stored {self.form.get('dtype')} {self.form.get('keep')}"

    def write(self, folder: RunFolder) -> None:
        folder.write_json(NAME, asdict(self))

    def difference(self, given: Known, split: str) -> str | None:
        """What sets the samples given for a split apart from those known; None if nothing does or nothing is known."""
        mine, theirs = self.splits.get(split), given.splits.get(split)
        if mine is None or theirs is None:
            return None
        if mine["samples"] != theirs["samples"]:
            return f"{split} had {mine['samples']} samples, and has {theirs['samples']}"
        if mine["ids"] != theirs["ids"]:
            return f"{split} has other samples"
        known, asked = mine["data"], theirs["data"]
        keys = [key for key in sorted({*known, *asked}) if known.get(key) != asked.get(key)]
        if not keys:
            return None
        return f"{split} has other contents ({keys[0]}: {_short(known.get(keys[0]))} and {_short(asked.get(keys[0]))})"


def same_data(folder: RunFolder, given: Known, spec: Any, ids: list[str], begins_with_another: bool) -> None:
    """Raise, saying what differs, unless a run that is taken up again is given the features and samples it knows.

    `ids` are those of the training samples; a run that began with another one has seen the samples of both.
    """
    different = folder.spec().differences(spec)
    if different:
        raise UserError(
            f"{folder.path} was begun on other features than these (begun on and given): {'; '.join(different[:4])}:"
            f" {AGAIN}"
        )
    known, seen = Known.by(folder), set(folder.seen())
    if known is not None and known.form != given.form:
        raise UserError(f"{folder.path} was begun on {known.words}, and is given {given.words}: {AGAIN}")
    new = sorted(set(ids) - seen)
    found = [known.difference(given, split) for split in known.splits] if known is not None else []
    if known is None and (new or (not begins_with_another and len(seen) != len(set(ids)))):
        found = [f"train had {len(seen)} samples, and has {len(ids)}" if not new else "train has other samples"]
    differences = [one for one in found if one is not None]
    if differences:
        such = f", such as {new[0]}" if new else ""
        raise UserError(f"{folder.path} was begun on other data: {differences[0]}{such}: {AGAIN}")


def other_data(folder: RunFolder, data: LabelledDataset, split: str) -> str | None:
    """What sets a split apart from that which a run knows by this name, or None.

    A score on what the run has learned from is refused, unless the split says that it is.
    """
    ids = [data.sample_id(index) for index in range(len(data))]
    told = sorted(set(ids).intersection(folder.seen())) if split != "train" else []
    if told:
        raise UserError(
            f"{folder.path} has learned from {len(told)} of the {len(ids)} samples in {split}, such as {told[0]}: give"
            " features of samples that it does not know"
        )
    known, given = Known.by(folder), Known.of({split: data})
    if known is None:
        return None
    found = known.difference(given, split)
    return f"{known.words}, and now {given.words}" if found is None and known.form != given.form else found


def try_sample(data: LabelledDataset, task: Task, check: Check | None) -> None:
    """Look at the first sample of a split, so that images or labels of another kind are refused before any work."""
    from satdifuser.data.batches import OrderedBatches, loader
    from satdifuser.data.splits.budgets import ReadsLabels

    if len(data):
        one = data.subset([0]) if isinstance(data, ReadsLabels) else data  # a store would read all of the split
        task.check(next(iter(loader(one, OrderedBatches(1, 1), check=check))))


def _about(data: LabelledDataset) -> dict[str, Any]:
    ids = [data.sample_id(index) for index in range(len(data))]
    identity = {key: value for key, value in data.identity.items() if key != "store"}
    plain: dict[str, Any] = json.loads(json_text(json.loads(json.dumps(identity, default=str))))
    return {"samples": len(ids), "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16], "data": plain}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
