"""Reading maps inside a network: record the output of named modules, and stop as soon as the last one has been read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import Tap
from satdifuser.errors import UserError, nearest


class _LastTapRead(Exception):  # noqa: N818 (not an error)
    """Leaves a forward pass that has nothing more to give."""


@contextmanager
def recording(network: nn.Module, names: Sequence[str], last: str | None = None) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named modules while the block runs the network; leave it once `last` has been read."""
    read: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            read[name] = output[0] if isinstance(output, tuple) else output
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


def trace(network: nn.Module, names: Sequence[str], call: Callable[[], Any], image_size: int) -> tuple[Tap, ...]:
    """The named taps in the order in which the network computes them, with the channels and strides that they have.

    The network runs once, by `call`; the taps come without a timestep.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise UserError(f"no tap {name!r} in the network{nearest(name, known)}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"tap {twice!r} is asked for twice")
    calls = dict.fromkeys(names, 0)

    def count(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1

        return hook

    counters = [network.get_submodule(name).register_forward_hook(count(name)) for name in names]
    try:
        with torch.no_grad(), recording(network, names) as read:
            call()
    finally:
        for counter in counters:
            counter.remove()
    for name, times in calls.items():
        if times != 1:
            raise UserError(f"tap {name!r} is computed {times} times in a pass: choose a module that is computed once")
    taps = []
    for depth, (name, value) in enumerate(read.items()):
        if value.ndim != 4:
            raise UserError(f"tap {name!r} gives {tuple(value.shape)}, not a map [batch, channels, height, width]")
        taps.append(Tap(name, None, depth, value.shape[1], image_size // value.shape[-1]))
    return tuple(taps)
