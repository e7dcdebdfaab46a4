"""Galileo: it agrees with the published outputs and with a slow float64 one, for whatever bands a sensor has."""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deflect.adapters import BitFit, Deflect, Full, Lora, NormTuning, ScaledLowRank
from deflect.galileo import GalileoEncoder
from deflect.galileo.channels import CHANNELS, GROUPS
from deflect.galileo.encoder import month_of
from deflect.galileo.network import Galileo, Shape, resizing
from deflect.galileo.weights import DEVIATIONS, MEANS
from satdifuser.bank import BankError
from satdifuser.data.bands import Sensor, find_sensor
from satdifuser.data.unscaled import UnscaledInput
from satdifuser.tensors import read_tensors

DATA = os.environ.get("SATDIFUSER_TEST_DATA")
PUBLISHED = Path(DATA or ".") / "weights" / "galileo-nano"
real = pytest.mark.skipif(DATA is None, reason="set SATDIFUSER_TEST_DATA to the folder of weights/galileo-nano")
CONFIG = {"embedding_size": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 4, "max_sequence_length": 24}


def build(sensor: str | Sensor = "SENTINEL2", bands: Any = None, size: int = 16, **settings: Any) -> GalileoEncoder:
    prepare = UnscaledInput(bands, sensor=sensor, size=settings.pop("resize", None))
    return GalileoEncoder(prepare=prepare, image_size=size, **settings).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Galileo with random weights, in the published layout and under the published names."""
    network = Galileo(Shape(32, 2, 4))
    state = {}
    for name, value in network.state_dict().items():
        value = value + 0.3 * torch.randn_like(value) if "norm" in name or "bias" in name else value
        parts = name.split(".")
        if parts[0] == "embed":
            parts = ["space_time_embed", parts[1], "proj", parts[2]]
        fixed = {"channel_embed": "s_t_channel_embed", "date_embed": "pos_embed", "month_embed": "month_embed.weight"}
        state[fixed.get(name, ".".join(parts).replace("to_", ""))] = value.contiguous()
    state["space_embed.SRTM.proj.weight"] = torch.randn(32, 2, 8, 8)
    save_file(state, tmp_path / "encoder.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model": {"encoder": {**CONFIG, "max_patch_size": 8}}}))
    return tmp_path


# --- a slow Galileo, token by token, in float64


def erf_gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def sinusoids(place: float, size: int) -> list[float]:
    rates = [10000.0 ** (-(i / size / 2)) for i in range(size // 2)]
    return [math.sin(place * rate) for rate in rates] + [math.cos(place * rate) for rate in rates]


def kernel_at(weight: np.ndarray, patch: int) -> np.ndarray:
    """Filters `[out, in, 8, 8]` at another side."""
    rows = []
    for place in range(64):
        unit = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
        unit[0, 0, place // 8, place % 8] = 1
        small = torch.nn.functional.interpolate(unit, (patch, patch), mode="bicubic", antialias=True)
        rows.append(small.flatten().numpy())
    inverse = np.linalg.pinv(np.stack(rows))
    made = [[(inverse @ each.ravel()).reshape(patch, patch) for each in filters] for filters in weight]
    return np.array(made)


def slow(state: dict[str, Any], groups: dict[str, np.ndarray], patch: int, metres: float, month: int) -> list[Any]:
    """Tokens `[groups, rows, columns, 32]` after each block, the last normalised, of one image's normalised groups."""
    w = {name: np.asarray(value, np.float64) for name, value in state.items()}
    tokens, names = [], list(GROUPS)
    for group, image in groups.items():
        filters = kernel_at(w[f"space_time_embed.{group}.proj.weight"], patch)
        for row in range(image.shape[1] // patch):
            for column in range(image.shape[2] // patch):
                cut = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                token = np.array([(kernel * cut).sum() for kernel in filters])
                token += w[f"space_time_embed.{group}.proj.bias"]
                step = metres * patch / 10
                where = sinusoids(column * step, 4) + sinusoids(row * step, 4)
                fixed = [*w["s_t_channel_embed"][names.index(group)], *w["pos_embed"][0]]
                tokens.append(token + np.array([*fixed, *w["month_embed.weight"][month], *where]))
    shape, found = (len(groups), row + 1, column + 1, 32), []
    for block in (f"blocks.{number}." for number in range(2)):
        normed = [layer_norm(t, w[f"{block}norm1.weight"], w[f"{block}norm1.bias"]) for t in tokens]
        q, k, v = (
            [w[f"{block}attn.{p}.weight"] @ t + w[f"{block}attn.{p}.bias"] for t in normed] for p in ("q", "k", "v")
        )
        mixed = []
        for one in q:
            heads = []
            for head in (slice(8 * h, 8 * h + 8) for h in range(4)):
                shares = np.array([math.exp(one[head] @ other[head] / math.sqrt(8)) for other in k])
                heads.append(sum(s * value[head] for s, value in zip(shares / shares.sum(), v, strict=True)))
            mixed.append(w[f"{block}attn.proj.weight"] @ np.concatenate(heads) + w[f"{block}attn.proj.bias"])
        tokens = [t + m for t, m in zip(tokens, mixed, strict=True)]
        for place, token in enumerate(tokens):
            hidden = layer_norm(token, w[f"{block}norm2.weight"], w[f"{block}norm2.bias"])
            hidden = erf_gelu(w[f"{block}mlp.fc1.weight"] @ hidden + w[f"{block}mlp.fc1.bias"])
            tokens[place] = token + w[f"{block}mlp.fc2.weight"] @ hidden + w[f"{block}mlp.fc2.bias"]
        found.append(np.array(tokens).reshape(shape))
    found[-1] = np.array([layer_norm(t, w["norm.weight"], w["norm.bias"]) for t in tokens]).reshape(shape)
    return found


def normalised(image: np.ndarray, channels: dict[str, int], factor: float = 10000.0) -> dict[str, np.ndarray]:
    """The groups of an image, each channel from its place among the bands."""
    found = {}
    for channel, place in channels.items():
        number = CHANNELS.index(channel)
        x = image[place].astype(np.float64) * (1.0 if channel.startswith("V") else factor)
        low = MEANS[number] - 2 * DEVIATIONS[number]
        found[channel] = (x - low) / (4 * DEVIATIONS[number])
    return {g: np.stack([found[c] for c in cs]) for g, cs in GROUPS.items() if set(cs) <= found.keys()}


S2 = {"B2": 1, "B3": 2, "B4": 3, "B5": 4, "B6": 5, "B7": 6, "B8": 7, "B8A": 8, "B11": 11, "B12": 12}
CASES = {
    "rgb": ("SENTINEL2_RGB", {"B4": 0, "B3": 1, "B2": 2}, 8, {}),
    "ten bands": ("SENTINEL2", S2, 8, {"month": 11}),
    "small patches": ("SENTINEL2:B02/B03/B04/B08", {"B2": 0, "B3": 1, "B4": 2, "B8": 3}, 4, {"gsd": 7.5}),
    "odd patches": ("SENTINEL2_RGB", {"B4": 0, "B3": 1, "B2": 2}, 5, {}),
    "radar and light": ("SENTINEL2_RGB+SENTINEL1", {"B4": 0, "B3": 1, "B2": 2, "VV": 3, "VH": 4}, 8, {"month": 1}),
    "Landsat-8": ("LANDSAT8_SR", {"B2": 1, "B3": 2, "B4": 3, "B8A": 4, "B11": 5, "B12": 6}, 8, {}),
    "Landsat-5": ("LANDSAT5", {"B2": 0, "B3": 1, "B4": 2, "B8": 3, "B11": 4, "B12": 6}, 8, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_features_agree_with_a_slow_float64_galileo_for_whatever_bands_there_are(case: str, folder: Path) -> None:
    sensor, channels, patch, settings = CASES[case]
    size = 2 * patch
    encoder = build(sensor, size=size, weights=str(folder / "encoder.safetensors"), patch_size=patch, **settings)
    known = find_sensor(sensor)
    least = torch.tensor([-20.0 if b.unit == "dB" else 250.0 if b.unit == "kelvin" else 0.01 for b in known])
    images = least.view(-1, 1, 1) + torch.rand(2, len(known), size, size) * 0.4
    bank = encoder(images)
    state = load_file(folder / "encoder.safetensors")
    metres = settings.get("gsd", 30.0 if "LANDSAT" in sensor else 10.0)
    for number, image in enumerate(images.numpy()):
        groups = normalised(image, channels)
        expected = slow(state, groups, patch, metres, settings.get("month", 6) - 1)
        for tap, tokens in zip(encoder.spec.taps, expected, strict=True):
            np.testing.assert_allclose(bank[tap][number].detach(), tokens.mean(0).transpose(2, 0, 1), atol=3e-5)


def test_groups_can_lie_side_by_side_and_ndvi_can_be_one_of_them(folder: Path) -> None:
    sensor, weights = "SENTINEL2:B02/B03/B04/B08", str(folder / "encoder.safetensors")
    encoder = build(sensor, weights=weights, ndvi=True, groups="beside")
    images = 0.02 + 0.4 * torch.rand(1, 4, 16, 16)
    images[0, :, 0, 0] = 0.0  # no light, no index
    bank = encoder(images)
    groups = normalised(images[0].numpy(), {"B2": 0, "B3": 1, "B4": 2, "B8": 3})
    red, nir = images[0, 2].double().numpy(), images[0, 3].double().numpy()
    groups["NDVI"] = np.where(red + nir > 0, (nir - red) / np.where(red + nir > 0, red + nir, 1), 0)[None]
    expected = slow(load_file(weights), groups, 8, 10.0, 5)[-1]
    assert [tap.channels for tap in encoder.spec.taps] == [96, 96]
    found = bank[encoder.spec.taps[-1]][0].detach().unflatten(0, (3, 32)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=3e-5)


@real
@pytest.mark.parametrize(("case", "patch"), [("rgb_patch8", 8), ("s2_patch4", 4)])
def test_real_weights_give_the_published_outputs(case: str, patch: int) -> None:
    known = load_file(PUBLISHED / "reference.safetensors")
    given, expected = known[f"{case}.input"][:, :, :, 0], known[f"{case}.output"][:, :, :, 0]
    bands = {"rgb_patch8": "B02/B03/B04", "s2_patch4": "B02/B03/B04/B05/B06/B07/B08/B8A/B11/B12"}[case]
    encoder = build(
        f"SENTINEL2:{bands}",
        size=given.shape[1],
        weights=str(PUBLISHED),
        patch_size=patch,
        month=int(known[f"{case}.months"][0]) + 1,
        groups="beside",
        blocks="last",
    )
    means, deviations = torch.tensor(MEANS[2:], dtype=torch.float64), torch.tensor(DEVIATIONS[2:], dtype=torch.float64)
    reflectance = ((given[..., 2:12] - 0.5) * 4 * deviations + means) / 10000.0
    images = reflectance[..., : bands.count("/") + 1].permute(0, 3, 1, 2).float()
    encoder.prepare.sensor = Sensor("any value", encoder.prepare.sensor.bands, valid=(-10.0, 10.0))
    found = encoder(images)[encoder.spec.taps[0]]
    found = found.unflatten(1, (expected.shape[3], 128)).permute(0, 3, 4, 1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@real
def test_the_published_files_hold_what_is_written_here() -> None:
    encoder = build("SENTINEL2_RGB", weights=str(PUBLISHED))
    entry = json.loads((PUBLISHED / "normalization.json").read_text())["13"]
    assert entry["mean"][:12] == list(MEANS)
    assert entry["std"][:12] == list(DEVIATIONS)
    state = read_tensors(PUBLISHED / "encoder.pt")
    fresh = Galileo(Shape(128, 4, 8))
    torch.testing.assert_close(fresh.month_embed, state["month_embed.weight"], atol=1e-6, rtol=0)
    torch.testing.assert_close(fresh.date_embed, state["pos_embed"], atol=2e-6, rtol=0)
    torch.testing.assert_close(encoder.backbone.model.month_embed, state["month_embed.weight"], atol=0, rtol=0)


@pytest.mark.parametrize("patch", [1, 3, 4, 7])
def test_resized_filters_are_the_least_squares_answer(patch: int) -> None:
    """With R^T the resizing, R w comes nearest to the kept filter: the rest is at right angles to what R can reach."""
    matrix, kept = resizing(8, patch).numpy(), np.random.default_rng(0).normal(size=64)
    unit = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    small = torch.nn.functional.interpolate(unit, (patch, patch), mode="bicubic", antialias=True).flatten(1).numpy()
    rest = small @ (matrix @ kept) - kept
    assert np.abs(small.T @ rest).max() < 1e-10
    np.testing.assert_allclose(resizing(8, 8), np.eye(64), atol=1e-12)


def test_months_are_those_of_the_calendar() -> None:
    first = datetime.date(1970, 1, 1)
    days = torch.randint(-20000, 40000, (500,)).tolist()
    assert [m + 1 for m in month_of(torch.tensor(days)).tolist()] == [
        (first + datetime.timedelta(days=day)).month for day in days
    ]


def test_an_image_has_the_month_of_its_date_where_that_is_known() -> None:
    march, unknown = (datetime.date(2021, 3, 9) - datetime.date(1970, 1, 1)).days, -1
    images = torch.rand(2, 3, 16, 16) * 0.3
    by_date, default = build("SENTINEL2_RGB", month=8), build("SENTINEL2_RGB", month=8, dates=False)
    assert by_date.takes_dates
    assert not default.takes_dates
    tap = by_date.spec.taps[-1]
    found = by_date(images, dates=torch.tensor([march, unknown]))[tap]
    torch.testing.assert_close(found[0], build("SENTINEL2_RGB", month=3)(images)[tap][0])
    torch.testing.assert_close(found[1], by_date(images)[tap][1])
    assert not torch.allclose(found[0], by_date(images)[tap][0], atol=1e-3)
    torch.testing.assert_close(default(images, dates=torch.tensor([march] * 2)).map(tap.name), by_date(images)[tap])


def test_bands_that_fill_no_group_are_left_out_and_the_spec_says_which_are_used() -> None:
    encoder = build("SENTINEL2")
    settings = dict(encoder.spec.settings)
    assert encoder.chosen.left == ("B01", "B09", "B10")
    assert settings["groups"] == "S2_RGB,S2_Red_Edge,S2_NIR_10m,S2_NIR_20m,S2_SWIR"
    assert settings["bands"] == "B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12"
    images = torch.rand(1, 13, 16, 16) * 0.3
    other = images.clone()
    other[:, [0, 9, 10]] = torch.rand(1, 3, 16, 16)
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(encoder(images).items(), encoder(other).items(), strict=True)
    )
    assert build("SUPERDOVE").chosen.groups == ("S2_RGB", "S2_NIR_20m")  # one of three red edges is no group


def test_pictures_are_reflectance_of_white() -> None:
    picture = build("AERIAL_RGB", white=0.2, gsd=10.0)
    images = torch.rand(1, 3, 16, 16)
    found = picture(images)[picture.spec.taps[-1]]
    light = build("SENTINEL2_RGB")
    torch.testing.assert_close(found, light(images * 0.2)[light.spec.taps[-1]], atol=1e-5, rtol=1e-5)


def test_radar_without_data_is_dark_and_not_bright() -> None:
    encoder = build("SENTINEL1")
    blank, dark = torch.zeros(1, 2, 16, 16), torch.full((1, 2, 16, 16), -25.0)
    tap = encoder.spec.taps[-1]
    assert torch.equal(encoder(blank)[tap], encoder(dark)[tap])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch_size": 9, "size": 18}, "encoder.patch_size is 9: galileo has patches of up to 8"),
        ({"patch_size": 5}, "encoder.image_size is 16: use a multiple of encoder.patch_size=5"),
        ({"bands": ["B04", "B03"]}, "names B04, B03, which galileo has no use for"),
        ({"bands": ["B02", "B03", "B04", "B10"]}, "names B10, which galileo has no use for"),
        ({"sensor": "SENTINEL2:B10"}, "can use none of the bands B10"),
        ({"bands": ["B02", "B03", "B04"], "ndvi": True}, "encoder.ndvi=true needs B4 .* and B8"),
        ({"resize": 16}, "prepare.size resizes the images.*set encoder.gsd"),
        (
            {"adapter": Deflect()},
            r"adapter=deflect: galileo is to see one group of bands, as encoder\.prepare\.bands=\[red,green,blue\], and"
            " has S2_RGB, S2_Red_Edge",
        ),
        ({"model": "huge"}, "no Galileo is called 'huge': there are nano, tiny, base"),
        (
            {"weights": "/nowhere"},
            "no file /nowhere: Galileo's weights are a folder of encoder.pt, config.json, normalization.json of one"
            " size; set GALILEO_WEIGHTS, or encoder.weights, to it, or encoder.weights=none",
        ),
        ({"sensor": "SENTINEL1:VV/VH@reflectance"}, "takes VV in dB, and the sensor gives it in reflectance"),
        ({"blocks": [4]}, r"blocks \[4\] of galileo nano"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BankError, match=words) as error:
        build(**settings)
    assert "\n" not in str(error.value)


def test_files_are_read_strictly_under_either_kind_of_name(folder: Path) -> None:
    file = folder / "encoder.safetensors"
    state, encoder = load_file(file), build("SENTINEL2_RGB", weights=str(file))
    other = {name.replace("blocks.", "backbone.blocks.", 1): value for name, value in state.items()}
    save_file(other, folder / "other.safetensors")
    again = build("SENTINEL2_RGB", weights=str(folder / "other.safetensors"))
    assert again.spec == encoder.spec
    assert build("SENTINEL2_RGB", weights=str(file), month=7).spec != encoder.spec
    short = {name: value for name, value in state.items() if name != "blocks.1.attn.k.bias"}
    save_file(short, folder / "short.safetensors")
    with pytest.raises(BankError, match=r"short.safetensors does not match.*blocks.1.attn.to_k.bias is missing"):
        build(weights=str(folder / "short.safetensors"))
    save_file({**state, "blocks.0.gate": torch.ones(2)}, folder / "long.safetensors")
    with pytest.raises(BankError, match=r"long.safetensors does not match.*blocks.0.gate is unknown"):
        build(weights=str(folder / "long.safetensors"))


def test_other_sizes_load_by_their_config_and_another_model_is_named(folder: Path) -> None:
    tiny = {"embedding_size": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4, "max_sequence_length": 24}
    (folder / "config.json").write_text(json.dumps({"model": {"encoder": {**tiny, "max_patch_size": 8}}}))
    with pytest.raises(BankError, match=r"describes another model than nano: set encoder.model=tiny"):
        build(weights=str(folder / "encoder.safetensors"))
    (folder / "config.json").write_text("[]")
    with pytest.raises(BankError, match="does not describe a Galileo"):
        build(weights=str(folder / "encoder.safetensors"))
    encoder = build("SENTINEL2_RGB", model="tiny", blocks="four")
    assert [(tap.name, tap.channels) for tap in encoder.spec.taps] == [(f"blocks.{n}", 192) for n in (2, 5, 8, 11)]


def test_another_normalisation_beside_the_file_is_used_and_recorded(folder: Path) -> None:
    file = str(folder / "encoder.safetensors")
    before = build("SENTINEL2_RGB", weights=file)
    (folder / "normalization.json").write_text(json.dumps({"13": {"mean": [900.0] * 13, "std": [300.0] * 13}}))
    after = build("SENTINEL2_RGB", weights=file)
    assert dict(after.spec.settings)["low"] == (0.03, 0.03, 0.03)
    assert before.spec != after.spec
    values = after.inputs(torch.full((1, 3, 16, 16), 0.15)).unique()
    torch.testing.assert_close(values, torch.tensor([1.0]))
    (folder / "normalization.json").write_text(json.dumps({"13": {"mean": [900.0] * 13, "std": [0.0] * 13}}))
    with pytest.raises(BankError, match="is no normalisation of Galileo"):
        build("SENTINEL2_RGB", weights=file)


@pytest.mark.parametrize("adapter", [Lora(r=2), ScaledLowRank(rank=2), BitFit(), NormTuning(), Full()])
def test_adapters_train_and_begin_where_the_frozen_model_is(adapter: Any) -> None:
    images = torch.rand(2, 13, 16, 16) * 0.3
    frozen, adapted = build(), build(adapter=adapter)
    assert not any(p.requires_grad for p in frozen.parameters())
    tap = frozen.spec.taps[-1]
    bank = adapted(images)
    torch.testing.assert_close(bank[adapted.spec.taps[-1]], frozen(images)[tap], atol=1e-5, rtol=1e-5)
    bank[adapted.spec.taps[-1]].square().mean().backward()
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained.values())
    assert not any("month" in name or "date" in name for name in trained)
    assert adapted.spec != frozen.spec


def test_blocks_after_the_last_chosen_one_are_not_computed_and_have_no_norm() -> None:
    part, whole = build("SENTINEL2_RGB", blocks=[1]), build("SENTINEL2_RGB")
    images = torch.rand(1, 3, 16, 16) * 0.3
    assert len(part.backbone.blocks) == 2
    torch.testing.assert_close(part(images)[part.spec.taps[0]], whole(images)[whole.spec.taps[1]])


def test_bands_that_are_left_out_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "deflect")  # what is printed where nobody sets a level
    build("SENTINEL2")
    assert caplog.messages == ["galileo leaves out B01, B09, B10 of Sentinel-2 MSI"]
    caplog.clear()
    build("SENTINEL2_RGB")
    assert caplog.messages == []
