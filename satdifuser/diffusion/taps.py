"""Reading maps inside a network: record the output of named modules, and stop as soon as the last one has been read."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from satdifuser.bank import Tap
from satdifuser.errors import UserError, nearest


class _LastTapRead(Exception):  # noqa: N818 (not an error)
    """Leaves a forward pass that has nothing more to give."""


_passes: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


@contextmanager
def recording(network: nn.Module, names: Sequence[str], last: str | None = None) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named modules while the block runs the network; leave it once `last` has been read.

    Threads take turns with a network: the maps of one would be recorded as another's.
    """
    with turns(network):
        yield from _recorded(network, names, last)


def _recorded(network: nn.Module, names: Sequence[str], last: str | None) -> Iterator[dict[str, Tensor]]:
    read: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            read[name] = _value(output)
            if name == last:
                raise _LastTapRead

        return hook

    hooks = []
    try:
        for name in names:  # one by one: those that are set must go even if the next name is unknown
            hooks.append(network.get_submodule(name).register_forward_hook(reader(name)))  # noqa: PERF401
        yield read
    except _LastTapRead:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def turns(network: nn.Module) -> threading.RLock:
    """What a thread holds while it reads a network."""
    return _passes.setdefault(network, threading.RLock())


def keep_reading(network: nn.Module, names: Sequence[str], read: dict[str, Tensor], on: list[bool]) -> None:
    """Put the named modules' outputs into `read` in every pass from now on in which `on[0]`, as they are computed."""

    def reader(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if on[0]:
                read[name] = _value(output)

        return hook

    for name in names:
        network.get_submodule(name).register_forward_hook(reader(name))


def as_map(value: Tensor, side: int) -> Tensor:
    """A map as it is; the tokens `[batch, side * side, channels]` of an attention as the map they were made from."""
    return value if value.ndim == 4 else value.transpose(1, 2).unflatten(2, (side, side))


def trace(network: nn.Module, names: Sequence[str], call: Callable[[], Any], image_size: int) -> tuple[Tap, ...]:
    """The named taps in the order in which the network computes them, with the channels and strides that they have.

    The network runs once, by `call` (on the meta device, to be quick); the taps come without a timestep.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise UserError(f"no tap {name!r} in the network{nearest(name, known)}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"tap {twice!r} is asked for twice")
    calls = count_calls(network, names, call)
    taps = []
    for depth, (name, (times, value)) in enumerate(calls.items()):
        if times != 1:
            raise UserError(f"tap {name!r} is computed {times} times in a pass: choose a module that is computed once")
        tap = tap_of(network, name, depth, value, image_size)
        if tap is None:
            raise UserError(f"tap {name!r} gives {_shape(value)}, not a map [batch, channels, height, width]")
        taps.append(tap)
    never = [name for name in names if name not in calls]
    if never:
        raise UserError(f"tap {never[0]!r} is computed 0 times in a pass: choose a module that is computed once")
    return tuple(taps)


def count_calls(network: nn.Module, names: Sequence[str], call: Callable[[], Any]) -> dict[str, tuple[int, Any]]:
    """How often each named module is computed while `call` runs the network, and its first output, in that order."""
    calls: dict[str, tuple[int, Any]] = {}

    def count(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            times, first = calls.get(name, (0, output))
            calls[name] = (times + 1, first)

        return hook

    counters = [network.get_submodule(name).register_forward_hook(count(name)) for name in names]
    try:
        with torch.no_grad():
            call()
    finally:
        for counter in counters:
            counter.remove()
    return calls


def tap_of(network: nn.Module, name: str, depth: int, output: Any, image_size: int) -> Tap | None:
    """The tap that a module's output makes: a map, or tokens that are one; None if it is neither."""
    not_tokens = isinstance(network.get_submodule(name), nn.GroupNorm) or name.endswith(("attn2.to_k", "attn2.to_v"))
    value = _value(output)
    if not isinstance(value, Tensor) or value.ndim not in (3, 4):
        return None
    if value.ndim == 4:
        channels, height, width = value.shape[1:]
    elif not_tokens:  # channels before positions, or the words of the prompt
        return None
    else:
        tokens, channels = value.shape[1:]
        height = math.isqrt(tokens)
        width = height if height**2 == tokens else tokens
    if height != width or not height or image_size % height:
        return None
    return Tap(name, None, depth, channels, image_size // height)


def _value(output: Any) -> Any:
    """What a module gives, or the first of several things."""
    return output[0] if isinstance(output, tuple) and output else output


def _shape(output: Any) -> Any:
    value = _value(output)
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
