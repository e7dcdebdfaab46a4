"""Adapted ViTs through the commands: training, evaluation, checkpoints, resuming, bf16, two processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from deflect.backbones.loading import SMALL
from satdifuser.build import build_encoder
from satdifuser.cli import main
from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.data.trained import range_overrides
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import Trainer
from satdifuser.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")  # peft, of timm's own LayerNorm

OPTIONS = "+encoder.backbone.options={embed_dim: 32, depth: 2, num_heads: 2}"


@pytest.fixture
def vit(tiny: list[str]) -> list[str]:
    """Overrides of satdifuser train."""
    return [*tiny, "encoder=vit", "encoder.backbone.patch_size=4", OPTIONS, "fusion=gw", "decoder=linear"]


def trained(overrides: list[str]) -> dict:
    return train.run(compose("train", overrides), quiet=True)


def tensor_sum(tensor: Tensor) -> float:
    return float(tensor.abs().sum())


@pytest.mark.parametrize(
    ("adapter", "parts"),
    [
        ("frozen", ()),
        ("lora", ("lora_A", "lora_B")),
        ("slr", ("scale_in", "scale_out", "down", "up")),
        ("norm", ("norm1", "norm2")),
        ("bitfit", ("qkv.bias",)),
        ("peft", ("lora_A", "lora_B", "lora_magnitude_vector")),
        ("deflect", ("upe.encoder", "deflection")),
    ],
)
def test_an_adapted_vit_trains_and_eval_finds_the_same_scores_from_what_trained_alone(
    tmp_path: Path, vit: list[str], adapter: str, parts: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    result = trained([*vit, f"adapter={adapter}", f"run={run}"])
    assert result["steps"] == 4
    assert json.loads((run / "result.json").read_text())["test"] == result["test"]

    state = load_checkpoint(RunFolder(run).best)[1]
    encoder = {name for name in state if name.startswith("encoder.")}
    assert bool(encoder) == bool(parts)
    assert all(any(part in name for name in encoder) for part in parts)
    frozen = (
        "patch_embed.proj.weight",
        "pos_embed",
        "cls_token",
        "qkv.weight",
        "proj.weight",
        "fc1.weight",
        "fc2.weight",
    )
    assert not any(name.endswith(frozen) or ".base_layer.weight" in name for name in encoder)
    assert any(name.startswith("fusion.") for name in state)
    assert any(name.startswith("decoder.") for name in state)
    assert sum(tensor.numel() for tensor in state.values()) == result["trainable_parameters"]
    for name in encoder:  # what began at zero has left it, so an evaluation without the adapter would score otherwise
        assert tensor_sum(state[name]) > 0, name

    again = evaluation.run(compose("eval", [f"run={run}"]))
    assert again["test"] == pytest.approx(result["test"], rel=1e-6)
    assert again["samples"] == 7


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_an_adapted_unet_trains_and_eval_finds_the_same_scores_from_what_trained_alone(
    tmp_path: Path, tiny: list[str], adapter: str
) -> None:
    run = tmp_path / "run"
    unet = ["encoder=small", "encoder.timesteps=[0]", "encoder.taps=[mid_block.attentions.0]", "fusion=gw"]
    result = trained([*tiny, *unet, "decoder=linear", f"adapter={adapter}", f"run={run}"])
    state = load_checkpoint(RunFolder(run).best)[1]
    assert any(name.startswith("encoder.network.unet.mid_block.attentions.0.to_q") for name in state)
    assert not any("up_blocks" in name for name in state)
    assert all(".lora_" in name for name in state if name.startswith("encoder.")) == (adapter == "lora")
    assert sum(tensor.numel() for tensor in state.values()) == result["trainable_parameters"]
    again = evaluation.run(compose("eval", [f"run={run}"]))
    assert again["test"] == pytest.approx(result["test"], rel=1e-6)


def test_deflect_trains_for_a_task_of_whole_images(tmp_path: Path, vit: list[str]) -> None:
    run = tmp_path / "run"
    result = trained([*vit, "adapter=deflect", "task=multilabel", f"run={run}"])
    assert evaluation.run(compose("eval", [f"run={run}"]))["test"] == pytest.approx(result["test"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "deflect"])
def test_a_resumed_run_gives_the_metrics_of_an_unbroken_one_to_the_bit(
    tmp_path: Path, vit: list[str], adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*vit, f"adapter={adapter}", *(["encoder.adapter.dropout=0.2"] if adapter == "lora" else [])]
    whole = trained([*overrides, f"run={tmp_path / 'whole'}"])

    class KilledError(Exception):
        pass

    step = Trainer._step

    def die_in_the_last_step(self: Trainer, *args: object) -> dict:
        if self.state.step == 3:
            raise KilledError
        return step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", die_in_the_last_step)
        with pytest.raises(KilledError):
            trained([*overrides, f"run={tmp_path / 'broken'}"])
    assert load_checkpoint(RunFolder(tmp_path / "broken").last)[0].step == 2
    resumed = trained([*overrides, f"run={tmp_path / 'broken'}", "resume=true"])
    assert RunFolder(tmp_path / "broken").rows() == RunFolder(tmp_path / "whole").rows()
    assert resumed["test"] == whole["test"]
    one, other = (load_checkpoint(RunFolder(tmp_path / name).last)[1] for name in ("whole", "broken"))
    assert one.keys() == other.keys()
    assert all(bool((one[name] == other[name]).all()) for name in one)


@pytest.mark.parametrize("encoder", ["cnn", "unet"])
def test_an_adapter_for_another_kind_of_encoder_is_one_clear_line(
    tmp_path: Path, tiny: list[str], encoder: str, capsys: pytest.CaptureFixture
) -> None:
    overrides = [*tiny, f"encoder={encoder}", "adapter=lora", f"run={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"adapter= is for vision transformers") as refused:
        trained(overrides)
    assert "\n" not in str(refused.value)
    assert main(["train", *overrides]) != 0
    said = capsys.readouterr().err.strip()
    assert "adapter= is for vision transformers" in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_adapter_lists_those_there_are(
    tmp_path: Path, vit: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", *vit, "adapter=lorra", f"run={tmp_path / 'run'}"]) != 0
    said = capsys.readouterr().err
    assert "lora" in said
    assert "deflect" in said
    assert "Traceback" not in said


def test_wrong_options_of_an_adapter_are_an_error_of_the_user(
    tmp_path: Path, vit: list[str], capsys: pytest.CaptureFixture
) -> None:
    wrong = ["adapter=peft", "encoder.adapter.method=nope"]
    assert main(["train", *vit, *wrong, f"run={tmp_path / 'run'}"]) != 0
    said = capsys.readouterr().err
    assert "peft has no method 'nope'" in " ".join(said.split())
    assert "Traceback" not in said


def test_a_new_patch_embedding_is_trained_and_kept(tmp_path: Path, vit: list[str]) -> None:
    run = tmp_path / "run"
    overrides = ["adapter=lora", "encoder.prepare.bands=null", "encoder.patch_embedding=random", f"run={run}"]
    result = trained([*vit, *overrides])
    kept = load_checkpoint(RunFolder(run).best)[1]
    assert [tuple(t.shape) for name, t in kept.items() if name.endswith("patch_embed.proj.weight")] == [(32, 13, 4, 4)]
    assert evaluation.run(compose("eval", [f"run={run}"]))["test"] == pytest.approx(result["test"], rel=1e-6)


def test_bf16_training_stays_near_float32(tmp_path: Path, vit: list[str]) -> None:
    common = [*vit, "adapter=deflect"]
    plain = trained([*common, f"run={tmp_path / 'a'}"])
    mixed = trained([*common, f"run={tmp_path / 'b'}", "trainer.mixed_precision=bf16"])
    assert mixed["test"]["loss"] == pytest.approx(plain["test"]["loss"], rel=0.1)
    state = load_checkpoint(RunFolder(tmp_path / "b").best)[1]
    assert {str(tensor.dtype) for tensor in state.values() if tensor.is_floating_point()} == {"torch.float32"}


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_with_deflect(
    tmp_path: Path, vit: list[str], agrees_with_two_processes: Callable[..., None]
) -> None:
    common = [*vit, "adapter=deflect"]
    one = trained([*common, f"run={tmp_path / 'one'}"])
    agrees_with_two_processes(common, one)


def test_an_adapter_neither_trains_on_stored_features_nor_is_stored_untrained(tmp_path: Path) -> None:
    data = ["data.size=16", *(f"data.splits.{name}.length=4" for name in ("train", "val", "test"))]
    store = f"store.path={tmp_path / 'vit.zarr'}"
    with pytest.raises(UserError, match="adapter=lora would be stored untrained: extract with adapter=frozen"):
        extract.run(compose("extract", [*data, "encoder=small_vit", "adapter=lora", store]))
    extract.run(compose("extract", [*data, "encoder=small_vit", "encoder.blocks=last", store]))
    words = [*data, "encoder=small_vit", "adapter=deflect", f"features={tmp_path / 'vit.zarr'}", f"run={tmp_path}"]
    with pytest.raises(UserError, match="trains on images, not on stored features: leave features out"):
        train.run(compose("train", words), quiet=True)


def test_a_method_whose_layers_share_buffers_saves_its_checkpoint(tmp_path: Path, tiny: list[str]) -> None:
    words = [*tiny, "encoder=small_vit", "encoder.blocks=last", "adapter=peft", "encoder.adapter.method=vera"]
    result = train.run(compose("train", [*words, f"run={tmp_path / 'run'}"]), quiet=True)
    again = evaluation.run(compose("eval", [f"run={tmp_path / 'run'}"]))
    assert again["test"] == pytest.approx(result["test"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["encoder.blocks=5"], "blocks is 5"),
        (["encoder.patch_embedding=scrach"], "it can be repeat, random or scratch"),
        (["+encoder.foo=1"], "encoder.foo: ViTEncoder has no such setting"),
        (
            ["adapter=deflect", "encoder.adapter.index_limits=[1]"],
            "index_limits is [1]: it must be a list of 2",
        ),
        (
            ["adapter=deflect", "encoder.adapter.indices=NDVI"],
            "indices is 'NDVI': it must be a list, each a word",
        ),
        (["encoder.class_token=true", "decoder=upernet"], "encoder.class_token=false"),
    ],
)
def test_wrong_settings_of_a_vit_are_one_line(tmp_path: Path, tiny: list[str], words: list[str], expected: str) -> None:
    with pytest.raises(UserError) as raised:
        train.run(compose("train", [*tiny, "data.size=32", "encoder=small_vit", *words, f"run={tmp_path}"]), quiet=True)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_shipped_vit_is_configured_for_the_inputs_that_it_was_trained_on() -> None:
    about = json.loads((SMALL / "provenance.json").read_text())
    encoder: Any = build_encoder(compose("train", ["encoder=small_vit"]).encoder)
    assert range_overrides(about["prepare"], encoder.prepare) == []
    known = load_file(SMALL / "model.safetensors")
    assert sum(value.numel() for value in known.values()) == about["parameters"]
