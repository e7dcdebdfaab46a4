"""The maps of a batch, addressed by tap, timestep or stride."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from satdifuser.bank.spec import BankError, BankSpec, Tap


class FeatureBank(Mapping[Tap, Tensor]):
    """The maps of a batch: a spec and one tensor `[batch, channels, height, width]` for each of its taps.

    Of samples of several dates they are `[batch, dates, channels, height, width]`.

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
