"""Random convolutional features (MOSAIKS, Rolf et al. 2021; torchgeo's RCF): filters that nobody has trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, MultipleOf
from numpy.typing import NDArray
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Seed, Side, checked
from satdifuser.tensors import TensorsError, read_tensors

GAUSSIAN = "gaussian"
Even = Annotated[int, Ge(2), MultipleOf(2)]


class RandomFeatures(nn.Module):
    """What each of `features / 2` filters answers, above zero and below: one tap.

    With `stride` it is a map, each of its pixels the mean of so many; null: the mean over the whole image, as torchgeo
    has it. `filters` are gaussian, drawn from `seed`, or a file of `tools/rcf_filters.py`: whitened patches of
    training images.
    """

    _filters: Tensor

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: ImageInput,
        image_size: Side = 64,
        features: Even = 512,
        kernel: Count = 3,
        bias: float = -1.0,
        stride: Count | None = 4,
        filters: str = GAUSSIAN,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.prepare, self.bias, self.stride = prepare, bias, stride
        shape = (features // 2, prepare.channels, kernel, kernel)
        if kernel > image_size:
            raise UserError(f"encoder.kernel is {kernel}: images have {image_size} px")
        if stride is not None and image_size % stride:
            raise UserError(f"encoder.image_size is {image_size}: use a multiple of encoder.stride={stride}")
        if filters == GAUSSIAN:
            drawn, weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed)), f"gaussian-seed{seed}"
        else:
            drawn = _read(filters, shape)
            weights = hashlib.sha256(drawn.contiguous().numpy().data).hexdigest()[:16]
        self.register_buffer("_filters", drawn, persistent=False)
        settings = {**prepare.settings, "kernel": kernel, "bias": bias}
        settings["padding"] = "none" if stride is None else "reflect"  # a stride of the whole image pads as others do
        self.spec = BankSpec(
            taps=(Tap("rcf", None, 0, features, image_size if stride is None else stride),),
            encoder="random-convolutions",
            weights=weights,
            image_size=(image_size, image_size),
            settings=tuple(sorted(settings.items())),
        )

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        x = self.prepare(images, sample_ids, expect=self.spec.image_size)
        if self.stride is not None:  # as many answers as pixels, the image mirrored at its edges
            before = (self._filters.shape[-1] - 1) // 2
            after = self._filters.shape[-1] - 1 - before
            x = F.pad(x, (before, after, before, after), mode="reflect" if after < x.shape[-1] else "replicate")
        answers = F.conv2d(x, self._filters.to(x)) + self.bias
        both = [answers.clamp(min=0), (-answers).clamp(min=0)]
        if self.stride is None:
            pooled = torch.cat([part.mean((2, 3), keepdim=True) for part in both], dim=1)
        else:
            pooled = torch.cat([F.avg_pool2d(part, self.stride) for part in both], dim=1)
        return FeatureBank(self.spec, {self.spec.taps[0]: pooled})


def whitened(patches: NDArray[np.floating], regular: float = 1e-3) -> NDArray[np.float64]:
    """Patches `[number, bands, k, k]`, each without its mean and of length 1, and then without what all have in common.

    It is the square of the symmetric whitening of their covariance, as in MOSAIKS.
    """
    flat = patches.reshape(len(patches), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(length < 1e-8, 1.0, length)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    return (flat @ (vectors / (values + regular)) @ vectors.T).reshape(patches.shape)


def cut(images: Sequence[Tensor], number: int, kernel: int, seed: int) -> NDArray[np.float64]:
    """`number` patches of prepared images `[bands, H, W]`, from places that depend on the seed alone."""
    draw = np.random.default_rng(seed)
    found = []
    for place in draw.integers(0, len(images), number):
        image = images[place]
        row, column = (int(draw.integers(0, side - kernel + 1)) for side in image.shape[-2:])
        found.append(image[:, row : row + kernel, column : column + kernel].double().numpy())
    return np.stack(found)


def _read(file: str, shape: tuple[int, ...]) -> Tensor:
    try:
        found = read_tensors(Path(file).expanduser()).get("filters")
    except TensorsError as error:
        raise UserError(f"encoder.filters: {error}; encoder.filters=gaussian needs no file") from error
    if found is None or tuple(found.shape) != shape or not bool(found.isfinite().all()):
        has = "no tensor 'filters'" if found is None else f"filters {tuple(found.shape)}"
        raise UserError(
            f"encoder.filters={file} has {has}, and asked for is {shape} (features / 2, bands, kernel, kernel): make it"
            " with tools/rcf_filters.py and the same settings"
        )
    return found.float()
