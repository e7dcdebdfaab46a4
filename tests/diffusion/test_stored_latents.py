"""Latents that are kept and the features computed later: the same as if the images were there."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.bank import FeatureBank
from satdifuser.data.base import Labels
from satdifuser.data.inputs import ImageInput
from satdifuser.decoders import LinearDecoder
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import diffusionsat, stable_diffusion, unconditional
from satdifuser.diffusion.modes import MODES
from satdifuser.fusion import GlobalWeighted
from satdifuser.model import FeatureModel
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter
from satdifuser.tasks import Classification

LABELS = Labels(("a", "b"), ("#f00", "#0f0"))
PLACE = [12.5, 47.0, 0.6, 0.1, 2020.0, 6.0, 3.0]

Make = Callable[..., DiffusionEncoder]


@pytest.fixture(params=["pixel", "latent", "satellite"])
def make(request: pytest.FixtureRequest) -> Make:
    """Builds encoders of a tiny backbone."""
    folders = {"pixel": "tiny_folder", "latent": "latent_folder", "satellite": "satellite_folder"}
    load = {"pixel": unconditional, "latent": stable_diffusion, "satellite": diffusionsat}[request.param]
    backbone = load(str(request.getfixturevalue(folders[request.param])))

    def build(**changes: Any) -> DiffusionEncoder:
        given: dict[str, Any] = {"prepare": ImageInput(["B04", "B03", "B02"]), "image_size": 16, "seed": 11}
        given |= {"taps": ["mid_block", "up_blocks.0.resnets.1"], "timesteps": [21, 161], **changes}
        return DiffusionEncoder(copy.deepcopy(backbone), **given)

    return build


def some(count: int) -> tuple[torch.Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.3, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def equal(got: FeatureBank, wanted: FeatureBank) -> bool:
    return got.spec == wanted.spec and all(torch.equal(got[tap], wanted[tap]) for tap in wanted.spec.taps)


def close(got: FeatureBank, wanted: FeatureBank) -> None:
    """Up to rounding: latents in memory may lie otherwise than those that were read, and be added up otherwise."""
    assert got.spec == wanted.spec
    for tap in wanted.spec.taps:
        torch.testing.assert_close(got[tap], wanted[tap], atol=5e-6, rtol=1e-5)


def stored(path: Path, encoder: DiffusionEncoder, batch: dict[str, Any], dtype: str = "float32") -> FeatureStore:
    plan = StorePlan(
        encoder.latent_spec, Form(dtype, "latents"), ids={"train": batch["id"]}, labels=LABELS, identity={"train": {}}
    )
    with StoreWriter(path, plan) as writer:
        writer.append(encoder.encode(batch["image"], sample_ids=batch["id"]), batch)
    return FeatureStore(path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_the_features_of_the_latents_are_those_of_the_images(make: Make, mode: str, posterior: str) -> None:
    encoder = make(mode=mode, posterior=posterior)
    images, ids = some(3)
    latents = encoder.encode(images, sample_ids=ids)
    assert latents.spec == encoder.latent_spec
    assert list(latents.spec.names()) == ["latent"]
    assert equal(encoder.from_latents(latents.map("latent"), sample_ids=ids), encoder(images, sample_ids=ids))


def test_a_head_gets_the_same_bank_from_stored_latents_as_live(tmp_path: Path, make: Make) -> None:
    encoder, (images, ids) = make(), some(5)
    batch = {"id": ids, "image": images, "label": torch.tensor([0, 1, 1, 0, 1])}
    split = stored(tmp_path / "f.zarr", encoder, batch).split("train")
    head = GlobalWeighted(encoder.spec, 16)
    model = FeatureModel(encoder, head, LinearDecoder(head.pyramid, 2, False), Classification(LABELS)).eval()
    live = model.bank(batch)  # type: ignore[arg-type]
    read = split.batch(range(5))
    close(model.bank(read), live)
    for row in (3, 0):
        alone = model.bank(split.batch([row]))
        for tap in live.spec.taps:
            torch.testing.assert_close(alone[tap], live[tap][row : row + 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(read).logits, model(batch).logits)  # type: ignore[arg-type]


def test_latents_serve_encoders_with_other_timesteps_taps_and_modes_and_no_others(tmp_path: Path, make: Make) -> None:
    encoder, (images, ids) = make(), some(2)
    store = stored(tmp_path / "f.zarr", encoder, {"id": ids, "image": images, "label": torch.tensor([0, 1])})
    read = store.split("train").batch(range(2))
    for changes in ({"timesteps": [61]}, {"taps": ["mid_block"]}, {"mode": "inversion"}, {"seed": 4}):
        other = make(**changes)
        store.require(other.latent_spec)
        close(other.from_latents(read["bank"].map("latent"), sample_ids=ids), other(images, sample_ids=ids))
    for different in (make(prepare=ImageInput(["B02", "B03", "B04"])), make(image_size=32)):
        with pytest.raises(Exception, match="holds other features than asked for"):
            store.require(different.latent_spec)


def test_a_drawn_posterior_is_of_one_seed_and_its_latents_are_of_that_seed_only(tmp_path: Path, make: Make) -> None:
    encoder, (images, ids) = make(posterior="sample"), some(2)
    if encoder.latents is None:
        pytest.skip("without a VAE there is no posterior")
    store = stored(tmp_path / "f.zarr", encoder, {"id": ids, "image": images, "label": torch.tensor([0, 1])})
    store.require(make(posterior="sample", timesteps=[61]).latent_spec)
    for different in (make(posterior="sample", seed=4), make(), make(posterior="sample", vae_precision="bfloat16")):
        with pytest.raises(Exception, match="holds other features than asked for"):
            store.require(different.latent_spec)


def test_the_metadata_is_used_when_the_features_are_computed(satellite_folder: Path, tmp_path: Path) -> None:
    encoder = DiffusionEncoder(
        diffusionsat(str(satellite_folder)),
        prepare=ImageInput(["B04", "B03", "B02"]),
        taps=["mid_block"],
        timesteps=[21],
        image_size=16,
        metadata="samples",
    )
    images, ids = some(2)
    metadata = torch.tensor([PLACE, [x / 2 for x in PLACE]])
    batch = {"id": ids, "image": images, "label": torch.tensor([0, 1]), "metadata": metadata}
    read = stored(tmp_path / "f.zarr", encoder, batch).split("train").batch(range(2))
    assert torch.equal(read["metadata"], metadata)
    head = GlobalWeighted(encoder.spec, 16)
    model = FeatureModel(encoder, head, LinearDecoder(head.pyramid, 2, False), Classification(LABELS)).eval()
    live = encoder(images, sample_ids=ids, metadata=metadata)
    close(model.bank(read), live)
    assert not equal(encoder(images, sample_ids=ids, metadata=metadata * 2), live)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11), ("int8", 7)])
def test_smaller_latents_differ_by_their_rounding(tmp_path: Path, make: Make, dtype: str, bits: int) -> None:
    encoder, (images, ids) = make(), some(2)
    batch = {"id": ids, "image": images, "label": torch.tensor([0, 1])}
    exact = encoder.encode(images, sample_ids=ids).map("latent")
    rounded = stored(tmp_path / "f.zarr", encoder, batch, dtype).split("train").batch(range(2))["bank"].map("latent")
    error = float((rounded.double() - exact.double()).abs().max() / exact.abs().max())
    assert 2.0 ** -(bits + 6) < error <= 2.0**-bits * 1.01
