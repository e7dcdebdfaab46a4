"""Encoders trained from scratch, to know what pretrained features are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satdifuser.baselines.cnn import CNNEncoder as CNNEncoder
    from satdifuser.baselines.colours import ColourStatistics as ColourStatistics
    from satdifuser.baselines.embedding import Embedding as Embedding
    from satdifuser.baselines.rcf import RandomFeatures as RandomFeatures
    from satdifuser.baselines.unet import UNetEncoder as UNetEncoder

ROOMS = {
    "CNNEncoder": "cnn",
    "ColourStatistics": "colours",
    "Embedding": "embedding",
    "RandomFeatures": "rcf",
    "UNetEncoder": "unet",
}
__all__ = ["CNNEncoder", "ColourStatistics", "Embedding", "RandomFeatures", "UNetEncoder"]


def __getattr__(name: str) -> Any:
    """timm and its like load with the first use of what needs them."""
    from importlib import import_module

    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
