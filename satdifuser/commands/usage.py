"""The text of `--help`: what there is, and each setting with its default and its sentence, in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from satdifuser.commands.table import COMMANDS, Command
from satdifuser.written import choices, file_of, groups, sections

WIDTH, LEFT = 100, 38  # columns of a line, and of them for a setting and its default
OPTIONS = (
    ("--help", "what the command does and what can be set; with group=name, all settings of that choice"),
    ("--cfg", "print the resolved configuration as YAML, and run nothing"),
    ("--config-dir DIR", "your own groups: DIR/encoder/mine.yaml is encoder=mine"),
    ("--trust PACKAGE", "let settings name classes of your package"),
    ("--debug", "show the traceback of an error"),
)


def overview() -> str:
    """What `satdifuser --help` says."""
    lines = [
        "satdifuser: features of generative geospatial diffusion models, compared fairly with discriminative ones",
        "",
        "usage: satdifuser COMMAND [name=value ...] [--help] [--cfg] [--config-dir DIR] [--trust PACKAGE] [--debug]",
        "",
        *_table((name, command.summary) for name, command in COMMANDS.items()),
        "",
        "satdifuser COMMAND --help shows the command's groups, settings and examples",
    ]
    return "\n".join(line for text in lines for line in _wrapped(text))


def usage(name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str]) -> str:
    """What a command does, and the settings of the chosen groups; of those not chosen, the usual ones."""
    lines = [
        *textwrap.wrap(f"satdifuser {name}: {command.summary}", WIDTH),
        *("", "examples:", *(line for example in command.examples for line in _example(example))),
    ]
    if command.configured:
        used = used_groups(name, command, config_dirs)
        lines += ["", "groups (choose with group=name):", *_table((g, ", ".join(n)) for g, n in used.items())]
        lines += _settings(name, command, overrides, config_dirs) if overrides else _usual(name)
        lines += ["", *_more(name, command, used)]
    lines += ["", "options:", *_table(OPTIONS if command.configured else OPTIONS[::4])]
    return "\n".join(lines)


def used_groups(name: str, command: Command, config_dirs: Sequence[str] = ()) -> dict[str, list[str]]:
    """The groups that a command chooses from, those of its runs too."""
    known = groups(config_dirs)
    own = {group.partition("@")[0]: group for group in choices(name)}
    if command.composes:
        own = {group: group for group in ("experiment", *own, *choices("train"))}
    return {own[group]: names for group, names in known.items() if group in own}


def section(title: str, rows: Iterable[Any]) -> list[str]:
    """A heading, and each setting with its default on the left and its sentence on the right."""
    lines = [f"{title}:"]
    for row in rows:
        kind = getattr(row, "kind", "")
        about = "; ".join(part for part in (row.sentence, kind and f"takes {kind}") if part)
        setting = f"{row.name}={row.default}"
        left = textwrap.wrap(
            setting, WIDTH - 2, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
        )
        right = textwrap.wrap(about, WIDTH - LEFT - 2, break_on_hyphens=False)
        if right and len(left) == 1 and len(left[0]) <= LEFT:
            left = [f"{left[0]:<{LEFT}}  {right.pop(0)}"]
        lines += [*left, *(f"{'':<{LEFT}}  {line}" for line in right)]
    return lines


def _usual(name: str) -> list[str]:
    lines = []
    for chosen, rows in sections(name).items():
        lines += ["", *section(f"{chosen} (configs/{chosen.replace('=', '/')}.yaml)" if chosen else "settings", rows)]
    return lines


def _settings(name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str]) -> list[str]:
    """Every setting of the chosen groups with what it takes; of a grid, the experiment's and those of its runs."""
    from satdifuser.help import described

    if not command.composes:
        every = described(name, overrides, config_dirs)
        return [line for group, rows in every.items() for line in ("", *section(group or "settings", rows))]
    of_runs = [word for word in overrides if word.partition("=")[0] in choices("train")]
    found = []
    for chosen, rows in sections("compare", overrides, config_dirs).items():
        found += ["", *section(chosen or "settings", rows)]
    for chosen, described_rows in (described("train", of_runs, config_dirs) if of_runs else {}).items():
        if chosen in of_runs:
            found += ["", *section(f"{chosen} (of each satdifuser train)", described_rows)]
    return found


def _more(name: str, command: Command, used: dict[str, list[str]]) -> list[str]:
    if command.composes:
        text = "Every other override goes to each satdifuser train; a,b makes one run with each."
        return textwrap.wrap(f"{text} satdifuser {name} --help encoder=vit shows what can be set of one.", WIDTH)
    if not used:
        return [f"These are the settings of {Path('configs') / file_of(name).name}."]
    group = "encoder=vit" if "encoder" in used else next(f"{g}={names[0]}" for g, names in used.items())
    return [f"satdifuser {name} --help {group} shows what every setting takes, of any choice."]


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    found = list(rows)
    width = max((len(name) for name, _ in found), default=0)
    lines = []
    for name, text in found:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))
    return lines


def _example(text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - 4, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [f"  {line}" + " \\" * (number < len(lines)) for number, line in enumerate(lines, 1)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False) if len(text) > WIDTH else [text]
