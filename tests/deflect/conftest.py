"""Shared by the tests of deflect: a tiny vision transformer of every family, as its library builds it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from deflect.adapters import Adapter
from deflect.backbones import Backbone, prithvi_vit, timm_vit, torchgeo_vit
from deflect.vit import ViTEncoder
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import RGB, ImageInput

VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2}
HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")
OPTICAL = tuple(band.name for band in SENTINEL2 if band.name != "B10")
# builder, model, image size, bands of the input, arguments
FAMILIES: dict[str, tuple[Callable[..., Backbone], str, int, tuple[str, ...], dict[str, Any]]] = {
    "timm": (timm_vit, "vit_tiny_patch16_224", 32, RGB, {"patch_size": 8, "options": VIT}),
    "dinov2": (timm_vit, "vit_small_patch14_reg4_dinov2", 28, RGB, {"options": VIT}),
    "prithvi": (prithvi_vit, "tiny", 32, HLS, {"options": {**VIT, "patch_size": 8}}),
    "scalemae": (torchgeo_vit, "ScaleMAE", 32, RGB, {"options": {**VIT, "patch_size": 8, "res": 10.0}}),
    "dofa": (torchgeo_vit, "DOFA", 32, RGB, {"options": {**VIT, "patch_size": 8}}),
    "croma": (torchgeo_vit, "CROMA", 32, OPTICAL, {"options": {"encoder_dim": 32, "encoder_depth": 3}}),
    "copernicusfm": (torchgeo_vit, "CopernicusFM", 32, RGB, {"options": {**VIT, "patch_size": 8}}),
    "panopticon": (torchgeo_vit, "Panopticon", 28, RGB, {"options": {"attn_dim": 32}}),
}
_built: dict[str, Backbone] = {}


def backbone_of(family: str) -> Backbone:
    """A backbone of its own for each call, always with the same weights; layer scales are not small."""
    if family not in _built:
        build, model, size, _, arguments = FAMILIES[family]
        made = build(model, image_size=size, **arguments)
        made.keep(2 if family == "panopticon" else 3)  # Panopticon is ViT-B inside
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name.endswith("gamma"):
                    parameter.uniform_(0.5, 1.5)
        _built[family] = made
    return copy.deepcopy(_built[family])


def encoder_of(family: str, adapter: Adapter | None = None) -> ViTEncoder:
    """The tokens after every block as maps, with an adapter in between."""
    _, _, _, bands, _ = FAMILIES[family]
    backbone = backbone_of(family)
    blocks = list(range(len(backbone.blocks)))
    return ViTEncoder(backbone, prepare=ImageInput(bands), blocks=blocks, adapter=adapter).eval()


@pytest.fixture
def encoder() -> Callable[..., ViTEncoder]:
    """`encoder(family, adapter=None)`: a frozen or adapted encoder of a family, all blocks read."""
    return encoder_of


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    """`images(family, batch=2)`: random reflectance of Sentinel-2 at the size of a family's images."""

    def make(family: str = "timm", batch: int = 2) -> torch.Tensor:
        return torch.rand(batch, len(SENTINEL2), FAMILIES[family][2], FAMILIES[family][2]) * 0.3

    return make


@pytest.fixture
def vit() -> Callable[..., nn.Module]:
    """`vit()`: timm's own tiny ViT for images of 32 px in patches of 8 px, as a user has it: everything trains."""
    import timm

    def make(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
        given = {"img_size": 32, "patch_size": 8, **VIT, **options}
        return timm.create_model(name, **given).eval()

    return make


@pytest.fixture
def scrambled() -> Callable[[nn.Module], nn.Module]:
    """Give what trains in a module random values, so that an adapter is no identity any more."""

    def fill(module: nn.Module, spread: float = 0.5) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=spread)
        return module

    return fill


@pytest.fixture
def one_kernel() -> Iterator[None]:
    """One kernel of attention for frozen and adapted models: only then can they be compared bit for bit."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
