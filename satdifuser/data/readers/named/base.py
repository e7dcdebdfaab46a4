"""What the readers of sets by name share: a root, lists of samples, and GeoTIFFs as they are stored."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.files.fitting import AGAIN, SKIP, BadImageError, Fitting
from satdifuser.data.files.images import open_image
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.files.opened import Ask, Own
from satdifuser.data.readers.base import Raw
from satdifuser.errors import UserError, nearest

Array = np.ndarray[Any, Any]
Stored = tuple[Array, Array | None, Own]
"""A band as its file has it: its numbers, where they are no data, and the file's own scale and offset."""


def find_folder(root: str, holds: str, *inner: str) -> Path:
    """`root`, or a folder in it that its archive makes (`inner`): the one that has what the set cannot do without."""
    for folder in (Path(root), *(Path(root) / name for name in inner)):
        if (folder / holds).exists():
            return folder
    raise UserError(f"data.root {shown(Path(root).absolute())} has no {holds}: set it to the folder of the set")


def one_of(split: str, known: Iterable[str], name: str) -> str:
    """The split, if the set has it."""
    if split not in known:
        raise UserError(f"{name} has no split {split!r}: it has {', '.join(known)}{nearest(split, known)}")
    return split


def listed(file: Path, name_of: Callable[[str], str | None] = lambda line: line) -> list[str]:
    """The samples that a file names, one a line; `name_of` says None to a line that names none."""
    if not file.is_file():
        raise UserError(f"{shown(file)} is not there, and says which samples a split has: {AGAIN}")
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{shown(file)} cannot be read as a list of samples ({type(error).__name__}): {AGAIN}"
        ) from error
    names = {line: name_of(line) for line in lines if line}
    odd = [line for line, name in names.items() if name is None or Path(name).name != name or name_fault(name)]
    if odd or not names:
        said = f"has {shown(odd[0])!r}, which is no sample of the set" if odd else "names no samples"
        raise UserError(f"{shown(file)} {said}: {AGAIN}")
    return [str(name) for name in dict.fromkeys(names.values())]


def places_of(sensor: Sensor, known: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Where each of the sensor's bands is in the files (`known`), or an error that says which bands there are."""
    lacking = [band for band in sensor.names if band not in known]
    if lacking:
        raise UserError(
            f"{name} has no {', '.join(lacking)}, which {sensor.name} has: its files have {', '.join(known)}; set"
            " data.sensor to some of these bands"
        )
    return {band: known[band] for band in sensor.names}


def read_bands(path: Path, fitting: Fitting, bands: Sequence[int] = (0,), count: int = 1) -> list[Stored]:
    """Some bands of a GeoTIFF, which must have `count`."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with open_image(path, Ask("light" if count > 1 else "numbers", count, "data")) as file:
        if file.count != count:
            raise BadImageError(f"has {file.count} bands, but a file of the set has {count}: {AGAIN}")
        found = file.part(bands, fitting, *file.whole())
    blanks = found.blank if found.blank is not None else [None] * len(bands)
    return list(zip(found.numbers, blanks, found.own or [(None, 0.0)] * len(bands), strict=True))


def raw_of(bands: Iterable[Stored], answer: Any) -> Raw:
    """A sample of these bands."""
    numbers, blanks, own = zip(*bands, strict=True)
    return Raw(numbers, answer, blanks, own)


def read_array(path: Path, dimensions: int) -> Array:
    """An array of NumPy's own format, of which only what is taken is read; objects are refused."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged header NumPy raises all kinds
        reason = shown(" ".join(str(error).replace(str(path), "the file").split()))
        raise UserError(f"{shown(path)} cannot be read ({reason}): {AGAIN} {SKIP}") from error
    if found.ndim != dimensions or found.dtype.kind not in "iuf":
        raise UserError(f"{shown(path)} is {found.dtype} {found.shape}, as no array of the set: {AGAIN} {SKIP}")
    return found
