"""What the YAML files of the configuration say, read as text: quick enough for help and for a press of TAB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satdifuser import facts
from satdifuser.errors import UserError

TARGET = "_target_"
LINE = re.compile(r"^(?P<indent>\s*)(?P<name>[\w.]+):(?P<value>.*?)(?:(?:^|\s)#\s*(?P<sentence>.*))?$")


@dataclass(frozen=True)
class Written:
    """One setting as a file has it: what it refers to (`${data.size}`) is not looked up."""

    name: str
    value: Any
    sentence: str

    @property
    def default(self) -> str:
        import yaml

        text = yaml.safe_dump(self.value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
        return "to be given" if self.value == "???" else text.removesuffix("\n").removesuffix("\n...")


def config_root() -> Path:
    """The folder of the configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"no configurations beside {package}: reinstall satdifuser")


def groups(config_dirs: Sequence[str] = ()) -> dict[str, list[str]]:
    """Group -> the names that can be chosen in it (Hydra's own groups, and facts, are not among them).

    Choices of a user's own folders are there too, if these are given.
    """
    root = config_root()
    roots = [root, *(Path(folder).expanduser() for folder in config_dirs)]
    return {
        folder.name: sorted({path.stem for own in roots for path in (own / folder.name).glob("*.yaml")})
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name not in ("hydra", facts.FOLDER)
    }


def file_of(command: str) -> Path:
    """The file with a command's own settings; the demo is an experiment of compare."""
    return config_root() / ("experiment/demo.yaml" if command == "demo" else f"{command}.yaml")


def choices(
    command: str, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()
) -> dict[str, tuple[str, Path | None]]:
    """Each group of a command, as its file lists it -> the choice and its file; None of one that chooses nothing."""
    given = dict(override.partition("=")[::2] for override in overrides)
    places = [config_root(), *(Path(folder).expanduser() for folder in config_dirs)]
    found: dict[str, tuple[str, Path | None]] = {}
    for group, name in re.findall(r"^\s+- ([\w@]+): (\w+)", file_of(command).read_text(encoding="utf-8"), flags=re.M):
        choice = given.get(group, name)
        files = (place / group.partition("@")[0] / f"{choice}.yaml" for place in places)
        found[group] = choice, next((file for file in files if file.is_file()), None)
    return found


def sections(command: str, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> dict[str, list[Written]]:
    """Group (as it was chosen: `fusion=gw`; `` for the command's own) -> its settings, in the order of the files."""
    chosen = choices(command, overrides, config_dirs)
    found = {"": list(settings_in(file_of(command), ""))}
    for group, (name, file) in chosen.items():
        if file is not None:
            prefix = "" if group == "experiment" else group.partition("@")[2] or group
            found[f"{group}={name}"] = list(settings_in(file, "encoder.adapter" if prefix == "adapter" else prefix))
    return {section: rows for section, rows in found.items() if rows}


def settings_in(file: Path, prefix: str) -> Iterator[Written]:
    """The settings of a file and of those that it begins with, by their dotted names."""
    said = {f"{prefix}.{name}".lstrip("."): sentence for name, sentence in sentences(file)}
    yield from _below(prefix, _values(file), said)


def _below(prefix: str, values: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[Written]:
    for key, value in values.items():
        name = f"{prefix}.{key}".lstrip(".")
        if key in (TARGET, "defaults"):
            continue
        if isinstance(value, Mapping) and value and (TARGET in value or name not in said or not prefix):
            yield from _below(name, value, said)
        else:
            yield Written(name, value, said.get(name, ""))


def _values(file: Path) -> dict[str, Any]:
    """What a file holds, over those that it begins with."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        own = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(own, dict):
        return {}
    found: dict[str, Any] = {}
    for base in bases(file):
        found = _over(found, _values(base))
    return _over(found, {str(key): value for key, value in own.items()})


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), dict)
        found[key] = _over(found[key], value) if both else value
    return found


def bases(file: Path) -> Iterator[Path]:
    """The files of the same group that a file begins with."""
    text = file.read_text(encoding="utf-8")
    names = re.findall(r"^\s+- (\w+)$", text.partition("_self_")[0], flags=re.M)
    names += re.findall(r"^defaults: \[(\w+)\]$", text, flags=re.M)
    for path in (file.parent / f"{name}.yaml" for name in names):
        if path.is_file() and path != file:
            yield path


def sentences(file: Path) -> Iterator[tuple[str, str]]:
    """Dotted name -> what the comment behind it says, of a file and of those that it begins with."""
    for base in bases(file):
        yield from sentences(base)
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if match is None or line.lstrip().startswith(("#", "-")):
            continue
        depth = len(match["indent"])
        above = [(indent, name) for indent, name in above if indent < depth] + [(depth, match["name"])]
        if match["sentence"]:
            yield ".".join(name for _, name in above), match["sentence"]
