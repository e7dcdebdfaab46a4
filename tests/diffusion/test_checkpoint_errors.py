"""What can be wrong with a latent checkpoint: each is one line that names the place and what to do."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from satdifuser.diffusion.loading import Backbone, diffusionsat, stable_diffusion, unconditional
from satdifuser.errors import UserError

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE, TEXT = UNET.replace("unet", "vae"), "text_encoder/model.safetensors"
SCHEDULE = "scheduler/scheduler_config.json"
Loader = Callable[..., Backbone]
Files = Any  # conftest's CheckpointFiles


def complaint(folder: Path | str, load: Loader = stable_diffusion, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder), **options)
    message = str(caught.value)
    assert message.isprintable(), repr(message)  # one line, and no colours
    return message


def named(path: Path) -> str:
    """A text model is named by its folder, other weights by their file."""
    return str(path.parent if path.parent.name == "text_encoder" else path)


@pytest.mark.parametrize(("load", "source"), [(stable_diffusion, "hub name"), (diffusionsat, "samar-khanna")])
def test_a_folder_that_is_not_there_is_named_with_where_to_get_it(tmp_path: Path, load: Loader, source: str) -> None:
    message = complaint(tmp_path / "nowhere", load)
    for words in (f"no folder {tmp_path / 'nowhere'}", f"a {load.__name__} checkpoint is looked for there", source):
        assert words in message


PARTS = ["unet/config.json", "unet", UNET, "vae", "vae/config.json", VAE, "scheduler", SCHEDULE, "text_encoder", TEXT]
PARTS += ["text_encoder/config.json", "tokenizer", "tokenizer/vocab.json", "tokenizer/merges.txt"]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_is_missing_is_named(latent_copy: Path, part: str) -> None:
    path = latent_copy / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = complaint(latent_copy)
    assert str(path if part not in (TEXT, "tokenizer/merges.txt") else path.parent) in message
    assert re.search("fetch it again|was the download complete|folder in diffusers' layout is expected", message)


@pytest.mark.parametrize("keep", [0.0, 0.002, 0.6, 0.999])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_a_truncated_file_of_weights_is_named_as_damaged(
    latent_copy: Path, files: Files, part: str, binary: bool, keep: float
) -> None:
    path = files.pickle(latent_copy / part) if binary else latent_copy / part
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    message = complaint(latent_copy)
    assert named(path) in message
    assert "damaged or incomplete" in message


class Bomb:
    """What a hostile file would run when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_a_pickle_of_more_than_weights_is_refused_and_never_run(
    latent_copy: Path, files: Files, tmp_path: Path, part: str
) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "works"))).close()
    assert (tmp_path / "works").exists()
    path = files.pickle(latent_copy / part, more=Bomb(tmp_path / "ran"))
    with pytest.raises(UserError, match=str(path.parent)):
        stable_diffusion(str(latent_copy))
    assert not (tmp_path / "ran").exists()
    torch.save(["no", "weights"], path)
    assert named(path) in complaint(latent_copy)


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_the_line_about_a_pickle_does_not_tell_how_to_run_it(latent_copy: Path, files: Files, part: str) -> None:
    path = files.pickle(latent_copy / part, more=Bomb(latent_copy / "ran"))
    message = complaint(latent_copy)
    assert named(path) in message
    assert "weights_only" not in message


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_weights_that_do_not_match_are_listed_by_name(latent_copy: Path, files: Files, part: str) -> None:
    shapes = {name: tuple(value.shape) for name, value in load_file(latent_copy / part).items()}
    names = [str(name) for name in np.random.default_rng().permutation(list(shapes))]

    def spoil(state: dict[str, torch.Tensor]) -> None:
        for number in range(2):
            del state[names[number]]
            state[names[2 + number]] = torch.zeros(3, 77 + number)
            state[f"extra.{number}"] = torch.zeros(2)

    files.change(latent_copy / part, spoil)
    message = complaint(latent_copy)
    assert named(latent_copy / part) in message
    assert "(6 weights)" in message
    for number in range(2):
        assert f"{names[number]} is missing" in message
        assert f"extra.{number} is unknown" in message
        assert f"{names[2 + number]} is (3, {77 + number}) instead of {shapes[names[2 + number]]}" in message
    files.change(latent_copy / part, lambda state: [state.pop(name) for name in names[4:14]])
    message = complaint(latent_copy)
    assert "(16 weights)" in message
    assert message.count("is missing") == 8
    assert message.endswith("; and 8 more")


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_the_line_about_weights_that_do_not_match_is_all_that_is_said(
    request: pytest.FixtureRequest, latent_copy: Path, files: Files, part: str
) -> None:
    files.change(latent_copy / part, lambda state: state.popitem())
    for library in ("diffusers", "transformers", "accelerate"):  # their own handlers hold another test's stderr
        request.getfixturevalue("monkeypatch").setattr(logging.getLogger(library), "propagate", True)
    capfd, caplog = (request.getfixturevalue(name) for name in ("capfd", "caplog"))
    complaint(latent_copy)
    assert tuple(capfd.readouterr()) == ("", "")
    assert caplog.messages == []


SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 24}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SDXL, "addition_embed_type='text_time'"),
        ({"num_class_embeds": 3}, "num_class_embeds=3"),
        ({"encoder_hid_dim": 6, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type='text_proj'"),
        ({"cross_attention_dim": 16}, "gives 12 numbers a token, but its UNet reads 16"),
    ],
)
def test_a_unet_that_reads_something_else_is_refused(
    checkpoint_writer: Callable[..., Path], tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    message = complaint(checkpoint_writer(tmp_path / "other", config))
    assert words in message
    assert str(tmp_path / "other") in message


def test_models_of_another_kind_are_refused(
    latent_copy: Path, satellite_folder: Path, tiny_folder: Path, files: Files
) -> None:
    assert "describes a SatUNet, but a UNet2DConditionModel is expected" in complaint(satellite_folder)
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(latent_copy / "scheduler")
    assert "flow matching" in complaint(latent_copy)
    assert str(latent_copy / SCHEDULE) in complaint(latent_copy)
    config = latent_copy / "vae" / "config.json"
    files.edit(config, _class_name="VQModel")
    assert f"{config} describes a VQModel, but a AutoencoderKL is expected" in complaint(latent_copy)
    shutil.copytree(tiny_folder / "unet", latent_copy / "unet", dirs_exist_ok=True)
    config = latent_copy / "unet" / "config.json"
    assert f"{config} describes a UNet2DModel, but a UNet2DConditionModel is expected" in complaint(latent_copy)
    files.edit(config, num_class_embeds=3)
    assert f"{latent_copy / 'unet'} is conditioned on classes" in complaint(latent_copy, unconditional)


@pytest.mark.parametrize("blueprint", [False, True])
def test_a_configuration_that_makes_no_network_is_one_line(latent_copy: Path, files: Files, blueprint: bool) -> None:
    files.edit(latent_copy / "text_encoder" / "config.json", hidden_size=13)  # of two heads: no blueprint reads it
    if not blueprint:
        message = complaint(latent_copy)
        assert str(latent_copy / "text_encoder") in message
        assert "13" in message
    files.edit(latent_copy / "unet" / "config.json", block_out_channels=[8, 16, 32])
    message = complaint(latent_copy, blueprint=blueprint)
    assert str(latent_copy / "unet") in message
    assert "block_out_channels" in message


def test_a_shard_that_is_damaged_or_lost_is_named(latent_copy: Path, files: Files) -> None:
    shard = files.shard(latent_copy / "unet")[2]
    shard.write_bytes(shard.read_bytes()[:99])
    assert str(shard) in complaint(latent_copy)
    shard.unlink()
    message = complaint(latent_copy)
    assert str(shard) in message
    assert "fetch it again" in message


def test_a_name_on_the_hub_is_downloaded_or_refused(
    latent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(repository: str, **options: Any) -> str:
        asked.append(repository)
        if repository != "org/name":
            raise OSError("offline:\n  no network")
        return str(latent_folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    found = stable_diffusion("org/name")
    assert found.fingerprint == stable_diffusion(str(latent_folder)).fingerprint
    assert found.name == "name"
    message = complaint("org/other-2.1")
    for words in ("org/other-2.1", "a stable_diffusion checkpoint", "offline: no network", "give a folder or a hub"):
        assert words in message
    assert asked == ["org/name", "org/other-2.1"]
    assert stable_diffusion("org/other", blueprint=True).blueprint
    assert len(asked) == 2
