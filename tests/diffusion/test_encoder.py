"""The diffusion encoder, against a plain computation of each sample and timestep by itself."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, unconditional
from satdifuser.diffusion.noise import sample_noise
from satdifuser.errors import UserError

TAPS = ["up_blocks.0.resnets.1", "mid_block", "up_blocks.1.resnets.0.conv2", "up_blocks.0.attentions.0"]
IN_ORDER = ["mid_block", "up_blocks.0.attentions.0", "up_blocks.0.resnets.1", "up_blocks.1.resnets.0.conv2"]
BANDS = ["B04", "B08", "B02"]


@pytest.fixture
def backbone(tiny_folder: Path) -> Backbone:
    return unconditional(str(tiny_folder))


def build(backbone: Backbone, **changes: Any) -> DiffusionEncoder:
    options: dict[str, Any] = {
        "prepare": ImageInput(BANDS, high=0.4),
        "taps": TAPS,
        "timesteps": [0, 61, 300],
        "image_size": 16,
        "seed": 3,
    }
    return DiffusionEncoder(backbone, **{**options, **changes})


def some(count: int) -> tuple[Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.4, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def plainly(folder: Path, image: Tensor, name: str, timestep: int, seed: int) -> dict[str, Tensor]:
    """Features of one sample at one timestep in float64, from the whole forward pass with hooks."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(folder / "unet").double().eval()
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler").config
    kept = 1.0
    for step in range(timestep + 1):  # the product of 1 - beta, from the schedule's own definition
        low, high = schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5
        kept *= 1 - (low + (high - low) * step / (schedule["num_train_timesteps"] - 1)) ** 2
    clean = torch.stack([image[SENTINEL2.names.index(band)] for band in BANDS]).double() / 0.4 * 2 - 1
    noise = sample_noise(seed, name, timestep, (3, 16, 16)).double()
    noisy = kept**0.5 * clean.clamp(-1, 1) + (1 - kept) ** 0.5 * noise
    found: dict[str, Tensor] = {}
    for tap in TAPS:
        unet.get_submodule(tap).register_forward_hook(lambda _m, _i, out, tap=tap: found.update({tap: out}))
    with torch.no_grad():
        unet(noisy[None], timestep)
    return {tap: value[0] for tap, value in found.items()}


def test_features_are_those_of_a_plain_computation_of_each_sample_and_timestep(
    backbone: Backbone, tiny_folder: Path
) -> None:
    images, ids = some(3)
    bank = build(backbone)(images, sample_ids=ids)
    assert bank.batch_size == 3
    assert len(bank) == len(TAPS) * 3
    for i, name in enumerate(ids):
        for timestep in (0, 61, 300):
            wanted = plainly(tiny_folder, images[i], name, timestep, seed=3)
            for tap in TAPS:
                got = bank.map(tap, timestep)[i].double()
                torch.testing.assert_close(got, wanted[tap], atol=1e-4, rtol=1e-4, msg=lambda m, t=tap: f"{t}: {m}")


def test_a_samples_features_are_the_same_in_any_batch_order_and_company(backbone: Backbone) -> None:
    encoder = build(backbone)
    images, ids = some(6)
    whole = encoder(images, sample_ids=ids)
    order = random.sample(range(6), 6)
    shuffled = encoder(images[order], sample_ids=[ids[i] for i in order])
    pair = encoder(images[[4, 1]], sample_ids=[ids[4], ids[1]])
    alone = encoder(images[2:3], sample_ids=ids[2:3])
    for tap in encoder.spec.taps:
        for got, rows in ((shuffled, order), (pair, [4, 1]), (alone, [2])):
            torch.testing.assert_close(got[tap], whole[tap][rows], atol=1e-5, rtol=1e-5)


def test_the_timesteps_asked_for_together_do_not_change_each_others_features(backbone: Backbone) -> None:
    images, ids = some(2)
    together = build(backbone)(images, sample_ids=ids)
    reverse = build(backbone, timesteps=[300, 0])(images, sample_ids=ids)
    alone = build(backbone, timesteps=[61])(images, sample_ids=ids)
    for tap in TAPS:
        torch.testing.assert_close(alone.map(tap, 61), together.map(tap, 61), atol=1e-5, rtol=1e-5)
        for timestep in (0, 300):
            torch.testing.assert_close(reverse.map(tap, timestep), together.map(tap, timestep), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(together.map(tap, 61), together.map(tap, 300), atol=1e-2)


def test_the_spec_says_the_strides_and_channels_that_the_maps_have(backbone: Backbone) -> None:
    encoder = build(backbone)
    spec = encoder.spec
    assert [(tap.name, tap.timestep) for tap in spec.taps] == [(n, t) for t in (0, 61, 300) for n in IN_ORDER]
    assert {tap.name: (tap.channels, tap.stride) for tap in spec.taps} == {
        "mid_block": (16, 2),
        "up_blocks.0.attentions.0": (16, 2),
        "up_blocks.0.resnets.1": (16, 2),
        "up_blocks.1.resnets.0.conv2": (8, 1),
    }
    assert spec.is_grid()
    assert (spec.encoder, spec.weights, spec.image_size) == ("tiny", backbone.fingerprint, (16, 16))
    images, ids = some(2)
    for tap, value in encoder(images, sample_ids=ids).items():
        assert tuple(value.shape) == (2, tap.channels, 16 // tap.stride, 16 // tap.stride)


def test_the_order_in_which_taps_are_asked_for_does_not_matter(backbone: Backbone) -> None:
    assert build(backbone, taps=TAPS[::-1]).spec == build(backbone).spec


def test_another_noise_seed_gives_other_features_and_another_spec(backbone: Backbone) -> None:
    images, ids = some(2)
    one, other = build(backbone, seed=3), build(backbone, seed=4)
    assert one.spec.differences(other.spec) == ["seed: 3 and 4"]
    first, second = one(images, sample_ids=ids), other(images, sample_ids=ids)
    for tap in TAPS:
        assert not torch.allclose(first.map(tap, 61), second.map(tap, 61), atol=1e-3)


def test_other_bands_or_another_range_make_another_spec(backbone: Backbone) -> None:
    spec = build(backbone).spec
    assert "bands" in spec.differences(build(backbone, prepare=ImageInput(BANDS[::-1], high=0.4)).spec)[0]
    assert "high" in spec.differences(build(backbone, prepare=ImageInput(BANDS, high=0.3)).spec)[0]


def test_the_same_image_under_another_id_has_other_noise(backbone: Backbone) -> None:
    images, _ = some(1)
    bank = build(backbone)(images.repeat(2, 1, 1, 1), sample_ids=["a", "b"])
    assert not torch.allclose(bank.map("mid_block", 300)[0], bank.map("mid_block", 300)[1], atol=1e-3)


def test_the_encoder_is_frozen_and_in_evaluation_mode(backbone: Backbone) -> None:
    encoder = build(backbone)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.network.unet.training
    images, ids = some(2)
    first, again = (encoder(images, sample_ids=ids) for _ in range(2))
    for tap in encoder.spec.taps:
        assert not first[tap].requires_grad
        assert torch.equal(first[tap], again[tap])  # dropout would differ


def test_nothing_after_the_last_tap_is_computed_and_no_hook_stays(backbone: Backbone) -> None:
    encoder = build(backbone, taps=["mid_block"])
    for name in ("up_blocks.0", "conv_out"):
        encoder.network.unet.get_submodule(name).register_forward_pre_hook(
            lambda *_: pytest.fail("ran past the last tap")
        )
    images, ids = some(1)
    assert encoder(images, sample_ids=ids).spec.names() == ("mid_block",)
    assert sum(len(module._forward_hooks) for module in encoder.modules()) == 0


def test_an_image_of_another_size_is_a_user_error_with_both_sizes(backbone: Backbone) -> None:
    encoder = build(backbone)
    with pytest.raises(UserError, match=r"32 x 32.*16 x 16.*encoder\.prepare\.size"):
        encoder(torch.rand(1, 13, 32, 32), sample_ids=["a"])


def test_the_input_can_resize_to_the_size_of_the_encoder(backbone: Backbone) -> None:
    encoder = build(backbone, prepare=ImageInput(BANDS, size=16))
    assert encoder(torch.rand(1, 13, 24, 24), sample_ids=["a"]).batch_size == 1


@pytest.mark.parametrize("ids", [None, [], ["a"], ["a", "b", "c"]])
def test_images_without_an_id_each_are_a_user_error(backbone: Backbone, ids: list[str] | None) -> None:
    with pytest.raises(UserError, match="2 sample_ids"):
        build(backbone)(torch.rand(2, 13, 16, 16), sample_ids=ids)


@pytest.mark.parametrize("timesteps", [[], [-1], [1000], [21, 21], [21, 2000]])
def test_timesteps_that_are_missing_repeated_or_outside_are_a_user_error(
    backbone: Backbone, timesteps: list[int]
) -> None:
    with pytest.raises(UserError, match=r"encoder\.timesteps.*999") as caught:
        build(backbone, timesteps=timesteps)
    assert str(timesteps) in str(caught.value)


def test_a_number_of_bands_that_the_unet_does_not_read_is_a_user_error(backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"reads 3 channels.*B04, B08"):
        build(backbone, prepare=ImageInput(["B04", "B08"]))


@pytest.mark.parametrize("size", [15, 1, 0])
def test_an_image_size_that_the_unet_cannot_halve_is_a_user_error(backbone: Backbone, size: int) -> None:
    with pytest.raises(UserError, match=rf"encoder\.image_size is {size}.*(multiple|1 or more)"):
        build(backbone, image_size=size)


def test_images_with_nan_are_an_error_that_names_the_sample(backbone: Backbone) -> None:
    images, ids = some(2)
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match=ids[1]):
        build(backbone)(images, sample_ids=ids)


def test_an_unknown_tap_is_a_user_error_that_suggests_near_ones(backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"did you mean.*up_blocks\.0\.resnets\.1"):
        build(backbone, taps=["up_blocks.0.resnet.1"])


@pytest.mark.parametrize("name", ["up_blocks.0.resnets.0.nonlinearity", "mid_block.resnets.0.nonlinearity"])
def test_a_tap_that_is_called_more_than_once_is_refused_for_which_call_would_be_a_guess(
    backbone: Backbone, name: str
) -> None:
    with pytest.raises(UserError, match=f"{name}.*is computed 3 times"):
        build(backbone, taps=[name, "conv_out"])


def test_an_encoder_without_taps_is_a_user_error(backbone: Backbone) -> None:
    with pytest.raises((UserError, BankError), match="taps"):
        build(backbone, taps=[])


def test_threads_that_share_an_encoder_get_what_each_would_get_alone(backbone: Backbone) -> None:
    encoder = build(backbone)
    with torch.inference_mode():
        given = [some(2) for _ in range(4)]
        wanted = [encoder(images, sample_ids=ids) for images, ids in given]

    def again(number: int) -> bool:
        images, ids = given[number]
        with torch.inference_mode():
            found = [encoder(images, sample_ids=ids) for _ in range(10)]
        return all(torch.equal(bank[tap], wanted[number][tap]) for bank in found for tap in bank)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(again, range(4))) == [True] * 4
