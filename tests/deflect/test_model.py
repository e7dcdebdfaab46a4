"""DEFLECT's promises on every family of vision transformers: identity, lengths, frozen weights, a removable adapter."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import deflect
from deflect.adapters import Deflect, Lora, parameter_counts
from deflect.backbones import timm_vit
from deflect.blocks import DeflectedBlock, DeflectedCromaAttention
from deflect.deflection import Deflection
from deflect.model import CONFIG, WEIGHTS, DeflectModel
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.errors import UserError

pytestmark = pytest.mark.usefixtures("one_kernel")

SMALL = ("timm", "dinov2", "prithvi", "scalemae", "dofa", "croma", "copernicusfm")
ALL = (*SMALL, "panopticon")
BANDS = deflect.DeflectConfig(bands=tuple(SENTINEL2)).bands  # type: ignore[arg-type]


def config(**settings: Any) -> deflect.DeflectConfig:
    return deflect.DeflectConfig(bands=BANDS, **settings)


def given(batch: int = 2) -> tuple[Tensor, Tensor]:
    """RGB as a model takes it, and the reflectance of all bands."""
    return torch.randn(batch, 3, 32, 32), torch.rand(batch, 13, 32, 32) * 0.3


def maps(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    return list(encoder(images).values())


def assert_same(mine: list[Tensor], theirs: list[Tensor], family: str) -> None:
    """To the bit; CROMA itself multiplies in another order."""
    for one, other in zip(mine, theirs, strict=True):
        if family == "croma":
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(one, other)


def train(encoder: nn.Module, images: Tensor, steps: int = 3) -> None:
    """Some steps of Adam towards random maps, with what trains."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    targets = [torch.randn_like(each) for each in maps(encoder, images)]
    for _ in range(steps):
        optimiser.zero_grad()
        sum((m - t).square().mean() for m, t in zip(maps(encoder, images), targets, strict=True)).backward()
        optimiser.step()


def record(model: nn.Module, kinds: type | tuple[type, ...], call: Callable[[], object]) -> list[tuple[Any, Any, Any]]:
    """Each module of these kinds with what it was given and what it gave."""
    seen: list[tuple[Any, Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, given, output: seen.append((module, given, output)))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("family", "norm"),
    [*((family, "preserve") for family in ALL), ("timm", "bound"), ("croma", "bound"), ("dofa", "none")],
)
def test_at_the_start_the_model_is_what_it_was(encoder, images, family: str, norm: str) -> None:
    x = images(family)
    with torch.no_grad():
        assert_same(maps(encoder(family, Deflect(norm=norm)), x), maps(encoder(family), x), family)


@pytest.mark.parametrize("family", ALL)
def test_what_is_trained_keeps_the_length_of_every_frozen_displacement(encoder, images, family: str) -> None:
    x = images(family)
    adapted = encoder(family, Deflect(norm="preserve"))
    train(adapted, x)
    seen = record(adapted, Deflection, lambda: adapted(x))
    assert len(seen) == len(adapted.blocks)
    for _, (displacement, _), turned in seen:
        torch.testing.assert_close(turned.norm(dim=-1), displacement.norm(dim=-1), rtol=1e-5, atol=1e-7)
        assert not torch.allclose(turned, displacement, rtol=1e-3)


@pytest.mark.parametrize("family", SMALL)
def test_what_is_trained_with_a_bound_stays_within_it(encoder, images, family: str) -> None:
    epsilon = 0.05 + 0.4 * float(torch.rand(()))
    x = images(family)
    adapted = encoder(family, Deflect(norm="bound", epsilon=epsilon))
    train(adapted, x)
    seen = record(adapted, Deflection, lambda: adapted(x))
    assert len(seen) == len(adapted.blocks)
    for _, (displacement, _), turned in seen:
        part = (turned - displacement).norm(dim=-1) / displacement.norm(dim=-1)
        assert float(part.max()) <= epsilon * (1 + 1e-4)
        assert float(part.max()) > 0


@pytest.mark.parametrize("family", ALL)
def test_the_displacement_that_is_turned_is_the_pretrained_attentions_own(
    encoder, images, scrambled, family: str
) -> None:
    x = images(family)
    adapted = scrambled(encoder(family, Deflect()))
    turned = record(adapted, Deflection, lambda: adapted(x))
    blocks = record(adapted, (DeflectedBlock, DeflectedCromaAttention), lambda: adapted(x))
    assert len(turned) == len(blocks) == len(adapted.blocks)
    for (_, (displacement, _), _), (block, entered, _) in zip(turned, blocks, strict=True):
        layer = block.base_layer
        with torch.no_grad():
            if isinstance(block, DeflectedCromaAttention):
                expected = layer(*entered)
            else:
                expected = layer.attn(layer.norm1(entered[0]))
                expected = layer.ls1(expected) if hasattr(layer, "ls1") else expected
        assert_same([displacement], [expected], family)


@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_the_auxiliary_stream_moves_by_the_frozen_layers_alone(
    encoder, images, scrambled, family: str, mlp: bool
) -> None:
    x = images(family)
    adapted = scrambled(encoder(family, Deflect(mlp_on_auxiliary=mlp)))
    wrapped = record(adapted, (DeflectedBlock, DeflectedCromaAttention), lambda: adapted(x))
    streams = [inputs[1] for _, inputs, _ in record(adapted, Deflection, lambda: adapted(x))]
    assert len(streams) == len(wrapped) == 3
    for number in (1, 2):
        (before, _, _), (block, entered, _) = wrapped[number - 1 : number + 1]
        previous = before.base_layer
        with torch.no_grad():
            a = streams[number - 1]
            if mlp and isinstance(block, DeflectedBlock):
                scale = getattr(previous, "ls2", nn.Identity())
                a = a + scale(previous.mlp(previous.norm2(a)))
            elif mlp:
                a = a + adapted.backbone.blocks[number - 1][1].base_layer(a)
            _, carried = block.displacements(entered[0], a, *entered[1:])
        torch.testing.assert_close(streams[number], a + carried, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ALL)
def test_training_reaches_the_whole_adapter_and_nothing_that_is_frozen(encoder, images, family: str) -> None:
    x = images(family)
    adapted = encoder(family, Deflect(mlp_on_auxiliary=True))
    adapter = adapted.backbone.model.adapter_parameters()
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    train(adapted, x)
    assert {id(p) for p in adapter.values()} == {id(p) for p in adapted.parameters() if p.requires_grad}
    assert all(bool(p.grad.isfinite().all()) and float(p.grad.abs().max()) > 0 for p in adapter.values())
    assert all(p.grad is None for p in adapted.parameters() if not p.requires_grad)
    own = {f"backbone.model.{name}" for name in adapter}
    assert own < before.keys()
    for name, value in adapted.state_dict().items():
        assert torch.equal(value, before[name]) != (name in own), name


@pytest.mark.parametrize("family", SMALL)
def test_the_auxiliary_stream_passes_the_feed_forward_layers_only_if_asked(
    encoder, images, scrambled, family: str
) -> None:
    x = images(family)
    plain, other = (encoder(family, Deflect(mlp_on_auxiliary=mlp)) for mlp in (False, True))
    with torch.no_grad():
        assert_same(maps(other, x), maps(encoder(family), x), family)
        scrambled(plain)
        theirs = plain.backbone.model.adapter_parameters()
        for name, parameter in other.backbone.model.adapter_parameters().items():
            parameter.copy_(theirs[name])
        assert not torch.allclose(maps(plain, x)[-1], maps(other, x)[-1])
        torch.testing.assert_close(maps(plain, x)[0], maps(other, x)[0])  # which comes after the first attention


@pytest.mark.parametrize("family", ["timm", "croma"])
def test_only_the_chosen_blocks_are_adapted(encoder, images, scrambled, family: str) -> None:
    x = images(family)
    adapted = scrambled(encoder(family, Deflect(blocks=[1])))
    names = {
        name.split("deflection")[0] for name in adapted.backbone.model.adapter_parameters() if "deflection" in name
    }
    assert len(names) == 1
    with torch.no_grad():
        mine, frozen = maps(adapted, x), maps(encoder(family), x)
    assert torch.equal(mine[0], frozen[0])
    assert not torch.allclose(mine[1], frozen[1])


def test_blocks_between_adapted_ones_are_passed_by(vit) -> None:
    adapted = deflect.adapt(vit(), config(blocks=(2, 0)))
    rgb, spectra = given()
    streams = [inputs[1] for _, inputs, _ in record(adapted, Deflection, lambda: adapted(rgb, spectra=spectra))]
    assert len(streams) == 2
    (_, (entered,), _), (block, (p,), _) = record(adapted, DeflectedBlock, lambda: adapted(rgb, spectra=spectra))
    assert entered.shape == p.shape
    with torch.no_grad():
        torch.testing.assert_close(streams[1], streams[0] + block.displacements(p, streams[0])[1])


@pytest.mark.parametrize("blocks", [(), (3,), (-1,), (0, 0)])
def test_blocks_that_are_not_there_are_an_error(vit, blocks: tuple[int, ...]) -> None:
    with pytest.raises((BankError, UserError), match=r"give distinct numbers from 0 to 2|blocks is .*0 or more"):
        deflect.adapt(vit(), config(blocks=blocks))


def test_class_and_register_tokens_enter_both_streams_alike_and_patches_at_the_principals_length(
    encoder, images
) -> None:
    adapted = encoder("dinov2", Deflect())
    x = images("dinov2")
    (block, (p,), _), *_ = record(adapted, DeflectedBlock, lambda: adapted(x))
    (_, (_, a), _), *_ = record(adapted, Deflection, lambda: adapted(x))
    tokens = adapted.backbone.model.upe(x)
    prefix = p.shape[1] - tokens.shape[1]
    assert prefix == 5  # one class token and four registers
    scaled = tokens * p[:, prefix:].norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)
    entered = torch.cat((p[:, :prefix], scaled), dim=1)
    with torch.no_grad():
        torch.testing.assert_close(a, entered + block.displacements(p, entered)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SMALL)
def test_the_maps_depend_on_bands_that_the_model_does_not_see(encoder, images, scrambled, family: str) -> None:
    adapted = scrambled(encoder(family, Deflect()))
    x = images(family)
    other = x.clone()
    other[:, 10] += 0.1  # cirrus, which no family's input has
    with torch.no_grad():
        assert not torch.allclose(maps(adapted, x)[0], maps(adapted, other)[0])


@pytest.mark.parametrize("family", SMALL)
def test_removed_the_model_is_what_it_was_to_the_bit(encoder, images, scrambled, family: str) -> None:
    x = images(family)
    adapted = encoder(family)
    model = adapted.backbone.model
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 == 0)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modules = [(name, id(module)) for name, module in model.named_modules()]
    with torch.no_grad():
        before = maps(adapted, x)
    wrapped = deflect.adapt(model, config(patch_size=adapted.backbone.facts.patch, mlp_on_auxiliary=True))
    assert not any(
        p.requires_grad for p in model.parameters() if id(p) not in map(id, wrapped.adapter_parameters().values())
    )
    adapted.backbone.model = scrambled(wrapped)
    with wrapped.given(x):
        adapted.backbone(adapted.prepare(x), adapted.blocks)
    assert wrapped.remove() is model
    adapted.backbone.model = model
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trains
    with torch.no_grad():
        assert all(torch.equal(one, other) for one, other in zip(maps(adapted, x), before, strict=True))


def test_a_model_with_a_new_head_can_be_rid_of_its_adapter(vit) -> None:
    adapted = deflect.adapt(vit(num_classes=0), config())
    adapted.reset_classifier(5)
    model = adapted.remove()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, Deflection) for module in model.modules())


def test_to_adapt_twice_is_an_error_and_to_adapt_again_after_removal_is_not(vit) -> None:
    adapted = deflect.adapt(vit(), config())
    for twice in (adapted, adapted.get_base_model()):
        with pytest.raises(BankError, match=r"adapted with DEFLECT already: call remove\(\) first"):
            deflect.adapt(twice, config())
    deflect.adapt(adapted.remove(), config())


@pytest.mark.parametrize(
    "settings", [{"norm": "keep"}, {"rank": 0}, {"epsilon": -1.0}, {"blocks": (7,)}, {"indices": ("?",)}]
)
def test_settings_that_are_refused_leave_the_model_as_it_was(vit, settings: dict[str, Any]) -> None:
    model = vit()
    modules = [id(module) for module in model.modules()]
    with pytest.raises((BankError, UserError)):
        deflect.adapt(model, config(**settings))
    assert [id(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", ALL)
def test_the_patch_size_of_every_family_is_found(encoder, family: str) -> None:
    backbone = encoder(family).backbone
    assert deflect.adapt(backbone.model, config()).upe.patch == backbone.facts.patch


@pytest.mark.parametrize("name", ["vit_base_patch16_rpn_224", "vit_relpos_small_patch16_224"])
def test_a_transformer_whose_blocks_compute_something_else_is_refused(vit, name: str) -> None:
    model = vit(name, patch_size=16)  # norms after the layers; positions in the attention
    with pytest.raises(BankError, match=r"DEFLECT|untangled"):
        deflect.adapt(model, config())


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(BankError, match="has no blocks of timm's, Galileo's or CROMA's kind"):
        deflect.adapt(nn.Sequential(nn.Conv2d(3, 4, 3)), config())


def test_called_by_hand_the_model_gives_what_it_gave_and_its_methods_are_there(vit, scrambled) -> None:
    model = vit(num_classes=5)
    rgb, spectra = given()
    with torch.no_grad():
        logits, tokens = model(rgb), model.forward_features(rgb)
    adapted = deflect.adapt(model, config())
    assert adapted.embed_dim == 32
    with torch.no_grad(), adapted.given(spectra):
        assert torch.equal(adapted.forward_features(rgb), tokens)
    with torch.no_grad():
        assert torch.equal(adapted(rgb, spectra=spectra), logits)
        assert not torch.allclose(scrambled(adapted)(rgb, spectra=spectra), logits)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = adapted.nonsense


def test_an_attention_mask_reaches_the_frozen_attention(vit) -> None:
    model = vit()
    rgb, spectra = given()
    mask = torch.randn(17, 17)
    with torch.no_grad():
        expected = model.forward_features(rgb, attn_mask=mask)
    adapted = deflect.adapt(model, config())
    with torch.no_grad(), adapted.given(spectra):
        torch.testing.assert_close(adapted.forward_features(rgb, attn_mask=mask), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", SMALL)
def test_a_saved_adapter_comes_back_to_the_bit(encoder, images, scrambled, tmp_path: Path, family: str) -> None:
    x = images(family)
    adapted, fresh = encoder(family, Deflect(norm="bound", rank=3, blocks=[0, 2])), encoder(family)
    scrambled(adapted)
    adapted.backbone.model.save_pretrained(tmp_path / "new" / "folder")
    loaded = DeflectModel.from_pretrained(fresh.backbone.model, tmp_path / "new" / "folder")
    assert loaded.config == adapted.backbone.model.config
    fresh.backbone.model = loaded
    assert loaded.state_dict().keys() == adapted.backbone.model.state_dict().keys()
    with torch.no_grad(), loaded.given(x):
        mine = fresh.backbone(fresh.prepare(x), fresh.blocks)
        with adapted.backbone.model.given(x):
            theirs = adapted.backbone(adapted.prepare(x), adapted.blocks)
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


def test_a_saved_adapter_is_the_adapter_alone(vit, scrambled, tmp_path: Path) -> None:
    adapted = scrambled(deflect.adapt(vit(), config()))
    adapted.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    own = adapted.adapter_parameters()
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert set(file.keys()) == set(own)
        assert all(torch.equal(file.get_tensor(name), own[name]) for name in own)
    assert {id(p) for p in own.values()} == {id(p) for p in adapted.parameters() if p.requires_grad}
    adapted.save_pretrained(tmp_path)  # again, over what is there
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_a_configuration_is_the_same_after_json() -> None:
    one = config(indices=("NDVI", "EVI"), index_limits=(-1, 1), blocks=(0, 2), epsilon=0.3, patch_size=8)
    assert deflect.DeflectConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def edited(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        known = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**known, **values}))

    return damage


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "no adapter_config.json in .*give the folder"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "no adapter_config.json in .*give the folder"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no adapter_model.safetensors in .*give the folder"),
    "half of the weights": (cut, "is damaged"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "is damaged"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{"), "is damaged"),
    "another kind of JSON": (lambda folder: (folder / CONFIG).write_text("[]"), "is damaged|not of a DEFLECT adapter"),
    "no text": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "an adapter of peft": (edited(peft_type="LORA"), "configuration of 'LORA', not of a DEFLECT adapter"),
    "a setting of the future": (edited(sparkle=1), "has no sparkle: it was written by another version"),
    "bands of another form": (edited(bands=[{"name": "B04"}]), "is damaged"),
    "a rank that is text": (edited(rank="four"), "rank is 'four': it must be a whole number of 1 or more"),
    "another rank": (edited(rank=7), "is of another model: .*first"),
    "other blocks": (edited(blocks=[1]), "is of another model: .*first"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_adapter_is_one_clear_error_and_leaves_the_model_as_it_was(
    vit, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = deflect.adapt(vit(), config()).save_pretrained(tmp_path / "adapter")
    damage(folder)
    model = vit()
    modules = [id(module) for module in model.modules()]
    with pytest.raises((BankError, UserError), match=message) as error:
        DeflectModel.from_pretrained(model, folder)
    assert "\n" not in str(error.value)
    assert [id(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"depth": 2}, {"depth": 4}, {"embed_dim": 48}], ids=str)
def test_an_adapter_of_another_model_is_refused_and_the_model_stays_as_it_was(
    vit, tmp_path: Path, options: dict[str, int]
) -> None:
    deflect.adapt(vit(), config()).save_pretrained(tmp_path)
    model = vit(**options)
    with pytest.raises(BankError, match="is of another model"):
        DeflectModel.from_pretrained(model, tmp_path)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, Deflection) for module in model.modules())


def test_spectra_must_be_given(vit) -> None:
    adapted = deflect.adapt(vit(), config())
    rgb, spectra = given()
    with pytest.raises(BankError, match=r"needs spectra: call it as model\(images, spectra=reflectance\)"):
        adapted.forward_features(rgb)
    adapted(rgb, spectra=spectra)
    with pytest.raises(BankError, match="needs spectra"):  # those of an earlier call do not count
        adapted.forward_features(rgb)


@pytest.mark.parametrize(
    "shape",
    [(2, 13, 40, 40), (2, 13, 24, 24), (2, 13, 32, 24), (2, 13, 8, 8), (1, 13, 32, 32), (3, 13, 32, 32)],
    ids=str,
)
def test_spectra_of_other_images_are_an_error(vit, shape: tuple[int, ...]) -> None:
    adapted = deflect.adapt(vit(), config())
    with pytest.raises(BankError, match=r"spectra .*: give .*at the same size"):
        adapted(given()[0], spectra=torch.rand(shape))


def test_an_error_in_between_leaves_no_stream_behind(vit) -> None:
    adapted = deflect.adapt(vit(), config())
    rgb, spectra = given()
    with torch.no_grad():
        expected = adapted(rgb, spectra=spectra)
    with pytest.raises(RuntimeError), adapted.given(spectra):
        adapted.blocks[1](adapted.blocks[0](torch.randn(2, 17, 32))[..., :31])
    with torch.no_grad():
        assert torch.equal(adapted(rgb, spectra=spectra), expected)


@pytest.mark.parametrize(("family", "norm"), [*((family, "preserve") for family in SMALL), ("timm", "bound")])
def test_a_training_step_in_mixed_precision_is_finite(encoder, images, scrambled, family: str, norm: str) -> None:
    adapted = scrambled(encoder(family, Deflect(norm=norm)), 0.1)
    x = images(family)
    x[0, :, :8] = 0  # no data
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(each.float().square().mean() for each in maps(adapted, x))
    loss.backward()
    assert bool(loss.isfinite())
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("family", ["timm", "croma"])
def test_a_copy_after_a_forward_pass_gives_the_same_and_is_independent(encoder, images, scrambled, family: str) -> None:
    adapted = scrambled(encoder(family, Deflect()))
    x = images(family)
    maps(adapted, x)[-1].mean().backward()
    twin = copy.deepcopy(adapted)
    with torch.no_grad():
        expected = maps(adapted, x)
        assert all(torch.equal(one, other) for one, other in zip(maps(twin, x), expected, strict=True))
        scrambled(twin)
        assert not torch.allclose(maps(twin, x)[-1], expected[-1])
        assert all(torch.equal(one, other) for one, other in zip(maps(adapted, x), expected, strict=True))


@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("calls", [1, 2])
def test_gradient_checkpointing_gives_the_same_gradients(vit, scrambled, mlp: bool, calls: int) -> None:
    adapted = scrambled(deflect.adapt(vit(), config(mlp_on_auxiliary=mlp)), 0.3).train()
    inputs = [given() for _ in range(calls)]  # two forward passes before one backward pass are one too

    def gradients() -> dict[str, Tensor]:
        adapted.zero_grad()
        sum(adapted(rgb, spectra=spectra).square().mean() for rgb, spectra in inputs).backward()
        return {name: parameter.grad.clone() for name, parameter in adapted.adapter_parameters().items()}

    plain = gradients()
    adapted.set_grad_checkpointing()
    again = gradients()
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6, msg=name)
    adapted.set_grad_checkpointing(False)
    assert all(torch.equal(gradients()[name], value) for name, value in plain.items())


def test_stochastic_depth_drops_an_adapted_displacement_like_any_other(vit, scrambled) -> None:
    adapted = scrambled(deflect.adapt(vit(drop_path_rate=0.9), config()))
    rgb, spectra = given()
    with torch.no_grad():
        one, other = (adapted.train()(rgb, spectra=spectra) for _ in range(2))
        same, again = (adapted.eval()(rgb, spectra=spectra) for _ in range(2))
    assert not torch.allclose(one, other)
    assert torch.equal(same, again)


def on_meta(name: str, adapter: Any) -> tuple[int, int]:
    """Parameters that train and all of them, of a model that has no memory."""
    with torch.device("meta"):
        backbone = timm_vit(name, image_size=224)
        adapter.attach(backbone, BANDS)
        return parameter_counts(backbone)


@pytest.mark.parametrize(
    ("name", "depth", "width"), [("vit_base_patch16_224", 12, 768), ("vit_large_patch16_224", 24, 1024)]
)
def test_less_than_one_part_in_a_hundred_trains(name: str, depth: int, width: int) -> None:
    trained, total = on_meta(name, Deflect())
    indices = len(deflect.adapt(timm_tiny(), config()).upe.indices)
    embedding = (13 + indices + 1) * 32 + (2 * 32 + 1) * width
    assert trained == depth * 2 * 4 * width + embedding
    assert trained < 0.01 * total


def test_at_least_five_times_fewer_train_than_with_lora() -> None:
    ours, lora = (on_meta("vit_large_patch16_224", adapter)[0] for adapter in (Deflect(), Lora(r=16)))
    assert lora == 24 * 16 * (1024 + 3 * 1024)
    assert 5 * ours <= lora


def timm_tiny() -> nn.Module:
    return timm_vit(
        "vit_tiny_patch16_224", image_size=32, patch_size=8, options={"embed_dim": 32, "depth": 1, "num_heads": 2}
    ).model


def test_what_trains_is_counted_and_printed(vit, capsys: pytest.CaptureFixture[str]) -> None:
    adapted = deflect.adapt(vit(), config())
    own = sum(parameter.numel() for parameter in adapted.adapter_parameters().values())
    everything = own + sum(parameter.numel() for parameter in vit().parameters())
    assert adapted.get_nb_trainable_parameters() == (own, everything)
    adapted.print_trainable_parameters()
    assert capsys.readouterr().out.startswith(f"trainable params: {own:,} || all params: {everything:,} || ")


@pytest.mark.parametrize(
    "kernel", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], ids=lambda kernel: kernel.name.lower()
)
def test_whatever_kernel_the_frozen_model_takes_the_adapted_one_starts_as_it_was(vit, kernel: SDPBackend) -> None:
    model = vit()
    rgb, spectra = given()
    with torch.no_grad():
        with sdpa_kernel(kernel):
            expected = model(rgb)
        adapted = deflect.adapt(model, config())
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # as it is without this module's fixture
            torch.testing.assert_close(adapted(rgb, spectra=spectra), expected, rtol=1e-5, atol=1e-6)
