"""What can be set, as `--help` and the reference show it: each setting's default, what it can be, and its sentence.

The kinds are those that the settings are checked by; defaults and sentences are those of the YAML that a user opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from satdifuser.config import composed
from satdifuser.kinds import hints_of, shown, words
from satdifuser.settings.base import inner_groups, kinds_of
from satdifuser.settings.by_command import COMMANDS
from satdifuser.settings.part import TARGET
from satdifuser.settings.trust import find
from satdifuser.written import choices, file_of, sentences


@dataclass(frozen=True)
class Described:
    """One setting."""

    name: str
    default: str
    kind: str
    sentence: str


def described(
    command: str, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()
) -> dict[str, list[Described]]:
    """Group (as it was chosen: `fusion=gw`; `` for the command's own) -> its settings, in the order of the files."""
    config: Any = composed(command, overrides, config_dirs)
    chosen = {
        group: file
        for group, (_, file) in choices(command, overrides, config_dirs).items()
        if file is not None and "@" not in group
    }
    model = COMMANDS[command]
    kinds, inner = kinds_of(model), inner_groups(model)
    said = dict(sentences(file_of(command)))
    for group, file in chosen.items():
        prefix = "encoder.adapter" if group == "adapter" else group
        said |= {f"{prefix}.{name}": sentence for name, sentence in sentences(file)}
    found: dict[str, list[Described]] = {"": []}

    def known(name: str) -> Mapping[str, Any]:
        return kinds_of(inner[name]) if name in inner else {}

    values = {name: _plain(config, name) for name in config}
    for name, value in sorted(values.items(), key=lambda item: item[0] in chosen or isinstance(item[1], Mapping)):
        if name in chosen:
            rows = [] if value is None else list(_group(name, value, known(name), said))
            found[f"{name}={chosen[name].stem}"] = rows
        elif isinstance(value, Mapping) and (name in inner or TARGET in value):
            found[name] = list(_group(name, value, known(name), said))
        else:
            found[""].append(_one(name, value, kinds.get(name, Any), said))
    return {group: rows for group, rows in found.items() if rows}


def _group(
    name: str, values: Mapping[str, Any], kinds: Mapping[str, Any], said: Mapping[str, str]
) -> Iterator[Described]:
    """The settings below a name; of a part, those that its class takes, with those of the parts in it."""
    if TARGET in values:
        kinds = hints_of(find(values[TARGET], name))
    for key, value in values.items():
        path = f"{name}.{key}"
        if key == TARGET:
            continue
        if isinstance(value, Mapping) and value and (TARGET in value or path not in said):
            yield from _group(path, value, kinds, said)
        else:
            yield _one(path, value, kinds.get(key, Any), said)


def _one(name: str, value: Any, kind: Any, said: Mapping[str, str]) -> Described:
    default = "to be given" if value == "???" else value if isinstance(value, str) else shown(value)
    about, sentence = "" if kind is Any else words(kind), said.get(name, "")
    if set(re.findall(r"\w+", sentence)) <= set(re.findall(r"\w+", about)):
        sentence = ""  # the choices once more
    return Described(name, str(default), about, sentence)


def _plain(config: Any, name: str) -> Any:
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(config, name):
        return "???"
    value = config[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
