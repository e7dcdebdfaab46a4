"""Pyramids of maps, and every decoder in small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from satdifuser.decoders import (
    ConvDecoder,
    Decoder,
    DPTDecoder,
    FPNDecoder,
    LightDecoder,
    LinearDecoder,
    SingleLevel,
    UNetDecoder,
)
from satdifuser.fusion import PyramidSpec

SMALL: dict[str, tuple[type[Decoder], dict[str, Any]]] = {
    "linear": (LinearDecoder, {}),
    "conv": (ConvDecoder, {"channels": 16, "dropout": 0.0}),
    "light": (LightDecoder, {"channels": 16, "dropout": 0.0}),
    "single": (SingleLevel, {"channels": 16, "dropout": 0.0}),
    "fpn": (FPNDecoder, {"channels": 16, "segmentation_channels": 32, "dropout": 0.0}),
    "dpt": (DPTDecoder, {"channels": 16, "dropout": 0.0}),
    "unet": (UNetDecoder, {"channels": 16, "dropout": 0.0}),
}  # UPerNet, which is dense alone, has tests of its own


@pytest.fixture
def maps() -> Callable[..., tuple[PyramidSpec, dict[int, torch.Tensor]]]:
    def make(
        strides: tuple[int, ...], image_size: tuple[int, int] = (64, 128), channels: int = 12, batch: int = 2
    ) -> tuple[PyramidSpec, dict[int, torch.Tensor]]:
        sizes = {s: (image_size[0] // s, image_size[1] // s) for s in strides}
        found = {s: torch.randn(batch, channels, *size, dtype=torch.float64) for s, size in sizes.items()}
        return PyramidSpec(strides, channels, image_size), found

    return make


@pytest.fixture
def small() -> Callable[..., Decoder]:
    """A decoder by its name, in float64."""

    def make(name: str, pyramid: PyramidSpec, outputs: int = 3, dense: bool = True, **settings: Any) -> Decoder:
        kind, usual = SMALL[name]
        return kind(pyramid, outputs, dense, **{**usual, **settings}).double()

    return make
