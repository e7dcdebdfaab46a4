"""Pretraining on the device: mixed precision near float32, and a checkpoint that goes on with the same losses."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.gpu
SCENES = ["data.size=16", "data.splits.train.length=9", "data.splits.val.length=3"]
UNET = [
    "unet.block_out_channels=[16,16]",
    "unet.down_block_types=[DownBlock2D,AttnDownBlock2D]",
    "unet.up_block_types=[AttnUpBlock2D,UpBlock2D]",
    "unet.norm_num_groups=8",
    "unet.attention_head_dim=8",
]
RECIPE = ["recipe.batch_size=8", "recipe.eval_every=2", "recipe.eval_images=3", "recipe.levels=[21,801]"]
RECIPE += ["recipe.samples=0", "recipe.warmup=1", "recipe.tensorboard=false"]
LATENT = ["vae.weights=small", "vae.block_out_channels=[16,32]", "vae.latent_channels=2", "vae.steps=2"]


@pytest.fixture(autouse=True)
def _libraries() -> None:
    for name in ("accelerate", "diffusers", "hydra"):
        pytest.importorskip(name)


@pytest.fixture
def pretrained(tmp_path: Path, device: torch.device) -> Callable[..., list[dict[str, float]]]:
    """`pretrained(name, *words)`: a run in a folder of that name; the rows of its log."""
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("accelerate takes the GPU that is there")

    def run(name: str, *words: str) -> list[dict[str, float]]:
        from satdifuser.commands import pretrain
        from satdifuser.config import compose
        from satdifuser.engine.run import RunFolder

        config = compose("pretrain", [*SCENES, *UNET, *RECIPE, *words, f"run={tmp_path / name}"])
        model = pretrain.run(config, quiet=True)
        assert (model / "unet" / "diffusion_pytorch_model.safetensors").is_file()
        return RunFolder(tmp_path / name).rows()

    return run


def numbers(rows: list[dict[str, float]]) -> dict[str, torch.Tensor]:
    """Losses of the steps, and those of the images that are held out."""
    return {
        f"{row['step']} {name}": torch.tensor(value)
        for row in rows
        for name, value in row.items()
        if name == "loss" or name.startswith("val/")
    }


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_at_each_level_and_its_slopes_are_those_of_the_cpu(
    prediction: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    from diffusers import DDPMScheduler

    from satdifuser.pretrain.denoising import Denoising

    unet = diffusion("pixels").network.unet.requires_grad_(True)
    schedule = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear", prediction_type=prediction)
    objective = Denoising(unet, schedule, seed=4)
    (images, ids, _), levels = some(5), [0, 21, 801]
    images = images[:, :3] / 0.15 - 1
    sides = {"cpu": exactly(objective), "device": objective.to(device)}
    noise, at = torch.randn_like(images), torch.tensor([0, 21, 400, 801, 999])
    found, by_level = {}, {}
    for name, side in sides.items():
        errors = side.by_level(images.to(side.signal), ids, levels, 2)
        by_level[name] = {level: torch.tensor(value) for level, value in errors.items()}
        side.error(images.to(side.signal), noise.to(side.signal), at.to(side.signal.device)).sum().backward()
        found[name] = {key: parameter.grad for key, parameter in side.named_parameters()}
    agree(by_level["device"], by_level["cpu"])
    agree(found["device"], found["cpu"])


def test_the_chance_of_two_processes_is_that_of_one_on_the_device_too(device: torch.device) -> None:
    from satdifuser.pretrain.draws import Draws, any_side_up

    def drawn(**share: int) -> list[torch.Tensor]:
        draws = Draws(3, 17, 10, device=device, **share)
        images = torch.arange(10 * 3 * 16.0, device=device).view(10, 3, 4, 4)[draws.mine]
        turned = any_side_up(images, draws)
        assert torch.equal(turned.flatten(1).sort(1).values, images.flatten(1).sort(1).values)  # pixels change places
        return [draws.normal((2, 3)), draws.integers(50), draws.uniform((4,)), draws.levels(1000), turned]

    whole, one, other = drawn(), drawn(rank=0, world=2), drawn(rank=1, world=2)
    for all_of_it, first, second in zip(whole, one, other, strict=True):
        assert all_of_it.device.type == device.type
        assert torch.equal(all_of_it[0::2], first)
        assert torch.equal(all_of_it[1::2], second)
    levels = sorted(whole[3].tolist())
    assert [level // 100 for level in levels] == list(range(10))  # one in each part of the range


def test_two_steps_in_mixed_precision_stay_near_float32(
    pretrained: Any, device: torch.device, agree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = functools.partial(torch.amp.GradScaler, init_scale=2.0**10)  # else it leaves out steps until it has come down
    monkeypatch.setattr(torch.amp, "GradScaler", low)
    plain = numbers(pretrained("plain", "recipe.steps=2"))
    assert {"1 loss", "2 loss", "2 val/21", "2 val/801"} <= plain.keys()
    for precision, word in (("bfloat16", "bf16"), ("float16", "fp16")):
        if word == "fp16" and device.type == "cpu":
            continue  # accelerate refuses it there
        mixed = numbers(pretrained(word, "recipe.steps=2", f"recipe.mixed_precision={word}"))
        agree(mixed, plain, precision)


def test_a_model_of_latents_is_pretrained_on_the_device_in_bfloat16(pretrained: Any, agree: Any) -> None:
    plain = numbers(pretrained("plain", "recipe.steps=2", *LATENT))
    mixed = numbers(pretrained("bf16", "recipe.steps=2", *LATENT, "recipe.mixed_precision=bf16"))
    agree(mixed, plain, tolerance=0.1)  # the VAE, and so the latents, were trained in other bits


def test_a_checkpoint_goes_on_with_the_same_losses(
    pretrained: Any, tmp_path: Path, device: torch.device, agree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satdifuser.pretrain.trainer import Pretrainer

    save = Pretrainer._save

    def copying(trainer: Pretrainer) -> None:
        save(trainer)
        if trainer.state.step == 2:
            shutil.copytree(trainer.run.path, tmp_path / "halfway")

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_save", copying)
        whole = pretrained("whole", "recipe.steps=4")
    resumed = pretrained("halfway", "recipe.steps=4", "resume=true")
    later = [row for row in resumed if row["step"] > 2]
    assert [row["step"] for row in later] == [3, 4]
    got, wanted = numbers(later), numbers([row for row in whole if row["step"] > 2])
    if device.type == "cpu":
        assert got == wanted
    else:  # the slopes of a convolution may be added up in another order, and Adam makes steps of small slopes too
        agree(got["3 loss"], wanted["3 loss"])
        agree(got, wanted, tolerance=1e-3)
