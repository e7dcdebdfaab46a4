"""Samples of a training split in which rare classes come more often: their windows again, each a little elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from satdifuser.data.readers.scenes.drawn import Array
from satdifuser.data.readers.scenes.plan import Plan, Spot, pixels_of, within
from satdifuser.data.splits.blocks import PARTS
from satdifuser.data.splits.near import near
from satdifuser.data.splits.places import Places

DRAWS = 4  # of where a window may lie when it comes again


@dataclass(frozen=True)
class Repeats:
    """How often a window may come, and for which seed it is moved."""

    most: int
    seed: int


def balanced(
    plan: Plan,
    names: Sequence[str],
    shows: Mapping[str, Array],
    repeats: Repeats,
    *,
    pixels: Callable[[Spot], Array],
    allowed: Callable[[dict[str, Spot]], set[str]],
) -> dict[str, Spot]:
    """All of `names`, and windows of rare classes again until each class is in as many samples as the commonest.

    What comes again lies up to half a window's side elsewhere (of an object a quarter), still shows the class, and is
    where `allowed` says that it may be; of some draws the first that does is taken, and if none does, it does not come
    again. No window is there twice, and which there are hangs on names and seed alone.
    """
    found = {name: plan.spots[name] for name in names}
    there, have = {*found.values()}, np.array([shows[name] > 0 for name in names]).sum(0)
    target = int(have.max())
    for number in np.argsort(have, kind="stable").tolist():
        owners = sorted((name for name in names if shows[name][number] > 0), key=lambda n: _draw(n, number, repeats))
        for time in range(1, repeats.most):
            if have[number] >= target:
                break
            keys = {(name, draw): f"{number} {time} {draw} {name}" for name in owners for draw in range(DRAWS)}
            moved = {key: _moved(plan, plan.spots[name], key, repeats.seed) for (name, _), key in keys.items()}
            fine = allowed(moved)
            for name in owners:
                tries = [moved[key] for draw in range(DRAWS) if (key := keys[name, draw]) in fine]
                new = next((s for s in tries if s not in there and pixels(s)[number] > 0), None)
                if new is None or have[number] >= target:
                    continue
                there.add(new)
                have = have + (pixels(new) > 0)
                found[_at(plan, new)] = new
    return found


def _draw(name: str, number: int, repeats: Repeats) -> bytes:
    return hashlib.blake2b(f"{repeats.seed} {number} {name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _moved(plan: Plan, spot: Spot, key: str, seed: int) -> Spot:
    """The window up to half its side elsewhere, inside the scene."""
    reach = plan.size // (2 if spot.object is None else 4)
    draw = hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
    steps = [int.from_bytes(part, "big") % (2 * reach + 1) - reach for part in (draw[:8], draw[8:])]
    place = plan.places[spot.scene]
    row, column = (
        within(first + step, plan.size, side)
        for first, step, side in zip((spot.row, spot.column), steps, (place.height, place.width), strict=True)
    )
    return spot._replace(row=row, column=column)


def _at(plan: Plan, spot: Spot) -> str:
    name = plan.name(spot)
    return name if spot.object is None else f"{name}@{spot.row},{spot.column}"


def apart_from_others(plan: Plan, splits: Mapping[str, Sequence[str]], apart: float) -> Callable[..., set[str]]:
    """Which moved training windows are not nearer than `apart` to one of another split."""
    others = [name for part in PARTS if part != "train" for name in splits[part]]

    def allowed(moved: dict[str, Spot]) -> set[str]:
        if not moved or not others:
            return {*moved}
        if any(place.crs is None for place in plan.places):
            return set()
        spots = {**{f"other {name}": plan.spots[name] for name in others}, **moved}
        names = list(spots)
        tiles = Places(names, lambda name: plan.footprint(spots[name])).tiles
        first = len(others)
        held, ours = tiles[np.arange(first)], tiles[np.arange(first, len(names))]
        close = near(ours, held, apart)
        return {name for name, bad in zip(moved, close.tolist(), strict=True) if not bad}

    return allowed


def show_as(
    plan: Plan, shows: Mapping[str, Array], count: int, ignore: int, kept: Array | None
) -> Callable[..., Array]:
    """What a window shows of each class, wherever it lies."""

    def pixels(spot: Spot) -> Array:
        if spot.object is not None:
            return shows[plan.name(spot)]
        return pixels_of(plan.drawn[spot.scene].mask(spot.row, spot.column, plan.size, ignore, kept), count)

    return pixels
