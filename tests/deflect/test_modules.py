"""Taps inside the blocks of a ViT: what each module gives, under every adapter that wraps or untangles it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deflect.adapters import Deflect, Frozen, Full, Lora, NormTuning, ScaledLowRank
from deflect.backbones import timm_vit, torchgeo_vit
from deflect.backbones.base import Backbone
from deflect.galileo import GalileoEncoder
from deflect.modules import Modules
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.data.sensors import SENTINEL2
from satdifuser.data.unscaled import UnscaledInput

KINDS = ["norm1", "qkv", "attention", "norm2", "fc1", "fc2", "block"]
TINY = {"depth": 3, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 4.0}
NAMES = {"norm1": "norm1", "qkv": "attn.qkv", "attention": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1"}
NAMES |= {"fc2": "mlp.fc2", "block": ""}


def tiny() -> Backbone:
    built = timm_vit("vit_tiny_patch16_224", image_size=16, patch_size=4, seed=3, options=TINY)
    return shaken(built)


def shaken(backbone: Backbone) -> Backbone:
    """Norms and biases begin as ones and zeros: with numbers of their own nothing cancels."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return backbone


def encoder(modules: Modules | None = None, adapter: Any = None, **given: Any) -> ViTEncoder:
    torch.manual_seed(5)
    made = ViTEncoder(tiny(), prepare=ImageInput(RGB), modules=modules, adapter=adapter or Frozen(), **given).eval()
    with torch.no_grad():  # an adapter begins as no change at all
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return made


def hooked(module: nn.Module, run: Any) -> Tensor:
    """The first output of a module while something runs."""
    found: list[Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, out: found.append(out))
    with torch.no_grad():
        run()
    hook.remove()
    return found[0]


def as_map(tokens: Tensor, prefix: int, side: int) -> Tensor:
    """Cell by cell."""
    made = torch.empty(len(tokens), tokens.shape[2], side, side)
    for row in range(side):
        for column in range(side):
            made[:, :, row, column] = tokens[:, prefix + row * side + column]
    return made


@pytest.mark.parametrize("adapter", [Frozen(), Full(), Lora(r=2), ScaledLowRank(rank=2), NormTuning()])
def test_a_module_is_read_as_a_plain_hook_reads_it_whatever_wraps_it(adapter: Any) -> None:
    vit, x = encoder("all", adapter), torch.rand(2, 13, 16, 16)
    with torch.no_grad():
        bank = vit(x)
    assert vit.spec.names() == tuple(
        f"blocks.{n}.{kind}" if kind != "block" else f"blocks.{n}" for n in range(3) for kind in KINDS
    )
    assert [tap.depth for tap in vit.spec.taps] == list(range(21))
    for number, block in enumerate(vit.backbone.blocks):
        for kind in KINDS:
            module = block.get_submodule(NAMES[kind])
            name = f"blocks.{number}" + ("" if kind == "block" else f".{kind}")
            expected = as_map(hooked(module, lambda: vit(x)), 1, 4)
            torch.testing.assert_close(bank.map(name), expected, rtol=0, atol=0)
            width = {"qkv": 72, "fc1": 96}.get(kind, 24)
            assert vit.spec.channels(name) == width


def test_what_a_wrapped_layer_gives_includes_what_its_adapter_adds() -> None:
    vit, x = encoder(["qkv"], Lora(r=2)), torch.rand(2, 13, 16, 16)
    layer = vit.backbone.blocks[1].attn.qkv
    with torch.no_grad():
        found = vit(x).map("blocks.1.qkv")
    inside = as_map(hooked(layer.base_layer, lambda: vit(x)), 1, 4)
    given = hooked(vit.backbone.blocks[1].norm1, lambda: vit(x))
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(found, inside + as_map(given @ down.T @ up.T * 8, 1, 4), rtol=1e-4, atol=1e-5)
    assert float((found - inside).abs().max()) > 1e-3


@pytest.mark.parametrize("mlp", [False, True])
def test_under_deflect_the_stream_that_the_model_itself_passes_on_is_read(mlp: bool) -> None:
    vit, x = encoder("all", Deflect(rank=2, hidden=4, mlp_on_auxiliary=mlp)), torch.rand(2, 13, 16, 16)
    with torch.no_grad():
        bank = vit(x)
        whole = encoder(None, Deflect(rank=2, hidden=4, mlp_on_auxiliary=mlp))(x)
    assert torch.equal(bank.map("blocks.2"), whole.map("blocks.2"))
    tokens = hooked(vit.backbone.blocks[0], lambda: vit(x))  # after block 0: what enters block 1
    block = vit.backbone.blocks[1].base_layer
    with torch.no_grad():
        normed = block.norm1(tokens)
        qkv = block.attn.qkv(normed)
        q, k, v = qkv.unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(2, 3)) * 8**-0.5).softmax(3) @ v
        attention = block.attn.proj(mixed.transpose(1, 2).flatten(2))
    for kind, expected in {"norm1": normed, "qkv": qkv, "attention": attention}.items():
        torch.testing.assert_close(bank.map(f"blocks.1.{kind}"), as_map(expected, 1, 4), rtol=1e-4, atol=1e-5)
    after = hooked(vit.backbone.blocks[1], lambda: vit(x))
    with torch.no_grad():
        inner = {kind: bank.map(f"blocks.1.{kind}") for kind in ("fc1", "fc2", "norm2")}
        hidden = nn.functional.gelu(inner["fc1"]).permute(0, 2, 3, 1)
        fc2 = block.mlp.fc2(hidden).permute(0, 3, 1, 2)
    torch.testing.assert_close(inner["fc2"], fc2, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        before = as_map(after, 1, 4) - inner["fc2"]  # the stream between attention and feed-forward layer
        torch.testing.assert_close(
            inner["norm2"], block.norm2(before.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("adapter", [Frozen(), Deflect(rank=2, hidden=4, mlp_on_auxiliary=True)])
def test_croma_s_own_names_mean_the_same_kinds(adapter: Any) -> None:
    options = {"encoder_dim": 32, "encoder_depth": 2}
    built = shaken(torchgeo_vit("CROMA", image_size=32, seed=2, options=options))
    bands = [band.name for band in SENTINEL2 if band.name != "B10"]
    vit = ViTEncoder(built, prepare=ImageInput(bands), modules="all", adapter=adapter).eval()
    x = torch.rand(2, len(SENTINEL2.bands), 32, 32)
    with torch.no_grad():
        bank = vit(x)
    assert vit.kinds == tuple(KINDS)
    assert [vit.spec.channels(f"blocks.1.{kind}") for kind in ("qkv", "fc1", "fc2")] == [96, 128, 32]
    with torch.no_grad():
        pair = vit.backbone.blocks[1]
        feed = getattr(pair[1], "base_layer", pair[1])
        hidden = feed.net[0](bank.map("blocks.1.norm2").permute(0, 2, 3, 1))
        fc2 = feed.net[3](nn.functional.gelu(hidden))
        torch.testing.assert_close(bank.map("blocks.1.fc1"), hidden.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bank.map("blocks.1.fc2"), fc2.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
        between = bank.map("blocks.1") - bank.map("blocks.1.fc2")
        if isinstance(adapter, Frozen):  # the attention's output is what the model adds
            torch.testing.assert_close(
                between, bank.map("blocks.0") + bank.map("blocks.1.attention"), rtol=1e-4, atol=1e-4
            )
        normed = feed.input_norm(between.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(bank.map("blocks.1.norm2"), normed, rtol=1e-3, atol=1e-4)


def test_galileo_s_queries_keys_and_values_are_side_by_side() -> None:
    made = GalileoEncoder(
        prepare=UnscaledInput(None, sensor=SENTINEL2), image_size=16, modules=["qkv", "fc1", "block"]
    ).eval()
    plain = GalileoEncoder(prepare=UnscaledInput(None, sensor=SENTINEL2), image_size=16).eval()
    x = torch.rand(2, len(SENTINEL2.bands), 16, 16)
    with torch.no_grad():
        bank, blocks = made(x), plain(x)
    width = plain.spec.channels("blocks.0")
    assert [made.spec.channels(n) for n in made.spec.names()[:3]] == [3 * width, 4 * width, width]
    for name in plain.spec.names():
        assert torch.equal(bank.map(name), blocks.map(name))
    attention = made.backbone.blocks[1].attn
    parts = [hooked(layer, lambda: made(x)) for layer in (attention.to_q, attention.to_k, attention.to_v)]
    groups = len(made.chosen.groups)
    expected = torch.cat(parts, 2).view(2, groups, 2, 2, 3 * width).mean(1).permute(0, 3, 1, 2)
    torch.testing.assert_close(bank.map("blocks.1.qkv"), expected)


def test_without_modules_the_spec_is_what_it_was() -> None:
    plain = encoder()
    assert [(t.name, t.depth, t.channels) for t in plain.spec.taps] == [(f"blocks.{n}", n, 24) for n in range(3)]
    assert "modules" not in dict(plain.spec.settings)
    token = encoder(class_token=True, blocks=[0, 2])
    assert [(t.name, t.depth) for t in token.spec.taps] == [
        ("blocks.0", 0),
        ("blocks.0.class", 1),
        ("blocks.2", 4),
        ("blocks.2.class", 5),
    ]


def test_reading_elsewhere_changes_what_is_read_and_nothing_else() -> None:
    vit, x = encoder(adapter=Lora(r=2), blocks=[1], class_token=True, norm=True), torch.rand(2, 13, 16, 16)
    with torch.no_grad():
        before, state = vit(x), {name: value.clone() for name, value in vit.state_dict().items()}
        vit.read_at(["fc2", "block", "qkv"])
        after = vit(x)
    assert torch.equal(before.map("blocks.1"), after.map("blocks.1"))
    assert torch.equal(before.map("blocks.1.class"), after.map("blocks.1.class"))
    assert after.spec.names() == tuple(f"blocks.{n}{rest}" for n in (0, 1) for rest in (".qkv", ".fc2", "", ".class"))
    assert state.keys() == vit.state_dict().keys()
    assert not any(m._forward_hooks for m in vit.modules())
    vit.read_at(["fc2"])
    assert vit.spec.names() == ("blocks.0.fc2", "blocks.1.fc2")


def test_what_a_model_lacks_is_an_error_that_names_what_there_is() -> None:
    built = tiny()
    for block in built.blocks:
        block.attn.qkv = nn.Identity()
    left = Backbone(built.model, built.facts)
    with pytest.raises(BankError, match=r"have no qkv: encoder\.modules can be norm1, attention, norm2, fc1"):
        ViTEncoder(left, prepare=ImageInput(RGB), modules=["qkv"])
    assert ViTEncoder(left, prepare=ImageInput(RGB), modules="all").read_kinds == (
        *("norm1", "attention", "norm2", "fc1", "fc2", "block"),
    )
    with pytest.raises(BankError, match="give each kind once"):
        encoder(["qkv", "qkv"])
    with pytest.raises(BankError, match=r"add block to encoder\.modules"):
        encoder(["qkv"], class_token=True)


def test_a_module_that_is_there_and_not_called_is_an_error_that_names_it() -> None:
    vit = encoder(["fc1", "block"])
    mlp = vit.backbone.blocks[1].mlp
    mlp.forward = lambda x: mlp.fc2(nn.functional.gelu(nn.functional.linear(x, mlp.fc1.weight, mlp.fc1.bias)))
    with pytest.raises(BankError, match=r"computes fc1 of its block 1 without calling the module: leave fc1 out"):
        vit(torch.rand(1, 13, 16, 16))
