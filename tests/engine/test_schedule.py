"""Learning rates, against torch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch

from satdifuser.engine.schedule import Rates, build_optimizer, learning_rate, set_rate
from satdifuser.errors import UserError
from satdifuser.settings.trainer import TrainerConfig


def test_the_cosine_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37, eta_min=0.01)
    for step in range(37):
        mine = learning_rate(step + 5, total=42, warmup=5, peak=0.3, floor=0.01)
        assert mine == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    rates = [learning_rate(step, 100, 4, 1.0, 0.0) for step in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_warm_up_begins_with_the_rate_that_is_asked_for() -> None:
    rates = [learning_rate(step, 100, 4, 1.0, 0.0, begin=0.2) for step in range(5)]
    assert rates == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("per_epoch", [1, 7, 313])
def test_by_epoch_the_rate_is_the_released_codes(per_epoch: int) -> None:
    """Its facts: 2e-5 in epoch 0, a line to the peak at epoch 5, a cosine to the floor at epoch 40."""
    config = TrainerConfig(schedule="epoch", warmup_from=2e-5)
    rates = Rates(config, per_epoch)
    for step in range(40 * per_epoch):
        epoch = step // per_epoch
        if epoch < 5:
            wanted = 2e-5 + epoch / 5 * (1e-2 - 2e-5)
        else:
            wanted = 1e-5 + (1e-2 - 1e-5) * (1 + math.cos(math.pi * (epoch - 5) / 35)) / 2
        assert rates.at(step) == pytest.approx(wanted, rel=1e-12)
    assert rates.at(0) == 2e-5


def test_by_epoch_a_first_epoch_without_a_rate_is_refused() -> None:
    with pytest.raises(UserError, match=r"first would learn nothing at a rate of 0: set trainer.warmup_from=0.00002"):
        TrainerConfig(schedule="epoch")
    assert Rates(TrainerConfig(schedule="epoch", warmup_epochs=0), 3).at(0) == 1e-2
    with pytest.raises(UserError, match="warmup_from"):
        TrainerConfig(warmup_from=0.1)


def test_an_unknown_optimizer_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="adam or adamw; did you mean adam or adamw"):
        build_optimizer([], [], TrainerConfig(optimizer="adamx"))


def test_an_encoder_that_trains_has_a_rate_of_its_own_at_every_step() -> None:
    encoder, head = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(2))
    optimizer = build_optimizer([encoder], [head], TrainerConfig(encoder_lr_scale=0.1))
    set_rate(optimizer, 0.3)
    rates = {len(group["params"][0]): group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({1: 0.03, 2: 0.3})
    assert len(build_optimizer([], [head], TrainerConfig()).param_groups) == 1


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"mixed_precision": "fp8"}, {"accumulate": 64}, {"lr": -1.0}, {"encoder_lr_scale": 0.0}]
)
def test_settings_out_of_range_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"trainer.{next(iter(bad))}"):
        TrainerConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "per_epoch", "steps"),
    [
        ({"epochs": 4, "min_steps": 100}, 5, 100),  # a budget of few labels
        ({"epochs": 4, "min_steps": 100}, 500, 2000),
        ({"epochs": 4}, 5, 20),
        ({"epochs": 4, "min_steps": 100, "max_steps": 7}, 500, 7),
    ],
)
def test_a_run_is_so_many_epochs_but_at_least_min_steps(settings: dict[str, int], per_epoch: int, steps: int) -> None:
    assert TrainerConfig(**settings).total_steps(per_epoch) == steps  # type: ignore[arg-type]
