"""What a setting can be: kinds of numbers and choices, said once where it is declared.

From the same place come the check at the door, the error, `--help` and the reference.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin

import numpy as np
from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import SchemaError

from satdifuser.errors import UserError, nearest

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Unit:
    """What a number counts, for people."""

    name: str


@dataclass(frozen=True)
class Word:
    """What a word says, for people."""

    name: str


MOST = 10**30  # no number of settings is larger; torch takes up to 3e38
Count = Annotated[int, Ge(1), Le(MOST)]
Whole = Annotated[int, Ge(0), Le(MOST)]
Positive = Annotated[float, Gt(0), Le(MOST)]
NotNegative = Annotated[float, Ge(0), Le(MOST)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]  # of dropout, of decay: never all of it
Percent = Annotated[float, Gt(0), Le(100), Unit("%")]
Side = Annotated[int, Ge(1), Unit("px")]
Seed = Annotated[int, Ge(0), Lt(2**32), Word("a whole number of 0 or more, below 2^32")]
Place = Annotated[str, Len(1), AfterValidator(os.path.expanduser), Word("a path")]
Precision = Literal["no", "bf16", "fp16"]

P = ParamSpec("P")
R = TypeVar("R")


def words(hint: Any) -> str:
    """What a setting of this kind can be.

    >>> words(Positive), words(Count | None)
    ('a number above 0', 'a whole number of 1 or more, or null')
    >>> words(Precision), words(Percent)
    ('no, bf16 or fp16', 'a number above 0 and at most 100 (%)')
    """
    if hint is None or hint is types.NoneType:
        return "null"
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        word = next((part.name for part in parts[1:] if isinstance(part, Word)), None)
        if word is not None:
            return word
        length = next((part for part in parts[1:] if isinstance(part, Len)), None)
        if length is not None:
            return _long(words(parts[0]), length)
        unit = next((f" ({part.name})" for part in parts[1:] if isinstance(part, Unit)), "")
        return words(parts[0]) + _bounds(parts[1:]) + unit
    if origin is Literal:
        return _or([_word(part) for part in parts])
    if origin in (typing.Union, types.UnionType):
        rest = [words(part) for part in parts if part is not types.NoneType]
        return ", or ".join([*dict.fromkeys(rest), *(["null"] if types.NoneType in parts else [])])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "names with values"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = [part for part in parts if part is not Ellipsis]
        each = "" if not inner or inner[0] is Any else f", each {words(inner[0])}"
        return f"a list{_of(origin, parts)}{each}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "names with values"
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return named.get(hint, getattr(hint, "__name__", str(hint)))


def _long(what: str, length: Len) -> str:
    """
    >>> words(Annotated[list[Share], Len(2, 2)]), words(Annotated[str, Len(1)])
    ('a list of 2, each a number from 0 to 1', 'a word, not an empty one')
    """
    if not what.startswith("a list"):
        return f"{what}, not an empty one"
    return what.replace("a list", f"a list of {length.min_length}{'' if length.max_length else ' or more'}", 1)


def _of(origin: type, parts: tuple[Any, ...]) -> str:
    return f" of {len(parts)}" if issubclass(origin, tuple) and Ellipsis not in parts else ""


def _bounds(metadata: Sequence[Any]) -> str:
    found = {type(part): part for part in metadata}
    low, above = found.get(Ge), found.get(Gt)
    high, below = found.get(Le), found.get(Lt)
    high = None if high is not None and high.le == MOST else high
    start = f"from {low.ge:.10g}" if low else f"above {above.gt:.10g}" if above else ""
    end = f"{high.le:.10g}" if high else f"below {below.lt:.10g}" if below else ""
    if start and end:
        return f" {start} to {end}" if low else f" {start} and {'at most ' if high else ''}{end}"
    if low:
        return f" of {low.ge:.10g} or more"
    return f" {start}" if start else f" {'of at most ' if high else ''}{end}" if end else ""


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def shown(value: Any) -> str:
    """A value as the user wrote it, not too long.

    >>> shown(None), shown(float("nan")), shown("abc"), shown(True)
    ('null', 'nan', "'abc'", 'true')
    """
    text = repr(value) if isinstance(value, str) else _word(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def must_be(name: str, value: Any, hint: Any) -> str:
    """The one line about a value that a setting cannot have."""
    choices = [part for part in _flat(hint) if get_origin(part) is Literal]
    known = [_word(value) for choice in choices for value in get_args(choice)]
    hint_of_name = nearest(value, known) if isinstance(value, str) else ""
    only = choices and all(get_origin(part) is Literal or part is types.NoneType for part in _flat(hint))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and words(hint).startswith("a path"):
        hint_of_name = f"; write {name}=./{value}"
    elif number and MOST < abs(value) < math.inf:
        hint_of_name = f", and at most {MOST:.0e}"
    return f"{name} is {shown(value)}: it {'can' if only else 'must'} be {words(hint)}{hint_of_name}"


def _flat(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return _flat(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [one for part in get_args(hint) for one in _flat(part)]
    return [hint]


def check(value: Any, hint: Any, name: str) -> Any:
    """The value as its kind has it (a whole number where a number is wanted becomes one), or an error that names it."""
    value = value.item() if isinstance(value, np.generic) else value
    adapter = _adapter(hint)
    if adapter is None:
        check_finite(value, name)
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError:
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{name} is {os.fsencode(value)!r}, which is not UTF-8: rename it") from None
        raise UserError(must_be(name, value, hint)) from None


@functools.lru_cache(maxsize=1024)
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """None for what pydantic cannot know by itself, such as a protocol."""
    if hint is Any or getattr(hint, "_is_protocol", False):
        return None
    try:
        return TypeAdapter(hint, config=STRICT)
    except (PydanticSchemaGenerationError, PydanticUserError, SchemaError, TypeError):
        return None


def check_finite(value: Any, name: str) -> None:
    """Whatever a class of one's own takes: no number is NaN or infinite."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_finite(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            check_finite(inner, name)
    elif isinstance(value, float) and not np.isfinite(value):
        raise UserError(f"{name} is {value}: it must be a finite number")


Above = Annotated[Any, "what the class above takes by name"]
"""The kind of `**above: Above`, in which a class takes what the class above it takes by name."""


def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Arguments of a function or of a class's `__init__`; for `**above: Above`, those by name of the class above."""
    return {name: parameter for name, (parameter, _) in _arguments(target).items()}


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> its kind (`Any` where none is declared), of a function or of a class's `__init__`."""
    return {name: hint for name, (_, hint) in _arguments(target).items()}


@functools.lru_cache(maxsize=256)
def _arguments(target: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    function: Any = target.__init__ if inspect.isclass(target) else target
    function = inspect.unwrap(function)
    names = getattr(function, "__globals__", {})
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        hint = parameter.annotation
        if parameter.kind is parameter.VAR_KEYWORD and hint in ("Above", Above) and inspect.isclass(target):
            above = next(cls for cls in target.__mro__[1:] if "__init__" in vars(cls))
            by_name = {n: own for n, own in _arguments(above).items() if own[0].kind is inspect.Parameter.KEYWORD_ONLY}
            found.update({n: own for n, own in by_name.items() if n not in found})
            continue
        if isinstance(hint, str):
            try:
                hint = eval(hint, dict(names))
            except Exception:  # a name that is there for type checkers alone
                hint = Any
        found[name] = (parameter, Any if hint is inspect.Parameter.empty else hint)
    return found


def check_fields(instance: Any, group: str) -> None:
    """Check every field of a dataclass by its kind, and keep it as its kind has it."""
    for name, hint in hints_of(type(instance)).items():
        if hint is not Any:
            object.__setattr__(instance, name, check(getattr(instance, name), hint, f"{group}.{name}"))


def checked(group: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check every argument by its kind; `group` is how the configuration calls them together, for errors."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checking(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            for name, hint in hints_of(function).items():
                if name in bound.arguments and hint is not Any:
                    bound.arguments[name] = check(bound.arguments[name], hint, f"{group}.{name}")
            return function(*bound.args, **bound.kwargs)

        return checking

    return decorate
