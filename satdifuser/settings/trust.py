"""Whose code a configuration may name: a run's configuration is somebody's, and builds only what the user trusts."""

from __future__ import annotations

import contextlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError


class UntrustedError(UserError):
    """A configuration asks for code that the user has not allowed."""


OWN = frozenset({"satdifuser", "deflect"})
_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=OWN)


@contextlib.contextmanager
def trusting(packages: Iterable[str]) -> Iterator[None]:
    """Meanwhile configurations may name classes of these packages too."""
    token = _trusted.set(_trusted.get() | frozenset(packages))
    try:
        yield
    finally:
        _trusted.reset(token)


def trusted() -> list[str]:
    """The packages that are trusted beside the project's own."""
    return sorted(_trusted.get() - OWN)


def named_in(folders: Sequence[str], overrides: Sequence[str]) -> set[str]:
    """The packages whose classes a user's own folders of groups name, or his own words on the command line."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for f in folders for path in Path(f).rglob("*.yaml")]
    named = r"\b(?:_target_|sensor)['\"]?\s*[:=]\s*['\"]?([A-Za-z_]\w*)\."
    return {name for text in (*texts, *overrides) for name in re.findall(named, text)}


def check_package(path: Any, name: str) -> str:
    """The dotted path of something in a trusted package, or an error that says what was asked for."""
    if not isinstance(path, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
        raise UserError(f"{name} is {path!r}: give the dotted path of a class, as satdifuser.fusion.GlobalWeighted")
    package = path.partition(".")[0]
    if package not in _trusted.get():
        raise UntrustedError(
            f"{name} asks for {path}, which is not code of this project: if you know it, allow it with --trust"
            f" {package}, or name it in a folder of your own (--config-dir)"
        )
    return path


def find(path: Any, name: str) -> Any:
    """The class that a `_target_` names, or the function that makes one: of a trusted package, and defined there.

    `satdifuser.engine.run.shutil.rmtree` names no code of satdifuser, and a method is no maker of anything.
    """
    package = check_package(path, name).partition(".")[0]
    try:
        found: Any = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name} is {path}, and there is none ({' '.join(str(error).split())})") from None
    whole = inspect.isclass(found) or (inspect.isfunction(found) and found.__qualname__ == found.__name__)
    home = str(getattr(found, "__module__", "")).partition(".")[0]
    if not whole or home != package:
        raise UserError(f"{name} is {path}: it must be a class, or a function that makes one, of {package} itself")
    return found
