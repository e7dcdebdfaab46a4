"""torchgeo's class for a data set, made with its own arguments; what goes wrong there becomes one line."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from typing import Any

from satdifuser.data.files.names import shown
from satdifuser.data.readers.torchgeo.held import held_by
from satdifuser.errors import UserError, nearest
from satdifuser.facts import also_read
from satdifuser.optional import missing

OF_PARTS = ("share",)  # what a part says besides arguments of the class


def class_of(name: str) -> type[Any]:
    """A class of torchgeo.datasets."""
    module = importlib.import_module("torchgeo.datasets")
    found = getattr(module, name, None)
    if not inspect.isclass(found) or not hasattr(found, "__getitem__"):
        known = [word for word in dir(module) if inspect.isclass(getattr(module, word))]
        raise UserError(
            f"torchgeo has no data set {shown(name)}: set data.dataset to a class of torchgeo.datasets, or to a set of"
            f" configs/facts/torchgeo{also_read(name, 'torchgeo') or nearest(name, known)}"
        )
    return found


def part_of(parts: Mapping[str, Any] | None, split: str, cls: type[Any]) -> dict[str, Any]:
    """What a split is for the class: its arguments, and the share of its samples that the split has."""
    if parts is None:
        if "split" in inspect.signature(cls).parameters:
            return {"split": split}
        raise UserError(
            f"{cls.__name__} has no splits: say which samples are for what, as"
            " data.parts={train: {share: [0, 0.8]}, val: {share: [0.8, 0.9]}, test: {share: [0.9, 1]}}"
        )
    if split not in parts:
        raise UserError(f"data.parts has no {split!r}: it has {', '.join(map(str, parts))}{nearest(split, parts)}")
    return dict(parts[split] or {})


def opened(
    cls: type[Any], root: str, arguments: Mapping[str, Any], download: bool, holds: str | None, get: str | None
) -> Any:
    """The data set that lies in `root`; `holds` is what a root must hold, `get` how one gets it."""
    takes = inspect.signature(cls).parameters
    unknown = [name for name in arguments if name not in takes]
    if unknown:
        raise UserError(
            f"torchgeo's {cls.__name__} takes no {unknown[0]}: it takes {', '.join(takes)}; set data.arguments"
            f"{nearest(unknown[0], takes)}"
        )
    if download and "download" not in takes:
        raise UserError(f"torchgeo does not download {cls.__name__}: {get or 'get it by hand'}")
    given: dict[str, Any] = {"paths" if "paths" in takes and "root" not in takes else "root": root, **arguments}
    given |= {"checksum": False} if "checksum" in takes else {}
    given |= {"download": True} if download else {}
    where = shown(os.path.abspath(root))  # noqa: PTH100 (a root may be no path of this machine's kind)
    by_itself = "let torchgeo get it: data.download=true" if "download" in takes else "torchgeo does not download it"
    help_ = f"it must hold {holds or held_by(cls)}; {get or by_itself}"
    try:
        return cls(**given)
    except UserError:
        raise
    except Exception as error:  # of each class its own
        if missing(error) is not None:
            raise
        kind, reason = type(error).__name__, shown(" ".join(str(error).split()))[:300]
        if kind == "DatasetNotFoundError" or isinstance(error, FileNotFoundError):
            lost = f" ({shown(error.filename)} is not there)" if isinstance(error, OSError) and error.filename else ""
            raise UserError(f"{where} has no {cls.__name__}{lost}: {help_}; or set data.root") from error
        if kind == "DependencyNotFoundError" or isinstance(error, ImportError):
            raise UserError(
                f"torchgeo's {cls.__name__} needs a library (of parquet: pip install pyarrow): {reason}"
            ) from error
        said = ", ".join(f"{name}={value}" for name, value in arguments.items()) or "no arguments"
        raise UserError(
            f"torchgeo's {cls.__name__} cannot be opened in {where} with {said} ({kind}: {reason}): {help_}; or set"
            " data.parts or data.arguments"
        ) from error
