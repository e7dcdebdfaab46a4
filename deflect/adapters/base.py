"""What every adapter is: settings, and a way to put itself on a backbone whose weights are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from deflect.backbones.base import Backbone
from deflect.bands import Band
from satdifuser.kinds import check_fields


@dataclass(frozen=True)
class Adapter:
    """`attach` changes the backbone in place. `spectra`: whether its forward pass wants every band beside its input.

    `vit_only`: whether it needs what only a vision transformer has; others can adapt a UNet too, whose `model` and
    `learnable` they are given.
    """

    name: ClassVar[str] = ""
    spectra: ClassVar[bool] = False
    vit_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self, "encoder.adapter")

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        """Make what trains trainable; `bands` are those of the images before the input is prepared."""
        raise NotImplementedError

    def describe(self) -> str:
        """One line for the spec of the bank: banks made with other settings are not exchangeable."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in asdict(self).items())])
