"""A vision transformer as its library built it, and the few facts about it that a feature bank needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deflect.bands import Band
from satdifuser.bank import BankError

BLOCK = "block"


@dataclass(frozen=True)
class Facts:
    """`channels`: bands of the input, None for any. `prefix`: class and register tokens before the patches.

    `class_token`: whether the first of them is one. `normed`: whether the last LayerNorm has the weights' values.
    `options`: what the model was built with beside that, for not everything that it computes is in its weights.
    """

    name: str
    weights: str
    width: int
    patch: int
    image_size: int
    prefix: int
    channels: int | None
    class_token: bool = True
    normed: bool = True
    options: tuple[tuple[str, object], ...] = ()


class Backbone(nn.Module):
    """A ViT that gives the tokens after chosen blocks. A family of models is a subclass that knows its model's parts.

    The parts that features do not pass through (the classifier, the pooling) are taken off, and everything is frozen;
    `learnable` are the parameters that training from end to end would change. `parts` says where in a block each
    kind of module is, in the order of computation (of several modules the outputs are side by side).
    """

    parts: ClassVar[Mapping[str, str]] = {
        **{"norm1": "norm1", "qkv": "attn.qkv", "attention": "attn.proj"},
        **{"norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"},
    }
    blocks_at = "blocks"
    norm_at = "norm"
    off: tuple[str, ...] = ("head", "fc_norm", "head_drop", "attn_pool")
    fixed: tuple[str, ...] = ()
    """Parameters that are no part of the features although they are there."""
    spectral = False
    """Whether the features depend on what the bands measure, and not only on how many there are."""

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.model, self.facts = model, facts
        self.bands: tuple[Band, ...] = ()
        self.norm: nn.Module | None = _take_off(model, self.norm_at)
        for name in self.off:
            _take_off(model, name)
        names = dict(model.named_parameters())
        wanted = {name for name, p in names.items() if p.requires_grad and not name.startswith(self.fixed or ("\0",))}
        self.learnable = [names[name] for name in sorted(wanted)]
        self.requires_grad_(False)
        self.kinds = self._kinds()

    def _kinds(self) -> dict[str, int]:
        """The kinds of modules that every block has, and how many channels their outputs have."""
        found = {}
        for kind, path in self.parts.items():
            widths = {tuple(_width(part_of(block, name)) for name in path.split()) for block in self.blocks}
            if len(widths) == 1 and None not in (given := next(iter(widths))):
                found[kind] = sum(width for width in given if width is not None)
        return {**found, BLOCK: self.facts.width}

    @property
    def plain(self) -> Any:
        """The library's own model, inside of what an adapter may have put around it."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def blocks(self) -> Any:
        return self.plain.get_submodule(self.blocks_at)

    @property
    def grid(self) -> int:
        return self.facts.image_size // self.facts.patch

    def keep(self, count: int) -> None:
        """Take off the blocks after the first `count`: what nobody reads is not computed."""
        parent, _, name = self.blocks_at.rpartition(".")
        gone = {id(p) for block in self.blocks[count:] for p in block.parameters()}
        self.learnable = [p for p in self.learnable if id(p) not in gone]
        setattr(self.plain.get_submodule(parent), name, self.blocks[:count])

    def advise(self, prepare: Any) -> None:
        """Say what a user should know of the input that he has chosen, if anything."""

    def run(self, x: Tensor) -> None:
        """The model's own forward pass over prepared images."""
        self.plain.forward_features(x)

    def forward(self, x: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Tokens `[batch, prefix + patches, width]` after each of the blocks, as the model itself computes them."""
        return self.read(x, [(number, BLOCK) for number in blocks])

    def read(self, x: Tensor, places: Sequence[tuple[int, str]]) -> list[Tensor]:
        """Tokens that modules of these kinds give in these blocks."""
        with self.reading(places) as found:
            self.run(x)
        return [found[place] for place in places]

    @contextmanager
    def reading(self, places: Sequence[tuple[int, str]]) -> Iterator[dict[tuple[int, str], Tensor]]:
        """What modules of these kinds give in these blocks while the model runs: all of it is there at the end.

        What a module is called for first in a pass is the stream that the model itself passes on.
        """
        parts: dict[tuple[int, str], dict[int, Tensor]] = {place: {} for place in places}
        found: dict[tuple[int, str], Tensor] = {}

        def reader(place: tuple[int, str], number: int) -> Callable[..., None]:
            def read(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
                parts[place].setdefault(number, self.after(given, output) if place[1] == BLOCK else output)

            return read

        hooks, wanted = [], {}
        for place in places:
            modules = self.modules_of(*place)
            wanted[place] = len(modules)
            hooks += [m.register_forward_hook(reader(place, number)) for number, m in enumerate(modules)]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()
        for place, given in parts.items():
            if len(given) < wanted[place]:
                raise BankError(
                    f"{self.facts.name} computes {place[1]} of its block {place[0]} without calling the module: leave"
                    f" {place[1]} out of encoder.modules"
                )
            values = [given[number] for number in sorted(given)]
            found[place] = values[0] if len(values) == 1 else torch.cat(values, dim=-1)

    def modules_of(self, number: int, kind: str) -> list[nn.Module]:
        """The modules that give the tokens of a kind in a block, with what an adapter has put around them."""
        block = self.blocks[number]
        if kind == BLOCK:
            return [self.last_of(block)]
        modules = [part_of(block, name) for name in self.parts[kind].split()]
        return [module for module in modules if module is not None]

    def last_of(self, block: Any) -> nn.Module:
        """The module whose call ends a block."""
        return block

    def after(self, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The tokens after a block, from the call that ends it."""
        return output


def part_of(block: nn.Module, path: str) -> nn.Module | None:
    """A module of a block by the path that it has in the model itself, through what wraps the block or its parts."""
    module: nn.Module | None = block
    for name in path.split("."):
        while module is not None and name not in module._modules:
            module = module._modules.get("base_layer")
        module = None if module is None else module._modules[name]
    return module


def _width(module: nn.Module | None) -> int | None:
    """Channels of what a linear layer or a norm gives."""
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) else None


def _take_off(model: nn.Module, name: str) -> nn.Module | None:
    """Replace a part by nothing; None if the model has no such part."""
    try:
        part = model.get_submodule(name)
    except AttributeError:
        return None
    model.set_submodule(name, nn.Identity())
    return part if any(True for _ in part.parameters()) else None
