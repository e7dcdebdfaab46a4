"""A tap as a place in a network: which kind of module gives it, and which part of the network that is in."""

from __future__ import annotations

import re

from satdifuser.bank import BankSpec, Tap
from satdifuser.report.depth.content import Place

PARTS = r"blocks\.\d+|(?:down|up)_blocks\.\d+|mid_block"  # of ViTs, and of diffusers' UNets


def place_of(tap: Tap) -> Place:
    """
    >>> taps = ["blocks.3", "blocks.3.class", "blocks.3.qkv", "up_blocks.1.resnets.0.conv2", "mid_block", "conv_in"]
    >>> [(place.kind, place.block) for place in (place_of(Tap(name, None, 0, 4, 8)) for name in taps)]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('block', 'blocks.3'), ('class', 'blocks.3'), ('qkv', 'blocks.3'), ('conv2', 'up_blocks.1'),
     ('block', 'mid_block'), ('conv_in', 'conv_in')]
    """
    part = re.match(rf"(?:{PARTS})(?=\.|$)", tap.name)
    block = part.group() if part else tap.name
    return Place(str(tap.name), tap.timestep, tap.depth, tap.channels, tap.stride, _kind(tap.name, block), block)


def places_of(spec: BankSpec) -> tuple[Place, ...]:
    """Every tap of a spec, in its order."""
    return tuple(place_of(tap) for tap in spec.taps)


def _kind(name: str, block: str) -> str:
    from satdifuser.diffusion.selection import kind_of

    if name == block:
        return name if name in ("conv_in", "conv_out") else "block"
    return kind_of(name) or name.rpartition(".")[2]
