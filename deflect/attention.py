"""Untangled attention: the principal stream's attention map carries the auxiliary stream's values too."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """A pretrained attention layer, taken apart: how a family of ViTs computes its projections.

    `values` is the part of `project` that the auxiliary stream needs; heads are `[batch, heads, tokens, width]`.
    """

    scale: float

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...
    def values(self, x: Tensor) -> Tensor: ...
    def out(self, heads: Tensor) -> Tensor: ...


def untangled_attention(layer: Attention, p: Tensor, a: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`Wo softmax(Qp Kp^T s) Vp` and `Wo softmax(Qp Kp^T s) Va`: the displacements of both streams (normed already)."""
    q, k, principal = layer.project(p)
    carried, other = carry(q, k, principal, layer.values(a), layer.scale, bias)
    return layer.out(carried), layer.out(other)


def carry(
    q: Tensor, k: Tensor, one: Tensor, two: Tensor, scale: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One attention map applied to two sets of values, joined on the head dimension, in one call.

    A GPU has fused kernels for values that are wider than queries. The CPU has none: there the map itself is computed.
    That is faster than filling up the queries for its kernel (by 1 to 45 % at 1025 to 65 tokens), and costs memory.
    """
    width = one.shape[-1]
    values = torch.cat((one, two), dim=-1)
    both = F.scaled_dot_product_attention(q, k, values, attn_mask=bias, scale=scale)
    return both[..., :width], both[..., width:]


class TimmAttention:
    """timm's `Attention`, by its own weights; with query and key norms and an output norm where it has them."""

    def __init__(self, attention: Any) -> None:
        self.layer: Any = attention
        self.heads: int = self.layer.num_heads
        self.scale: float = self.layer.scale

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._split(self.layer.qkv(x), 3)
        return self.layer.q_norm(q), self.layer.k_norm(k), v

    def values(self, x: Tensor) -> Tensor:
        weight, bias = self.layer.qkv.weight, self.layer.qkv.bias
        first = len(weight) // 3 * 2
        return self._split(F.linear(x, weight[first:], None if bias is None else bias[first:]), 1)[0]

    def out(self, heads: Tensor) -> Tensor:
        joined = heads.transpose(1, 2).flatten(2)
        norm = getattr(self.layer, "norm", None)  # timm before 1.0.16 has none
        joined = joined if norm is None else norm(joined)
        return self.layer.proj_drop(self.layer.proj(joined))

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class SplitAttention:
    """Galileo's attention: queries, keys and values by a layer each."""

    def __init__(self, attention: Any) -> None:
        self.layer: Any = attention
        self.scale: float = (self.layer.to_q.out_features // self.layer.heads) ** -0.5

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer.to_q(x)), self._heads(self.layer.to_k(x)), self._heads(self.layer.to_v(x))

    def values(self, x: Tensor) -> Tensor:
        return self._heads(F.linear(x, self.layer.to_v.weight, self.layer.to_v.bias))

    def out(self, heads: Tensor) -> Tensor:
        return self.layer.proj(heads.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.layer.heads, -1)).transpose(1, 2)


class CromaAttention:
    """CROMA's attention: a projection without bias, and distances between patches as the bias of its map."""

    def __init__(self, attention: Any) -> None:
        self.layer: Any = attention
        self.heads: int = self.layer.num_heads
        self.scale: float = self.layer.scale

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.layer.to_qkv(x).chunk(3, dim=-1)
        return self._heads(q), self._heads(k), self._heads(v)

    def values(self, x: Tensor) -> Tensor:
        weight = self.layer.to_qkv.weight
        return self._heads(F.linear(x, weight[len(weight) // 3 * 2 :]))

    def out(self, heads: Tensor) -> Tensor:
        return self.layer.to_out(heads.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
