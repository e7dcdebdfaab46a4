"""How thirteen bands enter a ViT that was made for three."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch import Tensor

from deflect.adapters import Deflect, Frozen, Full, Lora
from deflect.backbones import Backbone, timm_vit, torchgeo_vit
from deflect.patching import adapt_patches
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
PROJ = {"backbone.model.patch_embed.proj.weight", "backbone.model.patch_embed.proj.bias"}


def backbone(**given: Any) -> Backbone:
    return timm_vit("vit_tiny_patch16_224", image_size=32, patch_size=8, options=TINY, **given)


def dofa() -> Backbone:
    return torchgeo_vit("DOFA", image_size=32, options={"patch_size": 8, **TINY})


def encoder(way: str, bands: list[str] | None = None, built: Backbone | None = None, **given: Any) -> ViTEncoder:
    built = built if built is not None else backbone()
    return ViTEncoder(built, prepare=ImageInput(bands), patch_embedding=way, **given)


def filters(vit: ViTEncoder) -> tuple[Tensor, Tensor]:
    proj = vit.backbone.plain.patch_embed.proj
    return proj.weight.detach(), proj.bias.detach()


def trained(vit: ViTEncoder) -> set[str]:
    return {name for name, p in vit.named_parameters() if p.requires_grad}


def biased(built: Backbone) -> Backbone:
    """A bias as pretraining would leave it: at the start it is zero, and zeros cannot be told apart."""
    with torch.no_grad():
        built.model.patch_embed.proj.bias.normal_()
    return built


@pytest.mark.parametrize("count", [2, 4, 6, 13])
def test_repeat_gives_timms_own_weights(count: int) -> None:
    built = biased(backbone())
    old, bias = built.model.patch_embed.proj.weight.detach().clone(), built.model.patch_embed.proj.bias.detach().clone()
    weight, kept = filters(encoder("repeat", list(SENTINEL2.names[:count]), built))
    torch.testing.assert_close(weight, adapt_input_conv(count, old.clone()))
    assert torch.equal(kept, bias)


def test_repeat_of_one_band_is_as_timm_does_it() -> None:
    """Its filter is the sum of the three, so that a grey image looks as it did in three bands."""
    built = backbone()
    old = built.model.patch_embed.proj.weight.detach().clone()
    weight, _ = filters(encoder("repeat", ["B08"], built))
    torch.testing.assert_close(weight, adapt_input_conv(1, old.clone()))


def test_repeat_gives_an_image_of_equal_bands_its_old_tokens_when_bands_divide_evenly() -> None:
    grey = torch.rand(2, 1, 32, 32)
    built = biased(backbone())
    before = built.model.patch_embed(grey.expand(-1, 3, -1, -1))
    vit = encoder("repeat", list(SENTINEL2.names[:12]), built)
    after = vit.backbone.plain.patch_embed(grey.expand(-1, 12, -1, -1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bands", [None, ["B08", "B02", "B04", "B11", "B03"], ["nir", "blue", "red", "green"]])
def test_random_keeps_the_filters_of_red_green_and_blue_at_their_bands(bands: list[str] | None) -> None:
    built = biased(backbone())
    old, bias = built.model.patch_embed.proj.weight.detach().clone(), built.model.patch_embed.proj.bias.detach().clone()
    vit = encoder("random", bands, built)
    weight, kept = filters(vit)
    names = [band.common for band in vit.backbone.bands]
    places = [names.index(name) for name in ("red", "green", "blue")]  # the order of pretrained RGB filters
    assert torch.equal(weight[:, places], old)
    assert torch.equal(kept, bias)
    others = [number for number in range(len(names)) if number not in places]
    assert float(weight[:, others].std()) == pytest.approx(float(old.std()), rel=0.15)
    assert float(weight[:, others].mean()) == pytest.approx(0, abs=0.1 * float(old.std()))


def test_scratch_keeps_nothing_and_depends_on_the_seed() -> None:
    built = biased(backbone())
    old, bias = built.model.patch_embed.proj.weight.detach().clone(), built.model.patch_embed.proj.bias.detach().clone()
    weight, new = filters(encoder("scratch", None, built))
    assert weight.shape == (32, 13, 8, 8)
    for band in range(13):
        for channel in range(3):
            assert not torch.equal(weight[:, band], old[:, channel])
    assert not torch.equal(new, bias)
    again, _ = filters(encoder("scratch"))
    other, _ = filters(encoder("scratch", seed=1))
    assert torch.equal(weight, again)
    assert not torch.equal(weight, other)


@pytest.mark.parametrize(("way", "learns"), [("repeat", False), ("random", True), ("scratch", True)])
def test_new_filters_train_whatever_the_adapter_and_repeated_ones_with_full_alone(way: str, learns: bool) -> None:
    assert trained(encoder(way, adapter=Frozen())) == (PROJ if learns else set())
    lora = trained(encoder(way, adapter=Lora(r=2)))
    new = {name for name in lora if "lora_" not in name}
    assert {name.rpartition("patch_embed.")[2] for name in new} == ({"proj.weight", "proj.bias"} if learns else set())
    assert len(lora - new) == 2 * 2
    assert trained(encoder(way, adapter=Full())) >= PROJ


@pytest.mark.parametrize("way", ["random", "scratch"])
def test_new_filters_get_gradients_from_every_band(way: str) -> None:
    vit = encoder(way, adapter=Lora(r=2))
    sum(m.square().mean() for m in vit(torch.rand(2, 13, 32, 32) * 0.3).values()).backward()
    gradient = vit.backbone.plain.patch_embed.proj.weight.grad
    assert all(float(gradient[:, band].abs().sum()) > 0 for band in range(13))


def test_bands_as_many_as_the_models_are_left_alone_unless_it_is_to_begin_from_scratch() -> None:
    for way in ("repeat", "random"):
        assert torch.equal(
            filters(encoder(way, ["B08", "B11", "B12"]))[0], filters(encoder(way, ["B04", "B03", "B02"]))[0]
        )
    assert trained(encoder("repeat", None, backbone(channels=13))) == set()
    assert trained(encoder("scratch", None, backbone(channels=13))) != set()
    with pytest.raises(UserError, match="patch_embedding is 'scrach': it can be repeat, random or scratch"):
        encoder("scrach", ["B04", "B03", "B02"])


def test_a_model_that_reads_wavelengths_takes_all_bands_as_they_are() -> None:
    vit = ViTEncoder(dofa(), prepare=ImageInput(None), patch_embedding="random")
    assert trained(vit) == set()
    assert "patch_embedding" not in dict(vit.spec.settings)
    assert vit(torch.rand(1, 13, 32, 32) * 0.3).map("blocks.1").shape == (1, 32, 4, 4)


def test_models_without_a_convolution_of_bands_are_refused() -> None:
    built = dofa()
    with pytest.raises(BankError, match=r"DOFA has no convolution as its patch embedding"):
        adapt_patches(built, SENTINEL2.bands, "repeat")
    croma = torchgeo_vit("CROMA", image_size=32, options={"encoder_dim": 32, "encoder_depth": 2})
    with pytest.raises(BankError, match=r"CROMA has no convolution .* give it the bands it was made for"):
        encoder("repeat", None, croma)


@pytest.mark.parametrize("missing", ["red", "green", "blue"])
def test_random_needs_red_green_and_blue(missing: str) -> None:
    bands = [band.name for band in SENTINEL2 if band.common != missing]
    with pytest.raises(BankError, match=rf"there is no {missing} band; use repeat or scratch"):
        encoder("random", bands)


def test_random_needs_weights_of_three_bands() -> None:
    with pytest.raises(BankError, match=r"its weights take 4 bands, not red, green and blue"):
        encoder("random", None, backbone(channels=4))


def test_an_unknown_way_lists_those_there_are() -> None:
    with pytest.raises(UserError, match=r"patch_embedding is 'mean': it can be repeat, random or scratch"):
        encoder("mean")


@pytest.mark.parametrize("way", ["repeat", "random"])
def test_deflect_gives_the_model_its_own_bands_and_says_so(way: str) -> None:
    with pytest.raises(BankError, match=r"takes 3 bands, but encoder.prepare.bands names 13: .*adapter=deflect"):
        encoder(way, adapter=Deflect())
