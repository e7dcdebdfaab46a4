"""Configuration: find the Hydra groups, compose them, and turn Hydra's complaints into one clear line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError, nearest


def config_root() -> Path:
    """The folder of the configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"no configurations beside {package}: reinstall satdifuser")


def groups() -> dict[str, list[str]]:
    """Group -> the names that can be chosen in it."""
    root = config_root()
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }


def compose(command: str, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Any:
    """The resolved configuration of a command, as an OmegaConf DictConfig."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(
                f"{override!r} is not an override: write name=value (satdifuser {command} --help shows them)"
            )
    extra = []
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
        extra.append(f"file://{Path(folder).resolve()}")
    search = [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_root())):
            config = hydra_compose(command, overrides=[*search, *overrides])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(str(error), command, overrides)) from error
    return config


def _explain(message: str, command: str, overrides: Sequence[str]) -> str:
    """One line for what Hydra says in many."""
    missing = re.search(r"Could not find '([^']+)/([^']+)'", message)
    if missing:
        group, name = missing.groups()
        known = groups().get(group, [])
        return f"no {group}={name}: there is {', '.join(known) or 'nothing'}{nearest(name, known)}"
    unknown = re.search(r"Could not override '([^']+)'", message) or re.search(
        r"Key '([^']+)' is not in struct", message
    )
    if unknown:
        known = _known_keys(command, overrides)
        if unknown.group(1) in known:
            name = unknown.group(1)
            return f"{name} has no such key yet: a new one is added with a leading +, as +{name}=..."
        return f"no setting {unknown.group(1)!r} in satdifuser {command}{nearest(unknown.group(1), known)}"
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _known_keys(command: str, overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the command's configuration with the groups that were chosen."""
    chosen = [override for override in overrides if override.partition("=")[0] in groups()]
    try:
        config = compose(command, chosen)
    except UserError:
        return []
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name in node:
            found.append(prefix + str(name))
            if hasattr(node[name], "items"):
                walk(node[name], f"{prefix}{name}.")

    walk(config, "")
    return found
