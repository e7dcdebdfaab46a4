"""Splits that somebody has made: named by folders, by lists in files, or by a column of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satdifuser.data.files.names import shown
from satdifuser.data.files.tabular import DELIMITED, rows_of
from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import Names, counted
from satdifuser.data.tables import KEYS, Table, word
from satdifuser.errors import UserError, nearest

USUAL = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
Found = dict[str, list[str]]


def by_folder(names: Sequence[str], words: Mapping[str, Sequence[str]], setting: str) -> Found:
    """By the folder on the way to a sample that is called as a split."""
    splits = _of_words(words)
    told: dict[str, str] = {}
    lost = []
    for name in names:
        known = {splits[folder]: folder for folder in _folded(name.split("/")[:-1]) if folder in splits}
        if len(known) > 1:
            raise UserError(f"{setting}: sample {shown(name)} is in folders of {' and '.join(known)}: name the folders")
        if known:
            told[name] = next(iter(known))
        else:
            lost.append(name)
    if lost:
        raise UserError(
            f"{setting}: {counted(f'of {len(names)} samples are in no folder of a split', lost)}; splits are"
            f" {_listed(words)}: name the folders, or split by another rule"
        )
    return _found(told)


def by_column(
    names: Sequence[str],
    table: Table,
    column: str,
    words: Mapping[str, Sequence[str]],
    named: Mapping[str, Sequence[str]],
) -> Found:
    """By a column's words; where the user has `named` some of them, samples of other words are in no split."""
    cells = table.joined(names).column(column)
    empty = [name for name, cell in cells.items() if cell is None]
    if empty:
        raise UserError(f"{table.where}, column {shown(column)}: {counted('cells are empty', empty)}: name their split")
    splits = _of_words(words)
    told = {name: splits[key] for name, cell in cells.items() if (key := word(cell).casefold()) in splits}
    others = {word(cell): name for name, cell in cells.items() if name not in told}
    if others and not named:
        raise UserError(
            f"{table.where}, column {shown(column)} has {_some(sorted(others))}, and splits are {_listed(words)}: say"
            " which words are train, val and test"
        )
    _say_left(len(names) - len(told), len(names), next(iter(others.values()), ""), f"{table.where}, {shown(column)}")
    for split, own in named.items():
        unseen = [one for one in own if one.casefold() not in {word(cell).casefold() for cell in cells.values()}]
        if unseen:
            raise UserError(
                f"{table.where}, column {shown(column)} never has {unseen[0]!r} ({split}): it has"
                f" {_some(sorted({word(cell) for cell in cells.values()}))}"
            )
    return _found(told)


def by_list(names: Sequence[str], lists: Mapping[str, Sequence[str]], setting: str) -> Found:
    """By lists of ids, with or without folder and ending; samples in no list are in no split."""
    known = Names(names)
    told: dict[str, str] = {}
    for split, listed in lists.items():
        lost = []
        for one in listed:
            match = known.find(one, f"{setting}.{split}")
            if match is None:
                lost.append(one)
            elif told.setdefault(match, split) != split:
                raise UserError(f"{setting}: {shown(match)} is listed for {told[match]} and {split}: leave it in one")
        if listed and len(lost) == len(listed):
            raise UserError(
                f"{setting}.{split}: none of the {len(listed)} names in it is a sample, {shown(lost[0])} first; samples"
                f" are named as {shown(names[0]) if names else 'nothing'}"
            )
        if lost:
            warn_once(f"{setting}.{split}: {counted(f'of {len(listed)} names are no samples', lost)}")
    left = [name for name in names if name not in told]
    _say_left(len(left), len(names), left[0] if left else "", setting)
    return _found(told)


def read_list(path: str, column: str | int | None, setting: str) -> list[str]:
    """Names in a file: one a line, a column of a CSV, or a list in JSON."""
    file = _file(path, setting)
    if file.suffix.lower() == ".json":
        return _strings(_json(file, setting), file, setting)
    if file.suffix.lower() == ".txt" and column is None:
        lines = file.read_text("utf-8-sig", errors="surrogateescape").splitlines()
        return [line.strip() for line in lines if line.strip()]
    if file.suffix.lower() not in DELIMITED:
        raise UserError(f"{setting} {shown(file)} is no list: give .txt (one name a line), .csv or .json")
    rows, _ = rows_of(file)
    head = rows[0] if rows else []
    if isinstance(column, str):
        if column not in head:
            raise UserError(
                f"{setting} {shown(file)} has no column {shown(column)}: its first line is"
                f" {_some(head)}{nearest(column, head)}"
            )
        return [row[head.index(column)] for row in rows[1:] if len(row) > head.index(column)]
    if column is None:
        likely = [place for place, one in enumerate(head) if one.casefold() in KEYS]
        if len(head) > 1 and len(likely) != 1:
            column_setting = f"{setting.rpartition('.')[0]}.column"
            raise UserError(
                f"{setting} {shown(file)} has {len(head)} columns ({_some(head)}): set {column_setting} to the name"
                " of one, or to its number (1 is the first) where no line names them"
            )
        place = likely[0] if likely else 0
        return [row[place] for row in rows[len(likely) :] if len(row) > place]
    if not 1 <= column <= len(head):
        raise UserError(f"{setting} {shown(file)} has {len(head)} columns, so there is no column {column}")
    return [row[column - 1] for row in rows if len(row) >= column]


def read_lists(path: str, setting: str) -> dict[str, list[str]]:
    """A JSON of all splits: {"train": [names], "val": ...}."""
    file = _file(path, setting)
    found = _json(file, setting)
    splits = _of_words(USUAL)
    if not isinstance(found, Mapping) or not {str(key).casefold() for key in found} & splits.keys():
        raise UserError(f"{setting} {shown(file)} must be JSON as {{'train': [names], 'val': ..., 'test': ...}}")
    return {
        splits[key.casefold()]: _strings(own, file, setting) for key, own in found.items() if key.casefold() in splits
    }


def _file(path: str, setting: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{setting} {shown(file)} is no file: give the path of a list of samples")
    return file


def _json(file: Path, setting: str) -> Any:
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{setting} {shown(file)} is no JSON ({error}): mend it") from error


def _strings(found: Any, file: Path, setting: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(one, str | int) for one in found):
        raise UserError(f"{setting} {shown(file)} has no list of names where one is wanted")
    return [str(one) for one in found]


def _of_words(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {one.casefold(): split for split, own in words.items() for one in own}


def _folded(folders: Sequence[str]) -> list[str]:
    return [folder.casefold() for folder in folders]


def _found(told: Mapping[str, str]) -> Found:
    return {split: sorted(name for name, own in told.items() if own == split) for split in USUAL}


def _say_left(count: int, total: int, first: str, where: str) -> None:
    if count:
        warn_once(f"{where}: {count} of {total} samples are in no split, {shown(first)} first")


def _listed(words: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{split}: {', '.join(own) or 'none'}" for split, own in words.items())


def _some(words: Sequence[str], most: int = 8) -> str:
    return ", ".join(map(shown, words[:most])) + (f" and {len(words) - most} more" if len(words) > most else "")
