"""Every adapter on every family: what it changes at the start, what of it trains, and how many numbers that is."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from deflect.adapters import (
    Adapter,
    BitFit,
    Deflect,
    Frozen,
    Full,
    Lora,
    NormTuning,
    Peft,
    ScaledLowRank,
    parameter_counts,
)
from deflect.adapters.lowrank import ScaledLowRankLinear
from deflect.backbones import Backbone, prithvi_vit, timm_vit, torchgeo_vit
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.errors import UserError

WIDTH, DEPTH = 32, 2
TINY = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
OPTICAL = tuple(name for name in SENTINEL2.names if name != "B10")
HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")
INPUTS = {"croma": OPTICAL, "prithvi": HLS}
FAMILIES = ("timm", "registers", "prithvi", "scalemae", "dofa", "croma", "copernicus", "panopticon")
ADAPTERS: dict[str, Adapter] = {
    "frozen": Frozen(),
    "full": Full(),
    "norm": NormTuning(),
    "bitfit": BitFit(),
    "lora": Lora(r=4),
    "slr": ScaledLowRank(rank=2),
    "vera": Peft("vera"),
    "dora": Peft("dora", options={"r": 4}),
    "oft": Peft("oft", options={"oft_block_size": 8}),
    "deflect": Deflect(),
    "deflect with all options": Deflect(
        indices=["NDVI", "NDWI"], rank=3, hidden=5, norm="bound", mlp_on_auxiliary=True
    ),
}
EVERYWHERE = pytest.mark.parametrize("family", FAMILIES)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # peft, of timm's own LayerNorm
    pytest.mark.filterwarnings("ignore:.*index_put_ on expanded tensors"),  # torchgeo's Panopticon
]


def backbone(family: str) -> Backbone:
    built = untouched(family)
    for name, parameter in built.named_parameters():  # DINOv2's layer scale begins at 1e-5, too small to see a block
        if name.endswith("gamma"):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    return built


def untouched(family: str) -> Backbone:
    plain = {"patch_size": 8, **TINY}
    if family == "timm":
        return timm_vit("vit_tiny_patch16_224", image_size=32, options=plain)
    if family == "registers":
        return timm_vit("vit_small_patch14_reg4_dinov2", image_size=28, options=TINY)
    if family == "prithvi":
        return prithvi_vit("tiny", image_size=32, options=plain)
    if family == "croma":
        return torchgeo_vit("CROMA", image_size=32, options={"encoder_dim": WIDTH, "encoder_depth": DEPTH})
    if family == "panopticon":  # on two narrow blocks of timm instead of ViT-B's twelve
        create = timm.create_model
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timm, "create_model", lambda name, **given: create(name, **{**given, **TINY}))
            return torchgeo_vit("Panopticon", image_size=28, options={"attn_dim": 32, "embed_dim": WIDTH})
    name = {"scalemae": "ScaleMAE", "dofa": "DOFA", "copernicus": "CopernicusFM"}[family]
    narrow = {"dofa": {"dynamic_embed_dim": 32}, "copernicus": {"hyper_dim": 32}}.get(family, {})
    return torchgeo_vit(name, image_size=32, options={**plain, **narrow})


def encoder(family: str = "timm", adapter: Adapter | None = None, **given: Any) -> ViTEncoder:
    return ViTEncoder(backbone(family), prepare=ImageInput(INPUTS.get(family, RGB)), adapter=adapter, **given)


@functools.cache
def unadapted(family: str) -> ViTEncoder:
    """To compare with; nothing changes it."""
    return encoder(family).eval()


def images(vit: ViTEncoder) -> Tensor:
    return torch.rand(2, 13, *vit.image_size) * 0.3


def maps(vit: ViTEncoder, pixels: Tensor) -> list[Tensor]:
    bank = vit(pixels)
    return [bank[tap] for tap in bank.spec.taps]


def loss(vit: ViTEncoder, pixels: Tensor) -> Tensor:
    found = maps(vit, pixels)
    return torch.stack([(m - torch.randn_like(m)).square().mean() for m in found]).sum()


def trained(vit: ViTEncoder) -> dict[str, nn.Parameter]:
    return {name: p for name, p in vit.named_parameters() if p.requires_grad}


def shaken(vit: ViTEncoder) -> ViTEncoder:
    """Away from the start, where some gradients are zero because their partner is."""
    with torch.no_grad():
        for parameter in trained(vit).values():
            parameter += 0.05 * torch.randn_like(parameter)
    return vit


def reached(family: str) -> dict[str, int]:
    """Parameters that the library trains and that the features depend on, by gradients; name -> size."""
    vit = encoder(family)
    model: Any = vit.backbone.model
    model.requires_grad_(True)
    shaken(vit)  # away from zeros
    loss(vit, images(vit)).backward()
    found = {name: p for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    if family in ("scalemae", "dofa", "copernicus"):  # sines there, which their library fixes
        found.pop("pos_embed", None)
    return {name: p.numel() for name, p in found.items()}


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def qkv(model: nn.Module) -> list[str]:
    """The projections to queries, keys and values of the blocks."""
    wanted = {(WIDTH, 3 * WIDTH)}
    found = [name for name, m in linears(model).items() if (m.in_features, m.out_features) in wanted]
    return [name for name in found if re.search(r"(blocks|layers)\.\d+\.", name) and name.endswith("qkv")]


@EVERYWHERE
@pytest.mark.parametrize("name", ADAPTERS)
def test_at_the_start_an_adapter_changes_nothing(family: str, name: str) -> None:
    plain, adapted = unadapted(family), encoder(family, ADAPTERS[name]).eval()
    pixels = images(plain)
    with torch.no_grad():
        for before, after in zip(maps(plain, pixels), maps(adapted, pixels), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@EVERYWHERE
@pytest.mark.parametrize("name", ["lora", "slr", "deflect"])
def test_away_from_the_start_an_adapter_changes_every_block(family: str, name: str) -> None:
    plain, adapted = unadapted(family), shaken(encoder(family, ADAPTERS[name])).eval()
    pixels = images(plain)
    with torch.no_grad():
        for before, after in zip(maps(plain, pixels), maps(adapted, pixels), strict=True):
            assert not torch.allclose(after, before, rtol=1e-3, atol=1e-4)


@EVERYWHERE
@pytest.mark.parametrize("name", ADAPTERS)
def test_all_that_trains_learns_and_nothing_else_changes(family: str, name: str) -> None:
    vit = shaken(encoder(family, ADAPTERS[name])).train()
    wanted = trained(vit)
    before = {key: tensor.detach().clone() for key, tensor in vit.state_dict().items()}
    if wanted:
        loss(vit, images(vit)).backward()
    for key, parameter in vit.named_parameters():
        if key in wanted:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key
    torch.optim.AdamW(vit.parameters(), lr=0.01, weight_decay=0.1).step()
    for key, tensor in vit.state_dict().items():
        assert torch.equal(tensor, before[key]) == (key not in wanted), key


@EVERYWHERE
def test_frozen_trains_nothing(family: str) -> None:
    assert trained(encoder(family, Frozen())) == {}
    assert trained(encoder(family, Frozen(), norm=family not in ("dofa", "copernicus"))) == {}


@EVERYWHERE
def test_full_trains_what_features_depend_on_and_bitfit_its_biases(family: str) -> None:
    sizes = {f"backbone.model.{name}": size for name, size in reached(family).items()}
    expected = sizes.keys()
    assert trained(encoder(family, Full())).keys() == expected
    biases = {name for name in expected if name.endswith("bias")}
    found = trained(encoder(family, BitFit()))
    assert found.keys() == biases
    assert sum(p.numel() for p in found.values()) == sum(sizes[name] for name in biases)


@EVERYWHERE
def test_norm_tuning_trains_the_scale_and_shift_of_every_layer_norm(family: str) -> None:
    plain = encoder(family).backbone.model
    norms = {name: m.normalized_shape[0] for name, m in plain.named_modules() if isinstance(m, nn.LayerNorm)}
    assert len(norms) >= 2 * DEPTH
    found = trained(encoder(family, NormTuning()))
    places = {
        re.sub(r"^backbone\.model\.(base_model\.model\.)?|\.ln_tuning_layers\.default", "", name) for name in found
    }
    assert places == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    assert sum(p.numel() for p in found.values()) == 2 * sum(norms.values())


@pytest.mark.parametrize("family", ["timm", "registers", "scalemae", "croma", "panopticon"])
@pytest.mark.parametrize(("name", "count"), [("norm", 2 * WIDTH), ("bitfit", WIDTH), ("full", 2 * WIDTH), ("lora", 0)])
def test_the_last_norm_is_trained_by_the_methods_that_train_norms(family: str, name: str, count: int) -> None:
    alone = parameter_counts(encoder(family, ADAPTERS[name]))[0]
    vit = encoder(family, ADAPTERS[name], norm=True)
    assert parameter_counts(vit)[0] - alone == count
    if count:
        loss(vit, images(vit)).backward()
        assert vit.backbone.norm is not None
        assert vit.backbone.norm.bias.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@EVERYWHERE
@pytest.mark.parametrize("r", [1, 4])
def test_lora_adds_r_times_inputs_plus_outputs_to_every_qkv(family: str, r: int) -> None:
    vit = encoder(family, Lora(r=r))
    assert len(qkv(encoder(family).backbone.model)) == DEPTH
    found = trained(vit)
    assert len(found) == 2 * DEPTH
    assert all(re.search(r"\.(to_)?qkv\.lora_[AB]\.default\.weight$", name) for name in found)
    assert parameter_counts(vit)[0] == DEPTH * r * (WIDTH + 3 * WIDTH)
    model: Any = vit.backbone.model
    assert parameter_counts(model) == model.get_nb_trainable_parameters()


@EVERYWHERE
def test_other_methods_of_peft_add_what_peft_counts_at_every_qkv(family: str) -> None:
    inputs, outputs = WIDTH, 3 * WIDTH
    rank, block = 4, 8
    expected = {
        "vera": (outputs + 256, r"vera_lambda_[bd]"),  # peft's rank 256
        "dora": (rank * (inputs + outputs) + outputs, r"lora_(A|B|magnitude_vector)"),
        "oft": (inputs // block * (block * (block - 1) // 2), r"oft_R"),
    }
    for name, (count, pattern) in expected.items():
        model: Any = encoder(family, ADAPTERS[name]).backbone.model
        assert parameter_counts(model)[0] == DEPTH * count, name
        assert parameter_counts(model) == model.get_nb_trainable_parameters(), name
        own = [key for key, p in model.named_parameters() if p.requires_grad]
        assert all(re.search(rf"qkv\.{pattern}\.", key) for key in own), name


@EVERYWHERE
def test_scaled_low_rank_is_beside_every_linear_layer_of_the_blocks(family: str) -> None:
    plain = linears(encoder(family).backbone.blocks)
    assert len(plain) == 4 * DEPTH
    vit = encoder(family, ScaledLowRank(rank=3))
    found = trained(vit)
    parts = ("scale_in", "scale_out", "down.weight", "up.weight")
    at = (
        "s2_encoder.transformer.layers" if family == "croma" else "model.blocks" if family == "panopticon" else "blocks"
    )
    assert found.keys() == {f"backbone.model.{at}.{name}.{part}" for name in plain for part in parts}
    count = sum((m.in_features + m.out_features) * (1 + 3) for m in plain.values())
    assert parameter_counts(vit)[0] == count
    assert parameter_counts(vit)[1] == count + parameter_counts(encoder(family))[1]


@EVERYWHERE
def test_deflect_trains_its_embedding_and_deflections_alone(family: str) -> None:
    vit = encoder(family, Deflect(indices=["NDVI"], rank=3, hidden=5))
    found = trained(vit)
    embedding = 5 * (13 + 1) + 5 + 2 * 5 * WIDTH + WIDTH
    assert parameter_counts(vit)[0] == embedding + DEPTH * 2 * 3 * WIDTH
    assert len(found) == 4 + 2 * DEPTH
    assert all(".upe.encoder." in name or re.search(r"\.deflection\.(down|up)\.weight$", name) for name in found)


@EVERYWHERE
def test_deflect_reads_bands_that_the_model_does_not_see(family: str) -> None:
    vit = shaken(encoder(family, Deflect(indices=[]))).eval()
    plain = unadapted(family)
    pixels = images(vit)
    others = pixels.clone()
    others[:, SENTINEL2.names.index("B10")] = torch.rand_like(others[:, 0]) * 0.3  # in no family's input here
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(maps(plain, pixels), maps(plain, others), strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(maps(vit, pixels), maps(vit, others), strict=True))


def slow_scaled_low_rank(state: Mapping[str, Tensor], x: Tensor) -> np.ndarray:
    """`s_out * (W (s_in * x) + b + B A (s_in * x))`, number by number."""
    w, b = state["base_layer.weight"].numpy(), state["base_layer.bias"].numpy()
    s_in, s_out = state["scale_in"].numpy(), state["scale_out"].numpy()
    a, up = state["down.weight"].numpy(), state["up.weight"].numpy()
    out = np.zeros((len(x), w.shape[0]))
    for row, values in enumerate(x.numpy()):
        for j in range(w.shape[0]):
            total = b[j]
            for i in range(w.shape[1]):
                total += w[j, i] * s_in[i] * values[i]
            for k in range(a.shape[0]):
                total += up[j, k] * sum(a[k, i] * s_in[i] * values[i] for i in range(w.shape[1]))
            out[row, j] = s_out[j] * total
    return out


def test_scaled_low_rank_is_its_formula() -> None:
    layer = ScaledLowRankLinear(nn.Linear(7, 5).double(), 3)
    x = torch.randn(4, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.base_layer(x), rtol=0, atol=0)  # to the bit, at the start
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    expected = slow_scaled_low_rank(dict(layer.state_dict()), x)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12)
    assert not layer.base_layer.weight.requires_grad


def test_scaled_low_rank_learns_under_bf16_autocast() -> None:
    vit = shaken(encoder("timm", ScaledLowRank(rank=2)))
    with torch.autocast("cpu", torch.bfloat16):
        total = loss(vit, images(vit))
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained(vit).values())


WRONG: list[tuple[Callable[[], Adapter], str]] = [
    (lambda: Peft("nope"), r"peft has no method 'nope': it has dora, .*lora.*vera"),
    (lambda: Peft("lora", options={"rr": 1}), r"peft's lora does not take these options: .*'rr'"),
    (lambda: Peft("adalora"), r"peft's adalora does not take these options: .*total_step"),
    (lambda: Peft("prompt_tuning"), r"peft's prompt_tuning does not take these options: .*target_modules"),
    (lambda: Peft("road"), r"peft cannot adapt vit_tiny_patch16_224 with ROAD"),
    (lambda: Peft("adaption_prompt"), r"adaption_prompt|ADAPTION_PROMPT"),
    (lambda: Peft("shadow"), r"shadow|SHADOW"),
    (lambda: Lora(r=0), r"encoder\.adapter\.r is 0: it must be a whole number of 1 or more"),
    (lambda: Lora(dropout=2.0), r"encoder\.adapter\.dropout is 2\.0: it must be a number from 0 to below 1"),
    (lambda: Lora(targets="nothing"), r"Target modules nothing not found"),
    (lambda: Lora(targets=r".*\.(qkv"), r"peft cannot adapt vit_tiny_patch16_224 with LORA"),
    (lambda: ScaledLowRank(rank=0), r"adapter\.rank is 0: it must be a whole number of 1 or more"),
    (lambda: Deflect(rank=0), r"rank is 0"),
    (lambda: Deflect(norm="keep"), r"norm is 'keep': it can be preserve, bound or none"),
    (lambda: Deflect(indices=["NDVIX"]), r"no index 'NDVIX'"),
    (lambda: Deflect(blocks=[DEPTH]), rf"blocks \[{DEPTH}\]: give distinct numbers from 0 to {DEPTH - 1}"),
]


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[message for _, message in WRONG])
def test_wrong_methods_and_options_are_one_line(number: int) -> None:
    make, message = WRONG[number]
    with pytest.raises((BankError, UserError), match=message) as refused:
        encoder("timm", make())
    assert "\n" not in str(refused.value)


def test_methods_of_peft_are_found_in_any_case_and_dora_is_lora_with_its_own_norm() -> None:
    one, same, lora = (encoder("timm", Peft(name, options={"r": 4})) for name in ("DoRA", "dora", "LORA"))
    assert parameter_counts(one) == parameter_counts(same)
    assert parameter_counts(one)[0] - parameter_counts(lora)[0] == DEPTH * 3 * WIDTH
    assert parameter_counts(lora)[0] == parameter_counts(encoder("timm", Lora(r=4)))[0]


def test_only_the_blocks_that_are_read_are_adapted() -> None:
    for name in ("lora", "slr", "vera", "deflect", "norm", "bitfit", "full"):
        first = trained(encoder("timm", ADAPTERS[name], blocks=[0]))
        assert first
        assert not any(re.search(r"blocks\.1\.", key) for key in first)
        assert any(re.search(r"blocks\.0\.", key) for key in first)
