"""Forms: what of a bank is kept, and in which numbers. `pack` is run on the encoder's device, `unpack` on the head's.

keep:  maps | mean, max, moments, grid<n> (pooled) | latents (what goes into the UNet: the features are made later)
dtype: float32 | float16 | bfloat16 | int8 (with one scale for each sample, date and channel)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError, nearest
from satdifuser.pooling import NAMES as POOLINGS
from satdifuser.pooling import WHOLE, Pooling, is_pooling

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
KEEP = ("maps", *POOLINGS, "latents")
STORED_AS = {"float32": "float32", "float16": "float16", "bfloat16": "uint16", "int8": "int8"}  # Zarr has no bfloat16
# What rounds to infinity: half a step beyond the largest number.
LARGEST = {"float32": math.inf, "float16": 65520.0, "bfloat16": 2.0**128 - 2.0**119, "int8": math.inf}
SCALE = ".scale"  # what follows a tap's name in that of its scales
AXES = ("channel", "y", "x")
LEVELS = 127  # int8 holds -127..127 times its scale


@dataclass(frozen=True)
class Column:
    """One array of a store with a row for each sample: a tap's maps, or the scales of its int8 numbers."""

    name: str
    dtype: str  # NumPy's and Zarr's name of it
    shape: tuple[int, ...]
    tap: Tap
    part: str = ""
    series: bool = False  # whether its first side is that of the dates
    plain: tuple[str, ...] = ()  # dimensions in which all taps are of one size

    def torch_dtype(self, form: Form) -> torch.dtype:
        return torch.float32 if self.part == SCALE else DTYPES[form.dtype]

    @property
    def row_bytes(self) -> int:
        size = int(re.sub(r"\D", "", self.dtype)) // 8
        for side in self.shape:
            size *= side
        return size

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimension names: one name has one size in a store, as xarray wants it."""
        dates, sides = self.shape[: int(self.series)], self.shape[int(self.series) :]
        return ("sample", *("time" for _ in dates), *named(sides, self.plain))


def plain_axes(shapes: Iterable[Sequence[int]]) -> tuple[str, ...]:
    """The dimensions in which all these shapes (they end with channels, height and width) are of one size.

    >>> plain_axes([(3, 8, 8), (5, 8, 8)])
    ('y', 'x')
    """
    sides = [set(sizes) for sizes in zip(*(shape[-3:] for shape in shapes), strict=True)]
    return tuple(axis for axis, sizes in zip(AXES, sides, strict=True) if len(sizes) == 1)


def named(sides: Sequence[int], plain: Sequence[str]) -> tuple[str, ...]:
    """The names of a map's dimensions: of those that are not plain, the size is a part.

    >>> named((3, 8, 8), ("y", "x"))
    ('channel_3', 'y', 'x')
    """
    return tuple(axis if axis in plain else f"{axis}_{side}" for axis, side in zip(AXES, sides, strict=False))


@dataclass(frozen=True)
class Form:
    """How banks are kept.

    >>> spec = BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (32, 32))
    >>> [Form(dtype).bytes_per_sample(spec) for dtype in ("float32", "bfloat16", "int8")]
    [256, 128, 80]
    >>> Form("float32", "mean").spec(spec).shape(spec.taps[0])
    (4, 4, 4)
    """

    dtype: str = "float16"
    keep: str = "maps"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(
                f"store.dtype is {self.dtype!r}: it can be {', '.join(DTYPES)}{nearest(self.dtype, DTYPES)}"
            )
        if self.keep not in KEEP and not is_pooling(self.keep):
            raise UserError(f"store.keep is {self.keep!r}: it can be {', '.join(KEEP)}{nearest(str(self.keep), KEEP)}")
        if self.dtype == "int8" and self.keep in WHOLE:
            raise UserError(f"store.dtype=int8 keeps a scale for each channel, and store.keep={self.keep} one number")

    @property
    def words(self) -> str:
        """As one writes it on the command line."""
        dtype = f"store.dtype={self.dtype}"
        return dtype if self.keep == "maps" else f"store.keep={self.keep} {dtype}"

    @property
    def latents(self) -> bool:
        return self.keep == "latents"

    @property
    def pooling(self) -> Pooling | None:
        """None where maps keep their size."""
        return Pooling(self.keep) if is_pooling(self.keep) else None

    def spec(self, spec: BankSpec) -> BankSpec:
        """The spec of what is kept. (Latents have the spec that their encoder states; it is passed here as it is.)"""
        return spec if self.pooling is None else self.pooling.spec(spec)

    def columns(self, spec: BankSpec) -> list[Column]:
        """The arrays that hold a bank of `spec` (that of what is kept), in order."""
        found, series = [], spec.dates is not None
        plain = plain_axes([spec.shape(tap) for tap in spec.taps])
        for tap in spec.taps:
            name, shape = str(tap), spec.shape(tap)
            if not re.fullmatch(r"[\w.@+-]+", name) or name.startswith("."):
                raise UserError(f"tap {name!r} cannot be the name of a file: use letters, digits, '.', '_' and '-'")
            found.append(Column(name, STORED_AS[self.dtype], shape, tap, series=series, plain=plain))
            if self.dtype == "int8":
                found.append(Column(name + SCALE, "float32", shape[:-2], tap, SCALE, series, plain))
        return found

    def bytes_per_sample(self, spec: BankSpec) -> int:
        """What a sample of `spec` (the kept one) takes on disk."""
        return sum(column.row_bytes for column in self.columns(spec))

    def pack(self, bank: FeatureBank) -> Packed:
        """A bank in the form in which it is kept, on the bank's device; no value is looked at, so nothing waits."""
        spec, pooling = self.spec(bank.spec), self.pooling
        packed = Packed(spec, self, empty_stacks(spec, self, bank.batch_size, device=bank.device))
        finite, kept = [], []
        for tap, maps in bank.items():
            maps = maps.detach()
            pooled = maps if pooling is None else pooling.maps(maps)
            place = packed.of(spec.find(tap.name, tap.timestep))
            largest = _largest(pooled.flatten(-2)).float()
            self._store(pooled, largest, *place)
            most = largest.flatten(1).amax(1)
            kept.append(most < LARGEST[self.dtype])
            finite.append((most if pooled is maps else _largest(maps.flatten(1))).isfinite())
        return replace(packed, finite=torch.stack(finite, 1), kept=torch.stack(kept, 1))

    def _store(self, maps: Tensor, largest: Tensor, place: Tensor, scale: Tensor | None = None) -> None:
        """Put a tap's numbers where they are kept; `largest` is that of each channel."""
        if scale is None:
            place.copy_(maps)
            return
        limits = torch.finfo(torch.float32)
        scale.copy_((largest / LEVELS).clamp(limits.tiny, limits.max / (LEVELS + 1)))
        steps = maps.float() / scale[..., None, None]
        place.copy_(steps.round_().clamp_(-LEVELS, LEVELS))


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude along the last dimension, NaN where there is one.

    From both ends: on a CPU `abs`, `isfinite` and a norm each take several times as long as these two.
    """
    return torch.maximum(values.amax(-1), values.amin(-1).neg())


def alternatives(form: Form, spec: BankSpec, latents: BankSpec | None = None) -> dict[Form, int]:
    """Forms that take less than `form` for maps of `spec`, with bytes per sample, the least changed first."""
    if form.keep != "maps":
        return {}
    found = {}
    for other in (Form("float16"), Form("int8"), Form("float16", "grid4"), Form("float32", "mean")):
        found[other] = other.bytes_per_sample(other.spec(spec))
    if latents is not None:
        found[Form("float32", "latents")] = Form("float32", "latents").bytes_per_sample(latents)
    return {other: size for other, size in found.items() if size < form.bytes_per_sample(spec)}


def bytes_text(count: float) -> str:
    """
    >>> bytes_text(21_000_000), bytes_text(830)
    ('21.0 MB', '830 bytes')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


Stacks = dict[tuple[str, str], Tensor]


def empty_stacks(spec: BankSpec, form: Form, batch: int, **kwargs: Any) -> Stacks:
    """Memory for a batch: for each tap name and part, one tensor `[taps of that name, batch, ...]`.

    So no timestep has to be copied to be put beside another, neither when it is read nor when it is used.
    """
    groups: dict[tuple[str, str], list[Column]] = {}
    for column in form.columns(spec):
        groups.setdefault((column.tap.name, column.part), []).append(column)
    return {
        key: torch.empty(len(columns), batch, *columns[0].shape, dtype=columns[0].torch_dtype(form), **kwargs)
        for key, columns in groups.items()
    }


@dataclass(frozen=True)
class Packed:
    """A batch as a store holds it. `finite` and `kept` (`[batch, taps]`) say whether values and stored values are."""

    spec: BankSpec
    form: Form
    stacks: Stacks
    finite: Tensor | None = None
    kept: Tensor | None = None

    @property
    def batch_size(self) -> int:
        return next(iter(self.stacks.values())).shape[1]

    def of(self, tap: Tap) -> tuple[Tensor, ...]:
        """A tap's arrays `[batch, ...]`: its numbers, and the scales of int8."""
        place = [other for other in self.spec.taps if other.name == tap.name].index(tap)
        return tuple(value[place] for (name, _), value in self.stacks.items() if name == tap.name)

    def to(self, *args: Any, **kwargs: Any) -> Packed:
        """As `Tensor.to` for all that it holds (a device; not a type)."""
        stacks = {key: value.to(*args, **kwargs) for key, value in self.stacks.items()}
        flags = {k: v.to(*args, **kwargs) for k in ("finite", "kept") if (v := getattr(self, k)) is not None}
        return replace(self, stacks=stacks, **flags)

    def unpack(self) -> FeatureBank:
        """The bank: floating-point maps in the stored precision (float32 of int8)."""
        maps = {name: value for (name, part), value in self.stacks.items() if not part}
        for (name, part), scale in self.stacks.items():
            if part == SCALE:
                maps[name] = maps[name].to(torch.float32).mul_(scale[..., None, None])
        return FeatureBank.stacked(self.spec, maps)
