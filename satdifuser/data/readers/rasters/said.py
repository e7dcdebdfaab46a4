"""What is known of samples besides their pixels: a table's answers and metadata, or a folder that is a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from satdifuser.data.answers import answers, classes_of, metadata
from satdifuser.data.classes import ClassTable
from satdifuser.data.files.names import shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.readers.base import Answer
from satdifuser.data.splits.rules import Blocks, Column, Folds, Rule
from satdifuser.data.tables import Table, read_table
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word, check

TableWords = Annotated[
    str | dict[str, Any],
    Word("a path, or {path: labels.csv, key: COLUMN, label: COLUMN} (or multilabel or target in place of label)"),
]
Columns = Annotated[str | list[str], Word("a column, a list of them, or a pattern as label_*")]
KINDS: dict[str, Any] = {
    "path": str,
    "key": str | None,
    "label": Columns,
    "multilabel": Columns,
    "target": Columns,
    "separator": str | None,
    "metadata": bool | dict[str, Any],
    "missing": Literal["error", "skip"],
}


@dataclass
class Said:
    """Id -> answer and metadata; `classes` are those of a table or of folders, where data.classes does not say."""

    label: Answer | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    metadata: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    table: Table | None = None
    skip: bool = False


def said_by_table(words: Any, names: Sequence[str], classes: Any) -> Said:
    """What a table says of these samples."""
    given: dict[str, Any] = {"path": words} if isinstance(words, str) else dict(words)
    for key in given:
        if key not in KINDS:
            raise UserError(f"there is no setting data.table.{key}: it has {', '.join(KINDS)}{nearest(key, KINDS)}")
    given = {key: check(value, KINDS[key], f"data.table.{key}") for key, value in given.items()}
    if "path" not in given:
        raise UserError("data.table has no path: give the file, as data.table={path: labels.csv, label: COLUMN}")
    kinds = [kind for kind in ("label", "multilabel", "target") if kind in given]
    if len(kinds) > 1:
        raise UserError(f"data.table has {' and '.join(kinds)}: a sample has one answer, so leave one out")
    missing = given.get("missing", "error")
    path = Path(given["path"]).expanduser()
    table = read_table(path, given.get("key")).joined(names, missing)
    said = Said(table=table, skip=missing == "skip")
    if kinds:
        (said.label,) = kinds
        columns, separator = given[kinds[0]], given.get("separator")
        if said.label != "target" and classes is None:
            said.classes = classes_of(table, said.label, columns, separator)
        known = () if classes is None else ClassTable(classes).names
        said.answers = answers(table, said.label, columns, separator=separator, classes=known, missing=missing)
    if given.get("metadata"):
        seven = given["metadata"] if isinstance(given["metadata"], dict) else None
        said.metadata = metadata(table, seven, missing)
    return said


def check_used(said: Said, rule: Rule) -> None:
    """An error where a table is given and nothing of it is used."""
    table = said.table
    if table is None or said.label is not None or said.metadata:
        return
    if (isinstance(rule, Column) and rule.table is None) or (isinstance(rule, Blocks | Folds) and table.footprints):
        return
    raise UserError(
        f"data.table names no label, multilabel or target, so nothing of {shown(table.path)} is used: add one, as"
        f" data.table={{path: {shown(table.path)}, label: COLUMN}}, or leave data.table out; its columns are"
        f" {', '.join(map(shown, table.columns))}"
    )


def said_by_folder(folders: Mapping[str, str], classes: Any) -> dict[str, str]:
    """Id -> the folder that is its class; `classes` are those that count, and samples of others are left out."""
    if not classes:
        return dict(folders)
    table, there = ClassTable(classes), sorted({*folders.values()})
    places = {folder: table.place(folder) for folder in there}
    absent = [name for place, name in enumerate(table.labels.classes) if place not in places.values()]
    if absent:
        raise UserError(
            f"data.classes has {shown(absent[0])}, which is the {{class}} of no image: there are"
            f" {', '.join(map(shown, there))}{nearest(absent[0], there)}"
        )
    others = [folder for folder in there if places[folder] is None]
    found = {name: folder for name, folder in folders.items() if places[folder] is not None}
    if others:
        some = ", ".join(map(shown, others[:8])) + f" and {len(others) - 8} more" * (len(others) > 8)
        warn_once(
            f"{len(folders) - len(found)} of {len(folders)} images are of a {{class}} that data.classes does not name"
            f" ({some}) and are left out"
        )
    return found
