"""From a batch of images to the bank that a store keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from satdifuser.data.batches import to_device
from satdifuser.temporal.reading import encode, read

if TYPE_CHECKING:
    import torch
    from torch import nn

    from satdifuser.bank import FeatureBank


def features(encoder: nn.Module, batch: dict[str, Any], device: torch.device, *, latents: bool = False) -> FeatureBank:
    """The encoder's bank of a batch, or where `latents` are to be kept, what goes into its UNet."""
    moved = to_device({key: batch[key] for key in ("image", "metadata") if key in batch}, device)
    inputs = {key: batch[key] for key in ("id", "dates") if key in batch} | moved
    return encode(encoder, inputs) if latents else read(encoder, inputs)
