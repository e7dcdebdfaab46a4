"""A pretrained ViT as a feature-bank encoder: tokens after its blocks as maps, and an adapter if one is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor, nn

from deflect.adapters import Adapter, Frozen, parameter_counts
from deflect.backbones import Backbone
from deflect.bands import Band, as_bands
from deflect.patching import Way, adapt_patches
from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.kinds import Seed, checked

Blocks = Literal["all", "four", "last"] | Annotated[Sequence[int], Len(1)]


class ViTEncoder(nn.Module):
    """`backbone` read after the chosen blocks: `all`, the `last`, `four` evenly spaced ones, or a list of numbers.

    Patch tokens become maps `[batch, width, height / patch, width / patch]`. Class and register tokens are kept apart:
    `class_token` adds the class token after each block as a tap of its own, a map of one pixel. `norm` puts the model's
    last LayerNorm on every tap. `prepare` turns a data set's images into the model's input, and knows their sensor;
    `patch_embedding` says how more bands than the model was made for enter it.
    """

    @checked("encoder")
    def __init__(
        self,
        backbone: Backbone,
        *,
        prepare: Any,
        adapter: Adapter | None = None,
        patch_embedding: Way = "repeat",
        blocks: Blocks = "all",
        norm: bool = False,
        class_token: bool = False,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        facts = backbone.facts
        self.prepare, self.adapter = prepare, adapter or Frozen()
        self.blocks = chosen_blocks(blocks, len(backbone.blocks), facts.name)
        self.image_size = (facts.image_size, facts.image_size)
        if norm and backbone.norm is None:
            raise BankError(f"{facts.name} has no last LayerNorm: set encoder.norm=false")
        if norm and not facts.normed:
            raise BankError(f"the weights of {facts.name} have no last LayerNorm: set encoder.norm=false")
        if class_token and not facts.class_token:
            raise BankError(f"{facts.name} has no class token: set encoder.class_token=false")
        backbone.advise(prepare)
        backbone.keep(self.blocks[-1] + 1)
        if norm:
            backbone.learnable += list(backbone.norm.parameters())  # type: ignore[union-attr]
        else:
            backbone.norm = None
        sensor = as_bands(prepare.sensor)
        backbone.bands = tuple(Band.of(band) for band in prepare.inputs)
        settings = {"patch": facts.patch, **prepare.settings, **{f"model.{key}": str(v) for key, v in facts.options}}
        if backbone.spectral:
            settings["wavelengths"] = ",".join(f"{band.wavelength:g}/{band.bandwidth:g}" for band in backbone.bands)
        with torch.random.fork_rng(devices=[]):  # an adapter's first weights depend on the seed alone
            torch.manual_seed(seed)
            others = facts.channels is not None and facts.channels != len(backbone.bands)
            if others or patch_embedding == "scratch":
                self._refuse_own_bands(backbone)
                adapt_patches(backbone, backbone.bands, patch_embedding)
                settings["patch_embedding"] = patch_embedding
            self.adapter.attach(backbone, sensor)
        self.backbone = backbone
        self._class_token = class_token
        trained = parameter_counts(backbone)[0] > 0
        extra: dict[str, Any] = {"norm": True} if norm else {}
        extra |= {"adapter": self.adapter.describe(), "adapter_seed": seed} if trained else {}
        self.spec = BankSpec(
            taps=tuple(tap for block in self.blocks for tap in self._taps(block)),
            encoder=facts.name,
            weights=facts.weights,
            image_size=self.image_size,
            settings=tuple(sorted({**settings, **extra}.items())),
        )

    def _refuse_own_bands(self, backbone: Backbone) -> None:
        facts = backbone.facts
        if self.adapter.spectra:
            raise BankError(
                f"{facts.name} takes {facts.channels} bands, but encoder.prepare.bands names {len(backbone.bands)}:"
                f" under adapter={self.adapter.name} it sees what it was pretrained on, and all bands enter beside it"
            )

    def _taps(self, block: int) -> list[Tap]:
        facts = self.backbone.facts
        taps = [Tap(f"blocks.{block}", None, 2 * block if self._class_token else block, facts.width, facts.patch)]
        if self._class_token:
            taps.append(Tap(f"blocks.{block}.class", None, 2 * block + 1, facts.width, facts.image_size))
        return taps

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        x = self.prepare(images, sample_ids)
        if tuple(x.shape[-2:]) != self.image_size:
            raise BankError(
                f"images of {x.shape[-2]} x {x.shape[-1]} px for a model built for {self.image_size[0]} x"
                f" {self.image_size[1]}: set encoder.backbone.image_size, or resize with encoder.prepare.size"
            )
        with self._given(images):
            tokens = self.backbone(x, self.blocks)
        norm = self.backbone.norm
        maps = [m for each in tokens for m in self._maps(each if norm is None else norm(each))]
        return FeatureBank(self.spec, dict(zip(self.spec.taps, maps, strict=True)))

    def _given(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        """What an adapter wants beside the model's input: every band, at the input's size."""
        if not self.adapter.spectra:
            return contextlib.nullcontext()
        if tuple(images.shape[-2:]) != self.image_size:
            images = F.interpolate(images, self.image_size, mode="bilinear", antialias=True)
        given: contextlib.AbstractContextManager[None] = self.backbone.model.given(images)  # type: ignore[operator]
        return given

    def _maps(self, tokens: Tensor) -> list[Tensor]:
        facts, grid = self.backbone.facts, self.backbone.grid
        patches = tokens[:, facts.prefix :].transpose(1, 2).unflatten(2, (grid, grid))
        return [patches, tokens[:, 0, :, None, None]] if self._class_token else [patches]


def chosen_blocks(blocks: Blocks, depth: int, name: str) -> list[int]:
    evenly = sorted({max(depth * part // 4, 1) - 1 for part in (1, 2, 3, 4)})
    named = {"all": list(range(depth)), "four": evenly, "last": [depth - 1]}
    if isinstance(blocks, str):
        return named[blocks]
    chosen = sorted({block % depth for block in blocks if -depth <= block < depth})
    if not blocks or len(chosen) != len(blocks):
        raise BankError(f"blocks {list(blocks)} of {name}: give distinct numbers from {-depth} to {depth - 1}")
    return chosen
