"""satdifuser pretrain, from the command line to a model that encoders and diffusers load."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from satdifuser.build import build_encoder
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.pretrain.trainer import Pretrainer

UNET = [
    "unet.block_out_channels=[16,16]",
    "unet.down_block_types=[DownBlock2D,AttnDownBlock2D]",
    "unet.up_block_types=[AttnUpBlock2D,UpBlock2D]",
    "unet.norm_num_groups=8",
    "unet.attention_head_dim=8",
]
RECIPE = [
    "recipe.steps=4",
    "recipe.batch_size=4",
    "recipe.eval_every=2",
    "recipe.eval_images=3",
    "recipe.levels=[21,801]",
    "recipe.samples=2",
    "recipe.warmup=1",
    "recipe.tensorboard=false",
]
SCENES = ["data.size=16", "data.splits.train.length=9", "data.splits.val.length=3"]
MIX = ["data@mix=synthetic", "mix.seed=5", "mix.splits.train.length=4", "mix.splits.val.length=2"]
VAE = ["vae.block_out_channels=[16,32]", "vae.latent_channels=2"]
Capture = pytest.CaptureFixture[str]


def pretrain(run: Path, *overrides: str, data: list[str] = SCENES, code: int = 0) -> Path:
    assert main(["pretrain", *UNET, *RECIPE, *data, *overrides, f"run={run}"]) == code
    return run


def encoder(run: Path) -> Any:
    overrides = ["encoder=unconditional", f"encoder.backbone.weights={run / 'model'}", "encoder.taps=[mid_block]"]
    overrides.append("encoder.image_size=16")
    return build_encoder(compose("extract", overrides).encoder)


def tensors(run: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    return load_file(run / "model" / part / "diffusion_pytorch_model.safetensors")


def assert_half_of(found: dict[str, torch.Tensor], prefix: str, checkpoint: Path) -> None:
    """What is exported is what the checkpoint has under a prefix, in half precision."""
    held = {n.removeprefix(prefix): v for n, v in load_checkpoint(checkpoint)[1].items() if n.startswith(prefix)}
    assert found.keys() == held.keys()
    for name, value in found.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, held[name].half()), name


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in pixels."""
    return pretrain(tmp_path_factory.mktemp("pixels") / "run")


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in the latents of its own VAE."""
    return pretrain(tmp_path_factory.mktemp("latents") / "run", "vae.weights=small", *VAE, "vae.steps=3")


def write_images(root: Path, count: int = 24) -> Path:
    root.mkdir()
    dice = np.random.default_rng(3)
    for number in range(count):
        name = f"{number:02d}[b].png"  # no markup
        Image.fromarray(dice.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name)
    return root


def truncate(root: Path, split: str) -> str:
    """Cut a file of a split short; its name."""
    from satdifuser.data.readers.folder import ImageFolder

    name = ImageFolder(str(root), split, sensor="satdifuser.data.bands.SENTINEL2_RGB").names[0]
    (root / name).write_bytes((root / name).read_bytes()[:200])
    return name


def test_a_run_in_pixels_leaves_its_log_and_a_model(pixels: Path) -> None:
    rows = RunFolder(pixels).rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["loss"] > 0 for row in rows)
    assert [sorted(name for name in row if name.startswith("val/")) for row in rows] == [[], ["val/21", "val/801"]] * 2
    for name in ("config.yaml", "environment.json", "samples/step-000002.png"):
        assert (pixels / name).stat().st_size > 0, name
    provenance = json.loads((pixels / "model" / "provenance.json").read_text())
    assert provenance["steps"] == 4
    assert provenance["data"][0]["length"] == 9
    assert provenance["loss_on_held_out_images"] == pytest.approx(
        {name: rows[-1][name] for name in ("val/21", "val/801")}, abs=1e-5
    )
    assert not list(pixels.rglob("*.partial"))


def test_the_model_is_the_average_in_half_precision(pixels: Path) -> None:
    assert_half_of(tensors(pixels), "ema/unet.", RunFolder(pixels).last)


def test_diffusers_loads_the_model_as_a_pipeline(pixels: Path) -> None:
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(pixels / "model")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value.float(), tensors(pixels)[name].float())
    assert pipeline.scheduler.config["prediction_type"] == "v_prediction"
    assert pipeline.scheduler.config["beta_end"] == 0.012
    pipeline.set_progress_bar_config(disable=True)
    assert np.asarray(pipeline(num_inference_steps=2).images[0]).shape == (16, 16, 3)


def test_an_encoder_loads_the_model(pixels: Path) -> None:
    made = encoder(pixels)
    bank = made(torch.rand(2, 13, 16, 16) * 0.4, sample_ids=["a", "b"])
    assert made.spec.image_size == (16, 16)
    assert bank.map("mid_block", 21).shape == (2, 16, 8, 8)
    for name, value in tensors(pixels).items():
        assert torch.equal(made.network.unet.state_dict()[name].half(), value)


def test_a_run_in_latents_trains_a_vae_first_and_its_model_loads_as_an_encoder(latents: Path) -> None:
    assert [row["step"] for row in RunFolder(latents / "vae").rows()] == [1, 2, 3]
    assert "val/error" in RunFolder(latents / "vae").rows()[-1]
    assert_half_of(tensors(latents / "vae", "vae"), "ema/vae.", RunFolder(latents / "vae").last)
    assert_half_of(tensors(latents), "ema/unet.", RunFolder(latents).last)
    config = json.loads((latents / "model" / "vae" / "config.json").read_text())
    own = json.loads((latents / "vae" / "model" / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == own["scaling_factor"] != 0.18215
    for name, value in tensors(latents / "vae", "vae").items():
        assert torch.equal(tensors(latents, "vae")[name], value)
    made = encoder(latents)
    assert made.spec.image_size == (16, 16)
    bank = made(torch.rand(2, 13, 16, 16) * 0.4, sample_ids=["a", "b"])
    assert bank.map("mid_block", 21).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("folder", ["model", "vae/model/vae"])
def test_the_vae_of_an_earlier_run_can_be_taken(tmp_path: Path, latents: Path, folder: str) -> None:
    run = pretrain(tmp_path / "run", f"vae.weights={latents / folder}", "recipe.steps=1")
    assert not (run / "vae").exists()
    for name, value in tensors(latents, "vae").items():
        assert torch.equal(tensors(run, "vae")[name], value)
    configs = [json.loads((path / "model/vae/config.json").read_text()) for path in (run, latents)]
    assert configs[0]["scaling_factor"] == configs[1]["scaling_factor"]


@pytest.mark.slow
def test_a_run_is_the_same_again_and_when_it_was_interrupted(
    tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the VAE's training, then in the UNet's."""
    small = ["vae.weights=small", *VAE, "vae.steps=3"]
    whole = Pretrainer._step
    for stage in ("vae", "run"):

        def killed(self: Pretrainer, *args: Any, stage: str = stage) -> dict[str, Any]:
            row = whole(self, *args)
            if self.run.path.name == stage and self.state.step == 3:
                raise KeyboardInterrupt
            return row

        with monkeypatch.context() as patch:
            patch.setattr(Pretrainer, "_step", killed)
            pretrain(tmp_path / "run", *small, "resume=true", code=130)
    run = pretrain(tmp_path / "run", *small, "resume=true")
    for part in ("", "vae"):
        assert RunFolder(run / part).rows() == RunFolder(latents / part).rows()
    for part in ("unet", "vae"):
        for name, value in tensors(latents, part).items():
            assert torch.equal(tensors(run, part)[name], value), name


def test_what_is_learned_beside_denoising_goes_on_where_it_stopped_and_leaves_the_unet_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = ["encoder@teacher=rcf", "teacher.features=8", "align.views=0.02", "align.width=16"]
    whole = pretrain(tmp_path / "whole", *beside)
    step = Pretrainer._step

    def killed(self: Pretrainer, *args: Any) -> dict[str, Any]:
        row = step(self, *args)
        if self.state.step == 3:
            raise KeyboardInterrupt
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", killed)
        pretrain(tmp_path / "run", *beside, code=130)
    run = pretrain(tmp_path / "run", *beside, "resume=true")
    assert RunFolder(run).rows() == RunFolder(whole).rows()
    plain = pretrain(tmp_path / "plain")
    assert tensors(run).keys() == tensors(plain).keys()
    assert all(torch.equal(value, tensors(whole)[name]) for name, value in tensors(run).items())
    assert any(not torch.equal(value, tensors(plain)[name]) for name, value in tensors(run).items())
    about, alone = (json.loads((one / "model" / "provenance.json").read_text()) for one in (run, plain))
    assert about["parameters"] == alone["parameters"]
    assert about["align"]["views"] == 0.02
    assert about["teacher"]["features"] == 8
    assert alone["teacher"] is None


def test_two_views_of_one_image_at_once_are_refused(tmp_path: Path, capsys: Capture) -> None:
    run = pretrain(tmp_path / "run", "align.views=0.02", "recipe.accumulate=4", code=2)
    assert "align.views compares images that go through the network at once, and there is 1" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["vae.weights=small", "vae.steps=2", *VAE]])
def test_a_run_whose_time_is_over_says_so_and_goes_on_to_the_model_of_an_unbroken_one(
    tmp_path: Path, capsys: Capture, words: list[str]
) -> None:
    whole = pretrain(tmp_path / "whole", *words)
    capsys.readouterr()
    run, said = tmp_path / "part", []
    for number in range(20):
        pretrain(run, *words, "recipe.minutes=1e-9", f"resume={str(number > 0).lower()}")  # a step each time
        said.append(capsys.readouterr().err)
        if "stopped after" not in said[-1]:
            break
    stops = [line for text in said for line in text.splitlines() if line.startswith("stopped after")]
    steps = [f"step {step} of 4" for step in (1, 2, 3)]
    if words:
        steps.insert(0, "step 1 of 2 of the VAE")
    ends = ": the same command with resume=true goes on"
    assert stops == [f"stopped after 1e-09 minutes at {step}{ends}" for step in steps]
    assert "load it with" in said[-1]
    for part in sorted(path.name for path in (whole / "model").iterdir() if path.is_dir()):
        for file in (whole / "model" / part).glob("*.safetensors"):
            assert (run / "model" / part / file.name).read_bytes() == file.read_bytes()
    assert RunFolder(run).rows() == RunFolder(whole).rows()


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, pixels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Pretrainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_save", die)
        pretrain(tmp_path / "run", code=130)
    assert len(RunFolder(tmp_path / "run").rows()) == 1
    run = pretrain(tmp_path / "run")
    assert RunFolder(run).rows() == RunFolder(pixels).rows()


def test_a_finished_run_that_is_resumed_says_so_and_is_left_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    run = pretrain(tmp_path / "run", "vae.weights=small", *VAE, "vae.steps=1", "recipe.steps=1")
    files = [file for file in run.rglob("*") if file.is_file() and file.parent != run]
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    capsys.readouterr()
    pretrain(run, "vae.weights=small", *VAE, "vae.steps=1", "recipe.steps=1", "resume=true")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{run} was finished before, at step 1: its model stays as it is"
    assert "load it with" in said[1]
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before


def test_a_finished_run_is_refused_resumed_or_begun_anew(tmp_path: Path, capsys: Capture) -> None:
    run = pretrain(tmp_path / "run", "recipe.steps=1")
    first = RunFolder(run).rows()
    pretrain(run, "recipe.steps=1", code=2)
    assert "add resume=true" in capsys.readouterr().err
    before = tensors(run)
    shutil.rmtree(run / "model")
    pretrain(run, "recipe.steps=1", "resume=true")  # makes the model again
    assert RunFolder(run).rows() == first
    for name, value in before.items():
        assert torch.equal(tensors(run)[name], value)
    pretrain(run, "recipe.steps=1", "overwrite=true", "seed=1")
    assert RunFolder(run).rows() != first


def test_a_run_goes_on_with_the_settings_it_began_with_or_not_at_all(tmp_path: Path, capsys: Capture) -> None:
    run = pretrain(tmp_path / "run", "recipe.steps=1")
    pretrain(run, "recipe.steps=1", "resume=true", "schedule.prediction_type=epsilon", code=2)
    assert "was begun with another schedule.prediction_type" in capsys.readouterr().err
    kept = (run / "config.yaml").read_text()
    pretrain(run, "recipe.steps=1", "overwrite=true", "unet.norm_num_groups=5", code=2)
    assert tensors(run)  # what cannot be built replaces nothing
    assert (run / "config.yaml").read_text() == kept


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_for_safetensors(*args: Any, **kwargs: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "act", "wrote"),
    [
        ("satdifuser.pretrain.stages.save_grid", full, "samples/step-000004.png"),
        ("diffusers.DDPMScheduler.save_pretrained", full, "model"),
        ("diffusers.UNet2DModel.save_pretrained", full_for_safetensors, "model"),
        ("satdifuser.pretrain.card.shutil.copyfile", full, "model"),
        ("satdifuser.engine.run.json_text", full, "metrics.jsonl"),
        ("safetensors.torch.save_file", full_for_safetensors, "checkpoints/last.safetensors"),
    ],
)
def test_a_full_disk_loses_neither_checkpoint_nor_model_and_says_what_to_do(
    tmp_path: Path, pixels: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, place: str, act: Any, wrote: str
) -> None:
    whole, done = Pretrainer._step, 0

    def filling(self: Pretrainer, *args: Any) -> dict[str, Any]:
        nonlocal done
        done += 1
        if done == 4:
            patch.setattr(place, act)
        return whole(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", filling)
        run = pretrain(tmp_path / "run", code=2)
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if line.startswith("satdifuser: ")] == said[-1:]
    assert f"the disk filled up while writing {tmp_path / 'run' / wrote}: free space and " in said[-1]
    assert "resume=true" in said[-1]
    assert load_checkpoint(RunFolder(run).last)[0].step == (2 if "checkpoints" in wrote else 4)
    kept = 4 if "metrics" in wrote else 2
    assert json.loads((run / "model" / "provenance.json").read_text())["steps"] == kept
    assert tensors(run).keys() == tensors(pixels).keys()
    assert not list(run.rglob("*.partial"))
    pretrain(run, "resume=true")
    assert RunFolder(run).rows() == RunFolder(pixels).rows()
    for name, value in tensors(pixels).items():
        assert torch.equal(tensors(run)[name], value), name


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("not a folder")
    for run in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("long" * 100), Path("/proc/run")):
        pretrain(run, code=2)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("satdifuser: ")
        assert str(run)[:80] in line
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_unet_that_is_there_can_be_trained_further(tmp_path: Path, pixels: Path, capsys: Capture) -> None:
    further = ["recipe.steps=1", "recipe.ema=null", "export=float32"]
    run = pretrain(tmp_path / "run", f"init={pixels / 'model'}", "recipe.lr=1e-9", "recipe.weight_decay=0", *further)
    for name, value in tensors(pixels).items():
        torch.testing.assert_close(tensors(run)[name], value.float(), atol=1e-6, rtol=0)
    fewer = pretrain(
        tmp_path / "fewer", f"init={pixels / 'model'}", "prepare.bands=[B04,B08]", "recipe.lr=1e-9", *further
    )
    red, new = tensors(fewer)["conv_in.weight"].split(1, dim=1)
    torch.testing.assert_close(red, tensors(pixels)["conv_in.weight"][:, :1].float(), atol=1e-6, rtol=0)
    assert float(new.abs().max()) < 1e-6  # a band that it has not seen
    (shutil.copytree(pixels / "model", tmp_path / "unsaid") / "provenance.json").unlink()
    pretrain(tmp_path / "other", f"init={tmp_path / 'unsaid'}", "prepare.bands=[B04,B03]", code=2)
    assert "reads 3 channels, and the images give 2" in capsys.readouterr().err
    pretrain(tmp_path / "none", "init=/nowhere", code=2)
    assert "no folder /nowhere: a UNet to train further" in capsys.readouterr().err


def test_a_vae_that_an_earlier_run_left_is_not_taken_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pretrainer._step

    def killed(self: Pretrainer, *args: Any) -> dict[str, Any]:
        if self.run.path.name == "run":
            raise KeyboardInterrupt
        return whole(self, *args)

    small = ["vae.weights=small", *VAE, "vae.steps=1", "recipe.steps=1"]
    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", killed)
        pretrain(tmp_path / "run", *small, code=130)
    pretrain(tmp_path / "run", *small, "vae.latent_channels=3", code=2)
    run = pretrain(tmp_path / "run", *small, "vae.latent_channels=3", "overwrite=true")
    assert json.loads((run / "model/vae/config.json").read_text())["latent_channels"] == 3


def test_latents_are_not_clipped_when_others_sample_them(pixels: Path, latents: Path) -> None:
    clipped = [json.loads((run / "model/scheduler/scheduler_config.json").read_text()) for run in (pixels, latents)]
    assert [config["clip_sample"] for config in clipped] == [True, False]


def test_standardised_images_are_clipped_where_they_end(tmp_path: Path) -> None:
    prepare = ["prepare.mean=[0.2,0.5,0.6]", "prepare.std=[0.25,0.2,0.2]"]
    run = pretrain(tmp_path / "run", *prepare, "recipe.steps=1")
    kept = json.loads((run / "model/scheduler/scheduler_config.json").read_text())
    assert kept["clip_sample_range"] == pytest.approx(3.2)  # (1 - 0.2) / 0.25


def test_what_it_says_at_its_end_gives_the_encoder_the_same_input(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    prepare = ["prepare.mean=[0.2,0.5,0.6]", "prepare.std=0.25", "prepare.high=0.4"]
    run = pretrain(tmp_path / "run", *prepare, "recipe.steps=1")
    said = capsys.readouterr().err.splitlines()[-1].partition("load it with ")[2].split()
    assert said[1] == f"encoder.backbone.weights={run / 'model'}"
    encoder(run)
    assert said[2:] == caplog.messages[-1].partition("give it ")[2].split()
    caplog.clear()
    found = build_encoder(compose("extract", [*said, "encoder.taps=[mid_block]", "encoder.image_size=16"]).encoder)
    assert caplog.messages == []
    assert (found.prepare.mean, found.prepare.std, found.prepare.high) == ((0.2, 0.5, 0.6), (0.25,) * 3, 0.4)
    assert " ".join(said[2:]) in (run / "model" / "README.md").read_text()


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path, capsys: Capture) -> None:
    with RunFolder(tmp_path / "run").alone():
        pretrain(tmp_path / "run", "overwrite=true", code=2)
    assert f"another process is writing {tmp_path / 'run'}: wait for it" in capsys.readouterr().err


def test_a_run_asks_for_its_folder_before_it_looks_at_an_image(tmp_path: Path, capsys: Capture) -> None:
    data = ["data=image_folder", f"data.root={tmp_path / 'nowhere'}", "data.size=16"]
    with RunFolder(tmp_path / "run").alone():
        pretrain(tmp_path / "run", data=data, code=2)
    assert "another process is writing" in capsys.readouterr().err
    run = pretrain(tmp_path / "old", "recipe.steps=1")
    capsys.readouterr()
    pretrain(run, data=data, code=2)
    assert "holds a run: add resume=true" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words", "said"),
    [
        ("", ["data.root=/nowhere"], "/nowhere"),
        ("", ["data.size=15"], "is no multiple of 2"),
        ("", ["data.size=32"], "is 16 x 16 px"),
        ("val", [], "cannot be read as an image"),
        ("train", [], "cannot be read as an image"),
        ("", ["unet.attention_head_dim=17"], "unet.attention_head_dim is 17"),
        ("", ["init=/nowhere"], "no folder /nowhere"),
    ],
)
def test_a_run_that_cannot_begin_replaces_nothing(
    tmp_path: Path, capsys: Capture, damage: str, words: list[str], said: str
) -> None:
    run = pretrain(tmp_path / "run", "recipe.steps=1")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    root = write_images(tmp_path / "images")
    data = ["data=image_folder", f"data.root={root}", "data.size=16"]
    if damage:
        truncate(root, damage)
    capsys.readouterr()
    pretrain(run, *words, "overwrite=true", data=data, code=2)
    assert said in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_second_data_set_has_its_share_and_losses_of_its_own(tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", *MIX, "mix_share=0.25", "recipe.steps=2")
    last = RunFolder(run).rows()[-1]
    assert {"val/21", "val/801", "val-synthetic/21", "val-synthetic/801"} <= last.keys()
    assert last["val/21"] != last["val-synthetic/21"]
    assert [data["seed"] for data in json.loads((run / "model/provenance.json").read_text())["data"]] == [0, 5]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_image_stops_a_run_or_is_skipped_and_named(tmp_path: Path, capsys: Capture, split: str) -> None:
    root = write_images(tmp_path / "images")
    bad = truncate(root, split)
    data = ["data=image_folder", f"data.root={root}", "data.size=16", "recipe.batch_size=10"]
    pretrain(tmp_path / "stopped", data=data, code=2)
    said = capsys.readouterr().err.strip()
    assert said.splitlines()[-1].startswith(f"satdifuser: {root / bad} cannot be read as an image")
    run = pretrain(tmp_path / "skipped", "on_error=skip", data=data)
    skipped = json.loads((run / "skipped.json").read_text())["skipped"]
    assert [sample["id"] for sample in skipped] == [bad]
    assert "cannot be read" in skipped[0]["reason"]
    assert bad in capsys.readouterr().err
    assert len(RunFolder(run).rows()) == 4
    provenance = json.loads((run / "model" / "provenance.json").read_text())
    assert [provenance[key][0]["left_out"] for key in ("data", "held_out")] == [split == "train", split == "val"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "has NaN or infinite values in 1 pixels"), (1e9, "has values from")]
)
def test_an_image_with_a_wrong_value_in_the_middle_of_a_run_is_named_and_the_run_can_go_on_once_it_is_mended(
    tmp_path: Path, pixels: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, value: float, said: str
) -> None:
    whole, done = Pretrainer._step, 0

    def spoiling(self: Pretrainer, *args: Any) -> dict[str, Any]:
        nonlocal done
        done += 1
        if done == 3:
            patch.setattr(SyntheticScenes, "__getitem__", spoiled)
        return whole(self, *args)

    read = SyntheticScenes.__getitem__

    def spoiled(self: SyntheticScenes, index: int) -> Any:
        sample = read(self, index)
        sample["image"][0, 3, 4] = value
        return sample

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", spoiling)
        run = pretrain(tmp_path / "run", code=2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("satdifuser: sample ")
    assert said in line
    assert json.loads((run / "model" / "provenance.json").read_text())["steps"] == 2
    pretrain(run, "resume=true")
    assert RunFolder(run).rows() == RunFolder(pixels).rows()
    for name, tensor in tensors(pixels).items():
        assert torch.equal(tensors(run)[name], tensor), name


def test_images_without_any_data_train_to_a_model_of_numbers(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images")
    for file in root.iterdir():
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
    run = pretrain(tmp_path / "run", data=["data=image_folder", f"data.root={root}", "data.size=16"])
    assert all(bool(value.isfinite().all()) for value in tensors(run).values())


def test_a_loss_on_held_out_images_that_is_no_number_exports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from satdifuser.pretrain.denoising import Denoising

    with monkeypatch.context() as patch:
        patch.setattr(Denoising, "by_level", lambda *args: {"21": 0.5, "801": float("nan")})
        run = pretrain(tmp_path / "run", code=2)
    assert "at step 2 the loss val/801 is nan on held-out images" in capsys.readouterr().err
    assert not (run / "model").exists()


def test_float32_and_no_average_export_the_last_weights_as_they_are(tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", "export=float32", "recipe.ema=null", "recipe.steps=1", "recipe.samples=0")
    held = load_checkpoint(RunFolder(run).last)[1]
    for name, value in tensors(run).items():
        assert torch.equal(value, held["net/unet." + name])
    assert not (run / "samples").exists()


def test_what_is_predicted_is_known_to_who_loads_the_model(tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", "schedule.prediction_type=sample", "min_snr=null", "recipe.steps=1")
    scheduler = json.loads((run / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "sample"
    encoder(run)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["export=int8"], "export is 'int8'"),
        (["recipe.betas=[0.9]"], "recipe.betas is [0.9]"),
        (["recipe.betas=[0.9,1.5]"], "recipe.betas is [0.9, 1.5]"),
        (["recipe.levels=[21,1000]"], "recipe.levels has 1000"),
        (["recipe.lr=0"], "recipe.lr is 0"),
        (["recipe.minutes=0"], "recipe.minutes is 0"),
        (["recipe.lr=high"], "recipe.lr is 'high': it must be a number above 0"),
        (["recipe.mixed_precision=fp8"], "recipe.mixed_precision is 'fp8'"),
        (["recipe.batch_size=10"], "synthetic has 9 images, too few for 10 in a step"),
        (["schedule.beta_schedule=steep"], "schedule: DDPMScheduler of diffusers does not take these settings"),
        (["schedule.prediction_type=flow"], "schedule.prediction_type is 'flow'"),
        (["min_snr=0"], "min_snr is 0"),
        (["schedule.beta_end=2"], "schedule.beta_end is 2: it must be a number from 0 to below 1"),
        (["unet.block_out_channels=[16,16,16]"], "unet.down_block_types is ['DownBlock2D', 'AttnDownBlock2D']: give"),
        (["unet.norm_num_groups=5"], "unet.norm_num_groups is 5: give"),
        (["unet.attention_head_dim=32"], "unet.attention_head_dim is 32, and a block with attention is 16 wide"),
        (["+unet.act_fn=nope"], "unet: UNet2DModel of diffusers does not take these settings"),
        (["unet.block_out_channels=[16,16,16,16,16,16]"], "16 px is no multiple of 32"),
        (["vae.weights=/nowhere"], "vae.weights is '/nowhere'"),
        (["vae.weights=small", "vae.block_out_channels=[10]"], "vae: AutoencoderKL of diffusers does not take"),
        (["on_error=ignore"], "on_error is 'ignore'"),
        (["prepare.bands=[B04,B99]"], "has no band B99"),
        ([*MIX, "mix_share=1.0"], "cannot be shared"),
        (["vae.weights=small", "vae.steps=0"], "vae.steps is 0"),
        (["vae.weights=small", "vae.block_out_channels=[16,16,16,16,16,16]"], "16 px is no multiple of 32"),
        (["recipe.levels=[]"], "recipe.levels is []"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(tmp_path: Path, capsys: Capture, overrides: list[str], said: str) -> None:
    pretrain(tmp_path / "run", *overrides, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("satdifuser: ")
    assert said in lines[0]
    assert not (tmp_path / "run" / "metrics.jsonl").is_file() or not RunFolder(tmp_path / "run").rows()


def test_a_vae_for_other_bands_is_refused_in_one_line(tmp_path: Path, latents: Path, capsys: Capture) -> None:
    pretrain(tmp_path / "run", f"vae.weights={latents / 'model'}", "prepare.bands=[B04,B03,B02,B08]", code=2)
    said = capsys.readouterr().err.strip()
    assert said == "satdifuser: the VAE reads 3 bands, and the images have 4: set prepare.bands, or another vae.weights"


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(
    tmp_path: Path, in_two_processes: Callable[..., tuple[int, str]]
) -> None:
    """Up to rounding: in AdamW's first steps a weight moves by the whole rate, whatever its gradient."""
    settings = [*MIX, "mix_share=0.5", "recipe.steps=3", "recipe.lr=0.001"]
    one = RunFolder(pretrain(tmp_path / "one", *settings))
    words = [*UNET, *RECIPE, *SCENES, *settings, f"run={tmp_path / 'two'}"]
    code, said = in_two_processes("pretrain", *words, "--debug")
    assert code == 0, said[-3000:]
    two = RunFolder(tmp_path / "two")
    assert json.loads((two.path / "environment.json").read_text())["processes"] == 2
    for a, b in zip(one.rows(), two.rows(), strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    ours, theirs = (load_checkpoint(run.last)[1] for run in (one, two))
    assert ours.keys() == theirs.keys()
    apart = torch.cat([(value - theirs[name]).abs().flatten() for name, value in ours.items()])
    assert float(apart.mean()) < 1e-5
