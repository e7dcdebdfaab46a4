"""Galileo and the floor of a table through the commands: features to a store, and a head that learns from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from satdifuser.cli import main
from satdifuser.store import FeatureStore

QUICK = [
    "trainer=quick",
    "trainer.max_steps=4",
    "trainer.batch_size=4",
    "trainer.eval_every=2",
    "fusion.projection_dim=16",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "task"),
    [
        (
            ["encoder=galileo", "encoder.weights=none", "encoder.patch_size=4"],
            ["segmentation", "decoder=upernet", "decoder.channels=16"],
        ),
        (["encoder=galileo", "encoder.weights=none", "encoder.blocks=last"], ["classification", "decoder=linear"]),
        (["encoder=rcf", "encoder.features=32"], ["segmentation", "decoder=linear"]),
        (["encoder=rcf", "encoder.features=32", "encoder.stride=null"], ["classification", "decoder=linear"]),
        (["encoder=imagenet_cnn", "encoder.model=test_resnet"], ["classification", "decoder=linear"]),
    ],
)
def test_features_go_to_a_store_and_a_head_learns_from_it(
    words: list[str], task: list[str], tiny_data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "encoder=imagenet_cnn" in words:
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
        words = [*words, "encoder.weights=w.safetensors"]
    size = ["data.size=32", *tiny_data[1:]]
    assert main(["extract", *words, *size, "store.path=f.zarr"]) == 0
    both = [f"task={task[0]}", *task[1:], *QUICK]
    assert main(["train", *words, *size, *both, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *words, *size, *both, "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    stored, live = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("stored", "live"))
    assert stored["test"] == pytest.approx(live["test"], rel=1e-3, abs=1e-3)
    assert live["encoder_parameters"]["trainable"] == 0
    assert FeatureStore("f.zarr").spec == FeatureStore("f.zarr").split("test").spec


@pytest.mark.slow
def test_galileo_is_adapted_by_the_switch_that_other_vits_have(
    tiny_data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["encoder=galileo", "encoder.weights=none", "task=segmentation", *tiny_data, *QUICK]
    assert main(["train", *words, "adapter=lora", "run=lora"]) == 0
    result = json.loads((tmp_path / "lora" / "result.json").read_text())
    assert 0 < result["encoder_parameters"]["trainable"] < result["encoder_parameters"]["total"] / 10
    assert main(["train", *words, "adapter=deflect", "run=deflect"]) == 2
    assert "encoder.prepare.bands=[red,green,blue]" in capsys.readouterr().err
