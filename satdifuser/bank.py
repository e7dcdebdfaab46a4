"""The feature bank: the one contract between encoders, fusion heads, the store and the analysis.

An encoder says with a `BankSpec` which maps it gives; a `FeatureBank` holds them for a batch. Maps are addressed by
tap, by timestep or by stride, never by their place in a list. This module imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


class BankError(ValueError):
    """A bank or spec that does not fit: the message names the tap and both shapes."""


@dataclass(frozen=True, order=True)
class Tap:
    """One place where a map is read.

    `timestep` is the noise level in training timesteps, None for an encoder without one. `depth` counts taps in the
    order of computation. `stride` is in pixels of the encoder's input image: a stride of 8 at 64 px is an 8 x 8 map.

    >>> str(Tap("mid", timestep=61, depth=0, channels=144, stride=8))
    'mid@61'
    """

    name: str
    timestep: int | None
    depth: int
    channels: int
    stride: int

    def __post_init__(self) -> None:
        if self.channels < 1 or self.stride < 1:
            raise BankError(f"tap {self}: channels ({self.channels}) and stride ({self.stride}) must be positive")

    def __str__(self) -> str:
        return self.name if self.timestep is None else f"{self.name}@{self.timestep}"


@dataclass(frozen=True)
class BankSpec:
    """The ordered taps of an encoder, and what made them. Equal specs mean exchangeable features.

    >>> spec = BankSpec(
    ...     taps=tuple(Tap(n, t, d, 4, s) for t in (21, 61) for d, (n, s) in enumerate([("mid", 8), ("up", 4)])),
    ...     encoder="toy", weights="none", image_size=(32, 32))
    >>> spec.strides, spec.timesteps, spec.names(stride=4)
    ((4, 8), (21, 61), ('up',))
    """

    taps: tuple[Tap, ...]
    encoder: str
    weights: str
    image_size: tuple[int, int]
    mode: str = "plain"
    settings: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        settings = {str(key): _plain(value) for key, value in self.settings}
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))
        if not self.taps:
            raise BankError(f"the spec of encoder {self.encoder!r} has no taps")
        seen: set[str] = set()
        kinds: dict[str, Tap] = {}
        for tap in self.taps:
            if str(tap) in seen:
                raise BankError(f"tap {tap} is in the spec twice")
            seen.add(str(tap))
            first = kinds.setdefault(tap.name, tap)
            if (tap.channels, tap.stride, tap.depth) != (first.channels, first.stride, first.depth):
                raise BankError(
                    f"tap {tap} is {tap.channels} channels at stride {tap.stride} (depth {tap.depth}), but tap {first}"
                    f" is {first.channels} at stride {first.stride} (depth {first.depth}): a tap's timesteps must agree"
                )
            if any(side % tap.stride for side in self.image_size):
                raise BankError(
                    f"tap {tap}: an image of {self.image_size[0]} x {self.image_size[1]} is not divisible by its"
                    f" stride {tap.stride}"
                )

    @property
    def strides(self) -> tuple[int, ...]:
        """Distinct strides, finest first."""
        return tuple(sorted({tap.stride for tap in self.taps}))

    @property
    def timesteps(self) -> tuple[int | None, ...]:
        """Distinct timesteps in the order of the taps."""
        return tuple(dict.fromkeys(tap.timestep for tap in self.taps))

    def names(self, stride: int | None = None) -> tuple[str, ...]:
        """Distinct tap names in the order of computation, of one stride or of all."""
        chosen = sorted((tap for tap in self.taps if stride in (None, tap.stride)), key=lambda tap: tap.depth)
        return tuple(dict.fromkeys(tap.name for tap in chosen))

    def channels(self, name: str) -> int:
        return next(tap.channels for tap in self.taps if tap.name == name)

    def find(self, name: str, timestep: int | None = None) -> Tap:
        """The tap of that name and timestep, or an error that says which there are."""
        for tap in self.taps:
            if (tap.name, tap.timestep) == (name, timestep):
                return tap
        asked = name if timestep is None else f"{name}@{timestep}"
        raise BankError(f"no tap {asked}; the spec of encoder {self.encoder!r} has {', '.join(map(str, self.taps))}")

    def size(self, stride: int) -> tuple[int, int]:
        """Height and width of the maps at a stride."""
        return self.image_size[0] // stride, self.image_size[1] // stride

    def shape(self, tap: Tap) -> tuple[int, int, int]:
        """Channels, height and width of one sample's map."""
        return (tap.channels, *self.size(tap.stride))

    def is_grid(self) -> bool:
        """Whether every tap is there at every timestep, as the fusion heads need it."""
        return len(self.taps) == len(self.timesteps) * len(self.names())

    def select(
        self,
        *,
        timesteps: Iterable[int | None] | None = None,
        names: Iterable[str] | None = None,
        strides: Iterable[int] | None = None,
    ) -> BankSpec:
        """The spec with only the taps asked for, in the same order; asking for what is not there is an error."""
        chosen: list[tuple[str, Any, tuple[Any, ...], Callable[[Tap], Any]]] = [
            ("timestep", timesteps, self.timesteps, lambda tap: tap.timestep),
            ("tap", names, self.names(), lambda tap: tap.name),
            ("stride", strides, self.strides, lambda tap: tap.stride),
        ]
        keep = self.taps
        for what, wanted, there, of in chosen:
            wanted = list(there if wanted is None else wanted)
            missing = [value for value in wanted if value not in there]
            if missing:
                raise BankError(f"no {what} {missing[0]}; the spec of encoder {self.encoder!r} has {list(there)}")
            keep = tuple(tap for tap in keep if of(tap) in wanted)
        return replace(self, taps=keep)

    def differences(self, other: BankSpec) -> list[str]:
        """What sets two specs apart, one line each; empty if features are exchangeable."""
        found = [
            f"{what}: {getattr(self, what)!r} and {getattr(other, what)!r}"
            for what in ("encoder", "weights", "image_size", "mode")
            if getattr(self, what) != getattr(other, what)
        ]
        mine, theirs = dict(self.settings), dict(other.settings)
        found += [
            f"{key}: {mine.get(key)!r} and {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        left, right = {str(tap): tap for tap in self.taps}, {str(tap): tap for tap in other.taps}
        for name in sorted(left.keys() | right.keys()):
            if name not in left or name not in right:
                found.append(f"tap {name}: only in the {'first' if name in left else 'second'}")
            elif left[name] == right[name]:
                continue
            elif self.shape(left[name]) != other.shape(right[name]):
                found.append(f"tap {name}: {self.shape(left[name])} and {other.shape(right[name])}")
            else:
                found.append(f"tap {name}: depth {left[name].depth} and {right[name].depth}")
        return found or (["order of the taps"] if self.taps != other.taps else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML; `from_dict` gives the same spec back."""
        values = asdict(self)
        values["taps"] = [asdict(tap) for tap in self.taps]
        values["image_size"] = list(self.image_size)
        values["settings"] = dict(self.settings)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BankSpec:
        """The inverse of `to_dict`."""
        height, width = values["image_size"]
        return cls(
            taps=tuple(Tap(**tap) for tap in values["taps"]),
            encoder=values["encoder"],
            weights=values["weights"],
            image_size=(height, width),
            mode=values["mode"],
            settings=tuple(dict(values["settings"]).items()),
        )


def _plain(value: Any) -> Any:
    """Lists as tuples, so that a spec can be compared, hashed, and read back from JSON as it was."""
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


class FeatureBank(Mapping[Tap, Tensor]):
    """The maps of a batch: a spec and one tensor `[batch, channels, height, width]` for each of its taps.

    >>> spec = BankSpec((Tap("mid", 21, 0, 4, 8), Tap("up", 21, 1, 2, 4)), "toy", "none", (32, 32))
    >>> bank = FeatureBank(spec, {tap: torch.zeros(3, *spec.shape(tap)) for tap in spec.taps})
    >>> bank.batch_size, bank.map("up", 21).shape
    (3, torch.Size([3, 2, 8, 8]))
    """

    def __init__(self, spec: BankSpec, maps: Mapping[Tap, Tensor]) -> None:
        for tap in spec.taps:
            if tap not in maps:
                raise BankError(f"tap {tap} is missing: its spec promises a map of {spec.shape(tap)} for each sample")
        for tap in maps:
            if tap not in spec.taps:
                raise BankError(f"tap {tap} has a map, but is not in the spec: {', '.join(map(str, spec.taps))}")
        batch = maps[spec.taps[0]].shape[0] if maps[spec.taps[0]].ndim else 0
        for tap in spec.taps:
            shape = tuple(maps[tap].shape)
            if shape[1:] != spec.shape(tap):
                raise BankError(
                    f"tap {tap} has the shape {shape[1:]} for each sample, but its spec says {spec.shape(tap)}"
                )
            if shape[0] != batch:
                raise BankError(f"tap {tap} has {shape[0]} samples, but tap {spec.taps[0]} has {batch}")
        self.spec = spec
        self._maps = {tap: maps[tap] for tap in spec.taps}
        self._stacks: dict[str, Tensor] = {}

    @classmethod
    def stacked(cls, spec: BankSpec, stacks: Mapping[str, Tensor]) -> FeatureBank:
        """A bank whose maps of one name lie in one tensor `[taps of that name, batch, C, H, W]`, as a store reads them.

        It is the same bank, but `stack` gives the tensor without a copy.
        """
        maps: dict[Tap, Tensor] = {}
        for name in spec.names():
            taps = [tap for tap in spec.taps if tap.name == name]
            if name not in stacks or len(stacks[name]) != len(taps):
                raise BankError(f"tap {name} needs a stack of {len(taps)} maps: {', '.join(map(str, taps))}")
            maps.update(zip(taps, stacks[name], strict=True))
        bank = cls(spec, maps)
        bank._stacks = {name: stacks[name] for name in spec.names()}
        return bank

    def __getitem__(self, tap: Tap) -> Tensor:
        try:
            return self._maps[tap]
        except KeyError:
            raise BankError(f"no tap {tap}; the bank has {', '.join(map(str, self._maps))}") from None

    def __contains__(self, tap: object) -> bool:
        return tap in self._maps

    def get(self, tap: Tap, default: Any = None) -> Any:
        return self._maps.get(tap, default)

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"FeatureBank({self.batch_size} samples of {len(self)} taps from {self.spec.encoder!r})"

    @property
    def batch_size(self) -> int:
        return self._maps[self.spec.taps[0]].shape[0]

    @property
    def device(self) -> torch.device:
        return self._maps[self.spec.taps[0]].device

    def map(self, name: str, timestep: int | None = None) -> Tensor:
        return self._maps[self.spec.find(name, timestep)]

    def stack(self, name: str) -> Tensor:
        """All timesteps of one tap, folded into the batch: `[timesteps * batch, C, H, W]`, timestep by timestep."""
        whole = self._stacks.get(name)
        if whole is not None and tuple(t.timestep for t in self.spec.taps if t.name == name) == self.spec.timesteps:
            return whole.flatten(0, 1)
        return torch.cat([self.map(name, timestep) for timestep in self.spec.timesteps])

    def select(self, spec: BankSpec) -> FeatureBank:
        """Only the taps of a smaller spec."""
        return FeatureBank(spec, {tap: self[tap] for tap in spec.taps})

    def apply(self, function: Callable[[Tensor], Tensor]) -> FeatureBank:
        """The bank with a function that keeps the shape applied to every map."""
        return self._each(function, lambda x: function(x.flatten(0, 1)).unflatten(0, (len(x), -1)))

    def samples(self, which: slice | Tensor) -> FeatureBank:
        """Only some samples of the batch."""
        return self._each(lambda x: x[which], lambda x: x[:, which])

    def _each(self, of_map: Callable[[Tensor], Tensor], of_stack: Callable[[Tensor], Tensor]) -> FeatureBank:
        if self._stacks:
            return self.stacked(self.spec, {name: of_stack(value) for name, value in self._stacks.items()})
        return FeatureBank(self.spec, {tap: of_map(value) for tap, value in self._maps.items()})

    def to(self, *args: Any, **kwargs: Any) -> FeatureBank:
        """As `Tensor.to`, for every map."""
        return self.apply(lambda value: value.to(*args, **kwargs))

    def check(self, spec: BankSpec, consumer: str) -> None:
        """Raise unless this bank has what `consumer` was built for, tap by tap."""
        if self.spec is spec or self.spec == spec:
            return
        for tap in spec.taps:
            if tap not in self._maps:
                near = [mine for mine in self._maps if str(mine) == str(tap)]
                there = f"{near[0]} {self.spec.shape(near[0])}" if near else ", ".join(map(str, self._maps))
                if near and self.spec.shape(near[0]) == spec.shape(tap):
                    there += f" at depth {near[0].depth} instead of {tap.depth}"
                raise BankError(f"{consumer} was built for tap {tap} {spec.shape(tap)}, but the bank has {there}")
            if self.spec.shape(tap) != spec.shape(tap):
                raise BankError(
                    f"{consumer} was built for tap {tap} {spec.shape(tap)}, but the bank has {self.spec.shape(tap)}"
                )

    @staticmethod
    def cat(banks: Sequence[FeatureBank]) -> FeatureBank:
        """Join batches of one spec."""
        if not banks:
            raise BankError("there are no banks to join")
        spec = banks[0].spec
        for bank in banks[1:]:
            different = spec.differences(bank.spec)
            if different:
                raise BankError(f"banks of different specs cannot be joined: {different[0]}")
        return FeatureBank(spec, {tap: torch.cat([bank[tap] for bank in banks]) for tap in spec.taps})
