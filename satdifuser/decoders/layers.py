"""What several decoders are made of: a convolution with its norm, the classifier at the end, and parts of smp."""

from __future__ import annotations

from torch import Tensor, nn

from satdifuser.fusion.base import normalisation


def conv(inputs: int, outputs: int, size: int, norm: str) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, normalisation(norm)(outputs), nn.ReLU(inplace=True))


class Classifier(nn.Module):
    """A map to logits: dropout of whole channels and a linear layer, on each pixel, or on the average of all."""

    def __init__(self, width: int, outputs: int, dense: bool, dropout: float) -> None:
        super().__init__()
        self.dense = dense
        self.drop: nn.Module = nn.Dropout2d(dropout) if dense else nn.Dropout(dropout)
        self.classify = nn.Conv2d(width, outputs, 1) if dense else nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.drop(x if self.dense else x.mean((2, 3))))


def renormed(module: nn.Module, norm: str) -> nn.Module:
    """A module of segmentation_models_pytorch with the project's normalisation in the place of its own."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.GroupNorm):
            width = child.num_features if isinstance(child, nn.BatchNorm2d) else child.num_channels
            setattr(module, name, normalisation(norm)(width))
        else:
            renormed(child, norm)
    return module
