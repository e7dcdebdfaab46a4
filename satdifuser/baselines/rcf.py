"""Random convolutional features (MOSAIKS, Rolf et al. 2021; torchgeo's RCF): filters that nobody has trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, MultipleOf
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.baselines.patches import PATCHES, draw, drawn, waiting
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Seed, Side, checked
from satdifuser.tensors import TensorsError, read_tensors

GAUSSIAN = "gaussian"
BLOCK, FEWEST = 2**18, 32  # answers at once on a CPU, so that they stay in its cache, and filters
Even = Annotated[int, Ge(2), MultipleOf(2)]


class RandomFeatures(nn.Module):
    """What each of `features / 2` filters answers, above zero and below: one tap.

    With `stride` it is a map, each of its pixels the mean of so many; null: the mean over the whole image, as torchgeo
    has it. `filters` are gaussian, or whitened patches of the images of the data's split `train` (of all of them,
    whatever the label budget: no label is looked at), both drawn from `seed`; or a file of `tools/rcf_filters.py`.
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
        found, weights = _filters(filters, shape, seed)
        self.register_buffer("_filters", found, persistent=False)
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
        return FeatureBank(self.spec, {self.spec.taps[0]: self._answers(x, self._filters.to(x))})

    @staticmethod
    def waits(settings: Mapping[str, Any]) -> bool:
        """Whether these settings take filters from training images that nobody has cut yet."""
        return waiting(str(settings.get("filters", GAUSSIAN)))

    @staticmethod
    def from_training(
        settings: Mapping[str, Any], images: Sequence[Tensor], about: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What of the settings becomes known with the prepared training images; `about` says which these are."""
        number, kernel, seed = settings.get("features", 512) // 2, settings.get("kernel", 3), settings.get("seed", 0)
        return {"filters": draw(str(settings["filters"]), images, about, number, kernel, seed)}

    def _answers(self, x: Tensor, filters: Tensor) -> Tensor:
        """Mean answers above zero, and then below; on a CPU of few filters and one image at once, which is faster."""
        if x.device.type != "cpu":
            return torch.cat(self._of(x, filters), dim=1)
        few = max(FEWEST, BLOCK // (x.shape[-1] * x.shape[-2]))
        parts = [[self._of(image, some) for some in filters.split(few)] for image in x.split(1)]
        return torch.cat([torch.cat([part[side] for side in (0, 1) for part in row], dim=1) for row in parts])

    def _of(self, x: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
        answers = F.conv2d(x, filters, filters.new_full((len(filters),), self.bias))
        both = answers.clamp(min=0), (-answers).clamp_(min=0)
        if self.stride is None:
            return both[0].mean((2, 3), keepdim=True), both[1].mean((2, 3), keepdim=True)
        return F.avg_pool2d(both[0], self.stride), F.avg_pool2d(both[1], self.stride)


def _filters(filters: str, shape: tuple[int, ...], seed: int) -> tuple[Tensor, str]:
    """The filters and what they are called in the bank's spec."""
    if filters == GAUSSIAN:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)), f"gaussian-seed{seed}"
    found = drawn(filters)
    if found is not None and tuple(found.shape) == shape:
        return found, filters
    if found is not None or waiting(filters):
        raise UserError(
            f"encoder.filters={filters} takes patches of training images"
            + (f" {tuple(found.shape)}, and asked for is {shape}" if found is not None else "")
            + f": cut them (satdifuser.data.policy.resolved(encoder, data)), or use encoder.filters={GAUSSIAN}"
        )
    read = _read(filters, shape)
    return read, hashlib.sha256(read.contiguous().numpy().data).hexdigest()[:16]


def _read(file: str, shape: tuple[int, ...]) -> Tensor:
    try:
        found = read_tensors(Path(file).expanduser()).get("filters")
    except TensorsError as error:
        raise UserError(f"encoder.filters: {error}; encoder.filters={GAUSSIAN} or {PATCHES} needs no file") from error
    if found is None or tuple(found.shape) != shape or not bool(found.isfinite().all()):
        has = "no tensor 'filters'" if found is None else f"filters {tuple(found.shape)}"
        raise UserError(
            f"encoder.filters={file} has {has}, and asked for is {shape} (features / 2, bands, kernel, kernel): make it"
            " with tools/rcf_filters.py and the same settings"
        )
    return found.float()
