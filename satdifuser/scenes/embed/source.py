"""Which encoder embeds: of a configuration, or of a run as it was trained; and what decides its numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from satdifuser.bank import BankSpec
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.settings.part import DataPart
    from satdifuser.settings.scenes import EmbedSettings


@dataclass(frozen=True)
class Embeds:
    """An encoder, the features of it that are taken, and the data part that says how images are read.

    `weights` names what a run has trained of the encoder ("": nothing).
    """

    encoder: nn.Module
    spec: BankSpec
    data: DataPart
    size: int | None
    weights: str = ""

    @property
    def stored(self) -> BankSpec:
        """The spec that a raster carries: what a run has trained is not what its encoder began as."""
        if not self.weights:
            return self.spec
        return replace(self.spec, weights=f"{self.spec.weights}+{self.weights}")


def embeds(settings: EmbedSettings) -> Embeds:
    """The encoder, on its device and ready; refused where an image alone is not enough for it."""
    from satdifuser.study.cka.sides import of_run

    if settings.run is not None:
        from satdifuser.engine.run import RunFolder

        trained = RunFolder(settings.run).settings()
        side = of_run(settings.run, trained.data, "taps")
        assert side.encoder is not None
        spec = side.spec if settings.select.all else settings.select.of(side.spec)
        found = Embeds(side.encoder, spec, trained.data, _size(settings, trained.data, side.encoder), side.weights)
    else:
        import torch

        from satdifuser.build import build_encoder
        from satdifuser.data.policy import resolved

        encoder: Any = build_encoder(resolved(settings.encoder, settings.data))
        spec = settings.select.of(encoder.spec)
        encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
        adapter = getattr(encoder, "adapter", None)
        if adapter is not None and adapter.name != "frozen":
            raise UserError(f"adapter={adapter.name} would embed untrained: give the run that has trained it, as run=")
        found = Embeds(encoder, spec, settings.data, _size(settings, settings.data, encoder))
    check: Any = getattr(found.encoder, "check", None)
    if getattr(check, "metadata", 0):
        raise UserError("encoder.metadata is samples, and a scene has none: set it to none, or to a list of numbers")
    return found


def _size(settings: EmbedSettings, data: DataPart, encoder: Any) -> int | None:
    """The side of a window: as asked for, or where the encoder resizes its input, that of the images of the data."""
    if settings.window.size is not None:
        return settings.window.size
    size = data.settings.get("size")
    return size if getattr(encoder.prepare, "size", None) is not None and isinstance(size, int) else None
