"""Weights that come with the package: which names of a backbone mean them, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

NO_FILES = ("small", "random", "none", "pretrained")  # as a setting called weights, whatever lies in the current folder
Make = TypeVar("Make", bound=Callable[..., Any])


def ships(files: Mapping[str, Path]) -> Callable[[Make], Make]:
    """Of a function that makes a backbone: the values of its `weights` that mean a file of the package."""

    def mark(make: Make) -> Make:
        vars(make)["ships"] = files
        return make

    return mark


def file_of(make: Any, weights: object) -> Path | None:
    """The file that `weights` means to this function; None if it is a name of the user's own."""
    found: Path | None = getattr(make, "ships", {}).get(weights)
    return found
