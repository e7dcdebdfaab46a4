"""Which files of a folder are for training, validation and testing: a rule, written down, that needs no list.

Within each class, files are ordered by a hash of their name (BLAKE2b of the path under the root). The first `test` of
them are for testing, the next `val` for validation, the rest for training. The rule knows nothing of a seed, of the
machine, or of where the root lies; a file that comes or goes moves others only at the two borders of its class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from satdifuser.data.files.names import name_bytes
from satdifuser.errors import UserError, nearest

SPLITS = ("train", "val", "test", "all")


def held_out(names: Mapping[str, Sequence[str]], val: float, test: float) -> dict[str, list[str]]:
    """Split -> names, of names by class; `val` and `test` are shares of each class, rounded to whole files.

    >>> split = held_out({"a": ["a/1", "a/2", "a/3", "a/4"], "b": ["b/1", "b/2"]}, val=0.25, test=0.5)
    >>> {name: len(found) for name, found in split.items()}
    {'train': 1, 'val': 2, 'test': 3, 'all': 6}
    """
    if min(val, test) < 0 or not val + test < 1:
        raise UserError(f"data.val is {val} and data.test is {test}: give shares of 0 or more that leave some to train")
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for members in names.values():
        ordered = sorted(members, key=_place)
        first, second = _whole(test * len(ordered)), _whole(val * len(ordered))
        found["test"] += ordered[:first]
        found["val"] += ordered[first : first + second]
        found["train"] += ordered[first + second :]
        found["all"] += ordered
    return {split: sorted(members) for split, members in found.items()}


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(
            f"a folder of images has no split {split!r}: it has {', '.join(SPLITS)}{nearest(split, SPLITS)}"
        )


def _place(name: str) -> bytes:
    return hashlib.blake2b(name_bytes(name), digest_size=16).digest()


def _whole(number: float) -> int:
    return int(number + 0.5)
