"""Prithvi against a model written here from the facts about it: slow loops in float64, reading files as published."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deflect.adapters import Deflect, Full, Lora
from deflect.backbones import Backbone, prithvi_vit
from deflect.backbones.prithvi import MODELS, positions
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.config import compose
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput

HLS = ("blue", "green", "red", "nir08", "swir16", "swir22")
SHAPE = {"embed_dim": 48, "depth": 3, "num_heads": 4, "patch_size": 8}
State = dict[str, Tensor]


def place(width: int, frame: int, row: int, column: int) -> list[float]:
    """The position embedding of one token, number by number."""

    def waves(size: int, at: int) -> list[float]:
        rates = [1 / 10000 ** (k / (size / 2)) for k in range(size // 2)]
        return [math.sin(at * rate) for rate in rates] + [math.cos(at * rate) for rate in rates]

    part = width // 16
    return waves(6 * part, column) + waves(6 * part, row) + waves(4 * part, frame)


def places(width: int, frames: int, side: int) -> Tensor:
    """Of a whole file: the class token's is zero, then frame by frame and row by row."""
    tokens = [[0.0] * width]
    tokens += [place(width, t, y, x) for t in range(frames) for y in range(side) for x in range(side)]
    return torch.tensor([tokens], dtype=torch.float64)


def published(
    frames: int = 3, side: int = 4, prefix: str = "encoder.", tl: bool = False, shape: dict[str, int] = SHAPE
) -> State:
    """A file as it is on the hub: encoder, decoder, mask token; with TL also the scales of dates and places."""
    width, patch = shape["embed_dim"], shape["patch_size"]
    other = "decoder." if prefix else ""
    blocks: State = {}
    for number in range(shape["depth"]):
        block = f"blocks.{number}."
        blocks |= {f"{block}{norm}.weight": 1 + 0.3 * torch.randn(width) for norm in ("norm1", "norm2")}
        blocks |= {f"{block}{norm}.bias": 0.3 * torch.randn(width) for norm in ("norm1", "norm2")}
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            blocks[f"{block}{name}.weight"] = torch.randn(rows, columns) / columns**0.5
            blocks[f"{block}{name}.bias"] = 0.3 * torch.randn(rows)
    encoder = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": places(width, frames, side).float(),
        "patch_embed.proj.weight": torch.randn(width, 6, 1, patch, patch) / (6 * patch * patch) ** 0.5,
        "patch_embed.proj.bias": 0.3 * torch.randn(width),
        **blocks,
        "norm.weight": 1 + 0.3 * torch.randn(width),
        "norm.bias": 0.3 * torch.randn(width),
    }
    decoder = {
        "mask_token": torch.randn(1, 1, 16),
        "decoder_pos_embed": places(16, frames, side).float(),
        "decoder_embed.weight": torch.randn(16, width),
        "decoder_embed.bias": torch.randn(16),
        "decoder_norm.weight": torch.randn(16),
        "decoder_norm.bias": torch.randn(16),
        "decoder_pred.weight": torch.randn(6 * patch * patch, 16),
        "decoder_pred.bias": torch.randn(6 * patch * patch),
    }
    for number in range(8):
        decoder[f"decoder_blocks.{number}.attn.qkv.weight"] = torch.randn(48, 16)
        decoder[f"decoder_blocks.{number}.norm1.weight"] = torch.randn(16)
    if tl:
        for part in ("temporal_embed", "location_embed"):
            encoder[f"{part}_enc.scale"] = torch.tensor([0.05])
            decoder[f"{part}_dec.scale"] = torch.tensor([0.07])
    return {prefix + k: v for k, v in encoder.items()} | {other + k: v for k, v in decoder.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def prithvi(weights: Path | str = "none", size: int = 32, model: str = "tiny", **given: Any) -> Backbone:
    return prithvi_vit(model, str(weights), image_size=size, **{"options": SHAPE, **given})


def slow(state: State, image: Tensor, eps: float, shape: dict[str, int] = SHAPE, prefix: str = "encoder.") -> Tensor:
    """Tokens `[depth, 1 + patches, width]` of one image `[6, side, side]` after every block, in float64."""
    w = {name.removeprefix(prefix): value.double() for name, value in state.items() if name.startswith(prefix)}
    width, patch, heads = shape["embed_dim"], shape["patch_size"], shape["num_heads"]
    head, side = width // heads, image.shape[-1] // patch
    filters = w["patch_embed.proj.weight"].flatten(1)
    tokens = [w["cls_token"][0, 0]]
    for y in range(side):
        for x in range(side):
            pixels = image[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch].double().flatten()
            where = torch.tensor(place(width, 0, y, x), dtype=torch.float64)
            tokens.append(filters @ pixels + w["patch_embed.proj.bias"] + where)

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean()
        return centred / (centred.square().mean() + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    after = []
    for number in range(shape["depth"]):
        block = f"blocks.{number}"
        qkv = [linear(norm(token, f"{block}.norm1"), f"{block}.attn.qkv").view(3, heads, head) for token in tokens]
        moved = []
        for token, (q, _, _) in zip(tokens, qkv, strict=True):
            mixed = []
            for h in range(heads):
                scores = torch.stack([q[h] @ k[h] / head**0.5 for _, k, _ in qkv])
                shares = (scores - scores.max()).exp()
                shares = shares / shares.sum()
                mixed.append(sum(share * v[h] for share, (_, _, v) in zip(shares, qkv, strict=True)))
            moved.append(token + linear(torch.cat(mixed), f"{block}.attn.proj"))  # type: ignore[arg-type]
        tokens = []
        for token in moved:
            hidden = linear(norm(token, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            tokens.append(token + linear(hidden, f"{block}.mlp.fc2"))
        after.append(torch.stack(tokens))
    return torch.stack(after)


@pytest.mark.parametrize("prefix", ["encoder.", ""])  # EO-2.0 and EO-1.0 on the hub; the older Prithvi_100M.pt
@pytest.mark.parametrize("tl", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])  # the second makes a wrong one seen
def test_tokens_after_every_block_are_those_of_the_published_layout(
    tmp_path: Path, prefix: str, tl: bool, eps: float
) -> None:
    state = published(prefix=prefix, tl=tl)
    backbone = prithvi(saved(tmp_path / "Prithvi.pt", state), eps=eps).double()
    images = torch.randn(2, 6, 32, 32, dtype=torch.float64)
    found = backbone(images, [0, 1, 2])
    for number, image in enumerate(images):
        expected = slow(state, image, eps, prefix=prefix)
        for block in range(3):
            torch.testing.assert_close(found[block][number], expected[block], rtol=0, atol=1e-6)


def test_another_image_size_gets_the_positions_of_its_own_grid(tmp_path: Path) -> None:
    state = published(frames=4, side=4)
    backbone = prithvi(saved(tmp_path / "Prithvi.pt", state), size=56).double()
    image = torch.randn(1, 6, 56, 56, dtype=torch.float64)
    torch.testing.assert_close(backbone(image, [2])[0][0], slow(state, image[0], 1e-5)[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("width", "frames", "side"), [(768, 3, 14), (1024, 4, 14), (1280, 4, 16), (192, 1, 14)])
def test_recomputed_positions_are_the_files_own_for_its_own_frames(width: int, frames: int, side: int) -> None:
    torch.testing.assert_close(
        positions(width, frames, side, side).double(), places(width, frames, side), rtol=0, atol=1e-6
    )


def test_every_weight_of_the_encoder_is_the_files(tmp_path: Path) -> None:
    state = published()
    built = prithvi(saved(tmp_path / "Prithvi.pt", state))
    assert built.norm is not None
    held = dict(built.model.state_dict()) | {f"norm.{name}": value for name, value in built.norm.state_dict().items()}
    assert {f"encoder.{name}" for name in held} == {name for name in state if name.startswith("encoder.")}
    for name, value in held.items():
        if name != "pos_embed":
            assert torch.equal(value, state[f"encoder.{name}"].reshape(value.shape)), name
    assert built.facts.normed
    assert built.facts.channels == 6


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(BankError) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("tl", [False, True])
def test_every_weight_that_does_not_match_is_named(tmp_path: Path, tl: bool) -> None:
    state = published(tl=tl)
    del state["encoder.blocks.1.mlp.fc2.bias"]
    state["encoder.blocks.0.attn.extra"] = torch.randn(3)
    state["encoder.blocks.2.norm1.weight"] = torch.randn(7)
    said = refused(lambda: prithvi(saved(tmp_path / "Prithvi.pt", state)))
    assert "(3 weights)" in said
    assert "blocks.1.mlp.fc2.bias is missing" in said
    assert "blocks.0.attn.extra is unknown" in said
    assert "blocks.2.norm1.weight is (7,) instead of (48,)" in said


@pytest.mark.parametrize("shape", [(48, 6, 2, 8, 8), (48, 6, 8, 8)])
def test_filters_of_something_else_than_one_date_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    state = published() | {"encoder.patch_embed.proj.weight": torch.randn(*shape)}
    said = refused(lambda: prithvi(saved(tmp_path / "Prithvi.pt", state)))
    assert f"patch_embed.proj.weight is {shape}" in said


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1280, 6, 1, 14, 14), "set encoder.backbone.model=prithvi_600m"),
        ((1024, 6, 1, 16, 16), "set encoder.backbone.model=prithvi_300m"),
        ((48, 7, 1, 8, 8), "patches of 8 px of 7 bands"),
    ],
)
def test_a_file_of_another_prithvi_names_it(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    state = published() | {"encoder.patch_embed.proj.weight": torch.randn(*shape)}
    file = saved(tmp_path / "Prithvi.pt", state)
    assert said in refused(lambda: prithvi(file))


def test_scales_of_dates_and_places_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="deflect"):
        with_them = prithvi(saved(tmp_path / "tl.pt", state := published(tl=True)))
        assert "location_embed_enc.scale, temporal_embed_enc.scale are left out" in caplog.text
        caplog.clear()
        plain = {name: value for name, value in state.items() if "location" not in name and "temporal" not in name}
        without = prithvi(saved(tmp_path / "plain.pt", plain))
        assert not caplog.text
    assert with_them.facts.weights == without.facts.weights


def config(**given: Any) -> dict[str, Any]:
    patch = given.pop("patch_size", SHAPE["patch_size"])
    known = {"img_size": 224, "num_frames": 4, "in_chans": 6, "mean": [1000.0] * 6, "std": [2000.0] * 6, **SHAPE}
    return {"architecture": "prithvi", "pretrained_cfg": {**known, "patch_size": [1, patch, patch], **given}}


def test_a_folder_of_the_hub_is_read_with_its_description(tmp_path: Path) -> None:
    state = published()
    file = saved(tmp_path / "Prithvi_EO_V2_300M.pt", state)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    (tmp_path / "README.md").write_text("Prithvi")
    assert prithvi(tmp_path).facts.weights == prithvi(file).facts.weights
    saved(tmp_path / "other.pt", state)
    assert "has 2 files of weights" in refused(lambda: prithvi(tmp_path))
    (tmp_path / "empty").mkdir()
    assert "has no file of weights" in refused(lambda: prithvi(tmp_path / "empty"))


def test_a_description_of_another_model_names_the_one_to_set(tmp_path: Path) -> None:
    file = saved(tmp_path / "Prithvi.pt", published())
    large = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16}
    for given, remedy in [
        (large, "set encoder.backbone.model=prithvi_300m"),
        ({"num_heads": 6}, "no model here is"),  # no weight's shape says it
        ({"in_chans": 7}, "7 bands"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config(**given)))
        assert remedy in refused(lambda: prithvi(file))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pretrained_cfg": {"embed_dim": "wide"}}', '{"pretrained_cfg": 3}']
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = saved(tmp_path / "Prithvi.pt", published())
    (tmp_path / "config.json").write_text(text)
    assert "config.json does not describe a Prithvi" in refused(lambda: prithvi(file))


def test_an_input_standardised_otherwise_than_in_pretraining_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "deflect")  # a grid that ran before holds it back
    state = published()
    file = saved(tmp_path / "Prithvi.pt", state)
    right = {"low": 0.0, "high": 1.0, "mean": [x / 1e4 for x in MODELS["tiny"].input[0]]}
    right["std"] = [x / 1e4 for x in MODELS["tiny"].input[1]]
    same = {"low": 0.0, "high": 0.5, "mean": [2 * x for x in right["mean"]], "std": [2 * x for x in right["std"]]}
    for given in (right, same):
        ViTEncoder(prithvi(file), prepare=ImageInput(HLS, **given))
        ViTEncoder(prithvi(), prepare=ImageInput(HLS))  # nothing was pretrained
        assert not caplog.text
    ViTEncoder(prithvi(file), prepare=ImageInput(HLS, **{**right, "high": 0.3}))
    assert "encoder.prepare.mean=[0.1087,0.1342,0.1433,0.2734,0.1958,0.1363]" in caplog.text
    caplog.clear()
    (tmp_path / "config.json").write_text(json.dumps(config()))
    ViTEncoder(prithvi(file), prepare=ImageInput(HLS, **right))
    assert "encoder.prepare.mean=[0.1,0.1,0.1,0.1,0.1,0.1]" in caplog.text


def test_the_configured_inputs_are_those_of_pretraining() -> None:
    for name, model in [("prithvi", "prithvi_100m"), ("prithvi2", "prithvi_300m")]:
        encoder = compose("train", [f"encoder={name}"]).encoder
        assert encoder["backbone"]["model"] == model
        prepare = encoder["prepare"]
        assert (prepare["low"], prepare["high"], tuple(prepare["bands"])) == (0.0, 1.0, HLS)
        for values, published in zip((prepare["mean"], prepare["std"]), MODELS[model].input, strict=True):
            assert values == pytest.approx([x / 1e4 for x in published], rel=1e-3)


def test_reflectance_is_standardised_as_the_published_numbers_say() -> None:
    prepare = ImageInput(HLS, low=0.0, high=1.0, mean=[0.1087] * 6, std=[0.2248] * 6)
    reflectance = torch.rand(2, 13, 8, 8) * 0.9
    places = [SENTINEL2.names.index(name) for name in ("B02", "B03", "B04", "B8A", "B11", "B12")]
    digital = reflectance[:, places].double() * 10000
    torch.testing.assert_close(prepare(reflectance).double(), (digital - 1087) / 2248, rtol=0, atol=1e-5)


def test_what_trains_of_a_prithvi_leaves_its_fixed_positions_alone() -> None:
    built = ViTEncoder(prithvi(), prepare=ImageInput(HLS), adapter=Full())
    assert all(p.requires_grad for p in built.parameters())
    assert [name for name, _ in built.backbone.model.named_buffers()] == ["pos_embed"]


@pytest.mark.parametrize("adapter", [Lora(), Deflect()])
def test_adapters_begin_at_the_frozen_prithvi(adapter: Any) -> None:
    images = torch.rand(2, 13, 32, 32) * 0.3
    frozen = ViTEncoder(prithvi(seed=3), prepare=ImageInput(HLS)).eval()
    adapted = ViTEncoder(prithvi(seed=3), prepare=ImageInput(HLS), adapter=adapter).eval()
    for one, other in zip(frozen(images).values(), adapted(images).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_names_and_shapes_that_are_none_are_one_line(tmp_path: Path) -> None:
    assert "no Prithvi is called 'prithvi_200m': there are prithvi_100m" in refused(
        lambda: prithvi(model="prithvi_200m")
    )
    assert "multiple of 16" in refused(lambda: prithvi(options={**SHAPE, "embed_dim": 40}))
    assert "divisible" in refused(lambda: prithvi(size=36))
    assert str(tmp_path / "no.pt") in refused(lambda: prithvi(tmp_path / "no.pt"))
    assert "give the file as encoder.backbone.weights" in refused(lambda: prithvi(options={"checkpoint_path": "x"}))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_published_shapes_are_whole(name: str) -> None:
    known = MODELS[name]
    assert known.embed_dim % 16 == known.embed_dim % known.num_heads == 224 % known.patch_size == 0
    assert {len(values) for values in known.input} == {6}
