"""Labels: classes that are missing or outside the table, masks of another size, targets far away from the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from satdifuser.data.check.findings import Finding, counted, fine, share, some
from satdifuser.data.check.seen import Look

FAR = 12.0  # robust deviations of a target
FEW = 100  # samples of a split, in which a class may be missing by chance


def labels(looks: Sequence[Look]) -> Iterator[Finding]:
    yield from _outside(looks)
    yield from _classes(looks)
    yield from _masks(looks)
    yield from _targets(looks)


def _outside(looks: Sequence[Look]) -> Iterator[Finding]:
    classes = len(looks[0].labels.classes)
    for look in looks:
        bad = [one for one in look.seen if one.outside]
        if not bad:
            continue
        found: Counter[int] = Counter()
        for one in bad:
            found.update(one.outside)
        pixels = "pixel" if bad[0].mask is not None else "image"
        values = [f"{value} in {counted(count, pixels)}" for value, count in sorted(found.items())]
        yield Finding(
            "error",
            "outside",
            f"{counted(len(bad), 'sample')} {'has' if len(bad) == 1 else 'have'} values that are no class of 0 to"
            f" {classes - 1} nor the ignored {look.labels.ignore_index}: {some(values, 6)}",
            f"{look.name}, {some([one.name for one in bad])}",
            "name them in data.classes or data.ignore",
            [one.name for one in bad],
        )


def _classes(looks: Sequence[Look]) -> Iterator[Finding]:
    names = looks[0].labels.classes
    with_classes = [look for look in looks if any(one.classes is not None for one in look.seen)]
    if not names or not with_classes:
        return
    shows = {look.name: look.count() for look in with_classes}
    partly = "" if all(look.whole for look in with_classes) else " (of the samples that were looked at)"
    never = [name for number, name in enumerate(names) if not any(found[number] for found in shows.values())]
    if never:
        yield Finding(
            "warning",
            "class-never",
            f"{counted(len(never), 'class', 'classes')} {'is' if len(never) == 1 else 'are'} in no split{partly}:"
            f" {some(never, 8)}",
            "",
            "a mean over classes leaves them out or counts 0: see data.classes, or take them out of the table",
        )
    lacking = False
    for look in with_classes:
        absent = [n for i, n in enumerate(names) if not shows[look.name][i] and n not in never]
        if absent:
            lacking = True
            learned = look.name == "train"
            yield Finding(
                "warning",
                "class-absent",
                f"no sample shows {some(absent, 8)}{partly}",
                look.name,
                ("nothing can learn them: " if learned else "nothing is known of them there: ") + _mend(look),
            )
    places = {name: [s for s, found in shows.items() if found[number]] for number, name in enumerate(names)}
    once = [f"{name} ({where[0]})" for name, where in places.items() if len(where) == 1]
    if once and len(with_classes) > 1:
        what = (
            f"{counted(len(once), 'class', 'classes')} {'is' if len(once) == 1 else 'are'} in one split alone{partly}"
        )
        yield Finding("warning", "class-once", f"{what}: {some(once, 8)}", "", "use other splits")
    if not never and not lacking:
        yield from fine("classes", f"every split has all {len(names)} classes")


def _mend(look: Look) -> str:
    """What gives a split classes that it lacks."""
    if not look.whole:
        return "look at all samples with samples=null, and if none shows them use other splits"
    setting = next((name for name in ("split_by", look.name) if name in look.settings), "")
    said = f" with data.{setting}" if setting else ""
    few = f" ({counted(look.total, 'sample')} {'is' if look.total == 1 else 'are'} few)" if look.total < FEW else ""
    return f"give {look.name} another share of the samples{few}{said}, or images that show them"


def _masks(looks: Sequence[Look]) -> Iterator[Finding]:
    masked = [one for look in looks for one in look.seen if one.mask is not None]
    if not masked:
        return
    other = [one for one in masked if tuple(one.mask or ()) != one.shape[-2:]]
    if other:
        first = other[0]
        yield Finding(
            "warning",
            "mask-size",
            f"{counted(len(other), 'mask')} {'has' if len(other) == 1 else 'have'} another size than the image, as"
            f" {' x '.join(map(str, first.mask or ()))} of {' x '.join(map(str, first.shape[-2:]))}",
            some([one.name for one in other]),
            "predictions are resized to the mask; data.fit says what else is done",
            [one.name for one in other],
        )
    empty = [one for one in masked if one.classes is not None and not one.classes.sum() and not one.outside]
    if empty:
        yield Finding(
            "warning",
            "mask-ignored",
            f"{counted(len(empty), 'mask')} {'is' if len(empty) == 1 else 'are'} ignored in every pixel",
            some([one.name for one in empty]),
            "they teach nothing and count nowhere: see data.ignore, or leave them out",
            [one.name for one in empty],
        )
    pixels = sum(int(np.prod(one.mask or ())) for one in masked)
    ignored = sum(one.ignored for one in masked)
    yield Finding("fine", "ignored", f"{share(ignored, pixels)} of the masks' pixels are ignored")


def _targets(looks: Sequence[Look]) -> Iterator[Finding]:
    every = [(one, look) for look in looks for one in look.seen if one.target is not None and one.target.size]
    if not every:
        return
    values = np.concatenate([one.target for one, _ in every if one.target is not None])
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle))) or float(values.std())
    if values.min() == values.max():
        yield Finding("warning", "target-flat", f"every target is {middle:g}", "", "see where targets are read from")
        return
    far = [one for one, _ in every if one.target is not None and np.abs(one.target - middle).max() > FAR * spread]
    if far:
        most = max(
            (float(v) for one in far if one.target is not None for v in one.target), key=lambda v: abs(v - middle)
        )
        yield Finding(
            "warning",
            "target-far",
            f"{counted(len(far), 'sample')} {'has' if len(far) == 1 else 'have'} a target more than {FAR:g} robust"
            f" deviations from the median {middle:.4g}, as {most:.4g}",
            some([one.name for one in far]),
            "see whether it is a value for no data, or another unit",
            [one.name for one in far],
        )
    else:
        yield Finding(
            "fine", "target", f"targets are from {values.min():.4g} to {values.max():.4g}, median {middle:.4g}"
        )
