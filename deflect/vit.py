"""A pretrained ViT as a feature-bank encoder: tokens after its blocks as maps, and an adapter if one is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor, nn

from deflect.adapters import Adapter, Frozen, parameter_counts
from deflect.backbones import Backbone
from deflect.backbones.base import BLOCK
from deflect.bands import Band, as_bands
from deflect.modules import Modules, chosen_kinds, places_in, tap_in
from deflect.patching import Way, adapt_patches
from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.kinds import Seed, checked

Blocks = Literal["all", "four", "last"] | Annotated[Sequence[int], Len(1)]


class ViTEncoder(nn.Module):
    """`backbone` read after the chosen blocks: `all`, the `last`, `four` evenly spaced ones, or a list of numbers.

    Patch tokens become maps `[batch, width, height / patch, width / patch]`. Class and register tokens are kept apart:
    `class_token` adds the class token after each block as a tap of its own, a map of one pixel. `norm` puts the model's
    last LayerNorm on what comes after a block. `modules` reads what these kinds of modules give in the chosen blocks,
    each as a tap of its own; null: the tokens after the blocks. `prepare` turns a data set's images into the model's
    input, and knows their sensor; `patch_embedding` says how more bands than the model was made for enter it.
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
        modules: Modules | None = None,
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
        self.read_kinds = chosen_kinds(modules, backbone)
        if class_token and BLOCK not in self.read_kinds:
            raise BankError("encoder.class_token is read after the blocks: add block to encoder.modules")
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
            taps=self._taps(),
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

    def _taps(self) -> tuple[Tap, ...]:
        facts, kinds, taps = self.backbone.facts, self.backbone.kinds, list[Tap]()
        for block, kind in places_in(self.blocks, self.read_kinds):
            taps.append(tap_in(block, kind, len(taps), kinds[kind], facts.patch))
            if self._class_token and kind == BLOCK:
                taps.append(Tap(f"blocks.{block}.class", None, len(taps), facts.width, facts.image_size))
        if self.read_kinds == (BLOCK,):  # a block's depth is its number, whichever are chosen
            per = 1 + self._class_token
            taps = [replace(tap, depth=per * self.blocks[n // per] + n % per) for n, tap in enumerate(taps)]
        return tuple(taps)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of modules that can be read."""
        return tuple(self.backbone.kinds)

    def read_at(self, modules: Modules) -> None:
        """Read these kinds of modules from now on, of every block that is there; nothing else changes."""
        self.read_kinds = chosen_kinds(modules, self.backbone)
        self.blocks = list(range(len(self.backbone.blocks)))
        self._class_token = self._class_token and BLOCK in self.read_kinds
        self.spec = replace(self.spec, taps=self._taps())

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
        with given_spectra(self.adapter, self.backbone, images, self.image_size):
            places = places_in(self.blocks, self.read_kinds)
            tokens = self.backbone.read(x, places)
        maps = [m for (_, kind), each in zip(places, tokens, strict=True) for m in self._maps(each, kind)]
        return FeatureBank(self.spec, dict(zip(self.spec.taps, maps, strict=True)))

    def _maps(self, tokens: Tensor, kind: str) -> list[Tensor]:
        facts, grid, norm = self.backbone.facts, self.backbone.grid, self.backbone.norm
        if kind == BLOCK and norm is not None:
            tokens = norm(tokens)
        patches = tokens[:, facts.prefix :].transpose(1, 2).unflatten(2, (grid, grid))
        return [patches, tokens[:, 0, :, None, None]] if self._class_token and kind == BLOCK else [patches]


def given_spectra(
    adapter: Adapter, backbone: Backbone, images: Tensor, size: tuple[int, int]
) -> contextlib.AbstractContextManager[None]:
    """What an adapter wants beside the model's input: every band, at the input's size."""
    if not adapter.spectra:
        return contextlib.nullcontext()
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    given: contextlib.AbstractContextManager[None] = backbone.model.given(images)  # type: ignore[operator]
    return given


def chosen_blocks(blocks: Blocks, depth: int, name: str) -> list[int]:
    evenly = sorted({max(depth * part // 4, 1) - 1 for part in (1, 2, 3, 4)})
    named = {"all": list(range(depth)), "four": evenly, "last": [depth - 1]}
    if isinstance(blocks, str):
        return named[blocks]
    chosen = sorted({block % depth for block in blocks if -depth <= block < depth})
    if not blocks or len(chosen) != len(blocks):
        raise BankError(f"blocks {list(blocks)} of {name}: give distinct numbers from {-depth} to {depth - 1}")
    return chosen
