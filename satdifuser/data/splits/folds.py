"""Folds of a cross-validation: each sample is tested in exactly one, and whole groups of samples stay together.

A group is a block in space, the file that tiles are cut from, or a part of the ids. Groups are dealt to folds the
largest first: each goes to the fold that has the least of its classes so far, as shares of what there is of each class;
of equals to the smallest fold. So folds hold about as many samples of each class as whole groups allow. Without classes
they hold about as many samples. Of one fold, whole groups of the rest are for validation, in an order that hangs on
their names and the seed alone: each that brings the classes of validation nearer to its share, and at least one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

from satdifuser.data.files.names import name_bytes, shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.splits.blocks import kept_apart, place_of, say_left_out
from satdifuser.data.splits.holdout import held_out
from satdifuser.data.splits.places import Footprint, Places
from satdifuser.errors import UserError

FILE = "file"
PART = "{group}"
WILD = re.compile(r"\*\*|\*|\?|\{group\}")
LETTERS = {"**": ".*", "*": "[^/]*", "?": "[^/]", PART: "(?P<group>[^/]+)"}
OF_FILE = re.compile(r"#\d+(,\d+)?$")  # a tile's rows and columns, or a sample's number in a file of many
Classes = Mapping[str, Hashable] | None


def by_folds(
    names: Sequence[str],
    *,
    of: int | Literal["all"],
    fold: int,
    group: str | None,
    metres: float | None,
    apart: float,
    val: float,
    seed: int,
    classes: Classes = None,
    footprint: Callable[[str], Footprint | None] = lambda name: None,
    setting: str = "data.split",
) -> dict[str, list[str]]:
    """Split -> names: fold number `fold` is for testing.

    Blocks of `metres` where that is given: then training and validation lose what is nearer than `apart` to one of
    another split. What is for testing is never left out.
    """
    ordered = sorted(names, key=name_bytes)
    places = None if metres is None else Places(ordered, footprint)
    groups = _in_blocks(ordered, places, metres) if places and metres else by_name(ordered, group or FILE, setting)
    what = f"blocks of {metres:g} m" if metres else "files" if group in (None, FILE) else f"groups of {group}"
    if len(groups) < 2:
        raise UserError(
            f"{setting}: the {len(ordered)} samples are {len(groups)} of {what}, and folds need two or more: give"
            + (f" smaller {setting}.metres" if metres else f" {setting}.group another pattern")
        )
    count = len(groups) if of == "all" else min(of, len(groups))
    if fold >= count:
        few = f", for there are {len(groups)} {what}" if of == "all" or of > count else ""
        raise UserError(f"{setting}.fold is {fold}: there are {count} folds, 0 to {count - 1}{few}")
    numbers = dealt(groups, count, seed, classes)
    test = [name for key, own in groups.items() if numbers[key] == fold for name in own]
    rest = {key: own for key, own in groups.items() if numbers[key] != fold}
    found = {**_validation(rest, val, seed, classes, f"{setting}: fold {fold} of {count}", what), "test": test}
    if places is not None:
        found = _apart(ordered, found, places, apart, setting)
    if not found["train"]:
        raise UserError(f"{setting}: fold {fold} of {count} leaves nothing to train: give a smaller {setting}.apart")
    return {part: sorted(found[part]) for part in ("train", "val", "test")} | {"all": sorted(ordered)}


def by_name(names: Sequence[str], group: str, setting: str = "data.split") -> dict[str, list[str]]:
    """Group -> names: of the file that a sample is of, or of what `{group}` stands for in a pattern of ids.

    >>> by_name(["a_x#0,0", "a_x#0,9", "b_x#0,0"], "file")
    {'a_x': ['a_x#0,0', 'a_x#0,9'], 'b_x': ['b_x#0,0']}
    >>> by_name(["1_of_3_rome", "2_of_3_rome", "2_of_3_oslo#0,0"], "*_of_*_{group}")
    {'rome': ['1_of_3_rome', '2_of_3_rome'], 'oslo': ['2_of_3_oslo#0,0']}
    """
    files = {name: OF_FILE.sub("", name) for name in names}
    found: dict[str, list[str]] = {}
    if group == FILE:
        for name, file in files.items():
            found.setdefault(file, []).append(name)
        return found
    if group.count(PART) != 1:
        raise UserError(
            f"{setting}.group is {group!r}: give file, or a pattern of ids in which {PART} stands once, as *_{PART}"
        )
    parts, end = list[str](), 0
    for wild in WILD.finditer(group):
        parts += [re.escape(group[end : wild.start()]), LETTERS[wild.group()]]
        end = wild.end()
    pattern = re.compile("".join([*parts, re.escape(group[end:])]))
    matches = {name: pattern.fullmatch(file) for name, file in files.items()}
    lost = [name for name, match in matches.items() if match is None]
    if lost:
        raise UserError(
            f"{setting}.group={group} is not the pattern of {len(lost)} of {len(names)} ids, {shown(lost[0])} first:"
            " write what is the same in all, and * for what is not"
        )
    for name, match in matches.items():
        found.setdefault(match["group"] if match else "", []).append(name)
    return found


def dealt(groups: Mapping[str, Sequence[str]], count: int, seed: int, classes: Classes = None) -> dict[str, int]:
    """Group -> the number of its fold, each of which has a group; by the rule above."""
    tallies = _tallies(groups, classes)
    order = sorted(groups, key=lambda key: (-len(groups[key]), place_of(key, seed), key))
    if count >= len(order):
        return {key: number for number, key in enumerate(order)}
    whole = sum(tallies.values(), Counter[str]())
    have = [Counter[str]() for _ in range(count)]
    sizes = [0] * count
    found = {}
    for key in order:
        mine = tallies[key]
        crowd = [math.fsum(fold[name] * times / whole[name] for name, times in mine.items()) for fold in have]
        number = min(range(count), key=lambda fold: (crowd[fold], sizes[fold], fold))
        have[number] += mine
        sizes[number] += len(groups[key])
        found[key] = number
    return found


def _in_blocks(names: Sequence[str], places: Places, metres: float) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, (column, row) in zip(names, places.blocks(metres).tolist(), strict=True):
        found.setdefault(f"{column} {row}", []).append(name)
    return found


def _validation(
    groups: Mapping[str, list[str]], val: float, seed: int, classes: Classes, fold: str, what: str
) -> dict[str, list[str]]:
    """What is for training and validation, of the groups that are not tested."""
    everything = [name for own in groups.values() for name in own]
    if not val:
        return {"train": everything, "val": []}
    if len(groups) < 2:
        warn_once(f"{fold} leaves {len(groups)} of {what}: samples of it are for validation, which are near training")
        by_class: dict[str, list[str]] = {}
        for name in everything:
            by_class.setdefault(_class(name, classes), []).append(name)
        parts = held_out(by_class, val, 0.0)
        return {"train": parts["train"], "val": parts["val"]}
    tallies = _tallies(groups, classes)
    whole = sum(tallies.values(), Counter[str]())

    def away(have: Counter[str]) -> float:
        return math.fsum((have[name] - val * times) ** 2 / times for name, times in whole.items())

    order = sorted(groups, key=lambda key: (place_of(key, seed), key))
    taken, have = list[str](), Counter[str]()
    for key in order:
        if away(have + tallies[key]) < away(have) and len(taken) < len(order) - 1:
            taken.append(key)
            have = have + tallies[key]
    if not taken:
        taken = [min(order, key=lambda key: len(groups[key]))]
    return {
        "train": [name for key, own in groups.items() if key not in taken for name in own],
        "val": [name for key in taken for name in groups[key]],
    }


def _apart(
    names: Sequence[str], found: Mapping[str, list[str]], places: Places, apart: float, setting: str
) -> dict[str, list[str]]:
    import numpy as np

    at = {name: number for number, name in enumerate(names)}
    numbers = {part: np.array(sorted(at[name] for name in own), np.intp) for part, own in found.items()}
    kept = kept_apart(places.tiles, numbers, apart)
    say_left_out(names, numbers, kept, apart, setting)
    return {part: [names[number] for number in own.tolist()] for part, own in kept.items()}


def _tallies(groups: Mapping[str, Sequence[str]], classes: Classes) -> dict[str, Counter[str]]:
    """How many samples of each class a group has."""
    return {key: Counter(_class(name, classes) for name in own) for key, own in groups.items()}


def _class(name: str, classes: Classes) -> str:
    return "" if classes is None else str(classes.get(name, ""))
