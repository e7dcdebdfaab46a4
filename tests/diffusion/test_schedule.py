"""The noise schedule: the closed form and the DDIM steps of diffusers, and which levels a path goes through."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler
from torch import Tensor

from satdifuser.diffusion.schedule import PREDICTIONS, NoiseSchedule, training_timesteps
from satdifuser.errors import UserError

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
OPTIONS: dict[str, Any] = {**BETAS, "clip_sample": False}


def schedule(**changes: Any) -> NoiseSchedule:
    return NoiseSchedule(DDPMScheduler(**{**BETAS, **changes}))


def latents() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)


def message(caught: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept(timestep: int) -> float:
    """The product of 1 - beta, from the schedule's own definition, in float64."""
    low, high, product = 0.00085**0.5, 0.012**0.5, 1.0
    for step in range(timestep + 1):
        product *= 1 - (low + (high - low) * step / 999) ** 2
    return product


def by_hand(x: Tensor, output: Tensor, timestep: int, target: int, prediction: str) -> Tensor:
    """A deterministic DDIM step in float64: solve for the clean part and the noise, and mix them again."""
    a, b = kept(timestep) ** 0.5, (1 - kept(timestep)) ** 0.5
    x, output = x.double(), output.double()
    # x = a clean + b noise, and the output is noise, clean, or a noise - b clean: two equations for two unknowns
    rows = {"epsilon": [0.0, 1.0], "sample": [1.0, 0.0], "v_prediction": [-b, a]}[prediction]
    system = torch.tensor([[a, b], rows], dtype=torch.float64)
    clean, noise = torch.linalg.solve(system, torch.stack([x.flatten(), output.flatten()]))
    return (kept(target) ** 0.5 * clean + (1 - kept(target)) ** 0.5 * noise).view_as(x)


@pytest.mark.parametrize("betas", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_the_closed_form_is_that_of_diffusers_at_every_kind_of_level(betas: str) -> None:
    theirs = DDPMScheduler(**{**BETAS, "beta_schedule": betas})
    ours = NoiseSchedule(theirs)
    assert ours.total == 1000
    for timestep in [0, 1, 998, 999, *random.sample(range(2, 998), 5)]:
        clean, noise = latents()
        wanted = theirs.add_noise(clean, noise, torch.tensor([timestep] * 2))
        torch.testing.assert_close(ours.noised(clean, noise, timestep), wanted, atol=1e-5, rtol=1e-5)


def test_the_closed_form_is_that_of_the_schedules_definition_in_float64() -> None:
    for timestep in [0, 21, 999, *random.sample(range(1000), 3)]:
        clean, noise = latents()
        wanted = kept(timestep) ** 0.5 * clean.double() + (1 - kept(timestep)) ** 0.5 * noise.double()
        got = schedule().noised(clean.double(), noise.double(), timestep)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, wanted, atol=2e-6, rtol=2e-6)  # diffusers keeps the levels in float32


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_step_down_and_its_clean_part_are_those_of_diffusers_ddim(prediction: str) -> None:
    theirs = DDIMScheduler(**OPTIONS, prediction_type=prediction)
    theirs.set_timesteps(50)
    ours = schedule(prediction_type=prediction)
    for timestep in [21, 981, *random.sample(range(41, 981, 20), 4)]:
        noisy, output = latents()
        wanted = theirs.step(output, timestep, noisy, eta=0.0)
        torch.testing.assert_close(
            ours.move(noisy, output, timestep, timestep - 20), wanted.prev_sample, atol=2e-4, rtol=2e-4
        )
        clean, noise = ours.split(noisy, output, timestep)
        torch.testing.assert_close(clean, wanted.pred_original_sample, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(ours.noised(clean, noise, timestep), noisy, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_step_up_is_that_of_diffusers_inverse_ddim(prediction: str) -> None:
    theirs = DDIMInverseScheduler(**OPTIONS, prediction_type=prediction)
    theirs.set_timesteps(50)
    ours = schedule(prediction_type=prediction)
    for timestep in [1, 961, *random.sample(range(21, 961, 20), 4)]:
        noisy, output = latents()
        wanted = theirs.step(output, timestep + 20, noisy).prev_sample  # named by the level that it arrives at
        got = ours.move(noisy, output, timestep, timestep + 20)
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_step_between_any_two_levels_is_a_float64_computation_by_hand(prediction: str) -> None:
    ours = schedule(prediction_type=prediction)
    for _ in range(12):
        timestep, target = random.sample(range(1000), 2)
        noisy, output = latents()
        wanted = by_hand(noisy, output, timestep, target, prediction)
        got = ours.move(noisy, output, timestep, target).double()
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4, msg=lambda m, t=timestep: f"from {t}: {m}")


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_step_with_a_perfect_prediction_arrives_at_the_closed_form(prediction: str) -> None:
    ours = schedule(prediction_type=prediction)
    for _ in range(6):
        timestep, target = random.sample(range(1000), 2)
        clean, noise = latents()
        a, b = kept(timestep) ** 0.5, (1 - kept(timestep)) ** 0.5
        output = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - b * clean}[prediction]
        got = ours.move(ours.noised(clean, noise, timestep), output, timestep, target)
        torch.testing.assert_close(got, ours.noised(clean, noise, target), atol=2e-4, rtol=2e-4)


def test_v_prediction_works_at_the_last_level_of_a_schedule_without_any_signal() -> None:
    theirs = DDIMScheduler(**OPTIONS, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    theirs.set_timesteps(50)
    ours = schedule(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    clean, noise = latents()
    torch.testing.assert_close(ours.noised(clean, noise, 999), noise, atol=1e-6, rtol=0)  # nothing is left
    output = torch.randn_like(noise)
    wanted = theirs.step(output, 999, noise, eta=0.0)
    torch.testing.assert_close(ours.move(noise, output, 999, 979), wanted.prev_sample, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.split(noise, output, 999)[0], -output, atol=1e-6, rtol=0)


def test_a_scheduler_that_says_nothing_of_its_prediction_predicts_the_noise() -> None:
    assert schedule().prediction == "epsilon"


@pytest.mark.parametrize("kind", ["flow_prediction", "V_PREDICTION", "", None])
def test_an_unknown_prediction_type_is_a_user_error_that_lists_the_known_ones(kind: Any) -> None:
    scheduler = DDPMScheduler(**BETAS)
    scheduler.register_to_config(prediction_type=kind)
    with pytest.raises(UserError) as caught:
        NoiseSchedule(scheduler)
    assert repr(str(kind)) in message(caught)
    assert all(known in message(caught) for known in PREDICTIONS)


def test_the_published_path_is_the_grid_of_fifty_steps_from_the_clean_latent_to_the_highest_timestep() -> None:
    wanted = [0, 1, 21, 41, 61, 81, 101, 121, 141, 161]
    assert schedule().levels([0, 21, 61, 161], 50) == wanted
    assert schedule().levels([161, 0, 61, 21], 50) == wanted
    assert schedule().levels([161, 61, 21], 50) == wanted[2:]


def test_the_grid_is_that_of_diffusers_leading_spacing() -> None:
    for steps in (1, 4, 20, 50, 250, 500, 1000):
        theirs = DDIMScheduler(**{**BETAS, "steps_offset": 1})
        theirs.set_timesteps(steps)
        wanted = {int(t) for t in theirs.timesteps if t < 1000} | {0, 999}  # 1000 steps and offset 1: one too many
        for offset in (0, 1):  # whatever the scheduler's own sampler would do
            assert schedule(steps_offset=offset).levels([0, 999], steps) == sorted(wanted)


def test_a_path_goes_through_every_wanted_timestep_once_ascending_and_no_further() -> None:
    ours = schedule()
    for _ in range(40):
        wanted = random.sample(range(1000), random.randint(1, 6))
        steps = random.randint(1, 1000)
        path = ours.levels(wanted, steps)
        assert path == sorted(set(path))
        assert set(wanted) <= set(path)
        assert (path[0], path[-1]) == (min(wanted), max(wanted))
        stride = 1000 // steps
        assert all((level - 1) % stride == 0 for level in set(path) - set(wanted))
        assert all(after - before <= stride for before, after in pairwise(path) if before > 0)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_outside_the_schedule_is_a_user_error(steps: int) -> None:
    with pytest.raises(UserError, match=rf"encoder\.steps is {steps}.*1 to 1000") as caught:
        schedule().levels([21], steps)
    message(caught)


def test_generation_steps_are_the_published_training_timesteps() -> None:
    assert training_timesteps([47, 45, 40]) == [21, 61, 161]
    assert training_timesteps([0, 48, 49]) == [961, 1, 0]
    assert training_timesteps([]) == []


def test_generation_steps_count_what_diffusers_has_reached_after_them() -> None:
    for num_steps in (10, 50, 100):
        theirs = DDIMScheduler(**BETAS)
        theirs.set_timesteps(num_steps)
        after = [*theirs.timesteps.tolist()[1:], 0]  # the level that each step arrives at
        steps = random.sample(range(num_steps), 5)
        assert training_timesteps(steps, num_steps) == [after[step] for step in steps]


@pytest.mark.parametrize(("steps", "bad", "count"), [([47, 50], 50, 50), ([-1], -1, 50), ([3, 10], 10, 10)])
def test_a_generation_step_outside_the_run_is_a_user_error(steps: list[int], bad: int, count: int) -> None:
    with pytest.raises(UserError, match=rf"step {bad} is outside 0 .*{count - 1}") as caught:
        training_timesteps(steps, count)
    message(caught)


def test_timesteps_are_taken_as_they_are_and_generation_steps_are_converted() -> None:
    ours = schedule()
    assert ours.resolve([161, 21, 61]) == (161, 21, 61)
    assert ours.resolve((0, 999)) == (0, 999)
    assert ours.resolve([300], [47, 45, 40]) == (21, 61, 161)  # where they are given, they count
    assert ours.resolve([300], [97, 40], 100) == (11, 581)
    assert schedule(num_train_timesteps=500).resolve([300], [40]) == (81,)
    assert schedule(steps_offset=0).resolve([300], [47, 45, 40]) == (21, 61, 161)


@pytest.mark.parametrize("steps", [[50], [47, 47], [], [49, 49], [-1], [47.0]])
def test_generation_steps_that_are_outside_repeated_missing_or_not_whole_are_a_user_error(steps: list[Any]) -> None:
    with pytest.raises(UserError, match=r"generation step|encoder\.(timesteps|save_steps)") as caught:
        schedule().resolve([21], steps)
    message(caught)


@pytest.mark.parametrize(
    "timesteps", [[], [-1], [1000], [21, 21], [21, 61, 21], [21.0], [21.5], [True], [0, False], ["21"], [None]]
)
def test_timesteps_outside_repeated_missing_or_not_whole_are_a_user_error(timesteps: list[Any]) -> None:
    with pytest.raises(UserError, match=r"encoder\.timesteps is .*0 \(clean\) to 999") as caught:
        schedule().resolve(timesteps)
    assert str(timesteps) in message(caught)


def test_a_shorter_schedule_has_fewer_timesteps() -> None:
    short = schedule(num_train_timesteps=100)
    assert short.resolve([99]) == (99,)
    with pytest.raises(UserError, match="99"):
        short.resolve([100])
