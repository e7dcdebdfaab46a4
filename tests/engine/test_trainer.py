"""The trainer: repeatable, resumable, and the same however a batch is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from satdifuser.config import compose
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.evaluate import evaluate
from satdifuser.engine.trainer import Trainer, make_accelerator
from satdifuser.errors import UserError

Make = Callable[..., Trainer]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_training_learns_the_toy_task(toy_trainer: Make) -> None:
    trainer = toy_trainer(max_steps=60, lr=1e-2, eval_every=30)
    before = evaluate(trainer.model, trainer.val, trainer.accelerator, 8).scores["loss"]
    trainer.fit()
    after = evaluate(trainer.model, trainer.val, trainer.accelerator, 8)
    assert after.scores["loss"] < 0.5 * before
    assert after.scores["accuracy"] > 0.7


def test_two_runs_of_one_seed_are_identical_and_of_two_seeds_are_not(toy_trainer: Make) -> None:
    first, second, other = toy_trainer("a"), toy_trainer("b"), toy_trainer("c", seed=1)
    for trainer in (first, second, other):
        trainer.fit()
    assert first.run.rows() == second.run.rows()
    assert first.run.rows() != other.run.rows()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


@pytest.mark.parametrize("head", ["gw", "moe"])
def test_a_resumed_run_continues_the_same_curve(toy_trainer: Make, head: str) -> None:
    whole = toy_trainer("whole", head=head)
    whole.fit()

    class KilledError(Exception):
        pass

    broken = toy_trainer("broken", head=head)
    step = broken._step

    def die_at_step_six(*args: object) -> dict[str, float]:
        if broken.state.step == 5:
            raise KilledError
        return step(*args)  # type: ignore[arg-type]

    broken._step = die_at_step_six  # type: ignore[method-assign, assignment]
    with pytest.raises(KilledError):
        broken.fit()
    resumed = toy_trainer("broken", head=head)
    resumed.resume()
    assert resumed.state.step == 4
    resumed.fit()
    assert resumed.run.rows() == whole.run.rows()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert resumed.state == whole.state


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_micro_batches_give_the_step_of_the_whole_batch(toy_trainer: Make, segmentation: type, accumulate: int) -> None:
    """Also in segmentation, where the micro-batches have different numbers of valid pixels."""
    whole = toy_trainer("whole", task=segmentation)
    cut = toy_trainer(f"cut{accumulate}", task=segmentation, accumulate=accumulate)
    for trainer in (whole, cut):
        trainer.fit()
    for one, other in zip(whole.run.rows(), cut.run.rows(), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_the_loss_of_a_step_is_the_mean_over_all_valid_pixels(toy_trainer: Make, segmentation: type) -> None:
    trainer = toy_trainer("mean", task=segmentation, accumulate=2)
    batch = trainer.train.packed([0, 3, 5, 7])  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = trainer.model(batch).logits.double().log_softmax(1)
    total, count = 0.0, 0
    for image, mask in zip(logits, batch["mask"], strict=True):
        for row in range(8):
            for column in range(8):
                if mask[row, column] != 255:
                    total -= float(image[mask[row, column], row, column])
                    count += 1
    assert trainer._step(trainer.model, batch)["loss"] == pytest.approx(total / count, rel=1e-4)


def test_training_stops_when_validation_gets_no_better(toy_trainer: Make) -> None:
    trainer = toy_trainer(max_steps=200, lr=1e-12, min_lr=1e-12, patience=3, eval_every=2)
    state = trainer.fit()
    assert state.step == 2 + 3 * 2
    assert state.best_step == 2
    assert trainer.ended == "patience"


def test_training_that_was_still_getting_better_says_that_it_ended_at_its_last_step(toy_trainer: Make) -> None:
    trainer = toy_trainer(max_steps=4, patience=3, eval_every=2)
    trainer.fit()
    assert trainer.ended == "max_steps"


@pytest.mark.parametrize(
    ("samples", "batch", "steps"), [(20000, 64, 313), (3000, 64, 47), (2000, 32, 63), (524, 16, 33)]
)
def test_the_released_recipe_looks_once_an_epoch_and_keeps_the_last_batch(
    toy_trainer: Make, toy_banks: type, samples: int, batch: int, steps: int
) -> None:
    """m-bigearthnet, m-chesapeake, m-eurosat, m-nz-cattle, as the released code counts them."""
    recipe = compose("train", ["trainer=satdifuser", f"trainer.batch_size={batch}"]).trainer
    train = toy_banks(4, seed=1)
    train.classes = train.classes[:1].expand(samples)  # of which only the number is asked
    trainer = toy_trainer(train=train, **recipe.plain())
    assert (trainer.eval_every, trainer.batches.per_epoch, trainer.total) == (steps, steps, 40 * steps)
    assert (trainer.rates.at(0), trainer.rates.at(steps - 1)) == (2e-5, 2e-5)
    assert trainer.rates.at(5 * steps) == 1e-2
    assert (trainer.config.optimizer, trainer.config.patience) == ("adam", 10)


def test_short_last_batches_are_learned_from_and_a_resume_goes_through_them(toy_trainer: Make) -> None:
    settings = {"last_batch": "keep", "eval_every": None, "schedule": "epoch", "warmup_from": 1e-4}
    whole = toy_trainer("whole", max_steps=8, **settings)
    whole.fit()  # 26 samples: 8, 8, 8 and 2
    assert [row["step"] for row in whole.run.rows() if "val/accuracy" in row] == [4, 8]
    assert len({row["lr"] for row in whole.run.rows()}) == 2
    first = toy_trainer("parts", max_steps=8, **settings)
    first.total = 4
    first.fit()
    second = toy_trainer("parts", max_steps=8, **settings)
    second.resume()
    second.fit()
    assert [(r["step"], r["loss"]) for r in second.run.rows()] == [(r["step"], r["loss"]) for r in whole.run.rows()]


def test_the_best_checkpoint_is_the_best_evaluation_and_the_last_is_the_last(toy_trainer: Make) -> None:
    trainer = toy_trainer(max_steps=20, lr=2e-2)
    trainer.fit()
    scores = {row["step"]: row["val/accuracy"] for row in trainer.run.rows() if "val/accuracy" in row}
    best, weights_of_best, _ = load_checkpoint(trainer.run.best)
    last, _, _ = load_checkpoint(trainer.run.last)
    assert best.best == max(scores.values())
    assert best.step == min(step for step, score in scores.items() if score == max(scores.values()))
    assert last.step == 20
    trainer.model.load_trained_state(weights_of_best)
    again = evaluate(trainer.model, trainer.val, trainer.accelerator, 8)
    assert again.scores["accuracy"] == pytest.approx(best.best)


def test_warm_up_counts_training_steps_only_and_survives_a_resume(toy_trainer: Make) -> None:
    trainer = toy_trainer(head="moe", accumulate=2)
    trainer.fit()  # four evaluations on the way
    assert int(trainer.model.fusion.steps) == 8  # type: ignore[arg-type]
    resumed = toy_trainer(head="moe", accumulate=2)
    resumed.resume()
    assert int(resumed.model.fusion.steps) == 8  # type: ignore[arg-type]


def test_the_balance_loss_takes_part_in_training(toy_trainer: Make) -> None:
    trainer = toy_trainer(head="moe")
    gate = trainer.model.fusion.gates["2"]  # type: ignore[index]
    trainer.model.fusion.balance = 100.0
    with torch.no_grad():
        gate.score.weight.zero_()
        gate.score.bias.copy_(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    heavy = gate.score.bias.detach().clone()
    batch = trainer.train.packed(list(range(8)))  # type: ignore[attr-defined]
    for _ in range(5):
        trainer._step(trainer.model, batch)
    moved = gate.score.bias.detach() - heavy
    assert moved[0] < 0
    assert (moved[1:] > 0).all()


def test_a_loss_that_is_not_finite_stops_with_a_remedy(toy_trainer: Make) -> None:
    trainer = toy_trainer(lr=1e30)
    with pytest.raises(UserError, match=r"the loss became .* at step \d+: lower trainer.lr"):
        trainer.fit()


def test_a_label_out_of_range_names_its_sample(toy_trainer: Make, toy_banks: type) -> None:
    train = toy_banks(26, seed=1)
    train.classes[:] = 7
    with pytest.raises(UserError, match=r"sample toy-\d+: label holds 7"):
        toy_trainer(train=train).fit()


def test_resuming_with_another_model_is_refused_in_one_line(toy_trainer: Make) -> None:
    toy_trainer("run", head="gw").fit()
    with pytest.raises(UserError, match="another configuration"):
        toy_trainer("run", head="moe").resume()


@pytest.mark.parametrize(("epochs", "warmup"), [(0.5, 1), (1, 2), (5, 2)])
def test_the_warm_up_takes_a_quarter_of_the_steps_at_most(toy_trainer: Make, epochs: float, warmup: int) -> None:
    """An epoch is of two batches here, and a run of eight steps: five epochs of warm-up would be more than all."""
    made = toy_trainer("run", length=16, warmup_epochs=epochs)
    assert (made.batches.per_epoch, made.total, made.rates.warmup) == (2, 8, warmup)


def test_half_precision_of_a_narrow_range_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate would train in float32 there, without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^mixed_precision=fp16 needs a GPU, and this machine has none"):
        make_accelerator("fp16")
