"""The tool that made the shipped ViT: what it writes is what `encoder=small_vit` loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from satdifuser.build import build_encoder
from satdifuser.config import compose

pytestmark = pytest.mark.slow


def test_a_pretrained_vit_loads_as_an_encoder(tool: Callable[[str], ModuleType], tmp_path: Path) -> None:
    folder = tool("pretrain_vit").main(
        [
            *(f"run={tmp_path / 'run'}", "data=synthetic", "data.splits.train.length=16", "data.splits.val.length=8"),
            *("recipe.steps=2", "recipe.batch_size=8", "recipe.eval_images=8", "recipe.tensorboard=false", "seed=3"),
        ]
    )
    about = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert about["seed"] == 3
    assert about["recipe"]["weight_decay"] == 0.05  # the tool's own, where the command has another
    assert about["prepare"]["bands"] == ["B04", "B03", "B02"]
    encoder = build_encoder(compose("train", ["encoder=small_vit", f"encoder.backbone.weights={folder}"]).encoder)
    held = encoder.state_dict()
    written = load_file(folder / "model.safetensors")
    assert len(written) > 90
    for name, value in written.items():
        if name.startswith("norm."):  # after the last block, beyond every tap
            continue
        own = [key for key in held if key == name or key.endswith("." + name)]
        assert len(own) == 1, (name, sorted(held)[:5])
        assert torch.equal(held[own[0]].half(), value), name
