"""What an object of torchgeo's knows of each sample: what it is called, its file, its dates."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.names import name_fault, shown
from satdifuser.errors import UserError

USUAL = (
    "imgs", "samples", "files.image", "files.0", "files", "image_paths", "image_fns", "file_list", "fpaths", "images",
    "image_files", "img_fns", "ids", "idxs", "uuids", "image_filenames", "filenames", "paths", "sample_collection",
)  # fmt: skip
"""Where classes keep what their samples are called, the likeliest first."""


def held(dataset: Any, path: str) -> Any:
    """What an attribute has: `all_bands`, `all_bands.s2` of a dictionary, `a+b` of two lists."""
    if "+" in path:
        return [name for one in path.split("+") for name in held(dataset, one)]
    first, *rest = path.split(".")
    found = getattr(dataset, first)
    for key in rest:
        found = found[_key(found, key)]
    return found


def each(dataset: Any, path: str, count: int) -> list[Any] | None:
    """One value for each sample: `files`, `files.image` of dictionaries, `metadata.chip_id` of a table; or None."""
    first, *rest = path.split(".")
    found = getattr(dataset, first, None)
    if found is None or isinstance(found, str | bytes) or callable(found) or isinstance(found, Mapping):
        return None
    if hasattr(found, "columns"):
        column = rest.pop(0) if rest else None
        named = {str(name): name for name in found.columns}
        if column not in named:
            return None
        found = found[named[column]]
    values = found.tolist() if hasattr(found, "tolist") else list(found)
    try:
        for key in rest:
            values = [value[_key(value, key)] for value in values]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return values if len(values) == count else None


def _key(found: Any, key: str) -> Any:
    if isinstance(found, Mapping):
        return key if key in found else int(key) if key.isdigit() and int(key) in found else key
    return int(key)


def names_of(
    dataset: Any, count: int, root: str, rule: Mapping[str, Any] | str | None
) -> tuple[list[str], list[Any], str]:
    """Names, the values that they come from, and the rule in words; by index where the class has no list of them."""
    said = {"of": rule} if isinstance(rule, str) else dict(rule or {})
    chosen, pattern = said.get("of"), said.get("as")
    for path in USUAL if chosen is None else () if chosen == "index" else (str(chosen),):
        values = each(dataset, path, count)
        words = None if values is None else [_word(value, root) for value in values]
        if values is None or words is None or None in words:
            if chosen is not None:
                raise UserError(f"{type(dataset).__name__} has no list {path} of {count} names: set data.ids")
            continue
        names = [_as(str(word), pattern, path) for word in words]
        if len({*names}) == len({*map(str, words)}):
            return names, values, path if pattern is None else f"{path} as {pattern}"
        if chosen is not None:
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"data.ids names several samples {shown(twice)}: give another rule")
    return [f"{place:07d}" for place in range(count)], [None] * count, "index"


def _word(value: Any, root: str) -> str | None:
    """The text of a name, a path below the root; None where it is none."""
    if isinstance(value, tuple) and value and all(isinstance(one, int) for one in value):
        return "/".join(map(str, value))
    value = value[0] if isinstance(value, tuple) and value else value
    if isinstance(value, Mapping) or not isinstance(value, str | os.PathLike | int | np.integer):
        return None
    text = os.fspath(value).strip() if isinstance(value, str | os.PathLike) else str(value)
    if os.path.isabs(text) or text.startswith(root):  # noqa: PTH117
        text = Path(os.path.relpath(text, root)).as_posix()
    return None if not text or name_fault(text) is not None else text


def _as(word: str, pattern: Any, path: str) -> str:
    if pattern is None:
        return word
    found = re.search(str(pattern), word)
    if found is None:
        raise UserError(f"data.ids: {shown(word)} of {path} is not as {shown(str(pattern))}: change the pattern")
    return "/".join(found.groups()) if found.groups() else found.group()


def share_of(names: Sequence[str], share: Any, group: str | None, others: Sequence[Any] = ()) -> set[str]:
    """The names whose place in an order of hashes lies in `share` [from, to]; those of one group stay together.

    `others` are the shares of all parts: of a few samples each of them has some, as far as they go.

    >>> parts = [[0, 0.1], [0.1, 0.2], [0.2, 1]]
    >>> [len(share_of(list("abcde"), part, None, parts)) for part in parts]
    [1, 1, 3]
    """
    low, high = _pair(share)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name if group is None else _as(name, group, "data.group"), []).append(name)
    order = sorted(groups, key=lambda one: hashlib.blake2b(one.encode(), digest_size=16).digest())
    at = _places(sorted({edge for one in (share, *others) for edge in _pair(one)}), len(order))
    return {name for one in order[at[low] : at[high]] for name in groups[one]}


def _pair(share: Any) -> tuple[float, float]:
    try:
        low, high = (float(edge) for edge in share)
        if 0 <= low < high <= 1:
            return low, high
    except (TypeError, ValueError):
        pass
    raise UserError(f"a share in data.parts is {share}: give two numbers from 0 to 1, as [0, 0.9]")


def _places(edges: Sequence[float], count: int) -> dict[float, int]:
    """So many of `count` lie below each edge of 0 to 1, and some between any two of them."""
    found, last = {0.0: 0, 1.0: count}, 0
    inner = [edge for edge in edges if 0 < edge < 1]
    for place, edge in enumerate(inner):
        last = min(max(math.ceil(edge * count - 1e-9), last + 1), max(count - (len(inner) - place), 0))
        found[edge] = last
    return found
