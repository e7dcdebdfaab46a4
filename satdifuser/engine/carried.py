"""Weights that a run has in its own folder, so that it can be given away: which settings read them there."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satdifuser.engine.files import read_json
from satdifuser.errors import UserError
from satdifuser.shipped import NO_FILES

FOLDER, NAME = "encoder", "weights.json"


def weights_here(encoder: Mapping[str, Any]) -> dict[str, Path]:
    """The settings of an encoder that name weights on this machine, by their dotted names.

    >>> weights_here({"backbone": {"weights": "small"}})
    {}
    """
    found = {}
    for name, value in _dotted(encoder, ""):
        if name.rpartition(".")[2] == "weights" and isinstance(value, str) and value not in NO_FILES:
            path = Path(value).expanduser()
            if path.exists():
                found[name] = path
    return found


def with_carried(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration with the encoder's weights read from the run's own folder, if they lie there."""
    told = folder / FOLDER / NAME
    if not told.is_file():
        return config
    found = copy.deepcopy(config)
    for name, place in read_json(told, dict, "fetch the folder again").items():
        path = (folder / FOLDER / str(place)).resolve()
        if (folder / FOLDER).resolve() not in path.parents or not path.exists():
            raise UserError(f"{told} names {place}, which does not lie beside it: fetch the folder again")
        *above, last = str(name).split(".")
        node: Any = found["encoder"]
        for key in above:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise UserError(f"{told} is about encoder.{name}, which {folder / 'config.yaml'} does not have")
        node[last] = str(path)
    return found


def _dotted(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _dotted(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, values
