"""Configuration: find the Hydra groups, compose them, and turn Hydra's complaints into one clear line."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from satdifuser import facts
from satdifuser.errors import UserError, nearest
from satdifuser.settings.by_command import COMMANDS
from satdifuser.settings.trust import named_in, trusting
from satdifuser.wording import reworded, several, without_advice
from satdifuser.written import config_root, groups
from satdifuser.yaml_file import load_yaml

MISSING = "???"


def compose(command: str, overrides: Sequence[str], config_dirs: Sequence[str] = (), trust: Sequence[str] = ()) -> Any:
    """The settings of a command, typed and checked; `trust` names packages whose classes they may ask for."""
    config = composed(command, overrides, config_dirs)
    with trusting({*trust, *trusted_by(config_dirs, overrides)}):
        return settings_of(command, config)


def trusted_by(config_dirs: Sequence[str], overrides: Sequence[str]) -> set[str]:
    """The packages that a user's own groups and overrides name (`DIR/GROUP/NAME.yaml`, and no other file below DIR)."""
    roots = [Path(folder).expanduser() for folder in config_dirs]
    own = [file for root in roots for group in groups() for file in _files(root / group)]
    own += [file for root in roots for kind in (root / facts.FOLDER).glob("*") for file in _files(kind)]
    return named_in(own, overrides)


def _files(group: Path) -> Iterator[Any]:
    """What the files of a group say; one that cannot be read is told where it is chosen."""
    for file in sorted(group.glob("*.yaml")):
        with contextlib.suppress(UserError, OSError):
            yield load_yaml(file)


def settings_of(command: str, config: Any) -> Any:
    """The settings that a composed configuration, or a file with one, says."""
    from omegaconf import OmegaConf

    with explained(command, ()):
        plain: Any = OmegaConf.to_container(config, resolve=True)
    if not isinstance(plain, dict):
        raise UserError(f"the settings of satdifuser {command} are no names with values")
    return COMMANDS[command](**{str(name): value for name, value in plain.items() if value != "???"})


def composed(command: str, overrides: Sequence[str], config_dirs: Sequence[str] = (), resolve: bool = True) -> Any:
    """A command's configuration as an OmegaConf DictConfig, resolved unless something is to be set in it yet."""
    from omegaconf import OmegaConf

    words = readable(command, overrides)
    _check_own(config_dirs, words)
    facts.look_in([*config_dirs, config_root()])
    with explained(command, words, config_dirs):
        config = _composed(command, [*search_path(config_dirs), *words])
        if resolve:
            OmegaConf.resolve(config)
    return config


def _check_own(config_dirs: Sequence[str], overrides: Sequence[str]) -> None:
    """The user's own files that are chosen, each by its name if it is not what it should be."""
    for override in overrides:
        group, _, names = override.lstrip("+").partition("=")
        for folder, name in itertools.product(config_dirs, names.split(",")):
            file = Path(folder).expanduser() / group.partition("@")[0] / f"{name}.yaml"
            if len(name) < 100 and file.is_file() and file.stat().st_size:
                load_yaml(file)


def _composed(command: str, overrides: Sequence[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(config_root())):
        try:
            return hydra_compose(command, overrides=list(overrides))
        except (ValueError, TypeError, AttributeError, AssertionError) as error:  # of overrides that nobody would make
            raise UserError(_no_choice(overrides) or f"{' '.join(overrides)}: {without_advice(str(error))}") from error


def _no_choice(overrides: Sequence[str]) -> str | None:
    """Of overrides the one that gives a group what is no name of a choice."""
    known = groups()
    for name, _, value in (override.partition("=") for override in overrides):
        if name in known and (value == "null" or not re.search(r"[A-Za-z_]", value)):
            return f"{name}={value} is no choice: there is {', '.join(known[name])}"
    return None


def readable(command: str, overrides: Sequence[str]) -> list[str]:
    """Overrides in Hydra's grammar; a value that is none of it, as a path with `=` or brackets may be, is quoted.

    >>> readable("train", ["seed=1", "data.root=/data/a=b (c)"])
    ['seed=1', "data.root='/data/a=b (c)'"]
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), []
    for override in overrides:
        name, equals, value = override.partition("=")
        if not name.lstrip("+~") or (not equals and not override.startswith("~")):
            raise UserError(
                f"{override!r} is not an override: write name=value (satdifuser {command} --help shows them)"
            )
        try:
            parser.parse_override(override)
        except HydraException:
            if not re.fullmatch(r"[+~]*[\w.@/:-]+", name):
                raise UserError(_odd_name(name, override)) from None
            override = f"{name}={quoted(value)}"
        found.append(override)
    return found


def _odd_name(name: str, override: str) -> str:
    place = re.fullmatch(r"([\w.]+)\[(\d+)\]", name)
    if place:
        return f"{override!r}: a place in a list is written with a dot, as {place[1]}.{place[2]}=..."
    return f"{override!r} is not an override: a name has letters, digits, _ and dots, as encoder.image_size=64"


def quoted(text: object) -> str:
    """A value in Hydra's grammar, whatever it is called.

    >>> print(quoted("it's"))
    'it\\'s'
    """
    # a backslash counts only before a quote, and at the end
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", str(text))
    tail = re.search(r"\\*$", escaped)
    return f"'{escaped}{tail.group() if tail else ''}'"


def search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override that adds a user's own folders of groups."""
    extra = []
    for folder in config_dirs:
        if not Path(folder).expanduser().is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
        extra.append(quoted(f"file://{Path(folder).expanduser().resolve()}"))
    return [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []


@contextlib.contextmanager
def explained(command: str, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Iterator[None]:
    """What Hydra complains of, in one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        ours = _ours(error)
        if ours is not None:
            raise UserError(str(ours)) from None
        raise UserError(_explain(str(error), command, overrides, config_dirs)) from error
    except MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        place = f"{where.name}, line {where.line + 1}" if where is not None else "a configuration"
        raise UserError(f"{place}, is not YAML: {error.problem}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"a configuration is not YAML: {' '.join(str(error).split())}") from error


def _ours(error: BaseException | None) -> UserError | None:
    """Of what an error came from, one of ours: a fact that is not known."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _explain(message: str, command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> str:
    """One line for what Hydra says in many."""
    many = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^=]+)=(.*?)'(?:\n| requires)", message)
    if many:
        name, value = many.groups()
        others = [word for word in overrides if word != f"{name}={value}"]
        held = _held(_of_choices(command, others, config_dirs), name.lstrip("+"))
        return several(name, value, None if held == MISSING else held, command, groups(config_dirs))
    launcher = re.search(r"Could not (?:find|load) 'hydra/launcher/([^']+)'", message)
    if launcher:
        remedy = "submitit comes with pip install 'satdifuser[launchers]', Ray with pip install 'satdifuser[ray]'"
        return f"no hydra/launcher={launcher.group(1)} is installed: basic and joblib are there, {remedy}"
    missing = re.search(r"Could not find '([^']+)/([^']*)'", message)
    if missing:
        group, name = missing.groups()
        known = groups(config_dirs).get(group, [])
        return f"no {group}={name}: there is {', '.join(known) or 'nothing'}{nearest(name, known)}"
    merging = re.match(r"Error merging override ([^=\n]+)=", message)
    if merging:
        said = _of_another_shape(merging.group(1).lstrip("+"), _of_choices(command, overrides, config_dirs), overrides)
        return said or reworded(message, command) or without_advice(message)
    unknown = re.search(r"Could not override '([^']+)'", message) or re.search(
        r"Key '([^']+)' is not in struct", message
    )
    if unknown:
        name, config = unknown.group(1), _of_choices(command, overrides, config_dirs)
        known = _known_keys(config)
        if name in known:
            return f"{name} has no such key yet: a new one is added with a leading +, as +{name}=..."
        above, _, key = name.rpartition(".")
        if above in known and _held(config, above) is None:
            return f"{above} is null, and so has no {key} yet: write +{name}=..., or {above}={{{key}: ...}}"
        return f"no setting {name!r} in satdifuser {command}{nearest(name, known)}"
    group = re.search(r"Override (\S+) looks like a config group override, but config group '([^']*)'", message)
    if group:
        there = groups(config_dirs)
        return f"{group[1]}: there is no group {group[2]}, but {', '.join(there)}{nearest(group[2], there)}"
    return reworded(message, command) or without_advice(message)


def _of_another_shape(name: str, config: Any, overrides: Sequence[str]) -> str | None:
    """What to do where names with values are to become a list, or a list names with values."""
    held = _held(config, name)
    chosen = next((word for word in overrides if word.partition("=")[0] == name.partition(".")[0]), "")
    place = f" in {chosen}" if chosen else ""
    if hasattr(held, "items"):
        return (
            f"{name} is {_short(held)}{place} and cannot become a list: write {name}={{...}} for names with values"
            f" that are added or changed, or '~{name}' '+{name}=[...]' to have the list instead"
        )
    if isinstance(held, Sequence) and not isinstance(held, str):
        return (
            f"{name} is {_short(held)}{place} and cannot become names with values: write {name}=[...], or"
            f" '~{name}' '+{name}={{...}}' to have them instead"
        )
    return None


def _short(held: Any) -> str:
    from omegaconf import OmegaConf

    text = str(OmegaConf.to_container(held)).replace("'", "")
    return text if len(text) <= 80 else f"{text[:60]} ...{text[-1]}"


def _held(config: Any, name: str) -> Any:
    """What a dotted key holds; MISSING where it is not there, not given, or refers to something."""
    from omegaconf import OmegaConf

    node: Any = config
    for key in name.split("."):
        there = hasattr(node, "items") and key in node and not OmegaConf.is_missing(node, key)
        if not there or OmegaConf.is_interpolation(node, key):
            return MISSING
        node = node[key]
    return node


def _of_choices(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Any:
    """The command's configuration with the choices of groups alone, without what is set of them; or an empty one."""
    from hydra.errors import HydraException

    chosen = [override for override in overrides if override.partition("=")[0] in groups()]
    try:
        return _composed(command, [*search_path(config_dirs), *chosen])
    except HydraException:
        return {}


def _known_keys(config: Any) -> list[str]:
    """Every dotted key of a configuration."""
    from omegaconf import OmegaConf

    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name in node:
            found.append(prefix + str(name))
            if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):  # of a set not yet named
                continue
            if hasattr(node[name], "items"):
                walk(node[name], f"{prefix}{name}.")

    walk(config, "")
    return found
