"""`satdifuser completion bash | zsh | fish`: a shell's script, which asks `satdifuser completion words LINE` at a TAB.

The words come from the files of the configuration as text, so that nothing heavy is loaded.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence

from satdifuser.commands.shells import SCRIPTS
from satdifuser.commands.table import COMMANDS, Command
from satdifuser.commands.usage import used_groups
from satdifuser.errors import UserError, nearest
from satdifuser.written import Written, sections

STORE = ("info", "verify", "merge", "prune")
OPTIONS = ("--help", "--cfg", "--config-dir", "--trust", "--debug")


def run(words: Sequence[str]) -> int:
    """Print a shell's script, or the words that could stand at the end of a line."""
    shell = words[0] if words else ""
    if shell == "words":
        for word in completed(words[1] if len(words) > 1 else ""):
            print(word)
        return 0
    if shell not in SCRIPTS or len(words) > 1:
        raise UserError(
            f"satdifuser completion is followed by {', '.join(SCRIPTS)}, as satdifuser completion bash"
            f"{nearest(shell, SCRIPTS)}"
        )
    print(SCRIPTS[shell], end="")
    return 0


def completed(line: str) -> list[str]:
    """What the last word of a line could become; a word that more belongs to ends with `=` or `.`.

    >>> completed("satdifuser tr"), completed("satdifuser train fusion=l")
    (['train'], ['fusion=levels', 'fusion=lw'])
    """
    *before, current = _split(line)
    before = before[1:]  # the program
    if not before:
        return _begin((*COMMANDS, *(("--help", "--version") if current.startswith("-") else ())), current)
    name, given = before[0], before[1:]
    if name not in COMMANDS or (given and given[-1] in ("--config-dir", "--trust")):
        return []
    command, verbs = COMMANDS[name], _verbs(name)
    if current.startswith("-"):
        return _begin(OPTIONS if command.configured else ("--help",), current)
    if verbs and not any(word in verbs for word in given):
        return _begin(verbs, current)
    if not command.configured:
        return []
    folders = [after for word, after in itertools.pairwise(given) if word == "--config-dir"]
    folders += [word.partition("=")[2] for word in given if word.startswith("--config-dir=")]
    overrides = [word for word in given if "=" in word and not word.startswith("-")]
    if "=" in current:
        return _values(name, command, overrides, folders, current)
    return _names(name, command, overrides, folders, current)


def _verbs(name: str) -> Sequence[str]:
    return {"store": STORE, "completion": tuple(SCRIPTS)}.get(name, COMMANDS[name].verbs)


def _split(line: str) -> list[str]:
    """The words of a line, the last one as far as it is written."""
    for end in ("", "'", '"'):  # a quote may be open still
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        break
    else:
        words = line.split()
    return words if words and not line[-1:].isspace() else [*words, ""]


def _names(
    name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str], current: str
) -> list[str]:
    """Groups and settings; of those with a dot the first word alone, until it is written."""
    groups = [f"{group}=" for group in used_groups(name, command, config_dirs)]
    settings = [f"{row.name}=" for row in _rows(name, command, overrides, config_dirs)]
    if "." not in current:
        settings = [setting if "." not in setting else setting.partition(".")[0] + "." for setting in settings]
    return _begin([*groups, *settings], current)


def _values(
    name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str], current: str
) -> list[str]:
    """The choices of a group, in a grid after each comma too; true and false of a switch; none where it is a path."""
    setting, _, value = current.partition("=")
    known = used_groups(name, command, config_dirs)
    if setting in known:
        head, comma, _ = value.rpartition(",") if command.composes else ("", "", value)
        return _begin([f"{setting}={head}{comma}{choice}" for choice in known[setting]], current)
    row = next((row for row in _rows(name, command, overrides, config_dirs) if row.name == setting), None)
    switch = row is not None and isinstance(row.value, bool)
    return _begin([f"{setting}=true", f"{setting}=false"], current) if switch else []


def _rows(name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str]) -> list[Written]:
    of = [name]
    if command.composes:
        of = ["compare", "train"]
        overrides = [override for override in overrides if "," not in override]
    return [row for one in of for rows in sections(one, overrides, config_dirs).values() for row in rows]


def _begin(words: Iterable[str], current: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(current)]
