"""How an image of more bands enters a ViT that was pretrained on three: the known ways to adapt its patch embedding."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deflect.backbones.base import Backbone
from deflect.bands import Band
from satdifuser.bank import BankError

log = logging.getLogger(__name__)
Way = Literal["repeat", "random", "scratch"]
RGB = ("red", "green", "blue")


def adapt_patches(backbone: Backbone, bands: Sequence[Band], way: Way) -> None:
    """Give the patch embedding an input for each band.

    `repeat`: the pretrained filters again and again, scaled so that the sum keeps its size; they train only where
    everything does. `random`: the pretrained filters for red, green and blue, random ones of their spread for the
    others; trains. `scratch`: random for all; trains.
    """
    embed: Any = getattr(backbone.model, "patch_embed", None)
    old: Any = getattr(embed, "proj", None)
    if not isinstance(old, nn.Conv2d):
        raise BankError(
            f"{backbone.facts.name} has no convolution as its patch embedding: give it the bands it was made for"
        )
    new: Any = nn.Conv2d(len(bands), old.out_channels, old.kernel_size, old.stride, bias=old.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        if way != "scratch" and old.bias is not None:
            new.bias.copy_(old.bias)
        if way == "repeat":
            new.weight.copy_(_repeated(old.weight, len(bands)))
        elif way == "random":
            places = _rgb(bands, old.in_channels, backbone)
            new.weight.normal_(std=float(old.weight.std()))
            new.weight[:, places] = old.weight
    gone = {id(parameter) for parameter in old.parameters()}
    if len(bands) != old.in_channels:
        log.warning("%s: %d bands enter its filters of %d by %r", backbone.facts.name, len(bands), old.in_channels, way)
    embed.proj = new.requires_grad_(way != "repeat")
    backbone.learnable = [p for p in backbone.learnable if id(p) not in gone] + list(new.parameters())


def _repeated(weight: Tensor, bands: int) -> Tensor:
    """As timm does it: one band gets the sum of the filters, more get them in turn, scaled to keep the sum's size."""
    filters = weight.shape[1]
    if bands == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-bands // filters), 1, 1)[:, :bands] * (filters / bands)


def _rgb(bands: Sequence[Band], filters: int, backbone: Backbone) -> list[int]:
    common = [band.common for band in bands]
    missing = [name for name in RGB if name not in common]
    if missing or filters != len(RGB):
        why = (
            f"there is no {missing[0]} band"
            if missing
            else f"its weights take {filters} bands, not red, green and blue"
        )
        raise BankError(f"patch_embedding=random of {backbone.facts.name}: {why}; use repeat or scratch")
    return [common.index(name) for name in RGB]
