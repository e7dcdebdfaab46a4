"""DEFLECT behind the switch: the model sees what it was pretrained on, and every band enters beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from deflect.adapters.base import Adapter
from deflect.backbones.base import Backbone
from deflect.bands import Band
from deflect.deflection import Norm
from deflect.model import DeflectConfig, Limits, adapt
from satdifuser.kinds import Count, Positive, Whole


@dataclass(frozen=True)
class Deflect(Adapter):
    """The settings of `DeflectConfig` but those that the backbone and the sensor answer."""

    name = "deflect"
    vit_only = True
    spectra = True
    indices: Sequence[str] | None = None
    index_limits: Limits = (-2.0, 2.0)
    rank: Count = 4
    hidden: Count = 32
    norm: Norm = "preserve"
    epsilon: Positive = 0.1
    mlp_on_auxiliary: bool = False
    blocks: Sequence[Whole] | None = None

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        config = DeflectConfig(bands=tuple(bands), patch_size=backbone.facts.patch, **asdict(self))
        backbone.model = adapt(backbone.model, config)
