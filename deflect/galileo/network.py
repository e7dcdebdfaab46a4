"""Galileo's encoder on images of one date: patches of each group of channels, their places and month, and blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deflect.galileo.channels import GROUPS

RESOLUTION = 10.0  # metres of a pixel, in which places are counted


@dataclass(frozen=True)
class Shape:
    """What a config.json says of the encoder."""

    width: int
    depth: int
    heads: int
    mlp: float = 4.0
    kernel: int = 8  # the side of the patches that the filters are kept for, and the largest that there is
    dates: int = 24


class Attention(nn.Module):
    """Of all tokens of an image to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attn = Attention(shape.width, shape.heads)
        self.mlp = Mlp(shape.width, round(shape.width * shape.mlp))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Galileo(nn.Module):
    """`forward(x, months, blocks)`: tokens `[batch, groups, rows, columns, width]` after each of these blocks.

    `x` `[batch, channels, H, W]` are the normalised channels of `groups`, in their order; `months` are 0 to 11.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.shape, self.groups = shape, tuple(GROUPS)
        self.embed = nn.ModuleDict(
            {group: nn.Conv2d(len(channels), width, shape.kernel) for group, channels in GROUPS.items()}
        )
        self.channel_embed = nn.Parameter(0.02 * torch.randn(len(GROUPS), width // 4))
        self.register_buffer("date_embed", waves(torch.arange(shape.dates), width // 4).float())
        self.register_buffer("month_embed", month_table(width // 4))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.patch, self.metres = shape.kernel, RESOLUTION
        self.register_buffer("resize", torch.empty(0), persistent=False)

    date_embed: Tensor
    month_embed: Tensor
    resize: Tensor

    def made_for(self, groups: Sequence[str], patch: int, metres: float) -> None:
        """Only these groups, patches of this side, and pixels of so many metres."""
        self.groups, self.patch, self.metres = tuple(groups), patch, metres
        self.embed = nn.ModuleDict({group: self.embed[group] for group in groups})
        self.resize = resizing(self.shape.kernel, patch).float()

    def forward(self, x: Tensor, months: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        parts = x.split([len(GROUPS[group]) for group in self.groups], dim=1)
        patches = torch.stack([self._patches(g, part) for g, part in zip(self.groups, parts, strict=True)], dim=1)
        tokens = patches + self._places(patches, months)
        sizes, tokens = tokens.shape[1:4], tokens.flatten(1, 3)
        found = {}
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            found[number] = tokens.unflatten(1, sizes)
        return [found[number] for number in blocks]

    def _patches(self, group: str, x: Tensor) -> Tensor:
        """`[batch, rows, columns, width]`."""
        embed: Any = self.embed[group]
        filters = embed.weight
        if self.patch != self.shape.kernel:
            filters = (filters.flatten(2) @ self.resize.T).unflatten(2, (self.patch, self.patch))
        return F.conv2d(x, filters, embed.bias, stride=self.patch).permute(0, 2, 3, 1)

    def _places(self, patches: Tensor, months: Tensor) -> Tensor:
        """What is added to tokens: a quarter of the width each says group, date, month and place."""
        batch, groups, rows, columns, width = patches.shape
        every = torch.tensor([list(GROUPS).index(group) for group in self.groups], device=patches.device)
        step = self.metres * self.patch / RESOLUTION
        down, across = (
            waves(step * torch.arange(count, device=patches.device, dtype=torch.float64), width // 8).to(patches)
            for count in (rows, columns)
        )
        space = torch.cat([across.expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)], dim=-1)
        parts = [
            self.channel_embed[every].view(1, groups, 1, 1, -1),
            self.date_embed[0].view(1, 1, 1, 1, -1),
            self.month_embed[months].view(batch, 1, 1, 1, -1),
            space.view(1, 1, rows, columns, -1),
        ]
        whole = (batch, groups, rows, columns, width // 4)
        return torch.cat([part.to(patches).expand(whole) for part in parts], dim=-1)


def waves(places: Tensor, size: int) -> Tensor:
    """Sines, then cosines, of each place: `[places, size]`."""
    rates = 10000.0 ** -(torch.arange(size // 2, dtype=torch.float64, device=places.device) / size / 2)
    angles = places.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def month_table(size: int) -> Tensor:
    """The place of each month on the circle of the year, its sine and cosine repeated."""
    angles = torch.arange(12, dtype=torch.float64)[:, None] * (2 * math.pi / 12)
    return torch.cat([angles.sin().expand(-1, size // 2), angles.cos().expand(-1, size // 2)], dim=1).float()


def resizing(kernel: int, patch: int) -> Tensor:
    """FlexiViT's matrix `[patch^2, kernel^2]` that makes filters of another side of those that are kept, in float64.

    Filters so resized say of a resized patch what the kept ones say of the patch.
    """
    unit = torch.eye(kernel * kernel, dtype=torch.float64).view(-1, 1, kernel, kernel)
    resized = F.interpolate(unit, (patch, patch), mode="bicubic", antialias=True).flatten(1)
    return torch.linalg.pinv(resized)
