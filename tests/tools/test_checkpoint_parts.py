"""A pretraining run in parts: the same run on the other side, and no part that is missing or damaged is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from satdifuser.cli import main
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

UNET = ["unet.block_out_channels=[16,16]", "unet.down_block_types=[DownBlock2D,DownBlock2D]", "unet.norm_num_groups=8"]
UNET += ["unet.up_block_types=[UpBlock2D,UpBlock2D]", "unet.attention_head_dim=8"]
RECIPE = ["recipe.steps=8", "recipe.batch_size=4", "recipe.eval_images=3", "recipe.samples=0", "recipe.warmup=1"]
RECIPE += ["recipe.levels=[21]", "recipe.tensorboard=false"]
SCENES = ["data.size=16", "data.splits.train.length=9", "data.splits.val.length=3"]
STOP = "recipe.eval_every=4"


def pretrain(run: Path, *words: str) -> Path:
    assert main(["pretrain", *UNET, *RECIPE, *SCENES, STOP, *words, f"run={run}"]) == 0
    return run


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at some step before its last."""
    run = tmp_path_factory.mktemp("half") / "run"
    for number in range(5):  # one step each
        pretrain(run, "recipe.minutes=1e-9", f"resume={str(number > 0).lower()}")
    return run


@pytest.fixture
def parts_tool(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("checkpoint_parts")


def test_the_exact_form_is_the_checkpoint_and_goes_on_as_the_run_itself(
    half: Path, tmp_path: Path, parts_tool: ModuleType
) -> None:
    index = parts_tool.split(half, tmp_path / "parts", exact=True, part_bytes=5000)
    assert index["step"] == 5
    files = sorted((tmp_path / "parts").iterdir())
    assert len(files) == len(index["parts"]) + 1 > 3
    assert all(file.stat().st_size <= 5000 for file in files if file.suffix == ".part")
    assert parts_tool.join(tmp_path / "parts", tmp_path / "other" / "run") == 5
    there = RunFolder(tmp_path / "other" / "run")
    assert there.last.read_bytes() == RunFolder(half).last.read_bytes()
    ended = pretrain(there.path, "resume=true")
    whole = pretrain(tmp_path / "whole")
    for name, value in load_file(whole / "model/unet/diffusion_pytorch_model.safetensors").items():
        assert torch.equal(value, load_file(ended / "model/unet/diffusion_pytorch_model.safetensors")[name])
    assert [row["loss"] for row in there.rows()] == [row["loss"] for row in RunFolder(whole).rows()]


def test_the_light_form_keeps_weights_and_rounds_their_average_and_moments_a_little(
    half: Path, tmp_path: Path, parts_tool: ModuleType
) -> None:
    index = parts_tool.split(half, tmp_path / "parts")
    parts_tool.join(tmp_path / "parts", tmp_path / "run")
    before, after = load_file(RunFolder(half).last), load_file(RunFolder(tmp_path / "run").last)
    assert before.keys() == after.keys()
    parameters = 0
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        if name.startswith("model/net/"):
            parameters += value.numel()
            assert torch.equal(after[name], value)
        elif name.startswith("model/ema/"):
            moved = (value - before[name.replace("/ema/", "/net/")]).abs().max()
            assert (after[name] - value).abs().max() <= moved / 256 + 1e-7
        else:
            torch.testing.assert_close(after[name], value, rtol=1 / 256, atol=0)
    assert any(not torch.equal(after[name], value) for name, value in before.items())  # it is the light one
    light = sum(part["bytes"] for part in index["parts"])
    exact = sum(part["bytes"] for part in parts_tool.split(half, tmp_path / "exact", exact=True)["parts"])
    assert exact - light == pytest.approx(6 * parameters, rel=0.1)
    ended = pretrain(tmp_path / "run", "resume=true")
    whole = pretrain(tmp_path / "whole")
    losses = [[row["loss"] for row in RunFolder(run).rows()] for run in (ended, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_missing_or_damaged_part_is_named_and_the_run_is_not_begun(
    half: Path, tmp_path: Path, parts_tool: ModuleType
) -> None:
    parts_tool.split(half, tmp_path, part_bytes=20000)
    part = tmp_path / "checkpoint-01.part"
    content = part.read_bytes()
    part.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(UserError, match=r"checkpoint-01\.part is not the part that"):
        parts_tool.join(tmp_path, tmp_path / "run")
    part.unlink()
    with pytest.raises(UserError, match=r"checkpoint-01\.part is missing"):
        parts_tool.join(tmp_path, tmp_path / "run")
    (tmp_path / "checkpoint.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint\.json in"):
        parts_tool.join(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_got_further_is_kept(half: Path, tmp_path: Path, parts_tool: ModuleType) -> None:
    parts_tool.split(half, tmp_path / "parts")
    parts_tool.join(tmp_path / "parts", tmp_path / "run")
    pretrain(tmp_path / "run", "resume=true")
    kept = RunFolder(tmp_path / "run").last.read_bytes()
    assert parts_tool.join(tmp_path / "parts", tmp_path / "run") == 8
    assert RunFolder(tmp_path / "run").last.read_bytes() == kept


def test_parts_of_an_older_step_do_not_stay_behind(half: Path, tmp_path: Path, parts_tool: ModuleType) -> None:
    parts_tool.split(half, tmp_path, part_bytes=5000)
    parts_tool.split(half, tmp_path)
    names = [part["name"] for part in json.loads((tmp_path / "checkpoint.json").read_text())["parts"]]
    assert sorted(file.name for file in tmp_path.glob("*.part")) == names


def test_a_run_with_a_vae_brings_it_along(tmp_path: Path, parts_tool: ModuleType) -> None:
    vae = ["vae.weights=small", "vae.steps=1", "vae.block_out_channels=[16,32]", "vae.latent_channels=2"]
    run = pretrain(tmp_path / "run", *vae, "recipe.minutes=1e-9")
    parts_tool.split(run, tmp_path / "parts")
    parts_tool.join(tmp_path / "parts", tmp_path / "other")
    pretrain(tmp_path / "other", *vae, "resume=true")
    vae_file = "model/vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "other" / vae_file).read_bytes() == (run / vae_file).read_bytes()
