"""Any timm vision transformer as a feature-bank encoder: every block's patch tokens as a map."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap


class ViTEncoder(nn.Module):
    """`timm.create_model(model)` read after the chosen blocks (all by default; negative numbers count from the end).

    Patch tokens become maps `[batch, width, height / patch, width / patch]`; class and register tokens are left out of
    them. `prepare` turns a data set's images into the model's input and says in `settings` how. With `trainable` the
    model learns with the head that follows it; otherwise it is frozen.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        *,
        prepare: nn.Module,
        channels: int = 3,
        image_size: int = 64,
        patch_size: int | None = None,
        blocks: Sequence[int] | None = None,
        trainable: bool = False,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        if not timm.is_model(model):
            near = ", ".join(difflib.get_close_matches(model, timm.list_models(), n=3))
            raise BankError(f"timm has no model {model!r}{'; it has ' + near + ', ...' if near else ''}")
        known = dict(options or {}) if patch_size is None else {**(options or {}), "patch_size": patch_size}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit: Any = timm.create_model(model, img_size=image_size, in_chans=channels, num_classes=0, **known)
        if not hasattr(vit, "forward_intermediates") or not hasattr(vit, "blocks"):
            raise BankError(f"timm's {model} is not a transformer of blocks: choose a vit_* model")
        patch = vit.patch_embed.patch_size[0]
        if image_size % patch:
            raise BankError(f"an image of {image_size} px is not divisible into patches of {patch} px for {model}")
        self.prepare, self.vit = prepare, vit
        depth = len(vit.blocks)
        chosen = range(depth) if blocks is None else [block % depth for block in blocks if -depth <= block < depth]
        if blocks is not None and len(set(chosen)) != len(blocks):
            raise BankError(f"blocks {list(blocks)} of {model}: give distinct numbers from {-depth} to {depth - 1}")
        self.blocks = sorted(chosen)
        self.vit.requires_grad_(trainable)
        self.spec = BankSpec(
            taps=tuple(Tap(f"blocks.{block}", None, block, vit.embed_dim, patch) for block in self.blocks),
            encoder=model,
            weights=f"from-scratch-seed{seed}",
            image_size=(image_size, image_size),
            settings=tuple(sorted({"patch": patch, **getattr(prepare, "settings", {})}.items())),
        )

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        x = self.prepare(images, sample_ids)
        maps: Any = self.vit.forward_intermediates(x, indices=self.blocks, norm=False, intermediates_only=True)
        return FeatureBank(self.spec, dict(zip(self.spec.taps, maps, strict=True)))
