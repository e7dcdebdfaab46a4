"""A UNet with an adapter: what trains, what does not, and that its gradients are those of the network itself."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deflect import adapters
from satdifuser.bank import FeatureBank
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, stable_diffusion, unconditional
from satdifuser.diffusion.noise import sample_noise
from satdifuser.errors import UserError

TAPS = ["mid_block.attentions.0", "up_blocks.0.resnets.1.conv2"]
IDS = ["a", "b"]


@pytest.fixture
def backbone(tiny_folder: Path) -> Backbone:
    return unconditional(str(tiny_folder))


def build(backbone: Backbone, adapter: adapters.Adapter | None, **changes: Any) -> DiffusionEncoder:
    options: dict[str, Any] = {
        "prepare": ImageInput(["B04", "B03", "B02"], high=0.4),
        "taps": TAPS,
        "timesteps": [61, 300],
        "image_size": 16,
        "seed": 3,
        **changes,
    }
    return DiffusionEncoder(backbone, adapter=adapter, **options)


def training(encoder: DiffusionEncoder) -> dict[str, Tensor]:
    return {name: p for name, p in encoder.network.unet.named_parameters() if p.requires_grad}


def energy(bank: FeatureBank) -> Tensor:
    """Something to train for that every map is part of."""
    return torch.stack([value.square().sum() for value in bank.values()]).sum()


def total(encoder: DiffusionEncoder, images: Tensor, shares: dict[str, Tensor]) -> Tensor:
    """A different weight for every number of every map, so that no gradient hides behind another."""
    bank = encoder(images, sample_ids=IDS)
    return torch.stack([(value * shares[str(tap)]).sum() for tap, value in bank.items()]).sum()


def test_gradients_are_those_of_the_plain_network(backbone: Backbone, tiny_folder: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    encoder = build(backbone, adapters.Full())
    images = torch.rand(2, 13, 16, 16) * 0.4
    shares = {str(tap): torch.randn(2, tap.channels, 16 // tap.stride, 16 // tap.stride) for tap in encoder.spec.taps}
    total(encoder, images, shares).backward()

    plain = UNet2DModel.from_pretrained(tiny_folder / "unet").double().eval()
    kept = DDPMScheduler.from_pretrained(tiny_folder / "scheduler").alphas_cumprod.double()
    found: dict[str, Tensor] = {}
    for name in TAPS:
        plain.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
    clean = images[:, [3, 2, 1]].double() / 0.4 * 2 - 1
    for row, name in enumerate(IDS):  # one sample and timestep after the other
        for timestep in (61, 300):
            noise = sample_noise(3, name, timestep, (3, 16, 16)).double()
            plain((kept[timestep] ** 0.5 * clean[row] + (1 - kept[timestep]) ** 0.5 * noise)[None], timestep)
            parts = [(found[tap][0] * shares[f"{tap}@{timestep}"][row]).sum() for tap in TAPS]
            torch.stack(parts).sum().backward()

    reference = dict(plain.named_parameters())
    assert len(training(encoder)) > 20
    for name, parameter in encoder.network.unet.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad.double(), reference[name].grad, atol=2e-3, rtol=2e-3)
        else:
            assert reference[name].grad is None, name


@pytest.mark.parametrize(
    "adapter", [adapters.Full(), adapters.BitFit(), adapters.Lora(r=2), adapters.Peft(method="vera", options={"r": 2})]
)
def test_everything_that_trains_gets_a_gradient_and_nothing_after_the_last_tap_trains(
    backbone: Backbone, adapter: adapters.Adapter
) -> None:
    encoder = build(backbone, adapter)
    assert training(encoder)
    assert not any(name.startswith(("up_blocks.1", "conv_out", "conv_norm_out")) for name in training(encoder))
    encoder.train()
    bank = encoder(torch.rand(2, 13, 16, 16) * 0.4, sample_ids=IDS)
    energy(bank).backward()
    assert all(parameter.grad is not None for parameter in training(encoder).values())


@pytest.mark.parametrize("adapter", [adapters.Lora(r=2, alpha=4), adapters.Full(), adapters.BitFit()])
def test_an_adapted_unet_begins_with_the_features_of_the_frozen_one_and_leaves_them(
    backbone: Backbone, tiny_folder: Path, adapter: adapters.Adapter
) -> None:
    images = torch.rand(2, 13, 16, 16) * 0.4
    frozen = build(unconditional(str(tiny_folder)), None)(images, sample_ids=IDS)
    encoder = build(backbone, adapter)
    begun = encoder(images, sample_ids=IDS)
    for tap, value in frozen.items():
        torch.testing.assert_close(begun.map(tap.name, tap.timestep), value, atol=1e-5, rtol=1e-5)
    optimizer = torch.optim.SGD(training(encoder).values(), lr=0.1)
    for _ in range(2):  # the first moves of LoRA's two factors only the one that begins at zero
        optimizer.zero_grad()
        torch.stack([value.square().mean() for value in encoder(images, sample_ids=IDS).values()]).sum().backward()
        optimizer.step()
    changed = encoder(images, sample_ids=IDS)
    for tap, value in frozen.items():
        assert not torch.allclose(changed.map(tap.name, tap.timestep), value, atol=1e-4)


def test_lora_trains_the_projections_of_the_attentions_and_its_start_depends_on_the_seed_alone(
    tiny_folder: Path,
) -> None:
    first, again, other = (build(unconditional(str(tiny_folder)), adapters.Lora(r=2), seed=s) for s in (1, 1, 2))
    assert {name.rpartition(".lora_")[0].rpartition(".")[2] for name in training(first)} == {"to_q", "to_k", "to_v"}
    assert all(".lora_" in name for name in training(first))
    for name, value in training(first).items():
        assert torch.equal(value, training(again)[name])
        assert "lora_A" not in name or not torch.equal(value, training(other)[name])


def test_the_spec_names_an_adapter_that_trains_and_no_other(tiny_folder: Path) -> None:
    def spec(adapter: adapters.Adapter | None) -> Any:
        return build(unconditional(str(tiny_folder)), adapter).spec

    assert spec(None) == spec(adapters.Frozen())
    assert len({spec(None), spec(adapters.Full()), spec(adapters.Lora(r=2)), spec(adapters.Lora(r=4))}) == 4


def test_a_latent_model_trains_from_stored_latents(latent_folder: Path) -> None:
    encoder, frozen = (
        build(
            stable_diffusion(str(latent_folder), prompt="a satellite image"),
            adapter,
            prepare=ImageInput(["B04", "B03", "B02"], size=16),
            taps=["up_blocks.1.attentions.0"],
        )
        for adapter in (adapters.Lora(r=2), None)
    )
    assert encoder.latent_spec == frozen.latent_spec
    assert all(name.startswith("unet.") for name, p in encoder.network.named_parameters() if p.requires_grad)
    assert encoder.latents is not None
    assert not any(p.requires_grad for p in encoder.latents.parameters())
    latents = encoder.encode(torch.rand(2, 13, 16, 16), sample_ids=IDS)[encoder.latent_spec.taps[0]]
    bank = encoder.from_latents(latents, sample_ids=IDS)
    energy(bank).backward()
    assert all(parameter.grad is not None for parameter in training(encoder).values())


@pytest.mark.parametrize("adapter", [adapters.Deflect(), adapters.NormTuning(), adapters.ScaledLowRank()])
def test_an_adapter_for_vision_transformers_alone_is_refused_with_those_that_fit(
    backbone: Backbone, adapter: adapters.Adapter
) -> None:
    with pytest.raises(UserError, match=rf"adapter={adapter.name} is for vision transformers: a UNet takes full, lora"):
        build(backbone, adapter)


@pytest.mark.parametrize("mode", ["inversion", "generation"])
def test_a_path_of_many_steps_is_not_trained_through(backbone: Backbone, mode: str) -> None:
    with pytest.raises(UserError, match=rf"adapter=lora trains with encoder\.mode=noise alone: {mode}"):
        build(backbone, adapters.Lora(r=2), mode=mode, steps=10)
    build(backbone, adapters.Frozen(), mode=mode, steps=10)


def test_half_precision_of_a_narrow_range_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"cannot train in float16: set encoder\.precision=float32"):
        build(backbone, adapters.Full(), precision="float16")


@pytest.mark.slow
def test_a_compiled_network_is_read_where_its_adapter_is(latent_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    images, ids = torch.rand(2, 13, 16, 16) * 0.3, ["a", "b"]
    found = []
    for compile in (False, True):
        encoder = DiffusionEncoder(
            stable_diffusion(str(latent_folder)),
            prepare=ImageInput(["B04", "B03", "B02"]),
            taps=["up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"],
            timesteps=[21],
            image_size=16,
            adapter=adapters.Lora(r=4),
            compile=compile,
        ).eval()
        with torch.no_grad():
            torch.manual_seed(3)
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter))
            found.append(encoder(images, sample_ids=ids))
    for tap in found[0]:
        torch.testing.assert_close(found[1][tap], found[0][tap], atol=1e-4, rtol=1e-4)
