"""The tensors of a file of weights, whatever else it says: safetensors, or a checkpoint of which nothing is run.

This module imports nothing of the project, so that `deflect` may read with it too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

KINDS = ".safetensors, .pth, .pt, .bin"

# What trainers put beside weights: configurations, arguments, scores. Each becomes an `Inert`, and nothing is called.
BESIDE = {
    "argparse": "Namespace",
    "builtins": "bool bytes dict float frozenset int list object range slice str tuple",
    "numpy": "bool_ dtype float32 float64 int32 int64 ndarray",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.dtypes": "BoolDType Float32DType Float64DType Int32DType Int64DType StrDType",
    "omegaconf.base": "ContainerMetadata Metadata UnionNode",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode ValueNode",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any",
}
HARMLESS = tuple(f"{module}.{name}" for module, names in BESIDE.items() for name in names.split())


class TensorsError(ValueError):
    """A file that gives no tensors: one line with what, where and what to do."""


class Inert:
    """Stands for an object that is no tensor: it takes whatever it is made of, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a file, by its dotted path in whatever nest of dictionaries it lies in."""
    path = Path(path)
    if not path.is_file():
        raise TensorsError(f"no file {path.absolute()}: weights ({KINDS}) are looked for there")
    try:
        tensors = dict(_flat(_content(path), ""))
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        asked = re.search(r"GLOBAL ([\w.]+)", reason)
        if asked is not None:
            raise TensorsError(
                f"{path} asks for {asked[1]}, and what a pickle asks for is not run: save its tensors alone, best as"
                " safetensors"
            ) from None
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors, and what a pickle says is not run"
        raise TensorsError(
            f"{path} is damaged or no file of weights ({reason[:200]}): fetch it again, or save its tensors as"
            " safetensors"
        ) from error
    if not tensors:
        raise TensorsError(f"{path} holds no tensors")
    return tensors


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch
    from torch.serialization import safe_globals

    inert: list[Any] = [*((Inert, name) for name in HARMLESS), (_dictionary, "collections.defaultdict")]
    with safe_globals(inert), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a newer pickle's form, which is read or refused all the same
        return torch.load(path, map_location="cpu", weights_only=True)


def _dictionary(*_: Any) -> dict[Any, Any]:
    """Stands for one with a default, which is filled after it is made."""
    return {}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
