"""What a study has found as one JSON file in its folder: every number comes back as it was, NaN and infinity too."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.engine.files import DamagedError, read_json, write_text
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Likeness, Probed

FILES: dict[type, str] = {Probed: "probe.json", Likeness: "cka.json"}
AGAIN = "remove it, and start the command again"
ODD = "not finite"  # {ODD: "nan"} stands for a number that JSON has no word for


def save(result: Probed | Likeness, folder: str | Path) -> Path:
    """Write `probe.json` or `cka.json`, aside and then renamed; gives its path."""
    values = plain(result)
    text = json.dumps({"crc32": _sum(values), **values}, indent=1, allow_nan=False)
    return write_text(Path(folder) / FILES[type(result)], text + "\n")


def load(folder: str | Path) -> Probed | Likeness:
    """What `save` wrote into a folder, in which one of the two must be."""
    there = [kind for kind, name in FILES.items() if (Path(folder) / name).is_file()]
    if len(there) != 1:
        has = f"both {' and '.join(FILES.values())}" if there else f"neither {' nor '.join(FILES.values())}"
        raise UserError(f"{folder} has {has}: give the folder that satdifuser probe or satdifuser cka has written")
    found: Probed | Likeness = load_file(Path(folder) / FILES[there[0]], there[0])
    return found


def load_file(path: Path, kind: type) -> Any:
    """A file of this kind of result, or one line that says that it is damaged."""
    found = read_json(path, dict, AGAIN)
    try:
        if found.pop("crc32") != _sum(found):
            raise ValueError("its numbers are not those that were written")
        return made(kind, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = " ".join(str(error).split())[:120]
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {what}): {AGAIN}") from None


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON has them.

    >>> plain((1.5, float("nan"), {"a": np.arange(2)}))
    [1.5, {'not finite': 'nan'}, {'a': [0, 1]}]
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {ODD: str(value)}
    return value


def made(kind: Any, value: Any) -> Any:
    """The inverse of `plain` for a value of this kind; what is none is a `TypeError` or a `ValueError`.

    >>> made(tuple[float, ...], [1.5, {"not finite": "-inf"}])
    (1.5, -inf)
    """
    if isinstance(value, dict) and value.keys() == {ODD}:
        value = float(value[ODD])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: made(hints[name], inner) for name, inner in _each(value, dict).items()})
    if kind is Any:
        return _any(value)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inside:
            return None
        return made(next(one for one in inside if one is not type(None)), value)
    if origin is np.ndarray:
        return np.array(made(Any, _each(value, list)), np.float64)
    if origin is tuple:
        kinds = [inside[0]] * len(value) if inside[-1] is ... else list(inside)
        if not value:
            return ()
        return tuple(made(one, inner) for one, inner in zip(kinds, _each(value, list), strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: made(inside[1], inner) for key, inner in _each(value, dict).items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _each(value, kind)


def _any(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: made(Any, inner) for key, inner in value.items()}
    return [made(Any, inner) for inner in value] if isinstance(value, list) else value


def _each(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{str(value)[:40]} is no {kind.__name__}")
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _sum(values: Any) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
