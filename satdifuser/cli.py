"""`satdifuser COMMAND [overrides]`: parse, compose the configuration, run, and end errors in one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from satdifuser.commands.table import COMMANDS, Launch, named
from satdifuser.errors import UserError, expected, nearest, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; gives the exit code (0 done, 1 failed, 2 bad usage, 130 interrupted, 143 by SIGTERM)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt as stopped:
        print(f"satdifuser: interrupted{f' {stopped}' if str(stopped) else ''}", file=sys.stderr)
        return int(getattr(stopped, "code", 130))
    except BrokenPipeError:  # who read it (head, less) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        hint = "" if expected(error) else " (unexpected; add --debug for the traceback)"
        print(f"satdifuser: {one_line(error)}{hint}", file=sys.stderr)
        return 1 if hint else 2


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "--version":
        from satdifuser import __version__

        print(f"satdifuser {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        from satdifuser.commands.usage import overview

        print(overview())
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}: there is {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    asked, shown = "-h" in rest or "--help" in rest, "--cfg" in rest
    if command.words and not asked:
        code: int = importlib.import_module(command.module).run(rest)
        return code
    verb = ""
    if command.verbs:
        first = next((word for word in rest if not word.startswith("-")), "")
        if first in command.verbs:
            verb = first
            rest.remove(first)
        elif not asked:
            raise UserError(
                f"satdifuser {name} is followed by {', '.join(command.verbs)}, as satdifuser {name} {command.verbs[0]}"
                f"{nearest(first, command.verbs)}"
            )
    rest = named(command.positional, rest)
    given = _options(name, [word for word in rest if word not in ("-h", "--help", "--cfg")])
    if asked:
        from satdifuser.commands.usage import usage

        with given.trusted():
            print(usage(name, command, given.overrides, given.config_dirs))
        return 0
    if not command.configured and (given.overrides or shown):
        got = given.overrides[0] if given.overrides else "--cfg"
        raise UserError(f"satdifuser {name} takes no overrides, but got {got!r}")
    if shown:
        from satdifuser.commands.resolved import resolved

        print(resolved(name, command, given.overrides, given.config_dirs), end="")
        return 0
    run = importlib.import_module(command.module).run
    if not command.configured:
        return int(run())
    from satdifuser.config import compose
    from satdifuser.report.repeat import command_line

    typed = command_line(f"{name} {verb}".strip(), given.overrides, given.config_dirs, given.trust)
    with given.trusted():
        if command.verbs:
            return int(run(verb, compose(name, given.overrides, given.config_dirs), given.overrides, typed))
        if command.composes:
            run(given.overrides, given.config_dirs, given.trust)
        elif command.launches:
            launch = Launch(
                [word for word in given.overrides if word.lstrip("+~").startswith("hydra")], given.config_dirs
            )
            rest = [word for word in given.overrides if word not in launch.overrides]
            run(compose(name, rest, given.config_dirs), launch)
        elif command.typed:
            run(compose(name, given.overrides, given.config_dirs), typed)
        else:
            run(compose(name, given.overrides, given.config_dirs))
    return 0


@dataclass
class Given:
    """What stands behind a command: its overrides, the user's own folders of groups, the packages that he trusts."""

    overrides: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)

    def trusted(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile classes of these packages may be named, and of those that the user's own groups and words name."""
        from satdifuser.config import trusted_by
        from satdifuser.settings.trust import check_trusted, trusting

        return trusting({*map(check_trusted, self.trust), *trusted_by(self.config_dirs, self.overrides)})


def _instead(name: str, option: str, options: Iterable[str]) -> str:
    """What there is in the place of an option that there is not; Hydra's own are known to many."""
    if option in ("-m", "--multirun"):
        return "satdifuser compare makes a run of each of several values, as fusion=gw,lw"
    if option in ("-c", "--info", "--resolve"):
        return "--cfg prints the resolved configuration"
    known = ("--help", "--cfg", *options, "--debug")
    return f"it has {', '.join(known[:-1])} and {known[-1]}{nearest(option, known)}"


def _options(name: str, words: list[str]) -> Given:
    """Split `--config-dir DIR` and `--trust PACKAGE` from the overrides; any other option is an error."""
    given, rest = Given(), iter(words)
    options = {"--config-dir": (given.config_dirs, "a folder"), "--trust": (given.trust, "the name of a package")}
    for word in rest:
        option, _, value = word.partition("=")
        if option in options:
            found, what = options[option]
            value = value or next(rest, "")
            if not value:
                raise UserError(f"{option} needs {what}")
            found.append(value)
        elif word.startswith("-"):
            raise UserError(f"satdifuser {name} has no option {word!r}: {_instead(name, option, options)}")
        else:
            given.overrides.append(word)
    return given
