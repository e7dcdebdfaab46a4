"""ViTs as feature banks: every family's maps against its own library, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchgeo.models
from torch import Tensor

from deflect.adapters import Adapter, Deflect, Frozen, Full, Lora
from deflect.backbones import Backbone, timm_vit, torchgeo_vit
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError, BankSpec
from satdifuser.data.bands import SENTINEL2, Band, Sensor
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.errors import UserError
from satdifuser.fusion import GlobalWeighted

TINY = {"embed_dim": 32, "depth": 3, "num_heads": 2}
MIXED = ("B12", "B04", "B8A", "B02", "B11")  # any bands in any order, for the families that read wavelengths
OPTICAL = tuple(name for name in SENTINEL2.names if name != "B10")
BANDS = {"dofa": MIXED, "copernicus": MIXED, "panopticon": MIXED, "croma": OPTICAL}
SIZES = {"registers": 28, "panopticon": 28}
PREFIX = {"timm": 1, "registers": 5, "scalemae": 1, "dofa": 1, "croma": 0, "copernicus": 1, "panopticon": 1}
FAMILIES = tuple(PREFIX)


def narrow(make: Callable[[], Any]) -> Any:
    """Panopticon puts its patch embedding on timm's ViT-B: on one of three narrow blocks instead."""
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **given: create(name, **{**given, **TINY}))
        return make()


def backbone(family: str, **given: Any) -> Backbone:
    """As deflect builds it."""
    size = given.pop("image_size", SIZES.get(family, 32))
    plain = {"patch_size": 8, **TINY, **given.pop("options", {})}
    if family == "timm":
        return timm_vit("vit_tiny_patch16_224", image_size=size, options=plain, **given)
    if family == "registers":
        return timm_vit("vit_small_patch14_reg4_dinov2", image_size=size, options=TINY, **given)
    if family == "scalemae":
        return torchgeo_vit("ScaleMAE", image_size=size, options={**plain, "res": 10.0}, **given)
    if family == "croma":
        return torchgeo_vit("CROMA", image_size=size, options={"encoder_dim": 32, "encoder_depth": 3}, **given)
    if family == "panopticon":
        options = {"attn_dim": 32, "embed_dim": 32}
        return narrow(lambda: torchgeo_vit("Panopticon", image_size=size, options=options, **given))
    return torchgeo_vit({"dofa": "DOFA", "copernicus": "CopernicusFM"}[family], image_size=size, options=plain, **given)


def library(family: str, seed: int) -> Any:
    """As its own library builds it, with no part of deflect."""
    torch.manual_seed(seed)
    plain = {"img_size": 32, "patch_size": 8, **TINY}
    made: dict[str, Callable[[], Any]] = {
        "timm": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, **plain),
        "registers": lambda: timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, img_size=28, **TINY),
        "scalemae": lambda: torchgeo.models.ScaleMAE(res=10.0, num_classes=0, **plain),
        "dofa": lambda: torchgeo.models.DOFA(**plain),
        "croma": lambda: torchgeo.models.CROMA(["optical"], encoder_dim=32, encoder_depth=3, image_size=32),
        "copernicus": lambda: torchgeo.models.CopernicusFM(**plain),
        "panopticon": lambda: narrow(lambda: torchgeo.models.Panopticon(attn_dim=32, embed_dim=32, img_size=28)),
    }
    return made[family]().eval()


def call(family: str, model: Any, x: Tensor) -> Any:
    """The library's own forward pass, by its own documentation."""
    bands = [SENTINEL2.bands[SENTINEL2.names.index(name)] for name in BANDS.get(family, RGB)]
    waves, widths = [band.wavelength for band in bands], [band.bandwidth for band in bands]
    if family == "dofa":
        return model(x, [wave / 1000 for wave in waves])
    if family == "croma":
        return model(x_optical=x)
    if family == "copernicus":
        return model(x, torch.full((len(x), 4), float("nan")), waves, widths)
    if family == "panopticon":
        return model({"imgs": x, "chn_ids": torch.tensor(waves).repeat(len(x), 1)})
    return model(x)


def after_blocks(family: str, model: Any, x: Tensor) -> list[Tensor]:
    """Tokens after each block: what the block gives, or (CROMA, whose blocks are pairs) what comes next is given."""
    found: list[Tensor] = []
    if family == "croma":
        transformer = model.s2_encoder.transformer
        following = [pair[0] for pair in list(transformer.layers)[1:]] + [transformer.norm_out]
        hooks = [m.register_forward_pre_hook(lambda _, given: found.append(given[0])) for m in following]
    else:
        blocks = (model.model if family == "panopticon" else model).blocks
        hooks = [m.register_forward_hook(lambda _, given, output: found.append(output)) for m in blocks]
    with torch.no_grad():
        call(family, model, x)
    for hook in hooks:
        hook.remove()
    return found


def encoder(family: str = "timm", built: Backbone | None = None, **given: Any) -> ViTEncoder:
    given = {"prepare": ImageInput(BANDS.get(family, RGB)), **given}
    return ViTEncoder(built if built is not None else backbone(family), **given).eval()


def images(family: str = "timm") -> Tensor:
    return torch.rand(2, 13, SIZES.get(family, 32), SIZES.get(family, 32)) * 0.3


def entered(family: str, pixels: Tensor) -> Tensor:
    """Reflectance 0 to 0.3 as -1 to 1."""
    return pixels[:, [SENTINEL2.names.index(name) for name in BANDS.get(family, RGB)]] / 0.15 - 1


def assert_is(map_: Tensor, tokens: Tensor, prefix: int) -> None:
    """The map's pixel in a row and a column is the token at that place."""
    grid = map_.shape[-1]
    assert tokens.shape[1] == prefix + grid * grid
    for row in range(grid):
        for column in range(grid):
            token = tokens[:, prefix + grid * row + column]
            torch.testing.assert_close(map_[:, :, row, column], token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_are_the_patch_tokens_after_each_block_of_the_librarys_own_model(family: str) -> None:
    seed = int(torch.randint(1000, ()))
    pixels = images(family)
    bank = encoder(family, backbone(family, seed=seed))(pixels)
    after = after_blocks(family, library(family, seed), entered(family, pixels))
    assert len(after) == len(bank.spec.taps) == 3
    for tap, tokens in zip(bank.spec.taps, after, strict=True):
        assert_is(bank[tap], tokens, PREFIX[family])


def test_the_first_blocks_of_panopticon_at_its_own_width_are_those_of_torchgeo() -> None:
    built = torchgeo_vit("Panopticon", image_size=28, seed=5, options={"attn_dim": 32})
    pixels = images("panopticon")
    bank = encoder("panopticon", built, blocks=[0, 1])(pixels)
    torch.manual_seed(5)
    theirs = torchgeo.models.Panopticon(attn_dim=32, img_size=28).eval()
    after = after_blocks("panopticon", theirs, entered("panopticon", pixels))
    for tap, tokens in zip(bank.spec.taps, after[:2], strict=True):
        assert tap.channels == 768
        assert_is(bank[tap], tokens, 1)


@pytest.mark.parametrize("family", [name for name in FAMILIES if PREFIX[name]])
def test_class_taps_are_the_class_token_beside_the_maps(family: str) -> None:
    pixels = images(family)
    bank = encoder(family, backbone(family, seed=2), class_token=True, blocks=[0, 2])(pixels)
    assert bank.spec.names() == ("blocks.0", "blocks.0.class", "blocks.2", "blocks.2.class")
    after = after_blocks(family, library(family, 2), entered(family, pixels))
    for number in (0, 2):
        assert_is(bank.map(f"blocks.{number}"), after[number], PREFIX[family])
        torch.testing.assert_close(bank.map(f"blocks.{number}.class"), after[number][:, 0, :, None, None])


def test_a_model_without_a_class_token_has_no_class_tap() -> None:
    with pytest.raises(BankError, match=r"has no class token: set encoder.class_token=false"):
        encoder("croma", class_token=True)


def test_registers_alone_are_not_taken_for_a_class_token() -> None:
    built = timm_vit("vit_medium_patch16_reg4_gap_256", image_size=32, patch_size=8, options=TINY)
    with pytest.raises(BankError, match=r"has no class token"):
        encoder(built=built, class_token=True)


@pytest.mark.parametrize("family", ["timm", "registers", "scalemae", "croma", "panopticon"])
def test_norm_is_the_models_last_layer_norm(family: str) -> None:
    pixels = images(family)
    built = backbone(family, seed=4)
    theirs = library(family, 4)
    theirs_norm = theirs.s2_encoder.transformer.norm_out if family == "croma" else getattr(theirs, "model", theirs).norm
    with torch.no_grad():  # as pretraining would leave it
        theirs_norm.weight.copy_(torch.rand(32) + 0.5)
        theirs_norm.bias.copy_(torch.randn(32))
    assert built.norm is not None
    built.norm.load_state_dict(theirs_norm.state_dict())
    bank = encoder(family, built, norm=True)(pixels)
    x = entered(family, pixels)
    whole: list[Tensor] = []
    hook = theirs_norm.register_forward_hook(lambda _, given, output: whole.append(output))
    after = after_blocks(family, theirs, x)
    hook.remove()
    assert_is(bank.map("blocks.2"), whole[0], PREFIX[family])  # what the library's own forward pass has there
    with torch.no_grad():
        assert_is(bank.map("blocks.0"), theirs_norm(after[0]), PREFIX[family])


def test_dofas_norm_is_there_only_without_its_pooling() -> None:
    with pytest.raises(BankError, match=r"DOFA has no last LayerNorm: set encoder.norm=false"):
        encoder("dofa", norm=True)
    pixels = images("dofa")
    bank = encoder("dofa", backbone("dofa", options={"global_pool": False}), norm=True, class_token=True)(pixels)
    torch.manual_seed(0)
    theirs = torchgeo.models.DOFA(img_size=32, patch_size=8, global_pool=False, num_classes=0, **TINY).eval()
    with torch.no_grad():
        pooled = call("dofa", theirs, entered("dofa", pixels))  # of DOFA, the class token after its norm
    torch.testing.assert_close(bank.map("blocks.2.class")[:, :, 0, 0], pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "blocks", "chosen"),
    [
        (3, "all", (0, 1, 2)),
        (3, "last", (2,)),
        (3, "four", (0, 1, 2)),
        (8, "four", (1, 3, 5, 7)),
        (12, "four", (2, 5, 8, 11)),
        (3, [0, -1], (0, 2)),
        (3, [2, 0], (0, 2)),
        (3, [-3], (0,)),
    ],
)
def test_blocks_are_chosen_by_word_or_by_number_from_either_end(depth: int, blocks: Any, chosen: tuple[int]) -> None:
    vit = encoder(built=backbone("timm", options={"depth": depth}), blocks=blocks)
    assert vit.spec.names() == tuple(f"blocks.{number}" for number in chosen)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([0, 3], "distinct numbers from -3 to 2"),
        ([-4], "distinct numbers from -3 to 2"),
        ([2, -1], "distinct numbers"),
        ([], "a list of 1 or more"),
        ("some", "blocks is 'some': it must be all, four or last, or a list"),
    ],
)
def test_wrong_blocks_are_named(blocks: Any, message: str) -> None:
    with pytest.raises((BankError, UserError), match=message):
        encoder(blocks=blocks)


@pytest.mark.parametrize("family", FAMILIES)
def test_later_blocks_are_taken_off_and_the_others_compute_the_same(family: str) -> None:
    pixels = images(family)
    short, whole = encoder(family, blocks=[0, 1]), encoder(family)
    assert len(short.backbone.blocks) == 2
    names = {name for name, _ in short.named_parameters()}
    assert not any(".2." in name and ("blocks" in name or "layers.2." in name) for name in names)
    one, other = short(pixels), whole(pixels)
    for name in ("blocks.0", "blocks.1"):
        assert torch.equal(one.map(name), other.map(name))
    trained = {name for name, p in encoder(family, blocks=[0, 1], adapter=Full()).named_parameters() if p.requires_grad}
    assert trained <= names


@pytest.mark.parametrize("family", ["timm", "croma", "dofa"])
def test_an_image_of_another_size_is_refused_with_both_sizes(family: str) -> None:
    vit = encoder(family)
    with pytest.raises(BankError, match=r"images of 24 x 40 px for a model built for 32 x 32: set .*image_size"):
        vit(torch.rand(1, 13, 24, 40) * 0.3)


@pytest.mark.parametrize("adapter", [Frozen(), Deflect()])
def test_prepare_can_resize_to_the_models_size(adapter: Adapter) -> None:
    vit = encoder(prepare=ImageInput(RGB, size=32), adapter=adapter)
    assert vit(torch.rand(1, 13, 20, 20) * 0.3).map("blocks.0").shape == (1, 32, 4, 4)


@pytest.mark.parametrize("family", ["timm", "scalemae", "dofa", "copernicus", "croma", "panopticon"])
def test_a_size_that_patches_do_not_divide_is_refused(family: str) -> None:
    with pytest.raises(BankError, match=r"30 px is not divisible into patches of \d+ px|multiple of 8"):
        backbone(family, image_size=30)


def test_an_unknown_model_lists_near_ones() -> None:
    with pytest.raises(BankError, match=r"timm has no model 'vit_tinny'; it has \w+"):
        timm_vit("vit_tinny", image_size=32)


@pytest.mark.parametrize(
    "model", ["resnet18", "swin_tiny_patch4_window7_224", "efficientnet_b0", "hiera_tiny_224", "xcit_nano_12_p16_224"]
)
def test_a_model_of_timm_that_is_no_such_vit_is_refused_in_one_line(model: str) -> None:
    with pytest.raises(BankError, match=model) as refused:
        timm_vit(model, image_size=224)
    assert "\n" not in str(refused.value)


def test_a_vit_with_relative_positions_and_no_embedding_of_them_is_a_backbone_too() -> None:
    """Any ViT of timm: this one has no position embeddings and no class token."""
    name, pixels = "vit_relpos_small_patch16_224", images()
    bank = encoder(built=timm_vit(name, image_size=32, patch_size=8, seed=6, options=TINY))(pixels)
    torch.manual_seed(6)
    theirs = timm.create_model(name, img_size=32, patch_size=8, num_classes=0, **TINY).eval()
    for tap, tokens in zip(bank.spec.taps, after_blocks("timm", theirs, entered("timm", pixels)), strict=True):
        assert_is(bank[tap], tokens, 0)


def test_frozen_unless_asked_and_seeded() -> None:
    assert not any(p.requires_grad for p in encoder().parameters())
    one, same, other = (backbone("timm", seed=s).model.patch_embed.proj.weight for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_building_takes_nothing_from_the_callers_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    encoder(adapter=Lora(), patch_embedding="random", prepare=ImageInput(None))
    assert torch.equal(torch.rand(3), expected)


def test_an_adapters_first_weights_depend_on_the_encoders_seed_alone() -> None:
    def down(seed: int) -> Tensor:
        torch.rand(int(torch.randint(9, ())))  # whatever happened before
        vit = encoder(adapter=Lora(r=2), seed=seed)
        return next(p for name, p in vit.named_parameters() if "lora_A" in name)

    assert torch.equal(down(0), down(0))
    assert not torch.equal(down(0), down(1))


def test_a_vits_depths_feed_a_fusion_head_and_learn() -> None:
    vit = encoder(adapter=Full(), blocks=[0, -1]).train()
    assert vit.spec.names() == ("blocks.0", "blocks.2")
    head = GlobalWeighted(vit.spec, 16)
    pixels, target = images(), torch.randn(2, 16, 4, 4)
    optimizer = torch.optim.SGD([*vit.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(3):
        loss = (head(vit(pixels)).maps[8] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert vit.backbone.model.patch_embed.proj.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_full_training_has_no_parameter_that_features_do_not_reach() -> None:
    """Of a model that pools with attention too: what gets no gradient would stop training in two processes."""
    vit = encoder(
        built=timm_vit("vit_base_patch16_siglip_224", image_size=32, patch_size=8, options=TINY), adapter=Full()
    )
    sum(m.square().mean() for m in vit(images()).values()).backward()
    assert [name for name, p in vit.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_spec_tells_adapters_patch_embeddings_and_inputs_apart() -> None:
    everything = {"prepare": ImageInput(None)}
    made = {
        "plain": encoder(),
        "norm": encoder(norm=True),
        "full": encoder(adapter=Full()),
        "lora": encoder(adapter=Lora()),
        "lora of another rank": encoder(adapter=Lora(r=4)),
        "lora of another seed": encoder(adapter=Lora(), seed=1),
        "deflect": encoder(adapter=Deflect()),
        "deflect of another norm": encoder(adapter=Deflect(norm="bound")),
        "repeat": encoder(**everything),
        "random": encoder(**everything, patch_embedding="random"),
        "random of another seed": encoder(**everything, patch_embedding="random", seed=1),
        "scratch": encoder(**everything, patch_embedding="scratch"),
        "weights": encoder(built=backbone("timm", seed=1)),
        "range": encoder(prepare=ImageInput(RGB, high=0.4)),
        "standardised": encoder(prepare=ImageInput(RGB, mean=[0.4, 0.5, 0.6], std=0.2)),
    }
    for one, vit in made.items():
        for other, another in made.items():
            same = not vit.spec.differences(another.spec)
            assert same == (one == other), f"{one} and {other}"
    assert not encoder().spec.differences(encoder(seed=1).spec)  # nothing of a frozen model depends on it


def test_what_is_not_in_the_weights_but_changes_features_is_in_the_spec() -> None:
    def spec(resolution: float) -> BankSpec:
        options = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "res": resolution}
        return ViTEncoder(torchgeo_vit("ScaleMAE", image_size=32, options=options), prepare=ImageInput(RGB)).spec

    assert spec(10.0) == spec(10.0)
    assert spec(10.0).differences(spec(1.0))


def test_a_sensor_of_the_same_name_with_other_wavelengths_is_another_input_for_a_model_that_reads_them() -> None:
    def spec(red: float) -> BankSpec:
        sensor = Sensor("camera", (Band("r", "red", red, 10), Band("n", "nir", 830, 10)))
        options = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
        backbone = torchgeo_vit("DOFA", image_size=32, options=options)
        return ViTEncoder(backbone, prepare=ImageInput(sensor=sensor)).spec

    assert spec(650).differences(spec(660))


@pytest.mark.parametrize("wrong", [5, None, ["a"], [1.5], "first"])
def test_blocks_that_are_no_choice_and_no_list_of_numbers_are_refused(wrong: Any) -> None:
    backbone = timm_vit("vit_tiny_patch16_224", image_size=32, patch_size=8, options={"embed_dim": 24, "depth": 2})
    with pytest.raises(
        UserError, match=r"blocks is .*: it must be all, four or last, or a list of 1 or more, each a whole"
    ):
        ViTEncoder(backbone, prepare=ImageInput(RGB), blocks=wrong)
