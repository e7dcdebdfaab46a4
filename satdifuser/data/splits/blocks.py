"""Splits by blocks in space: whole squares of a grid go to a split, and no test tile lies near a training tile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from satdifuser.data.files.names import name_bytes, shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.splits.near import Tiles, closest, near
from satdifuser.data.splits.places import Footprint, Places
from satdifuser.errors import UserError

PARTS = ("train", "val", "test")
SHORT = 0.2  # of what a split should have: what it may lack, or have too much, without a word


def by_blocks(
    names: Sequence[str],
    footprint: Callable[[str], Footprint | None],
    *,
    metres: float,
    apart: float,
    val: float,
    test: float,
    seed: int,
    setting: str = "data.split",
) -> dict[str, list[str]]:
    """Split -> names. Samples nearer than `apart` to one of another split are in none: training loses, then validation.

    A sample is in the block that its centre is in. Blocks go to test, then to val, in an order that hangs on their
    place and the seed alone, each block that brings the split nearer to its share; the rest is for training.
    """
    ordered = sorted(names)
    places = Places(ordered, footprint)
    members: dict[tuple[int, int], list[int]] = {}
    for number, (column, row) in enumerate(places.blocks(metres).tolist()):
        members.setdefault((column, row), []).append(number)
    wanted = {"test": test * len(ordered), "val": val * len(ordered)}
    counts = {block: len(inside) for block, inside in members.items()}
    blocks = dealt(counts, wanted, seed)
    sizes = f"{len(members)} blocks of {metres:g} m hold the {len(ordered)} samples"
    empty = [part for part in PARTS if not blocks[part] and (part == "train" or wanted[part] > 0)]
    if empty:
        raise UserError(f"{setting}: {sizes}, too few for any to be for {empty[0]}: give smaller {setting}.metres")
    numbers = {part: np.array(sorted(n for b in blocks[part] for n in members[b]), np.intp) for part in PARTS}
    off = {part: len(numbers[part]) for part in wanted if abs(len(numbers[part]) - wanted[part]) > SHORT * wanted[part]}
    if off:
        got = " and ".join(f"{count / len(ordered):.1%} for {part}" for part, count in off.items())
        asked = " and ".join(f"{wanted[part] / len(ordered):.1%}" for part in off)
        warn_once(
            f"{setting}: {sizes}, too few for the shares: {got}, not {asked}; smaller {setting}.metres come nearer"
        )
    kept = kept_apart(places.tiles, numbers, apart)
    say_left_out(ordered, numbers, kept, apart, setting)
    if not len(kept["train"]):
        raise UserError(
            f"{setting}: all {len(numbers['train'])} training samples lie within {apart:g} m of others: give larger"
            f" {setting}.metres or a smaller {setting}.apart"
        )
    return {part: [ordered[number] for number in kept[part].tolist()] for part in PARTS} | {"all": ordered}


def dealt(counts: dict[tuple[int, int], int], wanted: dict[str, float], seed: int) -> dict[str, list[tuple[int, int]]]:
    """Blocks for each split, of how many samples each holds and how many a split should have."""
    left = sorted(counts, key=lambda block: (place_of(f"{block[0]} {block[1]}", seed), block))
    found: dict[str, list[tuple[int, int]]] = {}
    for part, want in wanted.items():
        taken, have = list[tuple[int, int]](), 0
        for block in left:
            if abs(have + counts[block] - want) < abs(have - want):
                taken.append(block)
                have += counts[block]
        if want > 0 and not taken and left:
            taken = [min(left, key=counts.__getitem__)]
        found[part] = taken
        gone = set(taken)
        left = [block for block in left if block not in gone]
    return {**found, "train": left}


def place_of(group: str, seed: int) -> bytes:
    """By which groups of samples are put in an order that hangs on their names and the seed alone."""
    return hashlib.blake2b(f"{seed} ".encode() + name_bytes(group), digest_size=16).digest()


def kept_apart(tiles: Tiles, numbers: dict[str, np.ndarray], apart: float) -> dict[str, np.ndarray]:
    """What is not nearer than `apart` to a sample of another split: training gives way, then validation."""
    kept = dict(numbers)
    for part, held in (("val", ("test",)), ("train", ("test", "val"))):
        others = np.concatenate([kept[other] for other in held])
        if len(others) and len(kept[part]):
            kept[part] = kept[part][~near(tiles[kept[part]], tiles[others], apart)]
    return kept


def say_left_out(
    names: Sequence[str], before: dict[str, np.ndarray], after: dict[str, np.ndarray], apart: float, setting: str
) -> None:
    lost = {part: len(before[part]) - len(after[part]) for part in ("train", "val")}
    if not any(lost.values()):
        return
    gone = sorted(
        set(before["train"].tolist() + before["val"].tolist()).difference(*(after[p].tolist() for p in PARTS))
    )
    distance = f"nearer than {apart:g} m to" if apart > 0 else "overlapping"
    warn_once(
        f"{setting}: {sum(lost.values())} of {len(names)} samples are in no split, {distance} one of another split:"
        f" {lost['train']} of training and {lost['val']} of validation, {shown(names[gone[0]])} first; left are"
        f" {len(after['train'])} for train, {len(after['val'])} for val and {len(after['test'])} for test"
    )


def distances(
    found: dict[str, list[str]], footprint: Callable[[str], Footprint | None]
) -> dict[tuple[str, str], tuple[float, str, str]]:
    """Of each two splits: how near in metres their nearest samples are, from edge to edge, and which these are."""
    names = [name for part in PARTS for name in found.get(part, [])]
    tiles = Places(names, footprint).tiles
    ends = np.cumsum([0, *(len(found.get(part, [])) for part in PARTS)])
    ranges = {part: slice(ends[n], ends[n + 1]) for n, part in enumerate(PARTS)}
    nearest = {}
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        if found.get(one) and found.get(other):
            metres, i, j = closest(tiles[ranges[one]], tiles[ranges[other]])
            nearest[one, other] = (metres, found[one][i], found[other][j])
    return nearest
