"""Latent encoders: the same features however they are made, in any precision, with metadata and without."""

from __future__ import annotations

import copy
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.data.inputs import ImageInput
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.diffusion.encoder import PRECISIONS, DiffusionEncoder
from satdifuser.diffusion.latents import LatentEncoder
from satdifuser.diffusion.loading import Backbone, diffusionsat, stable_diffusion
from satdifuser.diffusion.modes import MODES
from satdifuser.errors import UserError

TAPS = ["mid_block", "up_blocks.0.resnets.1", "up_blocks.1.attentions.1.transformer_blocks.0.attn1"]
PLACE = [12.5, -33.0, 0.6, 0.25, 2017.0, 6.0, 14.0]
# A convolution of another batch size may add up in another order; a path of ten levels carries the rounding along.
ROUNDING = {"noise": 1e-5, "inversion": 5e-5, "generation": 5e-5}

Make = Callable[..., DiffusionEncoder]


def options(**changes: Any) -> dict[str, Any]:
    common = {"prepare": ImageInput(["B04", "B03", "B02"]), "taps": TAPS, "timesteps": [21, 161], "image_size": 16}
    return {**common, "seed": 11, **changes}


def maker(load: Callable[[str], Backbone], folder: Path) -> Make:
    """Builds encoders of a checkpoint, each once: they keep nothing between calls that features depend on."""
    backbone, made = load(str(folder)), dict[str, DiffusionEncoder]()

    def make(**changes: Any) -> DiffusionEncoder:
        key = repr(sorted(changes.items()))
        if key not in made:
            made[key] = DiffusionEncoder(copy.deepcopy(backbone), **options(**changes))
        return made[key]

    return make


@pytest.fixture(scope="module")
def make(latent_folder: Path) -> Make:
    return maker(stable_diffusion, latent_folder)


@pytest.fixture(scope="module")
def satellite(satellite_folder: Path) -> Make:
    return maker(diffusionsat, satellite_folder)


def some(count: int) -> tuple[Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.3, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def close(got: FeatureBank, wanted: FeatureBank, rows: list[int] | slice = slice(None), atol: float = 1e-5) -> None:
    for tap in wanted:
        torch.testing.assert_close(got[tap], wanted[tap][rows], atol=atol, rtol=1e-5, msg=lambda m, t=tap: f"{t}: {m}")


def equal(got: FeatureBank, wanted: FeatureBank) -> bool:
    return all(torch.equal(got[tap], wanted[tap]) for tap in wanted)


@pytest.mark.parametrize("mode", MODES)
def test_features_are_the_same_in_any_batch_order_company_and_slicing(mode: str, make: Make) -> None:
    encoder = make(mode=mode, posterior="sample")
    images, ids = some(6)
    whole = encoder(images, sample_ids=ids)
    assert equal(encoder(images, sample_ids=ids), whole)
    order = random.sample(range(6), 6)
    for rows in (order, order[:3], order[:1]):
        close(encoder(images[rows], sample_ids=[ids[row] for row in rows]), whole, rows, atol=ROUNDING[mode])
    assert encoder.network.memory.limit is None  # all at once
    for batch in (1, 2, 3):
        close(make(mode=mode, posterior="sample", batch=batch)(images, sample_ids=ids), whole, atol=ROUNDING[mode])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_loader_workers_and_batches_do_not_change_a_samples_features(mode: str, make: Make) -> None:
    encoder, data = make(mode=mode), SyntheticScenes(length=5, size=16, seed=random.randrange(1000))

    def read(size: int, workers: int) -> FeatureBank:
        batches = loader(data, OrderedBatches(5, size), workers, check=encoder.check)
        return FeatureBank.cat([encoder(batch["image"], sample_ids=batch["id"]) for batch in batches])

    whole = read(5, 0)
    pairs = read(2, 0)
    close(pairs, whole, atol=ROUNDING[mode])
    assert equal(read(2, 2), pairs)  # the same batches, bit for bit


OTHER_PROCESS = """
import sys, torch
from safetensors.torch import save_file
from satdifuser.data.inputs import ImageInput
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import stable_diffusion
torch.set_num_threads(1)
folder, out, scenes, taps = sys.argv[1], sys.argv[2], SyntheticScenes(length=6, size=16, seed=int(sys.argv[3])), sys.argv[4:]
found = {}
for mode in ("noise", "inversion", "generation"):
    encoder = DiffusionEncoder(stable_diffusion(folder), prepare=ImageInput(["B04", "B03", "B02"]), taps=taps,
        timesteps=[21, 161], image_size=16, seed=11, mode=mode, posterior="sample")
    half = [scenes[i] for i in (5, 1, 3)]
    bank = encoder(torch.stack([s["image"] for s in half]), sample_ids=[s["id"] for s in half])
    found |= {f"{mode} {tap}": value.contiguous() for tap, value in bank.items()}
save_file(found, out)
"""  # noqa: E501


@pytest.mark.slow
def test_another_process_with_half_of_the_samples_makes_the_same_features(
    make: Make, latent_folder: Path, tmp_path: Path
) -> None:
    seed, out = random.randrange(1000), tmp_path / "half.safetensors"
    command = [sys.executable, "-c", OTHER_PROCESS, str(latent_folder), str(out), str(seed), *TAPS]
    other = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    scenes = [SyntheticScenes(length=6, size=16, seed=seed)[i] for i in range(6)]

    def read(encoder: DiffusionEncoder, rows: list[int]) -> FeatureBank:
        images = torch.stack([scenes[row]["image"] for row in rows])
        return encoder(images, sample_ids=[scenes[row]["id"] for row in rows])

    halves = {mode: read(make(mode=mode, posterior="sample"), [5, 1, 3]) for mode in MODES}
    for mode, half in halves.items():
        close(half, read(make(mode=mode, posterior="sample"), list(range(6))), [5, 1, 3], atol=ROUNDING[mode])
    errors = other.communicate()[1]
    assert other.returncode == 0, errors[-2000:]
    theirs = load_file(out)
    for mode, half in halves.items():
        assert all(torch.equal(theirs[f"{mode} {tap}"], half[tap]) for tap in half)  # the same batch, bit for bit


def test_inversion_depends_on_neither_seed_nor_id_unless_the_posterior_is_sampled(make: Make) -> None:
    images, ids = some(2)
    one, other = make(mode="inversion", seed=1), make(mode="inversion", seed=2)
    assert "seed" not in dict(one.spec.settings)
    assert one.spec == other.spec
    assert equal(one(images, sample_ids=ids), other(images, sample_ids=["x", "y"]))
    one, other = (make(mode="inversion", posterior="sample", seed=seed) for seed in (1, 2))
    assert one.spec.differences(other.spec) == ["seed: 1 and 2"]
    first, second = one(images, sample_ids=ids), other(images, sample_ids=ids)
    assert not torch.allclose(first.map("mid_block", 21), second.map("mid_block", 21), atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_the_spec_records_what_the_features_of_a_mode_depend_on(mode: str, make: Make) -> None:
    spec = make(mode=mode, steps=25).spec
    own = {"noise": {"noise_draws": 1, "seed": 11}, "inversion": {"steps": 25}, "generation": {"steps": 25, "seed": 11}}
    common = {"precision": "float32", "vae_precision": "float32", "posterior": "mean", "prompt": "A satellite image"}
    inputs = {"bands": "B04,B03,B02", "high": 0.3, "low": 0.0, "sensor": "Sentinel-2 MSI"}
    assert (spec.mode, dict(spec.settings)) == (mode, {**own[mode], **common, **inputs})


def posterior_of(vae: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation from the VAE's moments, in float64."""
    vae = copy.deepcopy(vae).double()
    with torch.no_grad():
        mean, logarithm = vae.quant_conv(vae.encoder(images.double())).chunk(2, dim=1)
    return mean * 0.18215, (logarithm / 2).exp() * 0.18215


def test_the_latents_are_the_posteriors_mean_by_default(latent_folder: Path) -> None:
    vae, images = stable_diffusion(str(latent_folder)).vae, torch.rand(3, 3, 16, 16) * 2 - 1
    got = LatentEncoder(vae, dtype=torch.float32)(images, ["a", "b", "c"])
    torch.testing.assert_close(got.double(), posterior_of(vae, images)[0], atol=1e-5, rtol=1e-4)


def test_a_sampled_posterior_is_a_function_of_seed_and_id_with_the_vaes_spread(latent_folder: Path) -> None:
    vae, image = stable_diffusion(str(latent_folder)).vae, torch.rand(1, 3, 16, 16) * 2 - 1
    vae.quant_conv.bias.data[4:] = torch.tensor([-4.0, -2.0, -1.0, 1.0])  # logarithms of variances, none near 0
    seed, ids = random.randrange(10**6), [f"tile-{i}" for i in range(200)]
    encoder = LatentEncoder(vae, dtype=torch.float32, posterior="sample", seed=seed)
    draws = encoder(image.expand(200, -1, -1, -1), ids).double()
    torch.testing.assert_close(encoder(image, ids[7:8])[0].double(), draws[7], atol=1e-5, rtol=1e-5)
    other = LatentEncoder(vae, dtype=torch.float32, posterior="sample", seed=seed + 1)(image, ids[7:8])
    assert not torch.allclose(other[0].double(), draws[7], atol=1e-3)
    mean, spread = posterior_of(vae, image)
    standard = (draws - mean) / spread
    assert stats.kstest(standard.flatten().numpy(), "norm").pvalue > 1e-6, seed
    assert stats.kstest(standard[:, 0, 0, 0].numpy(), "norm").pvalue > 1e-6, seed  # over samples, at one place


def test_latents_are_shifted_before_they_are_scaled_where_a_vae_says_so(latent_folder: Path) -> None:
    vae, images = stable_diffusion(str(latent_folder)).vae, torch.rand(1, 3, 16, 16) * 2 - 1
    wanted = (posterior_of(vae, images)[0] / 0.18215 - 0.4) * 0.5
    vae.register_to_config(shift_factor=0.4, scaling_factor=0.5)
    got = LatentEncoder(vae, dtype=torch.float32)(images, ["a"])
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_gives_features_near_those_of_float32(precision: str, mode: str, make: Make) -> None:
    images, ids = some(3)
    wanted = make(mode=mode)(images, sample_ids=ids)
    encoder = make(mode=mode, precision=precision)
    bank = encoder(images, sample_ids=ids)
    assert dict(encoder.spec.settings)["precision"] == precision
    for tap, value in bank.items():
        assert value.dtype == PRECISIONS[precision]
        error = (value.float() - wanted[tap]).norm() / wanted[tap].norm()
        assert 0 < error < 0.05, (tap, float(error))


@pytest.mark.parametrize(
    ("precision", "vae"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")]
)
def test_the_vae_has_the_unets_precision_but_never_float16_by_itself(precision: str, vae: str, make: Make) -> None:
    encoder = make(precision=precision)
    assert encoder.latents is not None
    assert {weight.dtype for weight in encoder.latents.parameters()} == {PRECISIONS[vae]}
    assert {weight.dtype for weight in encoder.network.unet.parameters()} == {PRECISIONS[precision]}
    assert dict(encoder.spec.settings)["vae_precision"] == vae
    assert dict(make(precision=precision, vae_precision="bfloat16").spec.settings)["vae_precision"] == "bfloat16"


@pytest.mark.parametrize(("precision", "output"), [("float32", "float16"), ("bfloat16", "float32")])
@pytest.mark.parametrize("draws", [1, 2])
def test_the_maps_leave_in_the_output_precision(precision: str, output: str, draws: int, make: Make) -> None:
    images, ids = some(1)
    bank = make(precision=precision, output_precision=output, noise_draws=draws)(images, sample_ids=ids)
    assert {value.dtype for value in bank.values()} == {PRECISIONS[output]}
    assert dict(bank.spec.settings)["output_precision"] == output


def test_automatic_precision_is_float32_without_a_gpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, word in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert dict(make(precision="auto", seed=int(there)).spec.settings)["precision"] == word


@pytest.mark.parametrize("setting", ["precision", "vae_precision", "output_precision", "posterior"])
def test_an_unknown_word_is_a_user_error_that_names_the_setting_and_the_known_ones(setting: str, make: Make) -> None:
    known = "mean or sample" if setting == "posterior" else "float32, bfloat16, float16"
    with pytest.raises(UserError, match=rf"^encoder\.{setting} is 'bfloat': [^\n]*{known}[^\n]*$"):
        make(**{setting: "bfloat"})


@pytest.mark.parametrize("mode", ["noise", "inversion"])
def test_metadata_change_features_and_a_samples_own_are_as_good_as_a_constant(mode: str, satellite: Make) -> None:
    images, ids = some(3)
    places = torch.tensor([PLACE] * 3)
    places[1] = torch.tensor([-70.0, 10.0, 0.3, 0.0, 2003.0, 11.0, 2.0])
    without = satellite(mode=mode)(images, sample_ids=ids)
    assert equal(satellite(mode=mode)(images, sample_ids=ids, metadata=places), without)  # not read where left out
    constant = satellite(mode=mode, metadata=PLACE)(images, sample_ids=ids)
    own = satellite(mode=mode, metadata="samples", batch=2)(images, sample_ids=ids, metadata=places)
    for tap in own:
        torch.testing.assert_close(own[tap][[0, 2]], constant[tap][[0, 2]], atol=ROUNDING[mode], rtol=1e-5)
        assert not torch.allclose(own[tap][1], constant[tap][1], atol=1e-3)
        assert not torch.allclose(without[tap], constant[tap], atol=1e-3)


def test_the_spec_records_where_metadata_come_from(satellite: Make) -> None:
    specs = [satellite(metadata=source).spec for source in ("none", "samples", PLACE, [*PLACE[:-1], 15.0])]
    assert [dict(spec.settings).get("metadata") for spec in specs[:2]] == [None, "samples"]
    assert dict(specs[2].settings)["metadata"] == pytest.approx(PLACE)
    assert all(one.differences(other) for i, one in enumerate(specs) for other in specs[:i])
    assert BankSpec.from_dict(json.loads(json.dumps(specs[2].to_dict()))) == specs[2]


@pytest.mark.parametrize("source", [PLACE[:6], [*PLACE, 1.0], [], [*PLACE[:6], math.nan], [math.inf, *PLACE[1:]]])
def test_a_list_of_metadata_that_the_unet_cannot_read_is_a_user_error(source: list[float], satellite: Make) -> None:
    with pytest.raises(UserError, match=r"^encoder\.metadata is \[[^\n]*(reads 7 finite numbers|each a number)$"):
        satellite(metadata=source)


@pytest.mark.parametrize("source", ["samples", PLACE, [], "all"])
def test_metadata_asked_of_a_unet_that_reads_none_are_a_user_error(source: Any, make: Make) -> None:
    with pytest.raises(UserError, match=r"^encoder\.metadata is [^\n]*$"):
        make(metadata=source)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, r"no metadata.*encoder\.metadata=none"),
        (torch.rand(2, 6), r"\(2, 6\).*reads 7"),
        (torch.rand(1, 7), r"\(1, 7\).*2 samples"),
        (torch.rand(7), r"\(7,\).*reads 7"),
        (torch.tensor([PLACE, [math.nan, *PLACE[1:]]]), "nan|NaN|not known|finite"),
    ],
)
def test_a_batch_without_the_metadata_that_are_asked_for_is_a_user_error_that_names_a_sample(
    given: Tensor | None, wanted: str, satellite: Make
) -> None:
    images, ids = some(2)
    with pytest.raises(UserError, match=wanted) as caught:
        satellite(metadata="samples")(images, sample_ids=ids, metadata=given)
    assert any(name in str(caught.value) for name in ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, "has no metadata, but encoder.metadata is samples"),
        (torch.rand(6), "of the length 6, but the UNet reads 7"),
        (torch.tensor([*PLACE[:6], math.nan]), "that is not known"),
    ],
)
def test_the_check_for_the_loader_says_what_is_wrong_with_a_samples_metadata(
    given: Tensor | None, wanted: str, satellite: Make
) -> None:
    sample = {"image": torch.rand(13, 16, 16) * 0.3} | ({} if given is None else {"metadata": given})
    fault = satellite(metadata="samples").check(sample)
    assert fault is not None
    assert wanted in fault
    assert "encoder.metadata=none" in fault
    assert "\n" not in fault
    assert satellite(metadata="samples").check({**sample, "metadata": torch.tensor(PLACE)}) is None
    assert satellite(metadata=PLACE).check(sample) is None
    assert satellite().check(sample) is None
