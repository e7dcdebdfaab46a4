"""`encoder.compat=released`, against the released code's loop written anew from its facts, in float64."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.config import compose
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.compat import WAYS
from satdifuser.diffusion.encoder import DiffusionEncoder, _precision
from satdifuser.diffusion.latents import POSTERIOR_DRAW
from satdifuser.diffusion.loading import Backbone, stable_diffusion, unconditional
from satdifuser.diffusion.noise import sample_noise
from satdifuser.diffusion.schedule import training_timesteps
from satdifuser.errors import UserError

TAPS = ["mid_block", "up_blocks.0.resnets.1.conv2", "up_blocks.1.resnets.1.conv2"]
STEPS, SAVED = 50, [47, 45, 40]
Maps = dict[str, Tensor]


@pytest.fixture(params=["epsilon", "v_prediction"])
def backbone(request: pytest.FixtureRequest, checkpoint_writer: Callable[..., Path], tmp_path: Path) -> Backbone:
    """Stable Diffusion in small, whose scheduler says one thing or another of its output."""
    return stable_diffusion(str(checkpoint_writer(tmp_path / request.param, prediction=request.param)))


def build(backbone: Backbone, **changes: Any) -> DiffusionEncoder:
    options = {"prepare": ImageInput(["B04", "B03", "B02"]), "taps": TAPS, "timesteps": [21, 61, 161], "image_size": 16}
    return DiffusionEncoder(backbone, **{**options, "seed": 5, **changes})


def some(count: int = 2) -> tuple[Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.3, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def plain(backbone: Backbone) -> Callable[[Tensor, int], tuple[Maps, Tensor]]:
    """One pass of diffusers' own network in float64, at any timestep, even before the first."""
    unet, found = copy.deepcopy(backbone.unet).double(), {}
    for name in TAPS:
        unet.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))

    @torch.no_grad()
    def run(latent: Tensor, timestep: int) -> tuple[Maps, Tensor]:
        words = backbone.prompt.double().expand(len(latent), -1, -1)  # type: ignore[union-attr]
        output = unet(latent, torch.full((len(latent),), float(timestep)), encoder_hidden_states=words).sample
        return dict(found), output

    return run


def released(
    backbone: Backbone, latent: Tensor, *, first: int = -1, signal: float | None = 1.0, prediction: str = "epsilon"
) -> dict[int, Maps]:
    """The released loop: fifty levels from the clean one up, each call's output taken for the noise.

    `first` and `signal` are what it takes the clean latent to be, `prediction` what it takes the output for.
    """
    kept = backbone.scheduler.alphas_cumprod.double()
    network, found = plain(backbone), {}
    ends = list(range(1, 1000, 1000 // STEPS))
    for number, (begin, end) in enumerate(zip([first, *ends[:-1]], ends, strict=True)):
        if number >= STEPS - min(SAVED):
            break
        maps, output = network(latent, begin)
        if STEPS - number - 1 in SAVED:
            found[begin] = maps
        a = torch.tensor(signal).double() ** 2 if number == 0 and signal is not None else kept[max(begin, 0)]
        clean, noise = (latent - (1 - a).sqrt() * output) / a.sqrt(), output
        if prediction == "v_prediction":
            clean, noise = (
                a.sqrt() * latent - (1 - a).sqrt() * output,
                (1 - a).sqrt() * latent + a.sqrt() * output,
            )
        latent = kept[end].sqrt() * clean + (1 - kept[end]).sqrt() * noise
    return found


def sampled(encoder: DiffusionEncoder, images: Tensor, ids: list[str]) -> Tensor:
    """A draw of the VAE's posterior for each sample, in float64."""
    vae = copy.deepcopy(encoder.latents.vae).double()  # type: ignore[union-attr]
    with torch.no_grad():
        spread = vae.encode(encoder.prepare(images).double()).latent_dist
        noise = [sample_noise(5, name, POSTERIOR_DRAW, tuple(spread.mean.shape[1:])).double() for name in ids]
        return (spread.mean + spread.std * torch.stack(noise)) * vae.config.scaling_factor


def distance(left: dict[int, Maps], right: dict[int, Maps], timestep: int = 161) -> float:
    """The largest relative difference of a tap's maps."""
    pairs = [(left[timestep][name], right[timestep][name]) for name in TAPS]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def read(encoder: DiffusionEncoder, images: Tensor, ids: list[str]) -> dict[int, Maps]:
    bank = encoder(images, sample_ids=ids)
    return {t: {name: bank.map(name, t).double() for name in TAPS} for t in encoder.levels.timesteps}


def test_released_is_the_released_codes_loop(backbone: Backbone) -> None:
    encoder, (images, ids) = build(backbone, compat="released"), some()
    assert encoder.mode == "inversion"
    found, wanted = read(encoder, images, ids), released(backbone, sampled(encoder, images, ids))
    assert found.keys() == wanted.keys() == {21, 61, 161}
    for t in wanted:
        for name in TAPS:
            torch.testing.assert_close(found[t][name], wanted[t][name], atol=2e-4, rtol=1e-3)


def test_what_sets_ours_apart_is_the_first_call_and_the_prediction_and_nothing_else(backbone: Backbone) -> None:
    """Each alone, and both: with them the released loop gives our features."""
    ours = build(backbone, mode="inversion", posterior="sample")
    images, ids = some()
    latent, found = sampled(ours, images, ids), read(ours, images, ids)
    says = backbone.scheduler.config.prediction_type
    same = released(backbone, latent, first=0, signal=None, prediction=says)
    same = dict(zip((21, 61, 161), same.values(), strict=True))
    assert distance(found, same) < 1e-4
    theirs = released(backbone, latent)
    assert distance(found, theirs) > 1e-3
    only_prediction = read(build(backbone, mode="inversion", posterior="sample", prediction="epsilon"), images, ids)
    changed = distance(only_prediction, found)
    assert changed < 1e-6 if says == "epsilon" else changed > 1e-3
    left = distance(only_prediction, theirs)
    assert left > 1e-3  # the first call
    without_signal = distance(released(backbone, latent, first=-1, signal=None), theirs)
    without_timestep = distance(released(backbone, latent, first=0), theirs)
    assert without_timestep < 0.3 * without_signal  # its signal is what matters, and not its timestep
    assert without_signal == pytest.approx(left, rel=0.3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_prediction_that_is_given_overrides_the_schedulers(
    prediction: str, checkpoint_writer: Callable[..., Path], tmp_path: Path
) -> None:
    images, ids = some()
    said = stable_diffusion(str(checkpoint_writer(tmp_path / "said", prediction=prediction)))
    other = next(kind for kind in ("epsilon", "v_prediction") if kind != prediction)
    given = stable_diffusion(str(checkpoint_writer(tmp_path / "given", prediction=other)))
    wanted = read(build(said, mode="inversion"), images, ids)
    encoder = build(given, mode="inversion", prediction=prediction)
    assert distance(read(encoder, images, ids), wanted) == 0
    assert dict(encoder.spec.settings)["prediction"] == prediction
    assert "prediction" not in dict(build(given, mode="inversion", prediction=other).spec.settings)


def test_features_that_are_the_same_have_one_spec_and_others_another(backbone: Backbone) -> None:
    ours = build(backbone)
    assert build(backbone, compat="released", mode="noise", posterior="mean").spec == ours.spec
    assert build(backbone, prediction="epsilon").spec == ours.spec  # closed-form noise asks no prediction
    walks = {"mode": "inversion", "posterior": "sample"}
    specs = [build(backbone, compat=word, **walks).spec for word in WAYS]
    assert any(line.startswith("first_timestep: ") for line in specs[0].differences(specs[1]))
    settings = dict(build(backbone, compat="released").spec.settings)
    assert (settings["posterior"], settings["first_timestep"]) == ("sample", -1)


def test_a_generation_step_is_noisier_in_the_released_generation_than_in_its_inversion(backbone: Backbone) -> None:
    """It takes step n of fifty from 981 downwards; its inversion calls step n what is reached after it."""
    descending = list(range(981, 0, -20))
    assert training_timesteps(SAVED, generation=True) == [descending[step] for step in SAVED] == [41, 81, 181]
    made = {
        (word, mode): build(backbone, compat=word, mode=mode, save_steps=SAVED, timesteps=[]).spec.timesteps
        for word in WAYS
        for mode in ("inversion", "generation")
    }
    assert made["released", "generation"] == (41, 81, 181)
    assert {made[key] for key in made if key != ("released", "generation")} == {(21, 61, 161)}


def test_the_clean_images_prediction_cannot_begin_at_a_latent_without_noise(tiny_folder: Path) -> None:
    backbone = unconditional(str(tiny_folder))
    with pytest.raises(UserError, match=r"^encoder\.prediction=sample cannot begin an inversion"):
        build(backbone, taps=["mid_block"], compat="released", prediction="sample")
    assert build(backbone, taps=["mid_block"], prediction="sample", mode="inversion").mode == "inversion"


def test_sixteen_bits_on_a_gpu_are_those_of_each_way() -> None:
    gpu = torch.device("cuda")
    assert _precision("auto", gpu, WAYS["ours"].half) == torch.bfloat16
    assert _precision("auto", gpu, WAYS["released"].half) == torch.float16
    assert _precision("auto", torch.device("cpu"), WAYS["released"].half) == torch.float32


def test_a_record_says_what_the_word_has_decided_and_a_setting_that_is_given_wins() -> None:
    def settled(*words: str) -> tuple[Any, ...]:
        part = compose("train", ["encoder=diffusionsat", "encoder.backbone.weights=random", *words]).encoder
        again = compose("train", ["encoder=diffusionsat"]).but(encoder=part.plain()).encoder
        assert again == part
        return part["mode"], part["posterior"], part["prediction"]

    assert settled() == ("noise", "mean", None)
    assert settled("encoder.compat=released") == ("inversion", "sample", "epsilon")
    given = ["encoder.mode=noise", "encoder.posterior=mean", "encoder.prediction=v_prediction"]
    assert settled("encoder.compat=released", *given) == ("noise", "mean", "v_prediction")
    small = compose("train", ["encoder.compat=released"]).encoder
    assert (small["mode"], small["prediction"], "posterior" in small) == ("inversion", "epsilon", False)


def test_diffusionsat_alone_has_the_published_timesteps_in_one_call_and_released_walks_to_them() -> None:
    alone = compose("train", ["encoder=diffusionsat", "encoder.backbone.weights=random"]).encoder
    assert (alone["timesteps"], alone["mode"], alone["compat"]) == ([21, 61, 161], "noise", "ours")
    small = ["encoder.backbone.architecture=tiny", "encoder.image_size=32", "encoder.precision=float32"]
    words = ["encoder=diffusionsat", "encoder.backbone.weights=random", *small]
    specs = {word: compose("train", [*words, f"encoder.compat={word}"]).encoder.build().spec for word in WAYS}
    assert {word: (spec.mode, spec.timesteps) for word, spec in specs.items()} == {
        "ours": ("noise", (21, 61, 161)),
        "released": ("inversion", (21, 61, 161)),
    }
