"""What maps an encoder gives: its taps, and all that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


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

    With `dates` each sample has that many images, and each tap a map of every one: `[dates, channels, height, width]`.

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
    dates: int | None = None

    def __post_init__(self) -> None:
        settings = {str(key): _plain(value) for key, value in self.settings}
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))
        if not self.taps:
            raise BankError(f"the spec of encoder {self.encoder!r} has no taps")
        if self.dates is not None and self.dates < 1:
            raise BankError(f"the spec of encoder {self.encoder!r} is of {self.dates} dates: it must be 1 or more")
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

    def shape(self, tap: Tap) -> tuple[int, ...]:
        """Channels, height and width of one sample's map, after the number of dates where there are several."""
        return (*(() if self.dates is None else (self.dates,)), tap.channels, *self.size(tap.stride))

    def is_grid(self) -> bool:
        """Whether every tap is there at every timestep, as the fusion heads need it."""
        return len(self.taps) == len(self.timesteps) * len(self.names())

    def places(self) -> list[tuple[str, ...]]:
        """The names of the taps by depth, in the order of computation: a block's map, and its class token with it.

        >>> taps = [Tap(n, None, d, 4, 8) for d, n in enumerate(["blocks.3", "blocks.3.class", "blocks.7"])]
        >>> BankSpec(tuple(taps), "toy", "none", (32, 32)).places()
        [('blocks.3', 'blocks.3.class'), ('blocks.7',)]
        """
        found: dict[str, list[str]] = {}
        for name in self.names():
            found.setdefault(name.removesuffix(".class"), []).append(name)
        return [tuple(names) for names in found.values()]

    def select(
        self,
        *,
        timesteps: Iterable[int | None] | None = None,
        names: Iterable[str] | None = None,
        strides: Iterable[int] | None = None,
        depths: Iterable[int] | None = None,
    ) -> BankSpec:
        """The spec with only the taps asked for, in the same order; asking for what is not there is an error.

        `depths` are numbers of `places`, negative ones from the end.
        """
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
        if depths is not None:
            at_depths = self._at(depths)
            keep = tuple(tap for tap in keep if tap.name in at_depths)
        if not keep:
            raise BankError(
                f"no taps are left: what is asked for has none in common, of {', '.join(map(str, self.taps))}"
            )
        return replace(self, taps=keep)

    def _at(self, depths: Iterable[int]) -> set[str]:
        """Names of the taps at these depths."""
        places, wanted = self.places(), list(depths)
        missing = [depth for depth in wanted if not -len(places) <= depth < len(places)]
        if missing:
            there = ", ".join(f"{depth}: {' and '.join(names)}" for depth, names in enumerate(places))
            raise BankError(f"no depth {missing[0]}; the spec of encoder {self.encoder!r} has {there}")
        return {name for depth in wanted for name in places[depth]}

    def differences(self, other: BankSpec) -> list[str]:
        """What sets two specs apart, one line each; empty if features are exchangeable."""
        found = [
            f"{what}: {getattr(self, what)!r} and {getattr(other, what)!r}"
            for what in ("encoder", "weights", "image_size", "mode", "dates")
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
        if self.dates is None:  # as before there were dates
            del values["dates"]
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
            dates=values.get("dates"),
        )


def _plain(value: Any) -> Any:
    """Lists as tuples, so that a spec can be compared, hashed, and read back from JSON as it was."""
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value
