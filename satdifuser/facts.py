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
BOXES = {"geobench2": ("everwatch", "nzcattle")}  # sets of detection


def fact(kind: str, name: str, key: str, otherwise: Any = NEEDED) -> Any:
    """One fact of a data set, as OmegaConf puts it in its place; or one line that says what is not known of which."""
    from omegaconf import OmegaConf

    sets = {file.stem: file for root in reversed(_roots.get()) for file in sorted((root / kind).glob("*.yaml"))}
    if not re.fullmatch(r"[\w.-]+", str(name)) or str(name) not in sets:
        if otherwise is not NEEDED:
            return otherwise
        if _plain(name) in BOXES.get(kind, ()):
            raise UserError(
                f"the {kind} set {name!r} has boxes as its labels, which are not read here: there are tasks of classes,"
                f" masks and numbers{also_read(name, kind)}"
            )
        given = ", ".join(f"data.{setting}" for setting in _asked(kind) or [key])
        raise UserError(
            f"nothing is known of the {kind} set {name!r}: known are {', '.join(sorted(sets)) or 'none'}; another one"
            f" needs a file {FOLDER}/{kind}/NAME.yaml in a --config-dir, or {given} on the command line"
            f"{also_read(name, kind) or nearest(str(name), sets)}"
        )
    values = load_yaml(sets[str(name)])
    if key not in values:
        if otherwise is not NEEDED:
            return otherwise
        raise UserError(f"{sets[str(name)]} does not say {key}: add it, or give data.{key}=...")
    value = values[key]
    return OmegaConf.create(value) if isinstance(value, dict | list) else value


def also_read(name: object, kind: str) -> str:
    """A suggestion to append to an error: what else reads a set of that name, in any spelling; or nothing."""
    wanted, found = _plain(name), []
    for root in _roots.get():
        own = sorted((root.parent / "data").glob("*.yaml"))
        found += [f"data={file.stem}" for file in own if _plain(file.stem) == wanted]
        for file in sorted(root.glob("*/*.yaml")):
            setting = _setting(file.parent.name)
            if setting and file.parent.name != kind and _plain(file.stem) == wanted:
                found.append(f"data={file.parent.name} data.{setting}={file.stem}")
    return f"; there is {' or '.join(dict.fromkeys(found))}" if found else ""


def _plain(name: object) -> str:
    """A name whatever its spelling: m-nz-cattle is NZCattle."""
    return re.sub(r"[\W_]", "", re.sub("^m-", "", str(name).lower()))


def _choice_of(kind: str) -> str:
    """What the choice of data says that asks for facts of a kind."""
    files = [root.parent / "data" / f"{kind}.yaml" for root in _roots.get()]
    return next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")


def _setting(kind: str) -> str | None:
    """The setting that names a set of a kind: task, dataset."""
    found = re.search(rf"\$\{{facts:{re.escape(kind)},\$\{{data\.(\w+)\}}", _choice_of(kind))
    return found.group(1) if found else None


def _asked(kind: str) -> list[str]:
    """The settings of a kind that need a fact, where none is given."""
    needed = rf"^(\w+): \$\{{facts:{re.escape(kind)},\$\{{data\.\w+\}},[^,}}]+\}}"  # without another value at its end
    return re.findall(needed, _choice_of(kind), re.MULTILINE)
