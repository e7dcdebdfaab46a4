"""Where DEFLECT enters a ViT: blocks that carry two streams, around the pretrained blocks of each family."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deflect.attention import Attention, CromaAttention, SplitAttention, TimmAttention, untangled_attention
from deflect.deflection import Deflection
from deflect.embedding import match_norm
from satdifuser.bank import BankError


class Streams:
    """The auxiliary stream of the forward pass under way, beside the principal one that the model itself passes on."""

    def __init__(self, prefix: int) -> None:
        self.prefix, self.checkpointing = prefix, False
        self._tokens: Tensor | None = None
        self._auxiliary: Tensor | None = None

    @contextlib.contextmanager
    def given(self, tokens: Tensor, checkpointing: bool) -> Iterator[None]:
        """Carry these auxiliary tokens through the blocks that run meanwhile."""
        self._tokens, self._auxiliary, self.checkpointing = tokens, None, checkpointing
        try:
            yield
        finally:
            self._tokens = self._auxiliary = None

    def enter(self, p: Tensor) -> Tensor:
        """The auxiliary stream as it comes to a block; at the first of them it takes on the principal's scale."""
        if self._auxiliary is not None:
            return self._auxiliary
        if self._tokens is None:
            raise BankError("a model adapted with DEFLECT needs spectra: call it as model(images, spectra=reflectance)")
        if (len(p), p.shape[1] - self.prefix) != tuple(self._tokens.shape[:2]):
            raise BankError(
                f"the spectra make {tuple(self._tokens.shape[:2])} (images, patches), but the model has"
                f" {(len(p), p.shape[1] - self.prefix)}: give the spectra of the same images at the same size"
            )
        # Class and register tokens have no pixels: both streams have the principal's.
        matched = match_norm(self._tokens, p[:, self.prefix :])
        return torch.cat((p[:, : self.prefix], matched), dim=1)

    def leave(self, a: Tensor) -> None:
        self._auxiliary = a

    def __getstate__(self) -> dict[str, object]:
        """A copy of a model shares the stream among its blocks, and starts without one."""
        return {**vars(self), "_tokens": None, "_auxiliary": None}


class DeflectedBlock(nn.Module):
    """A block of timm's or Galileo's (pre-norm attention, then MLP) whose attention displacement is deflected."""

    def __init__(self, block: nn.Module, streams: Streams, deflection: Deflection, mlp: bool) -> None:
        super().__init__()
        self.base_layer, self.deflection, self.mlp_on_auxiliary = block, deflection, mlp
        self._streams = streams

    def forward(self, p: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if is_causal:
            raise BankError("causal attention cannot be untangled: call the model without is_causal")
        a = self._streams.enter(p)
        if self._streams.checkpointing:
            p, a = checkpoint(self.step, p, a, attn_mask, use_reentrant=False)
        else:
            p, a = self.step(p, a, attn_mask)
        self._streams.leave(a)
        return p

    def step(self, p: Tensor, a: Tensor, attn_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both streams after the block."""
        frozen, carried = self.displacements(p, a, attn_mask)
        a = a + carried
        p = p + _part(self.base_layer, "drop_path1")(self.deflection(frozen, a))
        return p + self._mlp(p), a + self._mlp(a) if self.mlp_on_auxiliary else a

    def displacements(self, p: Tensor, a: Tensor, attn_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the frozen attention adds to each stream."""
        block: Any = self.base_layer
        scaled = _part(block, "ls1")
        frozen, carried = untangled_attention(_taken_apart(block.attn), block.norm1(p), block.norm1(a), attn_mask)
        return scaled(frozen), scaled(carried)

    def _mlp(self, x: Tensor) -> Tensor:
        block: Any = self.base_layer
        return _part(block, "drop_path2")(_part(block, "ls2")(block.mlp(block.norm2(x))))


class DeflectedCromaAttention(nn.Module):
    """CROMA's attention layer, deflected: the model itself adds the displacement that it returns."""

    def __init__(self, layer: nn.Module, streams: Streams, deflection: Deflection) -> None:
        super().__init__()
        self.base_layer, self.deflection = layer, deflection
        self._streams = streams

    def forward(self, p: Tensor, relative_position_bias: Tensor) -> Tensor:
        a = self._streams.enter(p)
        frozen, carried = self.displacements(p, a, relative_position_bias)
        a = a + carried
        self._streams.leave(a)
        return self.deflection(frozen, a)

    def displacements(self, p: Tensor, a: Tensor, relative_position_bias: Tensor) -> tuple[Tensor, Tensor]:
        """What the frozen attention adds to each stream."""
        layer: Any = self.base_layer
        bias = relative_position_bias.to(p.dtype)
        return untangled_attention(CromaAttention(layer), layer.input_norm(p), layer.input_norm(a), bias)


class CromaAuxiliaryFFN(nn.Module):
    """CROMA's feed-forward layer, which takes the auxiliary stream along."""

    def __init__(self, layer: nn.Module, streams: Streams) -> None:
        super().__init__()
        self.base_layer = layer
        self._streams = streams

    def forward(self, p: Tensor) -> Tensor:
        a = self._streams.enter(p)  # as its block's attention left it
        given: Tensor = self.base_layer(p)  # first: it is what a reader of the layer is to see
        self._streams.leave(a + self.base_layer(a))
        return given


class Site:
    """A block of a model: where it is, and how it is wrapped (the module's name -> what takes its place)."""

    def __init__(self, wrap: Callable[..., dict[str, nn.Module]], width: int) -> None:
        self.wrap, self.width = wrap, width


def sites(model: nn.Module) -> list[Site]:
    """The blocks of a model in order, of a family whose attention can be untangled."""
    found = []
    for name, module in model.named_modules():
        attention: Any = getattr(module, "attn", None)
        if attention is not None and all(hasattr(module, part) for part in ("norm1", "norm2", "mlp")):
            if type(module).__name__ != "Block" or not (_is_plain(attention) or _is_split(attention)):
                dropout = " with dropout" if getattr(getattr(attention, "attn_drop", None), "p", 0.0) else ""
                kind = f"{type(module).__name__} with {type(attention).__name__}{dropout}"
                raise BankError(f"{name} ({kind}) is no pre-norm block of plain attention: it cannot be untangled")
            found.append(_timm_site(name, module))
        elif isinstance(module, nn.ModuleList) and len(module) == 2 and hasattr(module[0], "to_qkv"):
            found.append(_croma_site(name, module))
    if not found:
        raise BankError(
            f"{type(model).__name__} has no blocks of timm's, Galileo's or CROMA's kind: DEFLECT cannot adapt it"
        )
    return found


def prefix_tokens(model: nn.Module) -> int:
    """Class and register tokens that a model puts before its patches."""
    for module in model.modules():
        known = getattr(module, "num_prefix_tokens", None)
        if known is not None:
            return int(known)
    return int(any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters()))


def _is_plain(attention: Any) -> bool:
    """Whether timm's attention computes softmax(q k) v of one plain projection, and nothing that is not known here."""
    parts = ("num_heads", "scale", "q_norm", "k_norm", "proj_drop")
    known = all(hasattr(attention, part) for part in parts) and isinstance(getattr(attention, "proj", None), nn.Linear)
    plain = type(getattr(attention, "qkv", None)) is nn.Linear and getattr(attention, "gate", None) is None
    dropout = getattr(getattr(attention, "attn_drop", None), "p", 0.0)
    return known and plain and type(attention).__name__ == "Attention" and not dropout


def _is_split(attention: Any) -> bool:
    """Whether it is attention of a layer each for queries, keys and values, as Galileo's."""
    layers = (getattr(attention, part, None) for part in ("to_q", "to_k", "to_v", "proj"))
    return type(attention).__name__ == "Attention" and all(type(layer) is nn.Linear for layer in layers)


def _taken_apart(attention: Any) -> Attention:
    return SplitAttention(attention) if _is_split(attention) else TimmAttention(attention)


def _timm_site(name: str, block: Any) -> Site:
    def wrap(streams: Streams, deflection: Deflection, mlp: bool) -> dict[str, nn.Module]:
        return {name: DeflectedBlock(block, streams, deflection, mlp)}

    return Site(wrap, (block.attn.to_q if _is_split(block.attn) else block.attn.qkv).in_features)


def _croma_site(name: str, pair: Any) -> Site:
    def wrap(streams: Streams, deflection: Deflection, mlp: bool) -> dict[str, nn.Module]:
        attention = {f"{name}.0": DeflectedCromaAttention(pair[0], streams, deflection)}
        return attention | ({f"{name}.1": CromaAuxiliaryFFN(pair[1], streams)} if mlp else {})

    return Site(wrap, pair[0].to_qkv.in_features)


def _part(block: Any, name: str) -> Callable[[Tensor], Tensor]:
    """A part that only some blocks have, as layer scale and stochastic depth."""
    return getattr(block, name, None) or nn.Identity()
