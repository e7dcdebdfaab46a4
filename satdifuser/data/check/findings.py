"""What a check says: a verdict on one thing, where it was found, and what to do about it, in one line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["error", "warning", "fine"]
ORDER: tuple[Verdict, ...] = ("error", "warning", "fine")
SHOWN = 3  # samples or bands that a line names
LISTED = 20  # ids of an override that a line prints


@dataclass(frozen=True)
class Finding:
    """`name` is what the check is called, for programs; `samples` are some that show it."""

    verdict: Verdict
    name: str
    what: str
    where: str = ""
    todo: str = ""
    samples: Sequence[str] = field(default=())

    def line(self) -> str:
        """
        >>> Finding("warning", "flat", "B10 is 0.2 everywhere", "train", "leave it out").line()
        'warning  train: B10 is 0.2 everywhere; leave it out'
        """
        where = f"{self.where}: " if self.where else ""
        return f"{self.verdict:<7}  {where}{self.what}" + (f"; {self.todo}" if self.todo else "")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "samples": list(self.samples)}


def worst(findings: Iterable[Finding]) -> Verdict:
    there = {found.verdict for found in findings}
    return next((verdict for verdict in ORDER if verdict in there), "fine")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda found: ORDER.index(found.verdict))


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """
    >>> some(["a", "b", "c", "d", "e"]), some(["a"])
    ('a, b, c and 2 more', 'a')
    """
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, what: str, many: str = "") -> str:
    """
    >>> counted(1, "sample"), counted(2000, "sample"), counted(3, "class", "classes")
    ('1 sample', '2000 samples', '3 classes')
    """
    return f"{number} {what if number == 1 else many or what + 's'}"


def leave_out(names: Sequence[str], can: bool) -> str:
    """How samples are left out, where the reader has a setting for it (`can`); tiles go with their whole image.

    >>> print(leave_out(["a", "b c"], True))
    leave them out, as with 'data.exclude=[a, "b c"]'
    >>> leave_out(["a"], False)
    'leave them out'
    """
    if not can or any("#" in name for name in names):
        return "leave them out"
    listed = ", ".join(name if re.fullmatch(r"[\w.-]+", name) else json.dumps(name) for name in names[:LISTED])
    rest = f" and {len(names) - LISTED} more, which data.json names" if len(names) > LISTED else ""
    return f"leave them out, as with 'data.exclude=[{listed}]'{rest}"


def share(part: float, whole: float = 1.0) -> str:
    """
    >>> share(1, 3), share(1, 5000), share(0, 5), share(5, 5)
    ('33 %', '0.02 %', '0 %', '100 %')
    """
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def fine(name: str, what: str) -> Iterator[Finding]:
    yield Finding("fine", name, what)
