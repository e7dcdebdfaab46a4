"""A vision transformer as its library built it, and the few facts about it that a feature bank needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from deflect.bands import Band


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
    `learnable` are the parameters that training from end to end would change.
    """

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
        found: dict[int, Tensor] = {}

        def reader(number: int) -> Callable[..., None]:
            def read(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
                found[number] = self.after(given, output)

            return read

        hooks = [self.last_of(self.blocks[number]).register_forward_hook(reader(number)) for number in blocks]
        try:
            self.run(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[number] for number in blocks]

    def last_of(self, block: Any) -> nn.Module:
        """The module whose call ends a block."""
        return block

    def after(self, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The tokens after a block, from the call that ends it."""
        return output


def _take_off(model: nn.Module, name: str) -> nn.Module | None:
    """Replace a part by nothing; None if the model has no such part."""
    try:
        part = model.get_submodule(name)
    except AttributeError:
        return None
    model.set_submodule(name, nn.Identity())
    return part if any(True for _ in part.parameters()) else None
