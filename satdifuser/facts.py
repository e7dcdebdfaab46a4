"""What a data set's class and files do not tell: a YAML of facts for each set, beside the configuration groups.

A setting refers to a fact as `${facts:geobench,${data.task},size}`: that is `size` in `facts/geobench/<task>.yaml` of
a user's own folder of configurations, or of ours. Of a setting that is given no fact is asked. `${facts:torchgeo,
${data.dataset},size,null}` is null of a set that has no such file, or whose file does not say it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError, nearest
from satdifuser.yaml_file import load_yaml

FOLDER = "facts"
_roots: ContextVar[tuple[Path, ...]] = ContextVar("folders of facts", default=())


def look_in(folders: Sequence[str | Path]) -> None:
    """Let configurations refer to facts, which are looked for in these folders, the first ones first."""
    from omegaconf import OmegaConf

    _roots.set(tuple(Path(folder).expanduser() / FOLDER for folder in folders))
    if not OmegaConf.has_resolver("facts"):
        OmegaConf.register_new_resolver("facts", fact)


NEEDED = object()


def fact(kind: str, name: str, key: str, otherwise: Any = NEEDED) -> Any:
    """One fact of a data set, as OmegaConf puts it in its place; or one line that says what is not known of which."""
    from omegaconf import OmegaConf

    sets = {file.stem: file for root in reversed(_roots.get()) for file in sorted((root / kind).glob("*.yaml"))}
    if not re.fullmatch(r"[\w.-]+", str(name)) or str(name) not in sets:
        if otherwise is not NEEDED:
            return otherwise
        raise UserError(
            f"nothing is known of the {kind} set {name!r}: known are {', '.join(sorted(sets)) or 'none'}; another one"
            f" needs a file {FOLDER}/{kind}/NAME.yaml in a --config-dir, or data.{key} and the like"
            f"{nearest(str(name), sets)}"
        )
    values = load_yaml(sets[str(name)])
    if key not in values:
        if otherwise is not NEEDED:
            return otherwise
        raise UserError(f"{sets[str(name)]} does not say {key}: add it, or give data.{key}=...")
    value = values[key]
    return OmegaConf.create(value) if isinstance(value, dict | list) else value
