"""No weights that are no numbers go to a checkpoint or a model, and those that were good before stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.errors import UserError
from satdifuser.pretrain.draws import Draws
from satdifuser.pretrain.export import export, exported_step, put_in_place
from satdifuser.pretrain.soundness import unsound
from satdifuser.pretrain.trainer import Pretrainer

Make = Callable[..., Pretrainer]


class Falling(nn.Module):
    """From a call on the gradient is NaN, and the loss is what it was."""

    def __init__(self, whole: Any, after: int) -> None:
        super().__init__()
        self.whole, self.after, self.calls = whole, after, 0

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        self.calls += 1
        loss = self.whole(images, draws)
        if self.calls > self.after:
            loss = loss + (next(self.whole.net.parameters()).sum() * 0).abs().sqrt()
        return loss


def test_the_first_tensor_that_is_no_number_is_named() -> None:
    good = torch.tensor([1.0, 2.0])
    assert unsound({}) is None
    assert unsound({"a": good, "b": torch.tensor([1, 2])}) is None
    assert unsound({"a": good, "b": good / 0, "c": good.log() * float("nan")}) == "b"
    assert unsound({"a": torch.tensor([1.0, float("nan")]).half(), "b": good}) == "a"


@pytest.mark.parametrize("ema", [0.9, None])
@pytest.mark.parametrize(("after", "kept"), [(5, 3), (8, 6)])  # the last step's loss knows nothing of its weights
def test_a_gradient_that_is_no_number_ends_the_run_and_the_checkpoint_before_it_stays(
    toy_pretrainer: Make, ema: float | None, after: int, kept: int
) -> None:
    trainer = toy_pretrainer(ema=ema)
    looked: list[int] = []
    trainer.objective = Falling(trainer.objective, after)
    trainer.look = lambda: (looked.append(trainer.state.step), {})[1]
    with pytest.raises(UserError, match=rf"^the weights became NaN or infinite at step {after + 1} \(net/net\.0\.weig"):
        trainer.fit()
    assert looked[-1] == kept
    assert load_checkpoint(trainer.run.last)[0].step == kept


@pytest.mark.parametrize("save_every", [3, 100])
def test_an_average_that_is_no_number_is_neither_kept_nor_looked_at(toy_pretrainer: Make, save_every: int) -> None:
    trainer = toy_pretrainer(save_every=save_every)
    whole, looked = trainer._step, 0

    def spoil(*args: Any) -> dict[str, Any]:
        row = whole(*args)
        if trainer.state.step == 3:
            trainer.ema.shadow_params[1][0] = float("inf")
        return row

    def look() -> dict[str, float]:
        nonlocal looked
        looked += 1
        return {}

    trainer._step, trainer.look = spoil, look  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"^the weights became NaN or infinite at step 3 \(ema/net\.0\.bias\)"):
        trainer.fit()
    assert not looked
    assert not trainer.run.last.is_file()


@pytest.mark.parametrize(("value", "precision"), [(float("nan"), "float32"), (7e4, "float16")])
def test_a_model_with_weights_that_are_no_numbers_is_not_written_over_one_that_is_good(
    tmp_path: Path, unet: Callable[..., Any], schedule: Callable[..., Any], value: float, precision: str
) -> None:
    network = unet()
    export(tmp_path / "model", {"unet": network, "scheduler": schedule()}, precision, {"steps": 1})
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with torch.no_grad():
        network.conv_in.bias[0] = value
    with pytest.raises(UserError, match=rf"^the weights of unet are NaN or infinite in {precision} \(conv_in\.bias\)"):
        export(tmp_path / "model", {"unet": network, "scheduler": schedule()}, precision, {"steps": 2})
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert exported_step(tmp_path / "model") == 1


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"steps": null}'])
def test_a_model_whose_origin_is_not_known_is_of_no_step(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "provenance.json").write_text(text)
    assert exported_step(tmp_path) is None


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model", "model.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    whole = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "model.partial":
            raise PermissionError("not today")
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(PermissionError):
            put_in_place(tmp_path / "model.partial", tmp_path / "model")
    assert (tmp_path / "model" / "which").read_text() == "model"
    put_in_place(tmp_path / "model.partial", tmp_path / "model")
    assert (tmp_path / "model" / "which").read_text() == "model.partial"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_two_renames_is_made_good_by_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the new folder is in its place the old one is not removed, though it has lost its name."""
    (tmp_path / "model.old").mkdir()
    (tmp_path / "model.partial").mkdir()
    whole = Path.rename

    def look(self: Path, target: Path) -> Path:
        assert (tmp_path / "model.old").is_dir()
        return whole(self, target)

    monkeypatch.setattr(Path, "rename", look)
    put_in_place(tmp_path / "model.partial", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
