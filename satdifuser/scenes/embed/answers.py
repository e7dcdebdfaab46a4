"""What windows are answered with: an encoder's features as one vector a patch, or one a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.pooling import Pooling
from satdifuser.scenes.answers import ModelAnswers, bands_of, window_size


class BankAnswers:
    """The taps of `spec` side by side: `[n, channels, size/step, size/step]`, each a mean over a pixel of the output.

    `size` is the side of a window in px of the scene, which is what the encoder's input was made for unless it resizes
    its images. `stride` (null: the coarsest tap's) is how many of these px become one. With a `pooling`, what that
    leaves of each tap, in one column: `[n, channels, 1, 1]`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        spec: BankSpec,
        device: torch.device,
        *,
        size: int | None = None,
        stride: int | None = None,
        pooling: Pooling | None = None,
    ) -> None:
        self.encoder, self.spec, self.device, self.pooling = encoder, spec, device, pooling
        self.needed = bands_of(encoder)
        self.size = window_size(encoder, size)
        strides = {name: self._stride(name) for name in spec.names()}
        self.step = self.size if pooling is not None else stride or max(strides.values())
        if self.size % self.step:
            raise UserError(f"stride is {self.step}: a window has {self.size} px: give a divisor of it")
        for name, own in strides.items():
            if pooling is None and self.step % own and own % self.step:
                raise UserError(
                    f"stride is {self.step}, and a pixel of {name} is {own} px of the scene: give a multiple or a"
                    " divisor of it, or choose others with select.taps"
                )
        self.coarsest = max(strides.values())
        self.exact = pooling is None and set(strides.values()) == {self.step}
        """Whether maps are kept as they are, so that a head can read them."""
        self.names = tuple(f"{tap}:{number}" for tap in spec.taps for number in range(tap.channels * self._each(tap)))

    @property
    def channels(self) -> int:
        return len(self.names)

    def _stride(self, name: str) -> int:
        """Of a tap, in px of the scene."""
        stride = next(tap.stride for tap in self.spec.taps if tap.name == name)
        cells = self.spec.image_size[0] // stride
        if self.size % cells:
            raise UserError(
                f"tap {name} has {cells} cells a side, and a window {self.size} px: set window.size to a multiple of"
                f" {cells}, or choose others with select.taps"
            )
        return self.size // cells

    def _each(self, tap: Tap) -> int:
        """How many numbers pooling leaves of a channel."""
        return 1 if self.pooling is None else self.pooling.numbers_of(self.spec, tap)

    def bank(self, images: Tensor, ids: Sequence[str]) -> FeatureBank:
        """The selected features of windows `[n, bands, size, size]`."""
        images = images.to(self.device, non_blocking=True)
        with torch.inference_mode():
            bank: FeatureBank = self.encoder(images, sample_ids=list(ids))
        return bank if bank.spec == self.spec else bank.select(self.spec)

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        bank = self.bank(images, ids)
        with torch.inference_mode():
            if self.pooling is not None:
                return torch.cat([self.pooling.maps(maps).flatten(1) for maps in bank.values()], 1)[..., None, None]
            return torch.cat([brought(maps.float(), self.size // self.step) for maps in bank.values()], 1)


def brought(maps: Tensor, cells: int) -> Tensor:
    """Maps with so many cells a side: finer ones averaged, of coarser ones each cell repeated."""
    own = maps.shape[-1]
    if own == cells:
        return maps
    if own > cells:
        return F.avg_pool2d(maps, own // cells)
    return maps.repeat_interleave(cells // own, -1).repeat_interleave(cells // own, -2)


class EmbeddedAnswers(ModelAnswers):
    """A head's answers from features that are there already: windows of an embedding raster are banks.

    The scene is the raster, so its px are the raster's: a window has as many as the encoder's maps had cells. `model`
    is the run's, `spec` that of the raster's attribute; all taps have one stride.
    """

    def __init__(self, model: Any, spec: BankSpec, device: torch.device, **more: Any) -> None:
        if len(spec.strides) != 1:
            raise UserError(f"features of several strides ({', '.join(map(str, spec.strides))} px) are no raster")
        super().__init__(model, device, size=spec.size(spec.strides[0])[0], **more)
        self.spec, self.needed = spec, None

    def batch(self, images: Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """Windows `[n, channels, size, size]` of the raster, cut into taps."""
        parts = images.to(self.device, non_blocking=True).split([tap.channels for tap in self.spec.taps], dim=1)
        return {"bank": FeatureBank(self.spec, dict(zip(self.spec.taps, parts, strict=True))), "id": list(ids)}
