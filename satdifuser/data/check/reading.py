"""Samples that cannot be read or used, their sizes, their dates, and ids that come twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from satdifuser.data.check.findings import Finding, counted, fine, some
from satdifuser.data.check.seen import Look, Seen

PIXELS = r"\d+ pixels?"  # how many differs from file to file
OWN = ("has NaN", "has values from")  # of an encoder's faults, those that have a check of their own


def reading(looks: Sequence[Look]) -> Iterator[Finding]:
    for look in looks:
        alike: dict[str, list[tuple[str, str]]] = {}
        for name, reason in look.faults:
            alike.setdefault(re.sub(rf"\S*{re.escape(name)}[^\s:;,]*", "*", re.sub(PIXELS, "", reason)), []).append(
                (name, reason)
            )
        for them in alike.values():
            names = [name for name, _ in them]
            more = f" (and {len(them) - 1} more such: {some(names[1:])})" if len(them) > 1 else ""
            yield Finding("error", "unreadable", them[0][1] + more, look.name, "", names)
        if not look.faults:
            every = f"all {look.total}" if look.whole else f"{look.looked} of {look.total}, evenly chosen,"
            yield from fine("read", f"{look.name}: {every} {'sample' if look.total == 1 else 'samples'} can be read")


def sizes(looks: Sequence[Look]) -> Iterator[Finding]:
    seen = [one for look in looks for one in look.seen]
    shapes = Counter(one.shape for one in seen)
    if len(shapes) > 1:
        usual = shapes.most_common(1)[0][0]
        other = [one for one in seen if one.shape != usual]
        yield Finding(
            "error",
            "sizes",
            f"most samples are {_size(usual)}, and {len(other)} not, as {_size(other[0].shape)}",
            some([one.name for one in other]),
            "a batch needs one size: set data.fit (crop, pad, resize) and data.size, of series data.dates",
            [one.name for one in other],
        )
    elif shapes:
        yield from fine("sizes", f"every image is {_size(next(iter(shapes)))}")
    unfit: dict[str, list[Seen]] = {}
    for one in seen:
        if one.fault is not None and not one.fault.startswith(OWN):
            unfit.setdefault(one.fault, []).append(one)
    for fault, them in unfit.items():
        names = [one.name for one in them]
        yield Finding("error", "unfit", f"{counted(len(them), 'sample')}: each {fault}", some(names), "", names)


def _size(shape: Sequence[int]) -> str:
    """
    >>> _size((13, 64, 48)), _size((5, 10, 128, 128))
    ('13 bands of 64 x 48 px', '5 dates of 10 bands of 128 x 128 px')
    """
    dates = f"{counted(shape[0], 'date')} of " if len(shape) == 4 else ""
    return f"{dates}{counted(shape[-3], 'band')} of {shape[-2]} x {shape[-1]} px"


def series(looks: Sequence[Look]) -> Iterator[Finding]:
    dated = [one for look in looks for one in look.seen if one.dates is not None]
    several = [one for look in looks for one in look.seen if len(one.shape) == 4]
    kinds = {
        "dates-order": ("dates that are not in order", "sort them where they are read", _disordered),
        "dates-twice": ("a date twice", "leave one out, or say which image counts", _twice),
        "dates-none": ("no date at all (all -1)", "leave the samples out", lambda one: max(one.dates or (0,)) < 0),
    }
    before = False
    for name, (what, todo, test) in kinds.items():
        bad = [one.name for one in dated if test(one)]
        if bad:
            before = True
            said = f"{counted(len(bad), 'sample')} {'has' if len(bad) == 1 else 'have'} {what}"
            yield Finding("warning", name, said, some(bad), todo, bad)
    for name, what, todo, bad in (
        ("dates-blank", "an image without any data at one of its dates", "leave such dates out", _blank(several)),
        ("dates-twin", "the same image at two dates", "see which file each date reads", _twins(several)),
    ):
        if bad:
            before = True
            said = f"{counted(len(bad), 'sample')} {'has' if len(bad) == 1 else 'have'} {what}"
            yield Finding("warning", name, said, some(bad), todo, bad)
    if several and not before:
        said = "dates are in order, each once, and" if dated else "when images were taken is not known;"
        yield from fine("series", f"{said} each has an image of its own")


def _known(one: Seen) -> list[int]:
    return [day for day in one.dates or () if day >= 0]


def _disordered(one: Seen) -> bool:
    days = _known(one)
    last = max((place for place, day in enumerate(one.dates or ()) if day >= 0), default=-1)
    return days != sorted(days) or last + 1 != len(days)


def _twice(one: Seen) -> bool:
    return len({*_known(one)}) < len(_known(one))


def _blank(seen: Sequence[Seen]) -> list[str]:
    return [one.name for one in seen if one.blank_dates and not one.flat]


def _twins(seen: Sequence[Seen]) -> list[str]:
    return [one.name for one in seen if one.twin_dates > 0]
