"""Encoders trained from scratch, to know what pretrained features are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from satdifuser.lazily import lazily

if TYPE_CHECKING:
    from satdifuser.baselines.cnn import CNNEncoder as CNNEncoder
    from satdifuser.baselines.colours import ColourStatistics as ColourStatistics
    from satdifuser.baselines.embedding import Embedding as Embedding
    from satdifuser.baselines.rcf import RandomFeatures as RandomFeatures
    from satdifuser.baselines.unet import UNetEncoder as UNetEncoder

ROOMS = {
    "CNNEncoder": "satdifuser.baselines.cnn",
    "ColourStatistics": "satdifuser.baselines.colours",
    "Embedding": "satdifuser.baselines.embedding",
    "RandomFeatures": "satdifuser.baselines.rcf",
    "UNetEncoder": "satdifuser.baselines.unet",
}
__all__ = ["CNNEncoder", "ColourStatistics", "Embedding", "RandomFeatures", "UNetEncoder"]

__getattr__, __dir__ = lazily(__name__, ROOMS)
