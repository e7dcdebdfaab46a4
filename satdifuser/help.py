"""What can be set, as `--help` and the reference show it: each setting's default, what it can be, and its sentence.

The kinds are those that the settings are checked by; defaults and sentences are those of the YAML that a user opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satdifuser.config import composed, config_root, groups
from satdifuser.kinds import hints_of, shown, words
from satdifuser.settings.base import inner_groups, kinds_of
from satdifuser.settings.by_command import COMMANDS
from satdifuser.settings.part import TARGET
from satdifuser.settings.trust import find

LINE = re.compile(r"^(?P<indent>\s*)(?P<name>[\w.]+):(?P<value>.*?)(?:(?:^|\s)#\s*(?P<sentence>.*))?$")


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
    chosen = dict(_choices(command, overrides, config_dirs))
    model = COMMANDS[command]
    kinds, inner = kinds_of(model), inner_groups(model)
    sentences = dict(_sentences(config_root() / f"{command}.yaml"))
    for group, file in chosen.items():
        prefix = "encoder.adapter" if group == "adapter" else group
        sentences |= {f"{prefix}.{name}": sentence for name, sentence in _sentences(file)}
    found: dict[str, list[Described]] = {"": []}

    def known(name: str) -> Mapping[str, Any]:
        return kinds_of(inner[name]) if name in inner else {}

    values = {name: _plain(config, name) for name in config}
    for name, value in sorted(values.items(), key=lambda item: item[0] in chosen or isinstance(item[1], Mapping)):
        if name in chosen:
            rows = [] if value is None else list(_group(name, value, known(name), sentences))
            found[f"{name}={chosen[name].stem}"] = rows
        elif isinstance(value, Mapping) and (name in inner or TARGET in value):
            found[name] = list(_group(name, value, known(name), sentences))
        else:
            found[""].append(_one(name, value, kinds.get(name, Any), sentences))
    return {group: rows for group, rows in found.items() if rows}


def _choices(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The group of each choice that makes settings of its own, and the file that is chosen in it."""
    text = (config_root() / f"{command}.yaml").read_text(encoding="utf-8")
    given = dict(override.partition("=")[::2] for override in overrides)
    for group, name in re.findall(r"^\s+- (\w+): (\w+)", text, flags=re.M):
        choice = given.get(group, name)
        places = [config_root(), *(Path(folder).expanduser() for folder in config_dirs)]
        for file in (place / group / f"{choice}.yaml" for place in places):
            if group in groups() and file.is_file():
                yield group, file


def _group(
    name: str, values: Mapping[str, Any], kinds: Mapping[str, Any], sentences: Mapping[str, str]
) -> Iterator[Described]:
    """The settings below a name; of a part, those that its class takes, with those of the parts in it."""
    if TARGET in values:
        kinds = hints_of(find(values[TARGET], name))
    for key, value in values.items():
        path = f"{name}.{key}"
        if key == TARGET:
            continue
        if isinstance(value, Mapping) and value and (TARGET in value or path not in sentences):
            yield from _group(path, value, kinds, sentences)
        else:
            yield _one(path, value, kinds.get(key, Any), sentences)


def _one(name: str, value: Any, kind: Any, sentences: Mapping[str, str]) -> Described:
    default = "to be given" if value == "???" else value if isinstance(value, str) else shown(value)
    about, sentence = "" if kind is Any else words(kind), sentences.get(name, "")
    if set(re.findall(r"\w+", sentence)) <= set(re.findall(r"\w+", about)):
        sentence = ""  # the choices once more
    return Described(name, str(default), about, sentence)


def _plain(config: Any, name: str) -> Any:
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(config, name):
        return "???"
    value = config[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _sentences(file: Path) -> Iterator[tuple[str, str]]:
    """Dotted name -> what the comment behind it says, of a file and of those that it begins with."""
    text = file.read_text(encoding="utf-8")
    for other in re.findall(r"^\s+- (\w+)$", text.partition("_self_")[0], flags=re.M):
        if (file.parent / f"{other}.yaml").is_file():
            yield from _sentences(file.parent / f"{other}.yaml")
    for match in re.findall(r"^defaults: \[(\w+)\]$", text, flags=re.M):
        yield from _sentences(file.parent / f"{match}.yaml")
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None or line.lstrip().startswith(("#", "-")):
            continue
        depth = len(match["indent"])
        above = [(indent, name) for indent, name in above if indent < depth] + [(depth, match["name"])]
        if match["sentence"]:
            yield ".".join(name for _, name in above), match["sentence"]


def lines(command: str, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> list[str]:
    """As text: name, default, and below what it can be and what it is for."""
    found = described(command, overrides, config_dirs)
    longest = max(len(row.name) for rows in found.values() for row in rows)
    text = []
    for group, rows in found.items():
        text += ["", f"{group or 'settings'}:"]
        for row in rows:
            default = row.default if len(row.default) <= 32 else f"{row.default[:29]}..."
            about = "; ".join(part for part in (row.kind, row.sentence) if part)
            text.append(f"  {row.name:<{longest}}  {default:<32}  {about}".rstrip())
    return text
