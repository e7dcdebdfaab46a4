"""The loop of pretraining: repeatable, resumable bit for bit, with the average that its recipe says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.schedule import learning_rate
from satdifuser.errors import UserError
from satdifuser.pretrain.draws import Draws, any_side_up
from satdifuser.pretrain.trainer import Pretrainer
from satdifuser.settings.pretraining import Recipe

Make = Callable[..., Pretrainer]


class KilledError(Exception):
    pass


def die_at(trainer: Pretrainer, step: int) -> None:
    """Be killed in the middle of a step: the weights have moved, and nobody was told."""
    whole = trainer._step

    def cut(*args: Any) -> dict[str, Any]:
        row = whole(*args)
        if trainer.state.step == step:
            raise KilledError
        return row

    trainer._step = cut  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        trainer.fit()


def weights(trainer: Pretrainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.objective.state_dict().items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_training_makes_the_loss_smaller(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(steps=120, lr=3e-2, eval_every=120)
    images = trainer.images.sources[0].some(24)[0]
    before = trainer.objective(images, Draws(99, 0, 24)).mean().detach()
    trainer.fit()
    after = trainer.objective(images, Draws(99, 0, 24)).mean().detach()
    assert after < 0.5 * before
    rows = trainer.run.rows()
    assert [row["step"] for row in rows] == list(range(1, 121))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_two_runs_of_one_seed_are_identical_and_of_two_seeds_are_not(toy_pretrainer: Make) -> None:
    first, second, other = toy_pretrainer("a"), toy_pretrainer("b"), toy_pretrainer("c", seed=1)
    for trainer in (first, second, other):
        trainer.fit()
    assert first.run.rows() == second.run.rows() != other.run.rows()
    assert_same(weights(first), weights(second))


@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_is_that_of_a_slow_loop(toy_pretrainer: Make, clip: float | None) -> None:
    """Batch, positions, noise, rate, clipping and AdamW, without the trainer."""
    trainer = toy_pretrainer(ema=None, clip_norm=clip, weight_decay=0.1, betas=(0.8, 0.9), augment=True)
    slow = toy_pretrainer("slow").objective
    parameters = [p for p in slow.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=1.0, betas=(0.8, 0.9), weight_decay=0.1)
    batches = trainer.images.batches(0, 0, torch.device("cpu"))
    losses, norms = [], []
    for step in range(9):
        draws = Draws(0, step, 8)
        loss = slow(any_side_up(next(batches), draws), draws).mean()
        adam.zero_grad()
        loss.backward()
        norm = float(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None) ** 0.5)
        for parameter in parameters:
            if clip is not None and norm > clip and parameter.grad is not None:
                parameter.grad *= clip / norm
        adam.param_groups[0]["lr"] = learning_rate(step, 9, 2, 1e-2, 0.0)
        adam.step()
        losses.append(float(loss.detach()))
        norms.append(norm)
    trainer.fit()
    rows = trainer.run.rows()
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [row["lr"] for row in rows] == [learning_rate(step, 9, 2, 1e-2, 0.0) for step in range(9)]
    if clip is None:
        assert "grad_norm" not in rows[0]
    else:
        assert [row["grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-4)
        assert max(norms) > clip
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(weights(trainer)[name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 3, 8])  # three do not divide eight images
def test_micro_batches_change_nothing_but_rounding(toy_pretrainer: Make, parts: int) -> None:
    whole, cut = toy_pretrainer("whole"), toy_pretrainer("cut", accumulate=parts)
    whole.fit()
    cut.fit()
    assert [row["loss"] for row in cut.run.rows()] == pytest.approx([row["loss"] for row in whole.run.rows()], rel=1e-4)
    for name, value in whole.trained.items():
        torch.testing.assert_close(cut.trained[name], value, rtol=1e-3, atol=1e-5)


def test_checkpoints_are_written_as_often_as_asked(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(save_every=2, eval_every=4)
    steps: list[int] = []
    whole = trainer._save
    trainer._save = lambda: (steps.append(trainer.state.step), whole())[1]  # type: ignore[method-assign]
    trainer.fit()
    assert steps == [2, 4, 6, 8, 9]


def test_the_average_is_that_of_its_formula_and_is_what_is_left(toy_pretrainer: Make) -> None:
    """Decay min(0.6, 1 - (1 + k) ** -0.75), where k counts steps from 0; the first step is taken over whole."""
    trainer = toy_pretrainer(steps=12, ema=0.6)
    slow = {name: value.double() for name, value in trainer.trained.items()}
    whole, decays = trainer._step, []

    def follow(*args: Any) -> dict[str, Any]:
        row = whole(*args)
        k = trainer.state.step - 1
        decays.append(0.0 if k == 0 else min(0.6, 1 - (1 + k) ** -0.75))
        for name, value in trainer.trained.items():
            slow[name] = decays[-1] * slow[name] + (1 - decays[-1]) * value.detach().double()
        return row

    trainer._step = follow  # type: ignore[method-assign]
    trainer.fit()
    assert decays[0] == 0.0
    assert decays[1] == pytest.approx(0.405, abs=1e-3)
    assert decays[-1] == 0.6
    last = load_checkpoint(trainer.run.last)[1]
    for name, value in slow.items():
        torch.testing.assert_close(weights(trainer)[name].double(), value, atol=1e-6, rtol=1e-5)
        assert torch.equal(last["ema/" + name], weights(trainer)[name])
        assert not torch.equal(last["net/" + name], weights(trainer)[name])


def test_what_looks_sees_the_average_and_training_goes_on_with_the_weights(toy_pretrainer: Make) -> None:
    plain = toy_pretrainer("plain")
    plain.fit()
    trainer = toy_pretrainer("seen")
    seen: list[dict[str, Tensor]] = []

    def look() -> dict[str, float]:
        assert not trainer.objective.training
        seen.append(weights(trainer))
        torch.randn(3)  # what a look draws has no part in training
        return {"val/one": float(len(seen))}

    trainer.look = look
    trainer.fit()
    assert_same(weights(trainer), weights(plain))
    assert [row.get("val/one") for row in trainer.run.rows()] == [None, None, 1.0, None, None, 2.0, None, None, 3.0]
    last = load_checkpoint(trainer.run.last)[1]
    for name in trainer.trained:
        assert torch.equal(seen[-1][name], last["ema/" + name])
        assert not torch.equal(seen[0][name], seen[-1][name])


def test_without_an_average_the_last_weights_are_the_result(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(ema=None)
    trainer.fit()
    last = load_checkpoint(trainer.run.last)[1]
    assert last.keys() == {"net/" + name for name in trainer.trained}
    assert_same({name: weights(trainer)[name] for name in trainer.trained}, {n[4:]: v for n, v in last.items()})


def test_what_is_frozen_is_neither_trained_nor_written(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(weight_decay=0.5)
    trainer.fit()
    assert "fixed" not in trainer.trained
    assert torch.equal(weights(trainer)["fixed"], torch.ones(2))
    assert not any("fixed" in name for name in load_checkpoint(trainer.run.last)[1])


@pytest.mark.parametrize("ema", [0.9, None])
@pytest.mark.parametrize("killed", [4, 8])
def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(
    toy_pretrainer: Make, ema: float | None, killed: int
) -> None:
    whole = toy_pretrainer("whole", ema=ema)
    whole.fit()
    die_at(toy_pretrainer("broken", ema=ema), killed)
    resumed = toy_pretrainer("broken", ema=ema)
    resumed.resume()
    assert resumed.state.step == killed // 3 * 3
    resumed.fit()
    assert resumed.run.rows() == whole.run.rows()
    assert_same(weights(resumed), weights(whole))
    one, other = (load_checkpoint(trainer.run.last) for trainer in (resumed, whole))
    assert one[0] == other[0]
    assert_same(one[1], other[1])
    for number, moments in other[2].items():
        assert_same(one[2][number], moments)


@pytest.mark.parametrize("step", [6, 9])
@pytest.mark.parametrize("place", ["_save", "_evaluate", "log"])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_between_a_checkpoint_and_its_row_loses_neither_the_row_nor_the_look(
    toy_pretrainer: Make, monkeypatch: pytest.MonkeyPatch, step: int, place: str, before: bool
) -> None:
    def looking(name: str) -> tuple[Pretrainer, list[dict[str, Tensor]]]:
        trainer = toy_pretrainer(name)
        seen: list[dict[str, Tensor]] = []

        def look() -> dict[str, float]:
            seen.append(weights(trainer))
            return {"val/one": float(sum(value.sum() for value in seen[-1].values()))}

        trainer.look = look
        return trainer, seen

    whole, all_seen = looking("whole")
    whole.fit()
    broken, _ = looking("broken")
    owner = broken.run if place == "log" else broken
    act = getattr(owner, place)

    def cut(*args: Any) -> Any:
        if broken.state.step == step and before:
            raise KilledError
        found = act(*args)
        if broken.state.step == step:
            raise KilledError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, cut)
        with pytest.raises(KilledError):
            broken.fit()
    resumed, seen = looking("broken")
    resumed.resume()
    resumed.fit()
    assert resumed.run.rows() == whole.run.rows()
    assert_same(seen[-1], all_seen[-1])
    assert_same(weights(resumed), weights(whole))


def test_a_run_killed_before_its_first_checkpoint_leaves_no_rows_to_the_next(toy_pretrainer: Make) -> None:
    whole = toy_pretrainer("whole")
    whole.fit()
    die_at(toy_pretrainer("broken"), 3)
    again = toy_pretrainer("broken")
    assert not again.run.last.is_file()
    assert len(again.run.rows()) == 2
    again.fit()
    assert again.run.rows() == whole.run.rows()


def test_a_finished_run_that_is_resumed_has_its_averaged_weights(toy_pretrainer: Make) -> None:
    done = toy_pretrainer()
    done.fit()
    again = toy_pretrainer()
    again.resume()
    again.fit()
    assert again.run.rows() == done.run.rows()
    assert_same(weights(again), weights(done))


def test_the_seconds_of_all_sittings_are_counted(toy_pretrainer: Make) -> None:
    toy_pretrainer().fit()
    again = toy_pretrainer(steps=12)
    again.resume()
    before = again.state.seconds
    assert before > 0
    again.fit()
    assert before < json.loads(again.run.last.with_suffix(".json").read_text())["seconds"] <= again.elapsed


@pytest.mark.parametrize(
    ("other", "named"), [({"width": 4}, "net.0.weight has another shape"), ({"ema": None}, "ema/net.0.bias is in one")]
)
def test_a_checkpoint_of_another_network_is_refused_in_one_line(
    toy_pretrainer: Make, other: dict[str, Any], named: str
) -> None:
    toy_pretrainer(steps=3).fit()
    trainer = toy_pretrainer(**other)
    with pytest.raises(UserError, match=rf"^[^\n]*last\.safetensors is of another configuration: {named}[^\n]*$"):
        trainer.resume()


def test_a_loss_that_is_not_finite_ends_in_one_line_with_a_remedy(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(lr=1e30, clip_norm=None, weight_decay=1.0)
    with pytest.raises(UserError, match=r"^the loss became (nan|inf) at step \d: lower recipe\.lr[^\n]*$"):
        trainer.fit()


def test_tensorboard_is_written_where_it_is_asked_for(toy_pretrainer: Make) -> None:
    trainer = toy_pretrainer(steps=3, tensorboard=True)
    trainer.fit()
    assert list((trainer.run.path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("batch_size", -1),
        ("lr", 0.0),
        ("eval_every", 0),
        ("eval_images", 0),
        ("ema", 1.0),
        ("ema", -0.1),
        ("mixed_precision", "fp8"),
        ("samples", -1),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("levels", (21, -1)),
        ("warmup", -1),
        ("workers", -1),
        ("clip_norm", 0.0),
    ],
)
def test_a_wrong_setting_of_the_recipe_is_refused_in_one_line(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^recipe\.{setting} is [^\n]*$"):
        Recipe(**{setting: value})
