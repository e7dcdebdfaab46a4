"""Which windows a split has: by blocks in space, by scene, by a column of the labels, by list or by hash."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from satdifuser.data.files.names import shown
from satdifuser.data.files.tree import warn_once
from satdifuser.data.readers.scenes.drawn import Array
from satdifuser.data.readers.scenes.plan import Plan, pixels_of
from satdifuser.data.splits.blocks import PARTS, dealt
from satdifuser.data.splits.holdout import SPLITS, held_out
from satdifuser.data.splits.near import near
from satdifuser.data.splits.places import Places
from satdifuser.data.splits.rules import RULES, Blocks, Column, Part, Rule, assigned, rule_of
from satdifuser.data.tables import Table
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Word, check, hints_of
from satdifuser.scenes.vector import Objects

Names = Annotated[list[str], Len(1), Word("names of scenes, or a share as 0.2")]
ScenesWords = Annotated[
    str | dict[str, Any],
    Word("blocks, scene, hash or {by: blocks, scene, column, list or hash, with its settings}"),
]
SIDES = 2  # of a window, that a block has where nobody says how large it is
SEEDS = 64  # of which the best is taken, where nobody gives one


@dataclass(frozen=True)
class Scene(Rule):
    """By scene: those named for validation and testing, or a share of all, by a hash of their names."""

    by = "scene"
    val: Part | Names = 0.1
    test: Part | Names = 0.1

    def words(self) -> str:
        said = (
            f"{one:.4g} of them for {part}" if isinstance(one, float) else f"{', '.join(one)} for {part}"
            for part, one in (("val", self.val), ("test", self.test))
        )
        return f"by scene, {' and '.join(said)}"


@dataclass
class Divided:
    """Names of each split, or of `all` alone; of one by objects which of them count, and what a window then shows."""

    rule: Rule
    splits: dict[str, list[str]]
    kept: dict[str, Array]
    shows: Mapping[str, Array]


def scene_rule(words: Any, plan: Plan, split: str) -> Rule:
    """The rule as the configuration says it; blocks of unsaid size are two windows wide.

    Where blocks have no seed, it is one by which each split shows as many classes as can be.
    """
    given: dict[str, Any] = {"by": words} if isinstance(words, str) else dict(words)
    by = given.get("by")
    if by == "scene":
        hints = {key: hint for key, hint in hints_of(Scene).items() if key != "setting"}
        known = {key: value for key, value in given.items() if key != "by"}
        for key in known:
            if key not in hints:
                close = nearest(key, hints)
                raise UserError(f"there is no setting data.split_by.{key} of scene: it has {', '.join(hints)}{close}")
        return Scene("data.split_by", **{k: check(v, hints[k], f"data.split_by.{k}") for k, v in known.items()})
    if by not in RULES or by == "folder":
        others = [*(name for name in RULES if name != "folder"), "scene"]
        raise UserError(f"data.split_by is {by!r}: it can be {', '.join(others)}{nearest(str(by), others)}")
    rule = rule_of(given, "data.split_by")
    if not isinstance(rule, Blocks) or split == "all":
        return rule
    names = sorted(plan.spots)
    places = Places(names, lambda name: plan.footprint(plan.spots[name]))
    if "metres" not in given:
        rule = replace(rule, metres=max(1.0, round(SIDES * math.sqrt(2) * float(places.tiles.outer[0]), 1)))
    return rule if "seed" in given else replace(rule, seed=_seed(plan, names, places, rule))


def _seed(plan: Plan, names: Sequence[str], places: Places, rule: Blocks) -> int:
    """The first seed of blocks by which the splits show the most classes: blocks know nothing of classes."""
    shows = np.array([plan.shows[name] > 0 for name in names])
    blocks: dict[tuple[int, int], list[int]] = {}
    for number, (column, row) in enumerate(places.blocks(rule.metres).tolist()):
        blocks.setdefault((column, row), []).append(number)
    counts = {block: len(inside) for block, inside in blocks.items()}
    seen = {block: shows[inside].any(0) for block, inside in blocks.items()}
    wanted = {"test": rule.test * len(names), "val": rule.val * len(names)}

    def shown_by(seed: int) -> int:
        parts = dealt(counts, wanted, seed)
        return sum(int(np.any([seen[block] for block in own], axis=0).sum()) for own in parts.values() if own)

    return max(range(SEEDS), key=lambda seed: (shown_by(seed), -seed))


def divided(
    plan: Plan, words: Any, split: str, objects: Objects, *, count: int, ignore: int, names: Sequence[str]
) -> Divided:
    """All splits by the rule; `names` are those of the `count` classes."""
    if split not in SPLITS:
        raise UserError(f"data.split is {split!r}: it can be {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    rule = scene_rule(words, plan, split)
    if split == "all":
        return Divided(rule, {"all": sorted(plan.spots)}, {}, plan.shows)
    if isinstance(rule, Column):
        found = _by_objects(plan, rule, objects, count, ignore, split)
    else:
        found = Divided(rule, _by_windows(plan, rule, names), {}, plan.shows)
        if not isinstance(rule, Blocks):
            _say_shared(plan, found.splits, rule, objects)
    if not found.splits[split]:
        counts = ", ".join(f"{part}: {len(found.splits[part])}" for part in PARTS)
        raise UserError(
            f"data.labels has no samples for {split}: of {len(plan.spots)}, data.split_by ({rule.words()}) gives"
            f" {counts}; set another rule or shares"
        )
    return found


def _say_shared(plan: Plan, splits: Mapping[str, Sequence[str]], rule: Rule, objects: Objects) -> None:
    """Blocks leave out what overlaps another split; the other rules do not."""
    train, held = splits["train"], [name for part in ("val", "test") for name in splits[part]]
    if not train or not held or any(place.crs is None for place in plan.places):
        return
    tiles = Places([*train, *held], lambda name: plan.footprint(plan.spots[name])).tiles
    shared = near(tiles[np.arange(len(train), len(tiles))], tiles[np.arange(len(train))], 0.0)
    if shared.any():
        first = held[int(np.flatnonzero(shared)[0])]
        warn_once(
            f"{objects.where}: {int(shared.sum())} of {len(held)} samples for validation and testing ({rule.words()})"
            f" overlap one of training, {shown(first)} first, so what is measured on them says too much:"
            " data.split_by=blocks leaves such out"
        )


def _by_windows(plan: Plan, rule: Rule, classes: Sequence[str]) -> dict[str, list[str]]:
    if isinstance(rule, Scene):
        return _by_scene(plan, rule)
    of_class = {
        name: classes[int(plan.shows[name].argmax())] for name, spot in plan.spots.items() if spot.object is not None
    }
    return assigned(
        list(plan.spots),
        rule,
        classes=of_class or None,
        footprint=lambda name: plan.footprint(plan.spots[name]),
    )


def _by_scene(plan: Plan, rule: Scene) -> dict[str, list[str]]:
    shares = [one if isinstance(one, float) else 0.0 for one in (rule.val, rule.test)]
    named = {part: one for part in ("val", "test") if isinstance(one := getattr(rule, part), list)}
    for part, own in named.items():
        lost = [name for name in own if name not in plan.names]
        if lost:
            there = ", ".join(map(shown, plan.names[:8]))
            raise UserError(
                f"{rule.setting}.{part} has {shown(lost[0])}, which is no scene: there are {there}"
                f"{nearest(lost[0], plan.names)}"
            )
    both = {*named.get("val", ())} & {*named.get("test", ())}
    if both:
        raise UserError(f"{rule.setting}: scene {shown(min(both))} is for val and for test: leave it in one")
    left = [name for name in plan.names if not any(name in own for own in named.values())]
    scenes = held_out({"": left}, *shares) | named
    part_of = {name: part for part in PARTS for name in scenes[part]}
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for name, spot in plan.spots.items():
        found[part_of[plan.names[spot.scene]]].append(name)
    return found | {"all": sorted(plan.spots)}


def _by_objects(plan: Plan, rule: Column, objects: Objects, count: int, ignore: int, split: str) -> Divided:
    """Each split has the labels of its own objects, and a window may be in several, with those of each."""
    rows = [str(number) for number in range(len(objects))]
    table = Table(
        objects.path,
        objects.setting,
        {rule.column: objects.column(rule.column, f"{rule.setting}.column"), "object": rows},
        ("object",),
    )
    parts = assigned(rows, rule, table=None if rule.table is not None else table)
    kept = {part: np.isin(np.arange(len(objects)), [int(row) for row in own]) for part, own in parts.items()}
    splits: dict[str, list[str]] = {}
    shows = dict(plan.shows)
    for part, own in kept.items():
        splits[part] = []
        for name, spot in plan.spots.items():
            if spot.object is not None:
                splits[part] += [name] if own[spot.object] else []
                continue
            pixels = pixels_of(plan.drawn[spot.scene].mask(spot.row, spot.column, plan.size, ignore, own), count)
            splits[part] += [name] if pixels.any() else []
            if part == split:
                shows[name] = pixels
    return Divided(rule, splits, kept, shows)
