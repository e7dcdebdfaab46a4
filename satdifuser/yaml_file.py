"""The one way in which a YAML file of settings comes in: in bounded time and memory, or as an error by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError

MOST_BYTES = 2**20  # a run's settings take some 3 KB
MOST_NODES = 50_000  # with what its aliases repeat
MOST_LEVELS = 40


def load_yaml(path: str | Path, remedy: str = "mend it, or write it anew") -> dict[str, Any]:
    """The settings in a file, as plain values.

    Aliases are allowed, but count as what they stand for: a small file can stand for more than a machine holds.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader  # numbers such as 1e-3 are numbers there, and a key stands once

    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise _OddError(f"is larger than {MOST_BYTES >> 20} MB, which settings never are")
        text = content.decode("utf-8")
        _check_size(text)
        values = yaml.load(text, Loader=get_yaml_loader())
        if not isinstance(values, dict):
            raise _OddError("holds no settings")
        named: dict[str, Any] = _named(values)
        return named
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except _OddError as error:
        raise UserError(f"{path} {error}: {remedy}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({type(error).__name__}: {reason}): {remedy}") from None


def _named(values: Any) -> Any:
    """With words for keys, at every level."""
    if isinstance(values, dict):
        return {str(name): _named(inner) for name, inner in values.items()}
    return [_named(inner) for inner in values] if isinstance(values, list) else values


class _OddError(Exception):
    """What a file is that is not read as YAML at all."""


def _check_size(text: str) -> None:
    """Count what a document holds, without building any of it."""
    import yaml

    events: Iterator[Any] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    total = 0
    named: dict[str, int] = {}  # anchor -> nodes below it
    above: list[tuple[str | None, int]] = []  # anchors of the collections that are open, and the total before each
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            total += named.get(event.anchor, MOST_NODES)  # one that is not closed yet holds itself
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                named[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, total))
            total += 1
            if len(above) > MOST_LEVELS:
                raise _OddError(f"is nested more than {MOST_LEVELS} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = above.pop()
            if anchor is not None:
                named[anchor] = total - before
        if total > MOST_NODES:
            raise _OddError(f"stands for more than {MOST_NODES} values, some of them through aliases")
