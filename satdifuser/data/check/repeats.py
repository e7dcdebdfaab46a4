"""The same image twice, or nearly, within a split and across splits: what makes a test score a memory.

Images are compared by a digest of all their numbers, and by a tiny picture of 12 x 12 cells, brought to mean 0 and
length 1: those whose cosine is `ALIKE` or more, and whose brightness and contrast agree, are near. A turned or shifted
copy is not found this way; where files say where they lie, overlapping footprints find those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from satdifuser.data.check.findings import Finding, counted, fine, share, some
from satdifuser.data.check.seen import Look, Seen

ALIKE = 0.995
BLOCK = 1024
OVERLAP = 0.01  # of the smaller one's area
LEAK = "keep one of them: a test score counts what was trained on"
Box = tuple[float, float, float, float]
Boxes = Mapping[str, tuple[Box, str]]


def repeats(looks: Sequence[Look]) -> Iterator[Finding]:
    found = [*_ids(looks), *_within(looks), *_across(looks)]
    yield from found or fine("repeats", "no image comes twice")
    if len(looks) > 1:
        near = list(_near(looks))
        yield from near or fine("near", f"no image is nearly one of another split (cosine {ALIKE:g} of 12 x 12 cells)")


def _ids(looks: Sequence[Look]) -> Iterator[Finding]:
    for one, other in combinations(looks, 2):
        both = sorted({s.name for s in one.seen} & {s.name for s in other.seen})
        if both:
            what = f"{counted(len(both), 'id')} {'is' if len(both) == 1 else 'are'} in both"
            yield Finding("error", "id-across", what, f"{one.name} and {other.name}, {some(both)}", LEAK, both)


def _within(looks: Sequence[Look]) -> Iterator[Finding]:
    for look in looks:
        groups: dict[str, list[Seen]] = {}
        for one in look.seen:
            if not one.flat:
                groups.setdefault(one.digest, []).append(one)
        twice = [group for group in groups.values() if len(group) > 1]
        if not twice:
            continue
        pairs = [" = ".join(one.name for one in group[:2]) for group in twice]
        differ = [group for group in twice if len({str(one.label) for one in group if not one.alone}) > 1]
        said = f", {len(differ)} of them with different labels" if differ else ""
        yield Finding(
            "warning",
            "repeat-within",
            f"{counted(len(twice), 'image')} {'comes' if len(twice) == 1 else 'come'} more than once{said}",
            f"{look.name}, {some(pairs, 2)}",
            "leave the copies out" + (", and see which label is right" if differ else ""),
            [one.name for group in twice for one in group],
        )


def _across(looks: Sequence[Look]) -> Iterator[Finding]:
    for one, other in combinations(looks, 2):
        there = {s.digest: s for s in one.seen if not s.flat}
        pairs = [(there[s.digest], s) for s in other.seen if s.digest in there and not s.flat]
        pairs = [(a, b) for a, b in pairs if a.name != b.name]
        if pairs:
            names = [f"{a.name} = {b.name}" for a, b in pairs]
            what = f"{counted(len(pairs), 'image')} {'is' if len(pairs) == 1 else 'are'} in both"
            where = f"{one.name} and {other.name}, {some(names, 2)}"
            yield Finding("error", "repeat-across", what, where, LEAK, [b.name for _, b in pairs])


def _near(looks: Sequence[Look]) -> Iterator[Finding]:
    for one, other in combinations(looks, 2):
        pairs = near_pairs(one.seen, other.seen)
        if pairs:
            names = [f"{a.name} and {b.name} ({cosine:.4f})" for a, b, cosine in pairs]
            yield Finding(
                "warning",
                "near-across",
                f"{counted(len(pairs), 'pair')} of nearly the same image",
                f"{one.name} and {other.name}, {some(names, 2)}",
                "look at them (data show): copies that were compressed again leak like exact ones",
                [b.name for _, b, _ in pairs],
            )


def near_pairs(one: Sequence[Seen], other: Sequence[Seen]) -> list[tuple[Seen, Seen, float]]:
    """Pairs that are alike and not equal, the nearest first."""
    mine, theirs = ([s for s in seen if s.small.size and not s.flat] for seen in (one, other))
    if not mine or not theirs or mine[0].small.size != theirs[0].small.size:
        return []
    right = np.stack([s.small for s in theirs])
    bright, contrast = (np.array([s.level[place] for s in theirs]) for place in (0, 1))
    found = []
    for first in range(0, len(mine), BLOCK):
        block = mine[first : first + BLOCK]
        alike = np.stack([s.small for s in block]) @ right.T
        for row, column in zip(*np.nonzero(alike >= ALIKE), strict=True):
            a, b = block[row], theirs[column]
            spread = max(a.level[1], contrast[column])
            level = abs(a.level[0] - bright[column]) <= 0.5 * spread and min(a.level[1], b.level[1]) >= 0.8 * spread
            if level and a.digest != b.digest and a.name != b.name:
                found.append((a, b, float(alike[row, column])))
    return sorted(found, key=lambda pair: -pair[2])


def overlaps(boxes: Mapping[str, Boxes]) -> Iterator[Finding]:
    """Of samples that say where they lie (split -> id -> bounds and coordinate system): overlap across splits."""
    compared = False
    hit = False
    for (one, mine), (other, theirs) in combinations(boxes.items(), 2):
        pairs = overlapping(mine, theirs)
        compared = compared or bool(mine and theirs)
        if pairs:
            hit = True
            names = [f"{a} and {b} ({share(part)})" for a, b, part in pairs]
            yield Finding(
                "warning",
                "overlap-across",
                f"{counted(len(pairs), 'pair')} of samples that show the same ground",
                f"{one} and {other}, {some(names, 2)}",
                "split in blocks of space: a test score counts ground that was trained on",
                [b for _, b, _ in pairs],
            )
    if compared and not hit:
        yield from fine("overlap", "no sample lies over one of another split")


def overlapping(
    one: Mapping[str, tuple[Box, str]], other: Mapping[str, tuple[Box, str]]
) -> list[tuple[str, str, float]]:
    """Pairs of one coordinate system that overlap by more than `OVERLAP` of the smaller one, the most first."""
    found = []
    for system in {crs for _, crs in one.values()} & {crs for _, crs in other.values()}:
        names, boxes = _of(one, system)
        others, theirs = _of(other, system)
        for name, (left, bottom, right, top) in zip(names, boxes, strict=True):
            wide = np.minimum(right, theirs[:, 2]) - np.maximum(left, theirs[:, 0])
            high = np.minimum(top, theirs[:, 3]) - np.maximum(bottom, theirs[:, 1])
            area = (theirs[:, 2] - theirs[:, 0]) * (theirs[:, 3] - theirs[:, 1])
            part = np.where((wide > 0) & (high > 0), wide * high, 0) / np.maximum(
                np.minimum(area, (right - left) * (top - bottom)), 1e-12
            )
            found += [(name, others[place], float(part[place])) for place in np.flatnonzero(part > OVERLAP)]
    return sorted(found, key=lambda pair: -pair[2])


def _of(boxes: Boxes, system: str) -> tuple[list[str], Any]:
    rows = [(name, box) for name, (box, crs) in boxes.items() if crs == system]
    return [name for name, _ in rows], np.array([box for _, box in rows], np.float64).reshape(-1, 4)
