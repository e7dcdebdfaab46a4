"""TerraMind against a model written here from the facts about it: slow loops in float64, reading files as published."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deflect.adapters import BitFit, Deflect, Full, Lora, NormTuning, ScaledLowRank
from deflect.backbones import Backbone, terramind_vit
from deflect.backbones.terramind import BANDS, MODELS, NAMES, positions
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.config import compose
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput
from satdifuser.data.sensors import SENTINEL1

SHAPE = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 4}
State = dict[str, Tensor]
BASE, SMALL = "terramind_v1_base", "terramind_v1_small"


def place(width: int, row: int, column: int) -> list[float]:
    """The position embedding of one token, number by number: the row, then the column."""
    rates = [1 / 10000 ** (k / (width // 4)) for k in range(width // 4)]
    return [
        wave(at * rate)
        for at, wave in ((row, math.sin), (row, math.cos), (column, math.sin), (column, math.cos))
        for rate in rates
    ]


def published(gated: bool = True, side: int = 5, shape: dict[str, int] = SHAPE, prefix: str = "") -> State:
    """A file as it is on the hub: an embedding for every modality, encoder, decoder; norms with a bias that is 0."""
    width, patch = shape["embed_dim"], shape["patch_size"]
    state: State = {"mask_token": torch.randn(1, 1, width)}
    places = torch.tensor([[place(width, y, x) for y in range(side) for x in range(side)]])
    for kind, name in NAMES.items():
        at = f"encoder_embeddings.untok_{name}@224."
        inputs = patch * patch * len(BANDS[kind])
        state[f"{at}proj.weight"] = torch.randn(width, inputs) / inputs**0.5
        state[f"{at}mod_emb"] = 0.3 * torch.randn(1, 1, width)
        state[f"{at}pos_emb"] = places
    state["encoder_embeddings.tok_sen2l2a@224.token_emb.weight"] = torch.randn(50, width)
    state["encoder_embeddings.tok_sen2l2a@224.mod_emb"] = torch.randn(1, 1, width)
    hidden = 2 * (4 * width) // 3 if gated else 4 * width
    for number in range(shape["depth"]):
        block = f"encoder.{number}."
        layers = [("attn.qkv", 3 * width, width), ("attn.proj", width, width), ("mlp.fc1", hidden, width)]
        layers += [("mlp.fc2", width, hidden), *([("mlp.fc3", hidden, width)] if gated else [])]
        for name, rows, columns in layers:
            state[f"{block}{name}.weight"] = torch.randn(rows, columns) / columns**0.5
            if not gated:
                state[f"{block}{name}.bias"] = 0.3 * torch.randn(rows)
        for norm in ("norm1", "norm2"):
            state[f"{block}{norm}.weight"] = 1 + 0.3 * torch.randn(width)
            state[f"{block}{norm}.bias"] = torch.zeros(width)
    state |= {"encoder_norm.weight": 1 + 0.3 * torch.randn(width), "encoder_norm.bias": torch.zeros(width)}
    state |= {"decoder.0.self_attn.qkv.weight": torch.randn(72, width), "decoder_norm.weight": torch.randn(width)}
    state |= {"decoder_embeddings.tok_dem@224.mod_emb": torch.randn(1, 1, width)}
    return {prefix + name: value for name, value in state.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def terramind(weights: Path | str = "none", model: str = BASE, size: int = 20, **given: Any) -> Backbone:
    return terramind_vit(model, str(weights), image_size=size, **{"options": SHAPE, **given})


def slow(state: State, image: Tensor, kind: str, gated: bool, eps: float = 1e-6) -> Tensor:
    """Tokens `[depth + 1, patches, width]` of one image after every block, and after the last norm, in float64."""
    w = {name: value.double() for name, value in state.items()}
    width, patch, heads = SHAPE["embed_dim"], SHAPE["patch_size"], SHAPE["num_heads"]
    head, side = width // heads, image.shape[-1] // patch
    at = f"encoder_embeddings.untok_{NAMES[kind]}@224."
    tokens = []
    for y in range(side):
        for x in range(side):
            numbers = [  # pixel by pixel, and in each of them band by band
                float(image[band, y * patch + i, x * patch + j])
                for i in range(patch)
                for j in range(patch)
                for band in range(len(image))
            ]
            where = torch.tensor(place(width, y, x), dtype=torch.float64) + w[f"{at}mod_emb"][0, 0]
            tokens.append(w[f"{at}proj.weight"] @ torch.tensor(numbers, dtype=torch.float64) + where)

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean()
        return centred / (centred.square().mean() + eps).sqrt() * w[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        out = w[f"{name}.weight"] @ x
        return out if gated else out + w[f"{name}.bias"]

    after = []
    for number in range(SHAPE["depth"]):
        block = f"encoder.{number}"
        qkv = [linear(norm(token, f"{block}.norm1"), f"{block}.attn.qkv").view(3, heads, head) for token in tokens]
        moved = []
        for token, (q, _, _) in zip(tokens, qkv, strict=True):
            mixed = []
            for h in range(heads):
                shares = torch.stack([q[h] @ k[h] / head**0.5 for _, k, _ in qkv]).exp()
                shares = shares / shares.sum()
                mixed.append(sum(share * v[h] for share, (_, _, v) in zip(shares, qkv, strict=True)))
            moved.append(token + linear(torch.cat(mixed), f"{block}.attn.proj"))  # type: ignore[arg-type]
        tokens = []
        for token in moved:
            seen = norm(token, f"{block}.norm2")
            hidden = linear(seen, f"{block}.mlp.fc1")
            if gated:
                hidden = hidden / (1 + (-hidden).exp()) * linear(seen, f"{block}.mlp.fc3")
            else:
                hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            tokens.append(token + linear(hidden, f"{block}.mlp.fc2"))
        after.append(torch.stack(tokens))
    after.append(torch.stack([norm(token, "encoder_norm") for token in tokens]))
    return torch.stack(after)


@pytest.mark.parametrize(("model", "gated"), [(BASE, True), (SMALL, False)])
@pytest.mark.parametrize("kind", list(BANDS))
def test_tokens_after_every_block_are_those_of_the_published_layout(
    tmp_path: Path, model: str, gated: bool, kind: Any
) -> None:
    state = published(gated)
    backbone = terramind(saved(tmp_path / "TerraMind.pt", state), model, modality=kind).double()
    images = torch.randn(2, len(BANDS[kind]), 20, 20, dtype=torch.float64)
    found = backbone(images, [0, 1, 2])
    assert backbone.norm is not None
    for number, image in enumerate(images):
        expected = slow(state, image, kind, gated)
        ours = torch.stack([*(each[number] for each in found), backbone.norm(found[2][number])])
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_another_epsilon_is_another_model(tmp_path: Path) -> None:
    state = published()
    backbone = terramind(saved(tmp_path / "TerraMind.pt", state), eps=1e-2).double()
    image = torch.randn(1, 12, 20, 20, dtype=torch.float64)
    expected = slow(state, image[0], "S2L2A", gated=True, eps=1e-2)
    torch.testing.assert_close(backbone(image, [2])[0][0], expected[2], rtol=0, atol=1e-6)


def test_another_image_size_gets_the_positions_of_its_own_grid(tmp_path: Path) -> None:
    state = published(side=5)
    backbone = terramind(saved(tmp_path / "TerraMind.pt", state), size=28).double()
    image = torch.randn(1, 12, 28, 28, dtype=torch.float64)
    expected = slow(state, image[0], "S2L2A", gated=True)
    torch.testing.assert_close(backbone(image, [2])[0][0], expected[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [192, 768])
def test_positions_are_those_that_are_written_out(width: int) -> None:
    expected = torch.tensor([[place(width, y, x) for y in range(14) for x in range(14)]])
    torch.testing.assert_close(positions(width, 14), expected, rtol=0, atol=1e-6)


def test_a_prefix_is_passed_over_and_every_weight_of_the_encoder_is_the_files(tmp_path: Path) -> None:
    state = published(prefix="model.")
    built = terramind(saved(tmp_path / "TerraMind.pt", {"state_dict": state}))
    held = dict(built.model.state_dict())
    for name, value in held.items():
        if name.startswith("blocks."):
            assert torch.equal(value, state[f"model.encoder.{name.removeprefix('blocks.')}"]), name
    assert len([name for name in held if name.startswith("blocks.")]) == 3 * 7
    assert (built.facts.width, built.facts.patch, built.facts.prefix, built.facts.class_token) == (24, 4, 0, False)


def refused(weights: Path | str = "none", **given: Any) -> str:
    with pytest.raises(BankError) as error:
        terramind(weights, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_something_else_says_what(tmp_path: Path) -> None:
    file, whole = tmp_path / "TerraMind.pt", published()

    def but(**changed: Tensor | None) -> Path:
        given = {name.replace("__", "."): value for name, value in changed.items()}
        return saved(file, {k: v for k, v in (whole | given).items() if v is not None})

    said = refused(but(**{"encoder.1.mlp.fc3.weight": None, "encoder.0.attn.qkv.bias": torch.ones(72)}))
    assert "blocks.0.attn.qkv.bias is unknown" in said
    assert "blocks.1.mlp.fc3.weight is missing" in said
    assert "norms have no bias" in refused(but(**{"encoder.2.norm1.bias": torch.ones(24)}))
    assert "no raw images of S1GRD" in refused(
        but(**{"encoder_embeddings.untok_sen1grd@224.proj.weight": None}), modality="S1GRD"
    )
    shifted = whole["encoder_embeddings.untok_sen2l2a@224.pos_emb"].roll(1, dims=1)
    assert "other position embeddings" in refused(but(**{"encoder_embeddings.untok_sen2l2a@224.pos_emb": shifted}))
    assert "not one of terramind_v1_base: set encoder.backbone.model=terramind_v1_small" in refused(
        but(**{"encoder_embeddings.untok_sen2l2a@224.proj.weight": torch.ones(384, 192)})
    )
    assert "is no TerraMind" in refused(saved(file, {"blocks.0.norm1.weight": torch.ones(3)}))
    assert "weights" in refused(saved(file, published(gated=False)))  # a small one is no base
    assert "terramind_v1_tiny" in refused(model="terramind_v9")
    assert "S1GRD" in refused(modality="S3")
    assert "multiple of 4" in refused(options=SHAPE | {"embed_dim": 30})
    assert "not divisible" in refused(size=22)


def prepared(name: str, **given: Any) -> ImageInput:
    """The input that a configuration declares."""
    part = compose("train", [f"encoder={name}", *[f"encoder.prepare.{k}={v}" for k, v in given.items()]]).encoder
    made: ImageInput = part["prepare"].build()
    return made


@pytest.mark.parametrize(
    ("name", "kind", "first", "deviation", "unit"),
    [
        ("terramind", "S2L2A", 1390.458, 2106.761, 10000),
        ("terramind_l1c", "S2L1C", 2357.089, 1624.683, 10000),
        ("terramind_s1", "S1GRD", -12.599, 5.195, 1),
        ("terramind_rgb", "RGB", 87.271, 58.767, 255 / 0.3),
    ],
)
def test_images_enter_as_they_were_standardised_in_pretraining(
    name: str, kind: str, first: float, deviation: float, unit: float
) -> None:
    sensor = {"sensor": "SENTINEL1"} if kind == "S1GRD" else {}
    prepare = prepared(name, **sensor)
    settings = compose("train", [f"encoder={name}"]).encoder["backbone"]
    assert settings["modality"] == kind
    assert len(prepare.mean) == len(BANDS[kind])
    values = [first, first + deviation]
    shape = (1, len(SENTINEL1 if kind == "S1GRD" else SENTINEL2), 4, 4)
    for value, expected in zip(values, (0.0, 1.0), strict=True):
        out = prepare(torch.full(shape, value / unit))
        torch.testing.assert_close(out[0, 0], torch.full((4, 4), expected), rtol=0, atol=2e-5)
    if kind not in ("RGB",):
        assert prepare.bands == BANDS[kind]


def test_bands_of_another_modality_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="deflect.backbones.terramind"):
        ViTEncoder(terramind(), prepare=ImageInput(BANDS["S2L2A"], sensor=SENTINEL2))
        assert not caplog.records
        ViTEncoder(terramind(), prepare=ImageInput(BANDS["S2L2A"][::-1], sensor=SENTINEL2))
    assert "was made for B01,B02" in caplog.text


def encoder(adapter: Any = None, model: str = BASE, **given: Any) -> ViTEncoder:
    prepare = ImageInput(BANDS["S2L2A"], sensor=SENTINEL2)
    return ViTEncoder(terramind(model=model), prepare=prepare, adapter=adapter, **given)


@pytest.mark.parametrize("adapter", [Lora(r=2), ScaledLowRank(rank=2), Deflect(rank=2, hidden=4), NormTuning()])
@pytest.mark.parametrize("model", [BASE, SMALL])
def test_an_adapter_begins_at_the_frozen_model_and_trains(adapter: Any, model: str) -> None:
    images = 0.3 * torch.rand(2, 13, 20, 20)
    plain, adapted = encoder(model=model), encoder(adapter, model)
    for one, other in zip(plain(images).values(), adapted(images).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    sum(m.square().mean() for m in adapted(images).values()).backward()  # type: ignore[union-attr]
    assert any(p.grad is not None and bool(p.grad.any()) for p in trained.values())


def test_full_trains_all_but_the_positions_and_bitfit_the_biases() -> None:
    full, biases = encoder(Full()), encoder(BitFit())
    names = {name for name, p in full.backbone.model.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in full.backbone.model.named_parameters()}
    assert not any("pos_embed" in name for name in names)
    assert {n for n, p in biases.backbone.model.named_parameters() if p.requires_grad} == {"patch_embed.proj.bias"}


def test_it_has_no_class_token_and_as_many_taps_as_blocks() -> None:
    with pytest.raises(BankError, match="no class token"):
        encoder(class_token=True)
    built = encoder(blocks=[0, 2])
    assert [tap.name for tap in built.spec.taps] == ["blocks.0", "blocks.2"]
    assert dict(built.spec.settings)["model.modality"] == "S2L2A"


def test_the_published_shapes_are_built() -> None:
    for name, known in MODELS.items():
        backbone = terramind_vit(name, image_size=32, options={"depth": 1})
        block = backbone.blocks[0]
        assert block.attn.num_heads == known.num_heads
        hidden = {192: 768, 384: 1536, 768: 2048, 1024: 2730}[known.embed_dim]
        assert block.mlp.fc1.weight.shape == (hidden, known.embed_dim)
        assert (block.attn.qkv.bias is None) == known.gated == (block.attn.proj.bias is None)
