"""Whose code a configuration may name: a run's configuration is somebody's, and builds only what the user trusts."""

from __future__ import annotations

import contextlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from satdifuser.errors import UserError


class UntrustedError(UserError):
    """A configuration asks for code that the user has not allowed."""


OWN = frozenset({"satdifuser", "deflect"})
NAMED = re.compile(r"[~+]*(?:[\w@/]+\.)*(?:_target_|sensor)=['\"]?(?P<package>[^\W\d]\w*)\.")
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


def named_in(configurations: Iterable[Any], overrides: Iterable[str]) -> set[str]:
    """The packages whose classes or sensors a user's own groups name, or his own words on the command line."""
    words = [*overrides, *(word for values in configurations for word in _words(values))]
    found = (NAMED.match(word) for word in words)
    return {match["package"] for match in found if match is not None}


def _words(values: Any, key: str = "") -> Iterator[str]:
    """Every text in a configuration as an override would have it; lists of an experiment hold overrides themselves."""
    if isinstance(values, Mapping):
        for name, inner in values.items():
            yield from _words(inner, str(name))
    elif isinstance(values, list | tuple):
        for inner in values:
            yield from _words(inner)
    elif isinstance(values, str):
        yield f"{key}={values}" if key else values


def check_trusted(name: str) -> str:
    """The name of a package as a user writes it after --trust."""
    if not name.isidentifier():
        raise UserError(f"--trust {name}: give the name of a package, as my_package")
    return name


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


def check_sensor(words: Any, name: str) -> str:
    """What names a sensor, each dotted path in it of a trusted package: `SENTINEL2:B04/B03+mine.sensors.RADAR`."""
    if not isinstance(words, str):
        raise UserError(f"{name} is {words!r}: give the name of a sensor, as SENTINEL2")
    for text in words.split("+"):
        path = text.strip().partition("@")[0].partition(":")[0]
        if "." in path or not re.fullmatch(r"[^\W\d]\w*", path):
            check_package(path, name)
    return words


def find(path: Any, name: str) -> Any:
    """The class that a `_target_` names, or the function that makes one: of a trusted package, and defined there.

    `satdifuser.engine.run.shutil.rmtree` names no code of satdifuser, and a method is no maker of anything.
    """
    package = check_package(path, name).partition(".")[0]
    try:
        found: Any = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name} is {path}, and there is none ({' '.join(str(error).split())})") from None
    except Exception as error:  # of a file of the user's own
        kind, reason = type(error).__name__, " ".join(str(error).split())
        raise UserError(f"{name} is {path}, whose file cannot be imported ({kind}: {reason})") from error
    whole = inspect.isclass(found) or (inspect.isfunction(found) and found.__qualname__ == found.__name__)
    home = str(getattr(found, "__module__", "")).partition(".")[0]
    hidden = any(part.startswith("_") for part in path.split("."))
    if not whole or home != package or hidden:
        raise UserError(f"{name} is {path}: it must be a class, or a function that makes one, of {package} itself")
    return found
