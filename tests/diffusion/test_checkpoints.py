"""Latent checkpoints: Stable Diffusion and DiffusionSat from the layouts they are published in, read to the bit."""

from __future__ import annotations

import gc
import json
import logging
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from satdifuser.diffusion import architectures
from satdifuser.diffusion.loading import Backbone, diffusionsat, stable_diffusion
from satdifuser.diffusion.satunet import SatUNet, normalise_metadata
from satdifuser.errors import UserError

UNET = "unet/diffusion_pytorch_model.safetensors"
SAT, VAE, TEXT = f"checkpoint-150000/{UNET}", UNET.replace("unet", "vae"), "text_encoder/model.safetensors"
SCHEDULE = "scheduler/scheduler_config.json"
Loader = Callable[..., Backbone]
Writer = Callable[..., Path]
Files = Any  # conftest's CheckpointFiles


@pytest.fixture(autouse=True)
def fresh(_seeded: None) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    torch.manual_seed(seed)


def holds(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = module.state_dict()
    assert own.keys() == state.keys()
    assert all(own[name].dtype == torch.float32 and torch.equal(own[name], state[name]) for name in state)


@pytest.mark.parametrize(("kind", "ndim"), [({"use_linear_projection": False, "attention_head_dim": 2}, 4), ({}, 2)])
def test_every_weight_is_bit_for_bit_that_of_the_files(
    checkpoint_writer: Writer, files: Files, tmp_path: Path, kind: dict[str, Any], ndim: int
) -> None:
    folder = checkpoint_writer(tmp_path / "sd", kind, prediction="v_prediction")
    unet, vae = files.randomise(folder / UNET), files.randomise(folder / VAE)
    generator = torch.random.get_rng_state()
    backbone = stable_diffusion(str(folder))
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert unet["down_blocks.0.attentions.0.proj_in.weight"].ndim == ndim
    holds(backbone.unet, unet)
    holds(backbone.vae, {name: value for name, value in vae.items() if not name.startswith(("decoder.", "post_"))})
    assert not any(part.training for model in (backbone.unet, backbone.vae) for part in model.modules())
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(backbone.scheduler.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-4)
    assert backbone.scheduler.config["prediction_type"] == "v_prediction"
    assert (backbone.name, backbone.num_metadata, backbone.blueprint) == ("sd", 0, False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler")
def test_the_prompt_is_embedded_as_the_pipeline_embeds_it_and_its_model_let_go(
    latent_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"vae": diffusers.AutoencoderKL, "text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer}
    kinds |= {"unet": UNet2DConditionModel, "scheduler": diffusers.DDIMScheduler}
    parts: dict[str, Any] = {name: kind.from_pretrained(latent_folder / name) for name, kind in kinds.items()}
    pipeline = diffusers.StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None)
    ran: list[weakref.ref[Any]] = []
    forward = CLIPTextModel.forward
    monkeypatch.setattr(CLIPTextModel, "forward", lambda *a, **k: (ran.append(weakref.ref(a[0])), forward(*a, **k))[1])
    longest = "sea of the image of a satellite"  # 7 words, and 9 tokens with those of start and end
    found = {}
    for prompt in ("A satellite image", "the sea", "", longest, f"{longest} image the sea"):
        ran.clear()
        backbone = stable_diffusion(str(latent_folder), prompt=prompt)
        gc.collect()
        assert [model() for model in ran] == [None]
        wanted, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        assert torch.equal(backbone.prompt, wanted)
        assert not backbone.prompt.requires_grad
        assert backbone.text == prompt
        found[prompt] = backbone.prompt
    assert torch.equal(found[longest], found[f"{longest} image the sea"])
    first, *others = list(found.values())[:4]
    assert all(not torch.allclose(first, other, atol=1e-3) for other in others)
    assert torch.equal(stable_diffusion(str(latent_folder)).prompt, first)


def test_older_names_formats_and_shards_hold_the_same_weights(latent_copy: Path, files: Files) -> None:
    _ = [files.randomise(latent_copy / part) for part in (UNET, VAE)]
    wanted = stable_diffusion(str(latent_copy))
    vae = files.change(latent_copy / VAE, files.older_attention)
    assert sum("mid_block.attentions.0.proj_attn" in name for name in vae) == 4  # of encoder and decoder
    files.change(latent_copy / TEXT, files.older_text)
    for store in ("safetensors", "pickles and shards"):
        if store != "safetensors":
            assert len(files.shard(latent_copy / "unet")) > 3
            _ = [files.pickle(latent_copy / part) for part in (VAE, TEXT)]
        found = stable_diffusion(str(latent_copy))
        holds(found.unet, wanted.unet.state_dict())
        holds(found.vae, wanted.vae.state_dict())
        assert torch.equal(found.prompt, wanted.prompt)
        assert found.fingerprint == wanted.fingerprint


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_diffusionsat_loads_in_both_layouts_and_formats(
    satellite_copy: Path, files: Files, standard: bool, binary: bool
) -> None:
    if standard:
        shutil.move(satellite_copy / "checkpoint-150000" / "unet", satellite_copy / "unet")
    weights = satellite_copy / (UNET if standard else SAT)
    state = files.randomise(weights)
    if binary:
        files.pickle(weights)
    backbone = diffusionsat(str(satellite_copy))
    holds(backbone.unet, state)
    assert (type(backbone.unet), backbone.num_metadata, backbone.name) == (SatUNet, 7, "satellite")


def test_a_plain_unet_and_one_told_so_have_no_metadata(
    latent_copy: Path, files: Files, checkpoint_writer: Writer, tmp_path: Path
) -> None:
    told = checkpoint_writer(tmp_path / "told", {"use_metadata": False}, satellite=True)
    for folder, weights in ((latent_copy, UNET), (told, SAT)):
        state = files.randomise(folder / weights)
        backbone = diffusionsat(str(folder))
        holds(backbone.unet, state)
        assert backbone.num_metadata == 0


def test_the_unet_with_the_most_steps_is_taken_and_stable_diffusion_keeps_to_its_own(
    latent_copy: Path, satellite_copy: Path, files: Files
) -> None:
    for steps in ("9000", "20000", "final", "150000"):
        shutil.copytree(satellite_copy / "checkpoint-150000", latent_copy / f"checkpoint-{steps}")
        files.randomise(latent_copy / f"checkpoint-{steps}" / UNET)
    holds(diffusionsat(str(latent_copy)).unet, load_file(latent_copy / SAT))
    holds(stable_diffusion(str(latent_copy)).unet, load_file(latent_copy / UNET))


def old_config(satellite: Path) -> None:
    """A UNet's config.json with only the keys that diffusers 0.17 wrote."""
    path = (satellite / SAT).with_name("config.json")
    config = json.loads(path.read_text())
    newer = ("dropout", "attention_type", "addition_time_embed_dim", "reverse_transformer_layers_per_block")
    newer += ("num_attention_heads", "encoder_hid_dim_type", "transformer_layers_per_block")
    assert config.keys() >= {"class_embed_type", "time_embedding_type", *newer}
    old = {key: value for key, value in config.items() if key not in newer}
    old |= {"_class_name": "SatUNet", "_diffusers_version": "0.17.0", "use_metadata": True, "num_metadata": 7}
    path.write_text(json.dumps({**old, "_name_or_path": "/old/unet"}))


def test_a_configuration_of_diffusers_0_17_loads(satellite_copy: Path) -> None:
    old_config(satellite_copy)
    holds(diffusionsat(str(satellite_copy)).unet, load_file(satellite_copy / SAT))
    assert diffusionsat(str(satellite_copy), blueprint=True).num_metadata == 7


def test_a_satunet_adds_its_metadata_embeddings_alone_and_survives_saving(files: Files, tmp_path: Path) -> None:
    unet, plain = SatUNet(**files.config), UNet2DConditionModel(**files.config).state_dict()
    places = [f"metadata_embedding.{number}.linear_{layer}" for number in range(7) for layer in (1, 2)]
    assert unet.state_dict().keys() - plain.keys() == {f"{p}.{kind}" for p in places for kind in ("weight", "bias")}
    assert plain.keys() < unet.state_dict().keys()
    unet.save_pretrained(tmp_path)
    again = SatUNet.from_pretrained(tmp_path)
    holds(again, unet.state_dict())
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "SatUNet"
    assert (again.config["use_metadata"], again.config["num_metadata"]) == (True, 7)


@pytest.mark.parametrize(("cosine_first", "shift"), [(True, 0), (False, 1)])
def test_metadata_is_added_to_the_time_embedding(files: Files, cosine_first: bool, shift: int) -> None:
    config = {**files.config, "flip_sin_to_cos": cosine_first, "freq_shift": shift}
    unet, plain = SatUNet(**config).double().eval(), UNet2DConditionModel(**config).double().eval()
    state = unet.state_dict()
    own = {name: value.normal_() for name, value in state.items() if name.startswith("metadata_embedding.")}
    plain.load_state_dict({name: value for name, value in state.items() if name not in own})
    metadata = torch.rand(2, 7, dtype=torch.float64) * 1000

    def embedded(number: int, value: float) -> torch.Tensor:
        angles = [value * 10000 ** (-k / (4 - shift)) for k in range(4)]
        halves = [np.sin(angles), np.cos(angles)]
        wave = torch.from_numpy(np.concatenate(halves[::-1] if cosine_first else halves))
        first, second = (f"metadata_embedding.{number}.linear_{layer}." for layer in (1, 2))
        hidden = own[first + "weight"] @ wave + own[first + "bias"]
        return own[second + "weight"] @ (hidden / (1 + torch.exp(-hidden))) + own[second + "bias"]

    added = torch.stack([sum(embedded(i, float(value)) for i, value in enumerate(row)) for row in metadata])
    inputs = torch.randn(2, 4, 4, 4).double(), 321, torch.randn(2, 9, 12).double()
    with torch.no_grad():
        without = plain(*inputs).sample
        assert torch.equal(unet(*inputs).sample, without)
        found = unet(*inputs, added_cond_kwargs={"metadata": metadata}).sample
        plain.time_embedding.register_forward_hook(lambda module, args, output: output + added)
        wanted = plain(*inputs).sample
    scale = float((wanted - without).abs().max())
    assert scale > 1e-2
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3 * scale)  # diffusers' waves are of single precision


@pytest.mark.parametrize("shape", [(2, 6), (2, 8), (7,), (2, 1, 7)])
def test_another_number_of_metadata_is_refused(files: Files, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(2, 4, 4, 4), 1, torch.randn(2, 9, 12)
    with pytest.raises(UserError, match=re.escape(str(shape)) + ".*7 numbers"):
        SatUNet(**files.config)(*inputs, added_cond_kwargs={"metadata": torch.zeros(shape)})


def test_metadata_is_normalised_to_the_range_of_timesteps() -> None:
    ranges = [(-180, 180), (-90, 90), (0, 1), (0, 1), (1980, 2100), (0, 12), (0, 31)]
    rows = [[np.random.default_rng().uniform(low, high) for low, high in ranges] for _ in range(5)]
    wanted = [[1000 * (v - low) / (high - low) for v, (low, high) in zip(row, ranges, strict=True)] for row in rows]
    found = normalise_metadata(torch.tensor(rows, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize(("load", "copy"), [(stable_diffusion, "latent_copy"), (diffusionsat, "satellite_copy")])
def test_a_blueprint_reads_no_weights(request: pytest.FixtureRequest, load: Loader, copy: str) -> None:
    folder = request.getfixturevalue(copy)
    shapes = {name: value.shape for name, value in load(str(folder)).unet.state_dict().items()}
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "text_encoder")
    backbone = load(str(folder), blueprint=True)
    assert {name: value.shape for name, value in backbone.unet.state_dict().items()} == shapes
    assert all(value.is_meta for model in (backbone.unet, backbone.vae) for value in model.parameters())
    assert (backbone.blueprint, backbone.prompt.shape[-1]) == (True, 12)


SIZES = [(stable_diffusion, "sd15", 859_520_964, 768), (stable_diffusion, "sd21", 865_910_724, 1024)]
SIZES += [(diffusionsat, "diffusionsat", 865_910_724 + 7 * (320 * 1280 + 1280 + 1280 * 1280 + 1280), 1024)]


@pytest.mark.parametrize(("load", "architecture", "numbers", "width"), SIZES)
def test_the_blueprint_of_a_folder_that_is_not_there_has_the_published_size(
    load: Loader, architecture: str, numbers: int, width: int
) -> None:
    backbone = load("/not/here", architecture=architecture, blueprint=True)
    assert sum(value.numel() for value in backbone.unet.parameters()) == numbers
    assert sum(value.numel() for value in backbone.vae.parameters()) == 34_163_592 + 72  # encoder and quant_conv
    assert all(value.is_meta for model in (backbone.unet, backbone.vae) for value in model.parameters())
    assert backbone.prompt.shape == (1, 77, width)
    with pytest.raises(UserError, match="no architecture 'sd3'"):
        load("/not/here", architecture="sd3", blueprint=True)


@pytest.mark.parametrize(("load", "name"), [(stable_diffusion, "sd21"), (diffusionsat, "diffusionsat")])
def test_random_weights_depend_on_the_seed_alone(
    monkeypatch: pytest.MonkeyPatch, files: Files, load: Loader, name: str
) -> None:
    tiny = {"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2}
    tiny |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    monkeypatch.setattr(architectures, "VAE", {**architectures.VAE, **tiny})
    monkeypatch.setitem(architectures.UNETS, name, {**architectures.UNETS[name], **files.config})
    before = torch.random.get_rng_state()
    first, other = load("random", seed=3), load("random", seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(int(np.random.default_rng().integers(2**31)))
    again = load("random", seed=3)
    assert first.name == f"random-{name}"
    assert first.fingerprint == again.fingerprint != other.fingerprint
    holds(first.unet, again.unet.state_dict())
    holds(first.vae, again.vae.state_dict())
    assert torch.equal(first.prompt, again.prompt)
    for read in (lambda b: b.unet.conv_in.weight, lambda b: b.vae.encoder.conv_in.weight, lambda b: b.prompt):
        assert read(first).std() > 0
        assert not torch.allclose(read(first), read(other), atol=1e-3)


WEIGHTS_THAT_MATTER = [(UNET, "mid_block.attentions.0.proj_in.bias"), (TEXT, "final_layer_norm.bias")]
WEIGHTS_THAT_MATTER += [(VAE, "encoder.conv_out.weight"), (VAE, "quant_conv.bias")]
SETTINGS_THAT_MATTER = [(SCHEDULE, {"prediction_type": "v_prediction"}), (SCHEDULE, {"beta_end": 0.0121})]
SETTINGS_THAT_MATTER += [("vae/config.json", {"scaling_factor": 0.2}), ("unet/config.json", {"attention_head_dim": 4})]
SETTINGS_THAT_MATTER += [("unet/config.json", {"norm_num_groups": 2}), ("unet/config.json", {"act_fn": "relu"})]


@pytest.mark.parametrize(("part", "what"), WEIGHTS_THAT_MATTER + SETTINGS_THAT_MATTER)
def test_the_fingerprint_changes_with_what_features_depend_on(
    latent_copy: Path, files: Files, part: str, what: str | dict[str, Any]
) -> None:
    before = stable_diffusion(str(latent_copy)).fingerprint
    if isinstance(what, str):
        files.change(latent_copy / part, lambda state: state[what].view(-1)[-1:].add_(1e-3))
    else:
        files.edit(latent_copy / part, **what)
    assert stable_diffusion(str(latent_copy)).fingerprint != before


def test_the_fingerprint_changes_with_the_prompt_and_not_with_the_decoder(latent_copy: Path, files: Files) -> None:
    before = stable_diffusion(str(latent_copy)).fingerprint
    assert stable_diffusion(str(latent_copy), prompt="the sea").fingerprint != before
    for name in ("decoder.conv_in.weight", "post_quant_conv.bias"):
        files.change(latent_copy / VAE, lambda state, name=name: state[name].add_(1))
    assert stable_diffusion(str(latent_copy)).fingerprint == before


QUIET: dict[str, tuple[Loader, Callable[[Files, Path], Any]]] = {
    "plain": (stable_diffusion, lambda files, folder: None),
    "old VAE": (stable_diffusion, lambda files, folder: files.change(folder / VAE, files.older_attention)),
    "old text": (stable_diffusion, lambda files, folder: files.change(folder / TEXT, files.older_text)),
    "binary": (stable_diffusion, lambda files, folder: [files.pickle(folder / part) for part in (UNET, VAE, TEXT)]),
    "shards": (stable_diffusion, lambda files, folder: files.shard(folder / "unet")),
    "no metadata": (diffusionsat, lambda files, folder: None),
    "old satellite": (diffusionsat, lambda files, folder: old_config(folder)),
}


@pytest.mark.parametrize("blueprint", [False, True])
@pytest.mark.parametrize("case", QUIET)
def test_loading_says_nothing_in_the_terminal(request: pytest.FixtureRequest, case: str, blueprint: bool) -> None:
    load, prepare = QUIET[case]
    folder = request.getfixturevalue("satellite_copy" if case == "old satellite" else "latent_copy")
    prepare(request.getfixturevalue("files"), folder)
    for library in ("diffusers", "transformers", "accelerate"):  # their own handlers hold another test's stderr
        request.getfixturevalue("monkeypatch").setattr(logging.getLogger(library), "propagate", True)
    capfd, caplog, recwarn = (request.getfixturevalue(name) for name in ("capfd", "caplog", "recwarn"))
    load(str(folder), blueprint=blueprint)
    assert tuple(capfd.readouterr()) == ("", "")
    assert caplog.messages == []
    assert [str(found.message) for found in recwarn if found.category is not DeprecationWarning] == []
