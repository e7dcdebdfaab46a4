"""Noise, inversion and generation, against a plain float64 loop over one sample with hooks."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from satdifuser.bank import Tap
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, diffusionsat, stable_diffusion, unconditional
from satdifuser.diffusion.modes import MODES
from satdifuser.diffusion.network import TappedUNet
from satdifuser.diffusion.noise import sample_noise
from satdifuser.diffusion.schedule import PREDICTIONS, NoiseSchedule
from satdifuser.errors import UserError

BANDS = ["B04", "B08", "B02"]
PIXEL = ["mid_block", "up_blocks.0.attentions.0", "up_blocks.1.resnets.0.conv2"]
TOKENS = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
LATENT = ["mid_block", "up_blocks.0.resnets.1", TOKENS, "up_blocks.1.resnets.1.conv2"]
PROMPT = "a satellite image of the sea"
PLACE = (12.5, -33.0, 0.6, 0.25, 2017.0, 6.0, 14.0)
Network = Callable[[Tensor, int], tuple[dict[str, Tensor], Tensor]]


def build(backbone: Backbone, **changes: Any) -> DiffusionEncoder:
    options: dict[str, Any] = {
        "prepare": ImageInput(BANDS, high=0.4),
        "taps": PIXEL if backbone.vae is None else LATENT,
        "timesteps": [21, 61, 161],
        "image_size": 16,
        "seed": 3,
    }
    return DiffusionEncoder(backbone, **{**options, **changes})


def some(count: int) -> tuple[Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.4, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def with_prediction(folder: Path, copy: Path, prediction: str) -> str:
    """A copy of a checkpoint whose scheduler says that the network predicts something else."""
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": prediction}))
    return str(copy)


def in_range(image: Tensor) -> Tensor:
    chosen = torch.stack([image[SENTINEL2.names.index(band)] for band in BANDS]).double()
    return (chosen / 0.4 * 2 - 1).clamp(-1, 1)[None]


def hooked(unet: Any, taps: list[str], **options: Any) -> Network:
    """One whole pass of the network in float64, and what its modules gave."""
    found: dict[str, Tensor] = {}
    for tap in taps:
        unet.get_submodule(tap).register_forward_hook(lambda _m, _i, out, tap=tap: found.update({tap: out}))

    @torch.no_grad()
    def run(latent: Tensor, timestep: int) -> tuple[dict[str, Tensor], Tensor]:
        output = unet(latent, timestep, **options).sample
        return dict(found), output

    return run


@cache
def plain_pixel(folder: Path) -> tuple[Network, Callable[[Tensor], Tensor]]:
    from diffusers import UNet2DModel

    return hooked(UNet2DModel.from_pretrained(folder / "unet").double().eval(), PIXEL), in_range


@cache
def plain_latent(folder: Path, place: tuple[float, ...] | None = None) -> tuple[Network, Callable[[Tensor], Tensor]]:
    """Stable Diffusion's own parts in float64; DiffusionSat's metadata are added to its time embedding by hand."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    where = folder / "unet" if (folder / "unet").is_dir() else folder / "checkpoint-150000" / "unet"
    weights = load_file(where / "diffusion_pytorch_model.safetensors")
    embeds = {name: value.double() for name, value in weights.items() if name.startswith("metadata_embedding")}
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(where)).double().eval()
    unet.load_state_dict({name: value for name, value in weights.items() if name not in embeds})
    if place is not None:
        added = sum(embedding(embeds, i, value) for i, value in enumerate(normalised(place)))
        unet.time_embedding.register_forward_hook(lambda _m, _i, out: out + added)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokens = tokenizer(PROMPT, padding="max_length", max_length=9, return_tensors="pt").input_ids
    vae = AutoencoderKL.from_pretrained(folder / "vae").double().eval()
    with torch.no_grad():
        text = CLIPTextModel.from_pretrained(folder / "text_encoder").double().eval()(tokens).last_hidden_state

    @torch.no_grad()
    def encode(image: Tensor) -> Tensor:
        return vae.encode(in_range(image)).latent_dist.mean * vae.config.scaling_factor

    return hooked(unet, LATENT, encoder_hidden_states=text), encode


def normalised(place: tuple[float, ...]) -> list[float]:
    longitude, latitude, gsd, cloud, year, month, day = place
    parts = [(longitude + 180) / 360, (latitude + 90) / 180, gsd, cloud, (year - 1980) / 120, month / 12, day / 31]
    return [1000 * part for part in parts]


def embedding(weights: dict[str, Tensor], number: int, value: float) -> Tensor:
    """linear_2(silu(linear_1(cosines and sines of the value)))."""
    angles = torch.tensor([value * math.exp(-math.log(10000) * i / 4) for i in range(4)], dtype=torch.float64)
    x = torch.cat([angles.cos(), angles.sin()])[None]
    own = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"metadata_embedding.{number}.")}
    x = x @ own["linear_1.weight"].T + own["linear_1.bias"]
    return (x * x.sigmoid()) @ own["linear_2.weight"].T + own["linear_2.bias"]


@cache
def kept(timestep: int) -> float:
    low, high, product = 0.00085**0.5, 0.012**0.5, 1.0
    for step in range(timestep + 1):
        product *= 1 - (low + (high - low) * step / 999) ** 2
    return product


def step(x: Tensor, output: Tensor, level: int, target: int, prediction: str) -> Tensor:
    a, b = kept(level) ** 0.5, (1 - kept(level)) ** 0.5
    if prediction == "epsilon":
        clean, noise = (x - b * output) / a, output
    elif prediction == "sample":
        clean, noise = output, (x - a * output) / b
    else:
        clean, noise = a * x - b * output, b * x + a * output
    return kept(target) ** 0.5 * clean + (1 - kept(target)) ** 0.5 * noise


def expected(
    network: Network,
    clean: Tensor,
    name: str,
    mode: str,
    prediction: str,
    wanted: list[int],
    grid: range,
    seed: int = 3,
) -> dict[int, dict[str, Tensor]]:
    """The definition of the three modes, for one sample."""

    def noised(timestep: int) -> Tensor:
        noise = sample_noise(seed, name, timestep, tuple(clean.shape[1:])).double()
        return kept(timestep) ** 0.5 * clean + (1 - kept(timestep)) ** 0.5 * noise

    if mode == "noise":
        return {t: network(noised(t), t)[0] for t in wanted}
    between = [t for t in grid if t < max(wanted) and (mode == "inversion" or t > min(wanted))]
    path = sorted({*between, *wanted} | ({0} if mode == "inversion" else set()), reverse=mode == "generation")
    latent = clean if mode == "inversion" else noised(path[0])
    found = {}
    for level, target in zip(path, [*path[1:], path[-1]], strict=True):
        found[level], output = network(latent, level)
        latent = step(latent, output, level, target, prediction)
    return {t: found[t] for t in wanted}


def compare(encoder: DiffusionEncoder, plain: Any, prediction: str, **inputs: Any) -> None:
    network, encode = plain
    images, ids = some(2)
    bank = encoder(images, sample_ids=ids, **inputs)
    grid = range(1, 1000, 20)
    for i, name in enumerate(ids):
        wanted = list(encoder.levels.timesteps)
        for t, maps in expected(network, encode(images[i]), name, encoder.mode, prediction, wanted, grid).items():
            for tap, value in maps.items():
                got = bank.map(tap, t)[i].double()
                plain_value = value[0] if value.ndim == 4 else value[0].T.reshape(got.shape)  # tokens, row by row
                torch.testing.assert_close(
                    got, plain_value, atol=2e-4, rtol=1e-3, msg=lambda m, tap=tap, t=t: f"{tap}@{t}: {m}"
                )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_a_pixel_models_features_are_those_of_a_plain_loop(
    mode: str, prediction: str, tiny_folder: Path, tmp_path: Path
) -> None:
    backbone = unconditional(with_prediction(tiny_folder, tmp_path / "other", prediction))
    encoder = build(backbone, mode=mode, timesteps=[61, 20, 110])
    compare(encoder, plain_pixel(tiny_folder), prediction)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_a_latent_models_features_are_those_of_a_plain_loop(
    mode: str, prediction: str, latent_folder: Path, tmp_path: Path
) -> None:
    folder = with_prediction(latent_folder, tmp_path / "other", prediction)
    encoder = build(stable_diffusion(folder, prompt=PROMPT), mode=mode)
    assert dict(encoder.spec.settings)["prompt"] == PROMPT
    compare(encoder, plain_latent(latent_folder), prediction)


@pytest.mark.parametrize("source", ["none", "samples", PLACE])
@pytest.mark.parametrize("mode", MODES)
def test_diffusionsats_features_with_metadata_and_without_are_those_of_a_plain_loop(
    mode: str, source: Any, satellite_folder: Path
) -> None:
    encoder = build(diffusionsat(str(satellite_folder), prompt=PROMPT), mode=mode, metadata=source)
    plain = plain_latent(satellite_folder, None if source == "none" else PLACE)
    inputs = {"metadata": torch.tensor([PLACE, PLACE])} if source == "samples" else {}
    compare(encoder, plain, "epsilon", **inputs)


def test_another_number_of_steps_takes_another_path(latent_folder: Path) -> None:
    encoder = build(stable_diffusion(str(latent_folder), prompt=PROMPT), mode="inversion", steps=10)
    network, encode = plain_latent(latent_folder)
    images, ids = some(1)
    got = encoder(images, sample_ids=ids).map("mid_block", 161)
    coarse, fine = (
        expected(network, encode(images[0]), ids[0], "inversion", "epsilon", [21, 61, 161], range(1, 1000, stride))
        for stride in (100, 20)
    )
    torch.testing.assert_close(got.double(), coarse[161]["mid_block"], atol=2e-4, rtol=1e-3)
    assert not torch.allclose(got.double(), fine[161]["mid_block"], atol=2e-4, rtol=1e-3)


def test_a_self_attentions_tokens_become_the_map_whose_pixels_they_are(latent_folder: Path) -> None:
    encoder = build(stable_diffusion(str(latent_folder)), taps=[TOKENS], image_size=32)
    tokens: list[Tensor] = []
    attention = encoder.network.unet.get_submodule(TOKENS)
    attention.register_forward_hook(lambda _m, _i, out: tokens.append(out))
    ids = ["a", "b"]
    bank = encoder(torch.rand(2, 13, 32, 32) * 0.4, sample_ids=ids)
    assert {(tap.channels, tap.stride) for tap in encoder.spec.taps} == {(8, 4)}
    assert tokens[0].shape == (3 * 2, 64, 8)
    for number, t in enumerate((21, 61, 161)):
        value = bank.map(TOKENS, t)
        assert value.shape == (2, 8, 8, 8)
        for sample, y, x in [(0, 0, 5), (1, 5, 0), (1, 3, 6)]:
            assert torch.equal(value[sample, :, y, x], tokens[0][number * 2 + sample, y * 8 + x])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inverting_and_then_generating_returns_to_the_start_and_closer_with_more_steps(
    prediction: str, tiny_folder: Path, tmp_path: Path
) -> None:
    backbone = unconditional(with_prediction(tiny_folder, tmp_path / "other", prediction))
    network = TappedUNet(backbone.unet, [Tap("mid_block", None, 0, 16, 2)], 16)
    schedule = NoiseSchedule(backbone.scheduler)
    clean = torch.rand(2, 3, 16, 16) * 2 - 1

    def along(path: list[int], latent: Tensor) -> Tensor:
        for level, target in pairwise(path):
            output = network.predict(latent, torch.full((2,), level))
            latent = schedule.move(latent, output, level, target)
        return latent

    def missed(steps: int) -> tuple[float, float]:
        """How far the latent is from the start after the way up and down, and at the top, in norms of the image."""
        up = schedule.levels([0, 161], steps)
        top = along(up, clean)
        return tuple(float((x - clean).norm() / clean.norm()) for x in (along(up[::-1], top), top))

    coarse, fine = missed(50), missed(250)
    assert coarse[0] < 0.05, coarse
    assert coarse[0] < coarse[1] / 5, coarse  # the way up goes much further than where the way down misses
    assert fine[0] < 0.5 * coarse[0], (fine, coarse)  # a first-order method: five times the steps


@pytest.mark.parametrize("draws", [2, 5])
def test_several_draws_of_noise_are_averaged(draws: int, latent_folder: Path) -> None:
    images, ids = some(2)
    bank = build(stable_diffusion(str(latent_folder), prompt=PROMPT), noise_draws=draws)(images, sample_ids=ids)
    network, encode = plain_latent(latent_folder)
    for i, name in enumerate(ids):
        clean = encode(images[i])
        for t in (21, 161):
            total = torch.zeros(())
            for draw in range(draws):
                noise = sample_noise(3, name, t, tuple(clean.shape[1:]), draw=draw).double()
                total = total + network(kept(t) ** 0.5 * clean + (1 - kept(t)) ** 0.5 * noise, t)[0]["mid_block"]
            got = bank.map("mid_block", t)[i].double()
            torch.testing.assert_close(got, total[0] / draws, atol=2e-4, rtol=1e-3)


def test_the_first_draw_is_the_plain_one_and_the_next_are_others() -> None:
    plain = sample_noise(7, "tile", 61, (3, 4, 4))
    assert torch.equal(sample_noise(7, "tile", 61, (3, 4, 4), draw=0), plain)
    draws = torch.stack([sample_noise(7, "tile", 61, (3, 4, 4), draw=k) for k in range(8)]).flatten(1)
    assert len(draws.unique(dim=0)) == 8


@pytest.mark.parametrize(("draws", "mode"), [(0, "noise"), (-1, "noise"), (2, "inversion"), (2, "generation")])
def test_draws_that_a_mode_does_not_make_are_a_user_error(draws: int, mode: str, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=rf"encoder\.noise_draws is {draws}[^\n]*(mode=noise alone|1 or more)$"):
        build(unconditional(str(tiny_folder)), noise_draws=draws, mode=mode)


def test_an_unknown_mode_is_a_user_error_that_suggests_a_near_one(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.mode is 'inversions'[^\n]*did you mean inversion[^\n]*$"):
        build(unconditional(str(tiny_folder)), mode="inversions")


@pytest.mark.parametrize(("mode", "calls"), [("noise", 1), ("inversion", 10), ("generation", 8)])
def test_the_unet_runs_once_for_each_level_and_the_last_time_only_to_the_last_tap(
    mode: str, calls: int, latent_folder: Path
) -> None:
    encoder = build(stable_diffusion(str(latent_folder)), mode=mode, taps=["mid_block", "up_blocks.0.resnets.0"])
    counts = dict.fromkeys(["", "up_blocks.0.resnets.0", "up_blocks.0.resnets.1", "conv_out"], 0)
    for name in counts:

        def count(*_: Any, name: str = name) -> None:
            counts[name] += 1

        encoder.network.unet.get_submodule(name).register_forward_pre_hook(count)
    images, ids = some(2)
    encoder(images, sample_ids=ids)
    assert list(counts.values()) == [calls, calls, calls - 1, calls - 1]
