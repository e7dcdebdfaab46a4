"""Which encoder embeds: of a configuration, or of a run as it was trained; and what decides its numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from satdifuser.bank import BankSpec
from satdifuser.engine.files import stamp
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.scenes.answers import window_size

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.settings.part import DataPart
    from satdifuser.settings.scenes import EmbedSettings

DECIDES = ("encoder", "data", "run", "select", "seed")
USUAL = "satdifuser.diffusion.encoder.DiffusionEncoder"
_kept: dict[str, Embeds] = {}


@dataclass(frozen=True)
class Embeds:
    """An encoder, the features of it that are taken, and the data part that says how images are read.

    `weights` names what a run has trained of the encoder ("": nothing).
    """

    encoder: nn.Module
    spec: BankSpec
    data: DataPart
    size: int
    weights: str = ""

    @property
    def stored(self) -> BankSpec:
        """The spec that a raster carries: what a run has trained is not what its encoder began as."""
        if not self.weights:
            return self.spec
        return replace(self.spec, weights=f"{self.spec.weights}+{self.weights}")


def embeds(settings: EmbedSettings) -> Embeds:
    """The encoder, on its device and ready; refused where an image alone is not enough for it.

    The last one is kept: a process that goes over many scenes builds it once.
    """
    plain = {name: settings.plain()[name] for name in DECIDES}
    weights = None if settings.run is None else stamp(RunFolder(settings.run).best)
    key = json.dumps([plain, settings.window.size, weights], default=str)
    if key not in _kept:
        _kept.clear()
        _kept[key] = _made(settings)
    return _kept[key]


def _made(settings: EmbedSettings) -> Embeds:
    encoder, spec, data, weights = _of_run(settings) if settings.run is not None else _of_group(settings)
    if getattr(encoder, "metadata_source", "none") == "samples":
        raise UserError("encoder.metadata is samples, and a scene has none: set it to none, or to a list of numbers")
    size = window_size(encoder, settings.window.size, data.settings.get("size"))
    return Embeds(encoder, spec, data, size, weights)


def _of_run(settings: EmbedSettings) -> tuple[Any, BankSpec, DataPart, str]:
    from satdifuser.study.cka.sides import of_run

    assert settings.run is not None
    trained = RunFolder(settings.run).settings()
    data, asked = trained.data, settings.encoder.path
    if asked not in (USUAL, trained.encoder.path):  # what nobody has chosen is the usual one
        raise UserError(
            f"run={settings.run} brings its own encoder ({trained.encoder.path}), and encoder is {asked}: leave out one"
        )
    side = of_run(settings.run, data, "taps")
    spec = side.spec if settings.select.all else settings.select.of(side.spec)
    return side.encoder, spec, data, side.weights


def _of_group(settings: EmbedSettings) -> tuple[Any, BankSpec, DataPart, str]:
    import torch

    from satdifuser.build import build_encoder
    from satdifuser.data.policy import resolved

    encoder: Any = build_encoder(resolved(settings.encoder, settings.data))
    adapter = getattr(encoder, "adapter", None)
    if adapter is not None and any(p.requires_grad for p in encoder.parameters()):
        raise UserError(f"adapter={adapter.name} would embed untrained: give the run that has trained it, as run=")
    encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
    return encoder, settings.select.of(encoder.spec), settings.data, ""
