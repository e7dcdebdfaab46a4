"""Galileo as a feature-bank encoder: any bands that fill its groups, in their own units, and the month of an image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from deflect.adapters import Adapter, Frozen, parameter_counts
from deflect.backbones.base import BLOCK, Backbone, Facts
from deflect.backbones.loading import NONE
from deflect.backbones.weights import fingerprint
from deflect.bands import as_bands
from deflect.galileo.channels import CHANNELS, GROUPS, Chosen, choose
from deflect.galileo.weights import galileo, statistics
from deflect.modules import Modules, chosen_kinds, places_in, tap_in
from deflect.vit import Blocks, chosen_blocks, given_spectra
from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.kinds import Count, Positive, Seed, Side, checked

log = logging.getLogger(__name__)
Month = Annotated[int, Ge(1), Le(12)]
Merge = Literal["mean", "beside"]
DIGITAL = 10000.0  # of reflectance 1


class GalileoBackbone(Backbone):
    """The network as adapters take it."""

    parts: ClassVar[Mapping[str, str]] = {**Backbone.parts, "qkv": "attn.to_q attn.to_k attn.to_v"}

    def tokens(self, x: Tensor, months: Tensor, places: Sequence[tuple[int, str]]) -> list[Tensor]:
        """Of each place `[batch, groups, rows, columns, channels]`."""
        with self.reading(places) as found:
            self.plain(x, months, ())
        side = self.grid
        return [found[place].unflatten(1, (-1, side, side)) for place in places]


class GalileoEncoder(nn.Module):
    """Galileo read after the chosen blocks; after the last one its last LayerNorm follows, as where it was trained.

    The bands that `prepare` gives are in their units, and its own normalisation is inside: mean +- 2 deviations to
    [0, 1], nothing clipped; a picture's 1 is a reflectance of `white`. Groups of channels that they do not fill have no
    tokens. A tap is the mean over the `groups`, or they are side by side. `month` is that of images whose date is not
    known; with `dates`, others have that of their own. `modules` are those of ViTEncoder. Under DEFLECT it sees
    one group of bands, and all bands of the sensor enter beside it.
    """

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: Any,
        weights: str = NONE,
        model: str = "nano",
        image_size: Side = 64,
        patch_size: Count = 8,
        gsd: Positive | None = None,
        month: Month = 6,
        dates: bool = True,
        ndvi: bool = False,
        groups: Merge = "mean",
        blocks: Blocks = "all",
        modules: Modules | None = None,
        white: Positive = 0.3,
        adapter: Adapter | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.prepare, self.adapter, self.takes_dates = prepare, adapter or Frozen(), dates
        self.month, self.merge, self.image_size = month, groups, (image_size, image_size)
        network, file = galileo(weights, model, seed)
        kernel = network.shape.kernel
        if patch_size > kernel:
            raise BankError(f"encoder.patch_size is {patch_size}: galileo has patches of up to {kernel} px")
        if image_size % patch_size:
            raise BankError(f"encoder.image_size is {image_size}: use a multiple of encoder.patch_size={patch_size}")
        known = {band.name: band for band in prepare.sensor}
        bands = [known[name] for name in prepare.bands]
        self.chosen = choose(bands, ndvi, named=not prepare.all_bands)
        if self.chosen.left:
            log.warning("galileo leaves out %s of %s", ", ".join(self.chosen.left), prepare.sensor.name)
        used = [bands[place] for place in self.chosen.sources]
        metres = gsd if gsd is not None else self._metres(used)
        self.blocks = chosen_blocks(blocks, network.shape.depth, f"galileo {model}")
        whole = fingerprint(network) if file is not None else f"from-scratch-seed{seed}"
        network.made_for(self.chosen.groups, patch_size, metres)
        facts = Facts(f"galileo_{model}", whole, network.shape.width, patch_size, image_size, 0, None, False)
        self.backbone = GalileoBackbone(network, facts)
        self.read_kinds = chosen_kinds(modules, self.backbone)
        self.backbone.keep(self.blocks[-1] + 1)
        self.last = self.blocks[-1] == network.shape.depth - 1
        if self.last:
            self.backbone.learnable += list(self.backbone.norm.parameters())  # type: ignore[union-attr]
        else:
            self.backbone.norm = None
        if self.adapter.spectra and len(self.chosen.groups) > 1:
            raise BankError(
                f"adapter={self.adapter.name}: galileo is to see one group of bands, as"
                f" encoder.prepare.bands=[red,green,blue], and has {', '.join(self.chosen.groups)}: all bands enter"
                " beside it"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter.attach(self.backbone, as_bands(prepare.sensor))
        lows, highs = self._normalisation(used, statistics(file), white)
        settings = {
            **prepare.settings,
            **{"bands": ",".join(self.chosen.bands), "low": lows, "high": highs},
            **{"groups": ",".join(self.chosen.groups), "merge": groups, "patch": patch_size, "gsd": float(metres)},
            **{"month": month, "dates": dates},
        }
        if parameter_counts(self.backbone)[0]:
            settings |= {"adapter": self.adapter.describe(), "adapter_seed": seed}
        self.spec = BankSpec(
            taps=self._taps(),
            encoder=facts.name,
            weights=facts.weights,
            image_size=self.image_size,
            settings=tuple(sorted(settings.items())),
        )

    def _taps(self) -> tuple[Tap, ...]:
        kinds, patch, alone = self.backbone.kinds, self.backbone.facts.patch, self.read_kinds == (BLOCK,)
        return tuple(
            tap_in(block, kind, block if alone else depth, self._width(kinds[kind]), patch)
            for depth, (block, kind) in enumerate(places_in(self.blocks, self.read_kinds))
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of modules that can be read."""
        return tuple(self.backbone.kinds)

    def read_at(self, modules: Modules) -> None:
        """Read these kinds of modules from now on, of every block that is there; nothing else changes."""
        self.read_kinds = chosen_kinds(modules, self.backbone)
        self.blocks = list(range(len(self.backbone.blocks)))
        self.spec = replace(self.spec, taps=self._taps())

    def _width(self, width: int) -> int:
        return width * (len(self.chosen.groups) if self.merge == "beside" else 1)

    def _metres(self, used: Sequence[Any]) -> float:
        if self.prepare.size is not None:
            raise BankError(
                "encoder.prepare.size resizes the images, and galileo counts places in metres: set encoder.gsd to the"
                " metres of a pixel after it"
            )
        return float(min(band.gsd for band in used))

    def _normalisation(
        self, used: Sequence[Any], known: tuple[Tensor, Tensor], white: float
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What becomes 0 and 1 of each channel but NDVI, in the unit of its band."""
        factors = {"reflectance": DIGITAL, "colour": white * DIGITAL, "dB": 1.0}
        wanted = [("dB",) if channel in GROUPS["S1"] else ("reflectance", "colour") for channel in self.chosen.channels]
        for band, units in zip(used, wanted, strict=True):
            if band.unit not in units:
                raise BankError(f"galileo takes {band.name} in {units[0]}, and the sensor gives it in {band.unit}")
        places = [CHANNELS.index(channel) for channel in self.chosen.channels]
        means, deviations = (values[places] for values in known)
        scale = torch.tensor([factors[band.unit] for band in used], dtype=torch.float64)
        low, high = (means - 2 * deviations) / scale, (means + 2 * deviations) / scale
        for name, values in (("_low", low), ("_high", high)):
            self.register_buffer(name, values.float().view(-1, 1, 1), persistent=False)
        return tuple(round(x, 9) for x in low.tolist()), tuple(round(x, 9) for x in high.tolist())

    _low: Tensor
    _high: Tensor

    def inputs(self, prepared: Tensor) -> Tensor:
        """The normalised channels of the groups, NDVI last."""
        chosen = prepared[:, list(self.chosen.sources)]
        x = (chosen - self._low.to(chosen)) / (self._high - self._low).to(chosen)
        return torch.cat([x, _ndvi(chosen, self.chosen)], dim=1) if "NDVI" in self.chosen.groups else x

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
        dates: Tensor | None = None,
    ) -> FeatureBank:
        x = self.inputs(self.prepare(images, sample_ids, expect=self.image_size))
        months = torch.full((len(x),), self.month - 1, device=x.device)
        if dates is not None and self.takes_dates:
            months = torch.where(dates < 0, months, month_of(dates.to(x.device)))
        with given_spectra(self.adapter, self.backbone, images, self.image_size):
            maps = self.backbone.tokens(x, months, places_in(self.blocks, self.read_kinds))
        if self.last and self.backbone.norm is not None and self.read_kinds[-1] == BLOCK:
            maps[-1] = self.backbone.norm(maps[-1])
        return FeatureBank(self.spec, {t: self._map(m) for t, m in zip(self.spec.taps, maps, strict=True)})

    def _map(self, tokens: Tensor) -> Tensor:
        """`[batch, groups, rows, columns, width]` as a map."""
        if self.merge == "mean":
            return tokens.mean(1).permute(0, 3, 1, 2)
        return tokens.permute(0, 1, 4, 2, 3).flatten(1, 2)


def _ndvi(chosen: Tensor, what: Chosen) -> Tensor:
    """Of reflectance; 0 where there is no light."""
    nir, red = (chosen[:, [what.channels.index(name)]] for name in ("B8", "B4"))
    total = nir + red
    return torch.where(total.abs() > 1e-6, (nir - red) / torch.where(total.abs() > 1e-6, total, 1.0), 0.0)


def month_of(days: Tensor) -> Tensor:
    """The month (0 to 11) of days since 1970-01-01, in the calendar that began in 1582.

    >>> month_of(torch.tensor([0, 30, 31, 11016, 19782, 19783])).tolist()  # 2000-02-29 is 11016, 2024-02-29 19782
    [0, 0, 1, 1, 1, 2]
    """
    day = (days + 719468) % 146097  # of the 400 years, which begin with a March
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    rest = day - (365 * year + year // 4 - year // 100)
    return ((5 * rest + 2) // 153 + 2) % 12
