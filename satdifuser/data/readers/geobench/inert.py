"""The record in a GEO-Bench file, which is a pickle: what it names is not imported, and nothing of it runs.

A pickle calls what it names. Here a name gives a stand-in: of a class of GEO-Bench one that keeps nothing, of numpy
one that keeps numbers; every other name is refused.
"""

from __future__ import annotations

import ast
import io
import pickle
import re
from typing import Any

import numpy as np

from satdifuser import tensors

WRITTEN = re.compile(
    r"(geobench|ccb)(\.io)?(\.(dataset|label|task))? \w+|affine Affine|rasterio\.crs CRS"
    r"|datetime (date|datetime|time|timedelta|timezone)|collections OrderedDict"
)
ARRAYS = re.compile(r"numpy(\._?core\.(multiarray|numeric))? (dtype|ndarray|scalar|_reconstruct|_frombuffer)")


class RefusedError(Exception):
    """What a record names that it should not, to follow the file's name in a sentence."""


class Inert(tensors.Inert):
    """Stands for an object of any class, a dictionary's too."""

    def __setitem__(self, name: Any, value: Any) -> None: ...


class Kind(Inert):
    """Stands for a type of numpy: of numbers, and no other."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = str(code)
        self.__setstate__((3, ""))

    def __setstate__(self, state: Any) -> None:  # the order of the bytes
        self.code = f"{state[1]}{self.code.lstrip('<>|=') if state[1] else self.code}"
        if not re.fullmatch(r"[<>|=]?[biuf][1248]", self.code):
            raise RefusedError(f"has numpy's type {self.code!r} in its record, not of numbers; nothing of it was run")


class Numbers(Inert):
    """Stands for an array of numpy, or a number of it: `value`."""

    def __init__(self, *given: Any) -> None:
        self.value = np.empty(0)
        if len(given) in (2, 4):  # of `scalar` or `_frombuffer`; `_reconstruct` has three, and a state that follows
            raw, kind, shape, order = given if len(given) == 4 else (given[1], given[0], (), "C")
            self.__setstate__((1, shape, kind, order == "F", raw))

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, raw = state
        if not isinstance(kind, Kind) or not isinstance(raw, bytes | bytearray):
            raise RefusedError("has an array in its record that is not of numbers; nothing of it was run")
        self.value = np.frombuffer(raw, kind.code).reshape(shape, order="F" if by_columns else "C")


class Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if ARRAYS.fullmatch(f"{module} {name}") or WRITTEN.fullmatch(f"{module} {name}"):
            return {"dtype": Kind, "scalar": Numbers, "_reconstruct": Numbers, "_frombuffer": Numbers}.get(name, Inert)
        raise RefusedError(f"names {module}.{name} in its record, which GEO-Bench never does; nothing of it was run")


def label_in(text: Any) -> Any:
    """The label in the text of a record: plain values and numpy's; None if it has none."""
    record = ast.literal_eval(text) if isinstance(text, str) and text[:1] == "b" else None
    values = Reader(io.BytesIO(record)).load() if isinstance(record, bytes) else None
    if isinstance(values, dict):
        return getattr(values.get("label"), "value", values.get("label"))
    raise RefusedError("has a record that is not of GEO-Bench; nothing of it was run")
