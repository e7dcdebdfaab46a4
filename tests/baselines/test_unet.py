"""The U-Net from scratch: its bank is what its spec says, and it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from satdifuser.bank import BankError
from satdifuser.baselines.unet import UNetEncoder
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError


def build(**changes: int) -> UNetEncoder:
    return UNetEncoder(prepare=ImageInput(["red", "green"]), **{"image_size": 16, "width": 8, "levels": 3, **changes})


@pytest.mark.parametrize(("size", "width", "levels"), [(16, 8, 3), (24, 16, 2), (8, 8, 1), (32, 8, 4)])
def test_the_bank_has_the_maps_that_its_spec_promises(size: int, width: int, levels: int) -> None:
    encoder = build(image_size=size, width=width, levels=levels)
    bank = encoder(torch.rand(2, 13, size, size), sample_ids=["a", "b"])
    assert bank.spec is encoder.spec
    assert encoder.spec.timesteps == (None,)
    assert encoder.spec.strides == tuple(2**level for level in range(levels))
    for level in range(levels):
        side = size // 2**level
        assert bank.map(f"level{level}").shape == (2, width * 2**level, side, side)
    assert encoder.spec.names() == tuple(f"level{level}" for level in reversed(range(levels)))  # as computed


def test_each_map_is_made_of_its_skip_and_the_map_below() -> None:
    encoder = build().double()
    images = torch.rand(2, 13, 16, 16, dtype=torch.float64) * 0.3
    bank = encoder(images)
    x = images[:, [3, 2]] / 0.15 - 1
    skips = []
    for stage in encoder.down:
        skips.append(stage(x))
        x = skips[-1].unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    torch.testing.assert_close(bank.map("level2"), skips[2])
    for level in (1, 0):
        below = bank.map(f"level{level + 1}").repeat_interleave(2, -1).repeat_interleave(2, -2)
        torch.testing.assert_close(bank.map(f"level{level}"), encoder.up[level](torch.cat([skips[level], below], 1)))


def test_gradients_reach_every_parameter_from_the_finest_map() -> None:
    encoder = build()
    encoder(torch.rand(2, 13, 16, 16) * 0.3).map("level0").square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_few_steps_lower_the_loss_of_a_learnable_target() -> None:
    encoder = build()
    images = torch.rand(4, 13, 16, 16) * 0.3
    target = F.avg_pool2d(images[:, 3:4], 3, 1, 1) * 5
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = (encoder(images).map("level0").mean(1, keepdim=True) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_weights_depend_on_the_seed_alone_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    first = build(seed=3)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again, other = build(seed=3), build(seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert first.spec == again.spec
    assert first.spec.differences(other.spec) == ["weights: 'from-scratch-seed3' and 'from-scratch-seed4'"]
    assert not torch.equal(first.down[0][0].weight, other.down[0][0].weight)


@pytest.mark.parametrize(("size", "levels", "multiple"), [(18, 3, 4), (20, 4, 8), (15, 2, 2)])
def test_a_size_that_the_levels_cannot_halve_is_a_user_error(size: int, levels: int, multiple: int) -> None:
    with pytest.raises(
        UserError, match=rf"encoder\.image_size is {size}: {levels} levels need a multiple of {multiple}"
    ):
        build(image_size=size, levels=levels)


def test_a_wrong_number_of_bands_is_a_user_error() -> None:
    with pytest.raises(UserError, match="13"):
        build()(torch.rand(1, 2, 16, 16))


@pytest.mark.parametrize(
    "size",
    [
        32,
        18,
    ],
)
def test_images_of_another_size_are_an_error_of_the_users(size: int) -> None:
    with pytest.raises((UserError, BankError)):
        build()(torch.rand(1, 13, size, size))
