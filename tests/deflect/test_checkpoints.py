"""DINO-MC's and Cross-Scale MAE's checkpoints, written here in the layouts that their training code saves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from deflect.backbones import Backbone, timm_vit
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.config import compose
from satdifuser.data.inputs import RGB, ImageInput

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
State = dict[str, Tensor]


def random_state(size: int = 32, patch: int = 8) -> State:
    """Of a ViT under timm's names, the last norm included."""
    given = {"num_classes": 0, "img_size": size, "patch_size": patch, **TINY}
    state = timm.create_model("vit_tiny_patch16_224", **given).state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


def vit(weights: Path, size: int = 32, patch: int = 8) -> Backbone:
    return timm_vit("vit_tiny_patch16_224", str(weights), image_size=size, patch_size=patch, options=TINY)


def assert_has(backbone: Backbone, state: State) -> None:
    assert backbone.norm is not None
    held = dict(backbone.model.state_dict()) | {f"norm.{k}": v for k, v in backbone.norm.state_dict().items()}
    assert held.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(held[name], value), name


def optimiser(state: State) -> dict[str, Any]:
    """What AdamW keeps of every weight."""
    parameters = [torch.nn.Parameter(value.clone()) for value in state.values()]
    made = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    made.step()
    return made.state_dict()


def dino(student: State, teacher: State) -> dict[str, Any]:
    """As DINO-MC saves its training: the student in its wrapper for several GPUs, each with its head."""

    def head() -> State:
        found: State = {}
        for number, (rows, columns) in {0: (64, 32), 2: (64, 64), 4: (16, 64)}.items():
            found |= {
                f"head.mlp.{number}.weight": torch.randn(rows, columns),
                f"head.mlp.{number}.bias": torch.randn(rows),
            }
        return found | {"head.last_layer.weight_g": torch.ones(99, 1), "head.last_layer.weight_v": torch.randn(99, 16)}

    inside = [{f"backbone.{k}": v for k, v in state.items()} | head() for state in (student, teacher)]
    return {
        "student": {f"module.{k}": v for k, v in inside[0].items()},
        "teacher": inside[1],
        "optimizer": optimiser(student),
        "epoch": 300,
        "args": argparse.Namespace(arch="vit_small", patch_size=8, global_crops_scale=(0.32, 1.0), lr=0.0005, gpu=0),
        "dino_loss": {"center": torch.randn(1, 99)},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
    }


def masked(state: State, layout: str) -> dict[str, Any]:
    """As Cross-Scale MAE saves its pretraining: under the names of its own model, or under MAE's."""
    if layout == "own":
        names = {"pos_embed": "encoder_pos_embed", "norm.": "encoder_norm.", "blocks.": "encoder."}
        model = dict(state)
        for theirs, own in names.items():
            model = {own + k.removeprefix(theirs) if k.startswith(theirs) else k: v for k, v in model.items()}
    else:
        model = dict(state)
    inner = "decoder" if layout == "own" else "decoder_blocks"
    model |= {"mask_token": torch.randn(1, 1, 16), "decoder_pos_embed": torch.randn(1, 17, 16)}
    model |= {"decoder_embed.weight": torch.randn(16, 32), "decoder_embed.bias": torch.randn(16)}
    model |= {"decoder_pred.weight": torch.randn(192, 16), "decoder_norm.weight": torch.randn(16)}
    for number in range(8):  # more blocks than the encoder
        model[f"{inner}.{number}.attn.qkv.weight"] = torch.randn(48, 16)
        model[f"{inner}.{number}.norm1.weight"] = torch.randn(16)
    model |= {"predictor.0.weight": torch.randn(24, 16), "predictor.1.running_mean": torch.randn(16)}
    model["predictor.1.num_batches_tracked"] = torch.tensor(7)
    args = argparse.Namespace(
        model="mae_vit_base_MsLdCeCd", input_size=128, loss="mse", use_xformers=False, resume=None
    )
    scaler = {"scale": 65536.0, "_growth_tracker": 3}
    return {"model": model, "optimizer": optimiser(state), "epoch": 399, "scaler": scaler, "args": args}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(BankError) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_of_a_dino_mc_checkpoint_the_teacher_is_loaded(tmp_path: Path) -> None:
    student, teacher = random_state(), random_state()
    assert_has(vit(saved(tmp_path / "checkpoint.pth", dino(student, teacher))), teacher)


def test_a_dino_mc_checkpoint_of_other_patches_names_the_setting(tmp_path: Path) -> None:
    """Its code says 8 px and its README 16."""
    teacher = random_state(64, patch=16)
    file = saved(tmp_path / "checkpoint.pth", dino(random_state(64, patch=16), teacher))
    assert "patches of 16 px, but the model was built for 8: set encoder.backbone.patch_size=16" in refused(
        lambda: vit(file, size=64)
    )
    assert_has(vit(file, size=64, patch=16), teacher)


@pytest.mark.parametrize("layout", ["own", "mae"])
def test_of_a_cross_scale_mae_checkpoint_the_encoder_is_loaded(tmp_path: Path, layout: str) -> None:
    state = random_state()
    assert_has(vit(saved(tmp_path / "checkpoint-399.pth", masked(state, layout))), state)


@pytest.mark.parametrize("layout", ["own", "mae"])
def test_a_cross_scale_mae_for_another_image_size_has_its_positions_interpolated(tmp_path: Path, layout: str) -> None:
    state = random_state(32)
    built = vit(saved(tmp_path / "checkpoint.pth", masked(state, layout)), size=64)
    expected = resample_abs_pos_embed(state["pos_embed"], [8, 8], [4, 4], num_prefix_tokens=1)
    assert torch.equal(built.model.get_parameter("pos_embed"), expected)


def test_a_weight_that_a_cross_scale_mae_lacks_is_named_as_the_model_names_it(tmp_path: Path) -> None:
    content = masked(random_state(), "own")
    del content["model"]["encoder.1.mlp.fc1.weight"]
    content["model"]["encoder.0.attn.extra"] = torch.randn(3)
    said = refused(lambda: vit(saved(tmp_path / "checkpoint.pth", content)))
    assert "(2 weights)" in said
    assert "blocks.1.mlp.fc1.weight is missing" in said
    assert "blocks.0.attn.extra is unknown" in said


def test_a_cross_scale_mae_of_post_norm_blocks_is_refused(tmp_path: Path) -> None:
    """xformers' blocks, which its training script asks for, put the norm after the sum: they are no blocks of timm."""
    content = masked(random_state(), "own")
    model = {k: v for k, v in content["model"].items() if not k.startswith("encoder.")}
    for number in range(2):
        block = f"encoder.encoders.{number}."
        model[f"{block}wrap_att.norm.weight"] = torch.randn(32)
        model[f"{block}wrap_att.sublayer.layer.in_proj_container.q_proj.weight"] = torch.randn(32, 32)
    said = refused(lambda: vit(saved(tmp_path / "checkpoint.pth", {**content, "model": model})))
    assert "blocks of xformers, whose norms come after their sums" in said


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["args", "model", "inside args"])
def test_a_checkpoint_that_wants_something_run_is_refused_and_nothing_is(tmp_path: Path, where: str) -> None:
    trace = tmp_path / "executed"
    content = masked(random_state(), "mae")
    if where == "inside args":
        content["args"].device = Trap(trace)
    elif where == "model":
        content["model"]["blocks.0.norm1.weight"] = Trap(trace)
    else:
        content["args"] = Trap(trace)
    file = saved(tmp_path / "checkpoint.pth", content)
    assert "is not run" in refused(lambda: vit(file))
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the trap does work
    assert trace.exists()


@pytest.mark.parametrize(
    ("name", "variable", "file", "patch", "depth"),
    [("dinomc", "DINOMC", "checkpoint.pth", 8, 12), ("crossscalemae", "CROSSSCALEMAE", "base.pth", 16, 12)],
)
def test_the_configured_encoders_read_files_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, file: str, patch: int, depth: int
) -> None:
    """At their real shapes: ViT-S/8, and ViT-B/16 pretrained at 128 px."""
    from satdifuser.build import build_encoder

    real = "vit_small_patch8_224" if name == "dinomc" else "vit_base_patch16_224"
    size = 224 if name == "dinomc" else 128
    state = timm.create_model(real, img_size=size, num_classes=0).state_dict()
    content = {"teacher": {f"backbone.{k}": v for k, v in state.items()}, "args": argparse.Namespace(patch_size=8)}
    content = content if name == "dinomc" else {"model": state, "args": argparse.Namespace(input_size=128)}
    monkeypatch.setenv(f"{variable}_WEIGHTS", str(saved(tmp_path / file, content)))
    settings = compose("train", [f"encoder={name}", "data=synthetic", f"encoder.backbone.model={real}"])
    built = build_encoder(settings.encoder)
    assert isinstance(built, ViTEncoder)
    assert (built.backbone.facts.patch, len(built.backbone.blocks)) == (patch, depth)
    assert torch.equal(
        built.backbone.model.get_parameter("blocks.0.attn.qkv.weight"), state["blocks.0.attn.qkv.weight"]
    )


def test_inputs_are_standardised_as_in_pretraining() -> None:
    wanted = {
        "dinomc": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "crossscalemae": ([0.43392888, 0.43578541, 0.40744025], [0.19828456, 0.19250111, 0.19454683]),
    }
    for name, (mean, std) in wanted.items():
        prepare = compose("train", [f"encoder={name}"]).encoder["prepare"]
        assert (prepare["mean"], prepare["std"], tuple(prepare["bands"])) == (mean, std, ("red", "green", "blue"))
        made = ImageInput(RGB, mean=mean, std=std, high=0.3)
        pixels = torch.full((1, 13, 4, 4), 0.15)  # half of the range: 127.5 of 255
        expected = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
        torch.testing.assert_close(made(pixels)[0, :, 0, 0], torch.tensor(expected))


def test_doctor_says_of_every_published_file_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satdifuser.commands.doctor import examine

    there = saved(tmp_path / "Prithvi_EO_V1_100M.pt", {})
    monkeypatch.setenv("PRITHVI_WEIGHTS", str(there))
    monkeypatch.setenv("DINOMC_WEIGHTS", str(tmp_path / "no.pth"))
    said = {finding.what: finding for finding in examine()}
    assert said["encoder=prithvi"].status == "ok"
    assert str(there) in said["encoder=prithvi"].detail
    assert (said["encoder=dinomc"].status, str(tmp_path / "no.pth") in said["encoder=dinomc"].detail) == ("note", True)
    assert {"encoder=prithvi2", "encoder=crossscalemae"} <= said.keys()
