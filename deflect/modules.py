"""Taps inside the blocks of a vision transformer: kinds of modules, whatever a family calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from annotated_types import Len

from deflect.backbones.base import BLOCK, Backbone
from satdifuser.bank import BankError, Tap

Kind = Literal["norm1", "qkv", "attention", "norm2", "fc1", "fc2", "block"]  # in the order of computation
Modules = Literal["all"] | Annotated[Sequence[Kind], Len(1)]


def chosen_kinds(modules: Modules | None, backbone: Backbone) -> tuple[str, ...]:
    """The kinds that are read, in the order of computation: the block's end alone, or what is asked for."""
    if modules is None:
        return (BLOCK,)
    if isinstance(modules, str):
        return tuple(backbone.kinds)
    name, known = backbone.facts.name, ", ".join(backbone.kinds)
    lacks = [kind for kind in modules if kind not in backbone.kinds]
    if lacks:
        raise BankError(f"blocks of {name} have no {lacks[0]}: encoder.modules can be {known}, or all of these")
    if len(set(modules)) != len(modules):
        raise BankError(f"encoder.modules is {list(modules)}: give each kind once")
    return tuple(kind for kind in get_args(Kind) if kind in modules)


def places_in(blocks: Sequence[int], kinds: Sequence[str]) -> list[tuple[int, str]]:
    """Block and kind of everything that is read, in the order of computation."""
    return [(block, kind) for block in blocks for kind in kinds]


def tap_in(block: int, kind: str, depth: int, channels: int, stride: int) -> Tap:
    """
    >>> str(tap_in(3, "qkv", 0, 192, 8)), str(tap_in(3, "block", 1, 64, 8))
    ('blocks.3.qkv', 'blocks.3')
    """
    return Tap(f"blocks.{block}" if kind == BLOCK else f"blocks.{block}.{kind}", None, depth, channels, stride)
