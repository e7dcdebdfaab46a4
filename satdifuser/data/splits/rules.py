"""How samples are split: by a hash of their names, by folder, list, column of a table, blocks in space, or in folds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from satdifuser.data.splits.blocks import PARTS, by_blocks
from satdifuser.data.splits.folds import FILE, by_folds
from satdifuser.data.splits.given import USUAL, by_column, by_folder, by_list, read_list, read_lists
from satdifuser.data.splits.holdout import held_out
from satdifuser.data.splits.places import Footprint
from satdifuser.data.tables import Table, read_table
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import NotNegative, Place, Positive, Rate, Seed, Unit, Whole, Word, check, hints_of

SplitWords = Annotated[
    str | dict[str, Any],
    Word("hash, folder, blocks or {by: hash, folder, list, column, blocks or folds, with its settings}"),
]
Part = Annotated[float, Gt(0), Lt(1)]
Words = Annotated[str | int | list[str | int], Word("words, or a share of training as 0.1")]
Metres = Annotated[float, Gt(0), Unit("m")]


@dataclass(frozen=True)
class Rule:
    """A rule and its settings; `setting` is how the configuration calls it, for errors."""

    by: ClassVar[str]
    setting: str = "data.split"

    def to_dict(self) -> dict[str, Any]:
        """What counts of it, for the identity of data: files by their names, wherever they lie."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "setting"}
        return {"by": self.by, **{name: value for name, value in own.items() if value is not None}}

    def words(self) -> str:
        """One sentence, for people."""
        raise NotImplementedError


@dataclass(frozen=True)
class Hash(Rule):
    """Of each class, the first by a hash of their names are for testing, the next for validation."""

    by = "hash"
    val: Rate = 0.1
    test: Rate = 0.1

    def words(self) -> str:
        return f"by a hash of their names, {self.val:.4g} of each class for val and {self.test:.4g} for test"


@dataclass(frozen=True)
class Blocks(Rule):
    """Whole squares of `metres` go to a split; samples nearer than `apart` to one of another split are left out."""

    by = "blocks"
    metres: Positive = 10000.0
    apart: NotNegative = 0.0
    val: Rate = 0.1
    test: Rate = 0.1
    seed: Seed = 0

    def words(self) -> str:
        away = (
            f"none nearer than {self.apart:g} m to one of another split" if self.apart else "none over one of another"
        )
        return (
            f"in blocks of {self.metres:g} m, {self.val:.4g} for val and {self.test:.4g} for test (seed {self.seed}),"
            f" {away}"
        )


@dataclass(frozen=True)
class Folds(Rule):
    """Fold number `fold` of `of` is for testing, of the rest a share for validation; whole groups stay together.

    A group is a block of `metres`, the file that tiles are of (`group: file`), or what `{group}` stands for in a
    pattern of ids. `of: all`, or more than there are groups, leaves one group out.
    """

    by = "folds"
    of: Annotated[int, Ge(2)] | Literal["all"] = 5
    fold: Whole = 0
    group: Annotated[str, Word("file, or a pattern of ids with {group}")] | None = None
    metres: Positive | None = None
    apart: NotNegative = 0.0
    val: Rate = 0.1
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.metres is not None and self.group is not None:
            raise UserError(f"{self.setting} has metres and group: groups are blocks or go by names, so leave one out")
        if self.metres is None and self.apart:
            raise UserError(f"{self.setting}.apart is of blocks in space: give {self.setting}.metres too")

    def words(self) -> str:
        names = "files" if self.group in (None, FILE) else f"groups {self.group}"
        groups = names if self.metres is None else f"blocks of {self.metres:g} m"
        away = f", none nearer than {self.apart:g} m to one of another split" if self.apart else ""
        return (
            f"fold {self.fold} of {self.of} of whole {groups} for test, {self.val:.4g} of the rest for val (seed"
            f" {self.seed}){away}"
        )


@dataclass(frozen=True)
class Folder(Rule):
    """By the folder of a sample that is called as a split; null: the usual words, []: there is no such split."""

    by = "folder"
    train: Words | None = None
    val: Part | Words | None = None
    test: Part | Words | None = None

    def words(self) -> str:
        return f"by folder ({_said(self)})"


@dataclass(frozen=True)
class Column(Rule):
    """By the words in a column of a table (null: that of the labels)."""

    by = "column"
    column: Annotated[str, Word("the name of a column")] = "split"
    table: Place | None = None
    key: str | None = None
    train: Words | None = None
    val: Part | Words | None = None
    test: Part | Words | None = None

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | ({} if self.table is None else {"table": PurePath(self.table).name})

    def words(self) -> str:
        return f"by column {self.column} of {'the table' if self.table is None else self.table} ({_said(self)})"


@dataclass(frozen=True)
class Listed(Rule):
    """By files of names: one for each split, or one JSON of all."""

    by = "list"
    train: Place | None = None
    val: Part | Place | None = None
    test: Part | Place | None = None
    file: Place | None = None
    column: Annotated[str | int, Word("a column's name or number")] | None = None

    def to_dict(self) -> dict[str, Any]:
        own = super().to_dict()
        return {n: PurePath(v).name if isinstance(v, str) and n not in ("by", "column") else v for n, v in own.items()}

    def words(self) -> str:
        return f"by the list {self.file}" if self.file else f"by lists ({_said(self)})"

    def lists(self) -> dict[str, list[str]]:
        given = {part: path for part in PARTS if isinstance(path := getattr(self, part), str)}
        if bool(given) == bool(self.file):
            raise UserError(f"{self.setting}: give either files for train, val and test, or {self.setting}.file")
        if self.file:
            return read_lists(self.file, f"{self.setting}.file")
        return {part: read_list(path, self.column, f"{self.setting}.{part}") for part, path in given.items()}


RULES: dict[str, type[Rule]] = {kind.by: kind for kind in (Hash, Folder, Listed, Column, Blocks, Folds)}


def rule_of(words: Any, name: str = "data.split") -> Rule:
    """A rule as the configuration says it: its name, or its name (`by`) and settings.

    >>> rule_of({"by": "blocks", "metres": 5000, "apart": 500}).words()
    'in blocks of 5000 m, 0.1 for val and 0.1 for test (seed 0), none nearer than 500 m to one of another split'
    """
    if isinstance(words, Rule):
        return words
    given: dict[str, Any] = {"by": words} if isinstance(words, str) else dict(words)
    by = given.pop("by", None)
    if by not in RULES:
        raise UserError(f"{name}.by is {by!r}: it can be {', '.join(RULES)}{nearest(str(by), RULES)}")
    hints = {key: hint for key, hint in hints_of(RULES[by]).items() if key != "setting"}
    for key in given:
        if key not in hints:
            raise UserError(f"there is no setting {name}.{key} of {by}: it has {', '.join(hints)}{nearest(key, hints)}")
    rule = RULES[by](setting=name, **{key: check(own, hints[key], f"{name}.{key}") for key, own in given.items()})
    shares = [_share(getattr(rule, part, None)) for part in ("val", "test")]
    if sum(shares) >= 1:
        raise UserError(f"{name}: val is {shares[0]:g} and test is {shares[1]:g}: give shares that leave some to train")
    return rule


def assigned(
    names: Sequence[str],
    rule: Rule,
    *,
    classes: Mapping[str, Hashable] | None = None,
    table: Table | None = None,
    footprint: Callable[[str], Footprint | None] | None = None,
) -> dict[str, list[str]]:
    """Split (train, val, test, all) -> sorted names, each in one split or in none, whatever their order.

    `classes` stratifies what a hash holds out, and balances folds; `table` has the column of a rule that names no
    table, and `footprint` says where a sample lies, for blocks.
    """
    if isinstance(rule, Hash):
        return _by_hash(names, classes, rule.val, rule.test)
    if isinstance(rule, Blocks):
        return by_blocks(
            names,
            footprint or (lambda name: None),
            metres=rule.metres,
            apart=rule.apart,
            val=rule.val,
            test=rule.test,
            seed=rule.seed,
            setting=rule.setting,
        )
    if isinstance(rule, Folds):
        own = {one.name: getattr(rule, one.name) for one in fields(rule)}
        return by_folds(names, classes=classes, footprint=footprint or (lambda name: None), **own)
    if isinstance(rule, Folder):
        found = by_folder(names, _words(rule), rule.setting)
    elif isinstance(rule, Column):
        found = by_column(names, _table(rule, table), rule.column, _words(rule), _own(rule))
    elif isinstance(rule, Listed):
        found = by_list(names, rule.lists(), rule.setting)
    else:
        raise TypeError(type(rule).__name__)
    return _held_of_training(found, rule, classes) | {"all": sorted(names)}


def _by_hash(
    names: Sequence[str], classes: Mapping[str, Hashable] | None, val: float, test: float
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("" if classes is None else str(classes[name]), []).append(name)
    return held_out(groups, val, test)


def _held_of_training(
    found: dict[str, list[str]], rule: Folder | Column | Listed, classes: Mapping[str, Hashable] | None
) -> dict[str, list[str]]:
    """Where val or test is a share, it is one of the training samples, by hash."""
    shares = _share(rule.val), _share(rule.test)
    held = _by_hash(found["train"], classes, *shares) if any(shares) else {"train": found["train"]}
    return {
        "train": held["train"],
        "val": held["val"] if shares[0] else found["val"],
        "test": held["test"] if shares[1] else found["test"],
    }


def _share(value: Any) -> float:
    return value if isinstance(value, float) else 0.0


def _own(rule: Folder | Column) -> dict[str, list[str]]:
    """The words that the user has given, of the splits that have some (or none: [])."""
    given = {part: getattr(rule, part) for part in PARTS}
    listed = {part: own if isinstance(own, list) else [own] for part, own in given.items()}
    return {part: [*map(str, own)] for part, own in listed.items() if isinstance(given[part], str | int | list)}


def _words(rule: Folder | Column) -> dict[str, list[str]]:
    """The words of each split: those given, or the usual ones that no other split claims; of a share, none."""
    own = _own(rule)
    claimed = [one for words in own.values() for one in {word.casefold() for word in words}]
    twice = next((one for words in own.values() for one in words if claimed.count(one.casefold()) > 1), None)
    if twice is not None:
        raise UserError(f"{rule.setting}: {twice!r} is a word of several splits: leave it in one")
    usual = {part: [one for one in USUAL[part] if one not in claimed] for part in PARTS}
    return {part: own.get(part, usual[part] if getattr(rule, part) is None else []) for part in PARTS}


def _table(rule: Column, table: Table | None) -> Table:
    if rule.table is not None:
        return read_table(rule.table, rule.key, f"{rule.setting}.table")
    if table is None:
        raise UserError(f"{rule.setting}.table is not set, and there is no table of labels: give the table that has it")
    return table


def _said(rule: Any) -> str:
    said = []
    for part in PARTS:
        own = getattr(rule, part)
        usual = ", ".join(_words(rule)[part]) or "none" if isinstance(rule, Folder | Column) else "none"
        words = usual if own is None else f"{own:g} of train" if isinstance(own, float) else own
        said.append(f"{part}: {', '.join(map(str, words)) or 'none' if isinstance(words, list) else words}")
    return "; ".join(said)
