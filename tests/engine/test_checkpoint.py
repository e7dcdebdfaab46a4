"""Checkpoints: whole or not at all, bit for bit, and never a pickle."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from satdifuser.engine.checkpoint import TrainState, load_checkpoint, restore_optimizer, save_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_weights_moments_and_state_come_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    state = TrainState(step=3, best=0.1 + 0.2, best_step=2, stale=1, task="segmentation")
    save_checkpoint(tmp_path / "last.safetensors", state, model.state_dict(), optimizer)
    loaded, weights, moments = load_checkpoint(tmp_path / "last.safetensors")
    assert loaded == state
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)
    fresh = torch.optim.AdamW(torch.nn.Linear(5, 3).parameters(), lr=0.1)
    restore_optimizer(fresh, moments)
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)


def test_a_write_that_breaks_off_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained()
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, TrainState(step=1), model.state_dict(), optimizer)

    def half(tensors: object, target: Path, **kwargs: object) -> None:
        Path(target).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(UserError, match=r"the disk filled up while writing .*last.safetensors: free space"):
        save_checkpoint(path, TrainState(step=2), model.state_dict(), optimizer)
    assert load_checkpoint(path)[0].step == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.json", "last.safetensors"]


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, keep: int) -> None:
    model, _ = trained()
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, TrainState(), model.state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load_checkpoint(path)


def flipped(content: bytes, bit: int) -> bytes:
    spoilt = bytearray(content)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


def test_every_single_bit_that_flips_is_seen(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = tmp_path / "best.safetensors"
    state = TrainState(step=3, best=1e-5, task="segmentation", row={"step": 3, "lr": 3e-7})
    save_checkpoint(path, state, model.state_dict(), optimizer)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    bits = [
        *range(64),
        *draw.sample(range(64, 8 * header), 400),
        *draw.sample(range(8 * header, 8 * len(content)), 400),
    ]
    for bit in bits:
        path.write_bytes(flipped(content, bit))
        with pytest.raises(UserError) as refused:
            load_checkpoint(path)
        said = str(refused.value)
        assert str(path) in said, bit
        assert "\n" not in said, bit
    path.write_bytes(content)
    assert load_checkpoint(path)[0] == state


def test_a_checkpoint_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    weights = {"model/w": torch.arange(3.0)}
    safetensors.torch.save_file(weights, path, metadata={"state": json.dumps({"step": 7, "best": 0.5})})
    state, model, _ = load_checkpoint(path)
    assert (state.step, model["w"].tolist()) == (7, [0.0, 1.0, 2.0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_no_number_is_neither_written_nor_read(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    path = tmp_path / "best.safetensors"
    weights = {"fusion.a": torch.ones(4, dtype=dtype), "fusion.b": torch.ones(2, 3, dtype=dtype)}
    save_checkpoint(path, TrainState(step=1), weights)
    weights["fusion.b"][1, 2] = value
    with pytest.raises(UserError, match=r"the weight fusion\.b holds NaN or infinite values at step 2"):
        save_checkpoint(path, TrainState(step=2), weights)
    assert load_checkpoint(path)[0].step == 1
    tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(tensors, path, metadata={"state": json.dumps({"step": 7})})
    with pytest.raises(UserError, match=r"best\.safetensors: the weight fusion\.b holds NaN or infinite"):
        load_checkpoint(path)


def test_a_moment_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    model, optimizer = trained()
    next(iter(optimizer.state.values()))["exp_avg"][0] = math.nan
    with pytest.raises(UserError, match=r"the optimiser's exp_avg of parameter 0 holds NaN"):
        save_checkpoint(tmp_path / "last.safetensors", TrainState(step=2), model.state_dict(), optimizer)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*: train first"):
        load_checkpoint(tmp_path / "best.safetensors")


def test_a_run_folder_in_use_is_neither_mixed_nor_lost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run").open(resume=False, overwrite=False)
    folder.last.write_bytes(b"x")
    with pytest.raises(UserError, match="resume=true to go on, overwrite=true"):
        folder.open(resume=False, overwrite=False)
    assert folder.last.exists()
    folder.open(resume=False, overwrite=True)
    assert not folder.last.exists()


def test_a_metrics_line_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run").open(resume=False, overwrite=False)
    for step in (1, 2, 3):
        folder.log({"step": step, "loss": 0.5})
    folder.metrics.write_text(folder.metrics.read_text()[:-9])
    assert [row["step"] for row in folder.rows()] == [1, 2]
    folder.forget_after(1)
    assert [row["step"] for row in folder.rows()] == [1]
