"""The folder of a study: one at a time, of one kind, and of one set of settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satdifuser.engine.files import writing
from satdifuser.errors import UserError
from satdifuser.store.disk import locked


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else writes the folder meanwhile, which is made if it is not there."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # where a folder cannot be locked
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not locked(handle):
            raise UserError(f"another process is writing {folder}: wait for it, or give another output=")
        yield
    finally:
        os.close(handle)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The dotted names under which two sets of plain values differ.

    >>> changed({"a": {"b": 1, "c": [2]}}, {"a": {"b": 1, "c": [3]}, "d": None})
    ['a.c', 'd']
    """
    mine, theirs = _flat(before), _flat(now)
    return [name for name in {**mine, **theirs} if mine.get(name, ...) != theirs.get(name, ...)]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {f"{before}{key}": value}
    return found
