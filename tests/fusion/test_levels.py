"""Each depth a level of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satdifuser.bank import BankError
from satdifuser.fusion import Levels

BLOCKS = tuple((f"blocks.{n}", 12, 8) for n in (2, 5, 8, 11))


def projected(slow, head, bank, name, timestep, sample):
    p = slow.parameters(head.project[name.replace(".", "/")])
    return slow.group_norm(
        slow.conv(bank.map(name, timestep)[sample].numpy(), p["0.weight"]), p["1.weight"], p["1.bias"]
    )


def doubled(x, weight, bias):
    """A transposed convolution of 2 x 2 with stride 2: a matrix for each corner."""
    out = np.zeros((weight.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            out[:, row, column] = weight[:, :, row % 2, column % 2].T @ x[:, row // 2, column // 2] + bias
    return out


def halved(x):
    out = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            out[:, row, column] = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max((1, 2))
    return out


def gelu(x):
    erf = torch.erf(torch.from_numpy(x) / 2**0.5).numpy()
    return x * (1 + erf) / 2


def test_four_blocks_become_a_quarter_half_one_and_two_strides_in_the_order_of_depth(
    toy_spec, toy_bank, randomised, slow, close
):
    spec = toy_spec((None,), BLOCKS, (32, 48))
    bank, head = toy_bank(spec), randomised(Levels(spec, 16))
    assert head.pyramid.strides == (2, 4, 8, 16)
    maps, p = head(bank).maps, slow.parameters(head.scale)
    for sample in range(2):
        first, second, third, fourth = (projected(slow, head, bank, name, None, sample) for name, *_ in BLOCKS)
        middle = doubled(first, p["0.0.0.weight"], p["0.0.0.bias"])
        middle = gelu(slow.group_norm(middle, p["0.0.1.weight"], p["0.0.1.bias"]))
        close(maps[2][sample], doubled(middle, p["0.1.weight"], p["0.1.bias"]))
        close(maps[4][sample], doubled(second, p["1.0.weight"], p["1.0.bias"]))
        close(maps[8][sample], third)
        close(maps[16][sample], halved(fourth))


def test_timesteps_are_levels_too_within_their_depth(toy_spec, toy_bank, randomised, slow, close):
    spec = toy_spec((21, 97), (("mid", 12, 8), ("up", 10, 8)), (32, 48))
    bank, head = toy_bank(spec), randomised(Levels(spec, 16))
    fused = head(bank)
    close(fused.maps[8][0], projected(slow, head, bank, "up", 21, 0))
    close(fused.maps[16][0], halved(projected(slow, head, bank, "up", 97, 0)))
    assert fused.weights[8].tolist() == [[0.25, 0.25], [0.25, 0.25]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_maps_take_the_finest_strides(toy_spec, toy_bank, count):
    spec = toy_spec((None,), BLOCKS[:count], (32, 48))
    head = Levels(spec, 16).double()
    assert head.pyramid.strides == (2, 4, 8)[:count]
    fused = head(toy_bank(spec))
    assert {s: tuple(value.shape) for s, value in fused.maps.items()} == {
        s: (2, 16, 32 // s, 48 // s) for s in (2, 4, 8)[:count]
    }
    assert list(fused.weights) == [8]
    assert float(fused.weights[8].sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("stride", "image_size", "expected"),
    [
        (14, (56, 112), (7, 14, 28, 56)),
        (16, (224, 224), (4, 8, 16, 32)),
        (7, (28, 28), (7, 14, 28)),
        (8, (120, 120), (2, 4, 8)),
    ],
)
def test_strides_are_whole_numbers_that_divide_the_image(toy_spec, toy_bank, stride, image_size, expected):
    taps = tuple((f"blocks.{n}", 6, stride) for n in range(len(expected)))
    spec = toy_spec((None,), taps, image_size)
    head = Levels(spec, 8).double()
    assert head.pyramid.strides == expected
    assert [tuple(value.shape[2:]) for value in head(toy_bank(spec)).maps.values()] == [
        (image_size[0] // s, image_size[1] // s) for s in expected
    ]


def test_too_many_maps_are_refused_with_what_to_choose(toy_spec):
    five = tuple((f"blocks.{n}", 6, 8) for n in range(5))
    with pytest.raises(
        BankError, match=r"stride 8 has the strides 2, 4, 8, 16, but there are 5 maps: choose at most 4"
    ):
        Levels(toy_spec((None,), five, (32, 32)), 8)
    with pytest.raises(BankError, match=r"2, 4, 8, but there are 4 maps: choose at most 3 .* be divided by 16$"):
        Levels(toy_spec((None,), five[:4], (120, 120)), 8)


def test_of_several_strides_each_is_the_mean_of_its_projected_maps(toy_spec, toy_bank, randomised, slow, close):
    spec = toy_spec()
    bank, head = toy_bank(spec), randomised(Levels(spec, 16))
    fused = head(bank)
    for stride, names in {4: ("up.0",), 8: ("mid", "up.1")}.items():
        for sample in range(2):
            every = [projected(slow, head, bank, name, t, sample) for name in names for t in (21, 61, 97)]
            close(fused.maps[stride][sample], sum(every) / len(every))
        assert fused.weights[stride].tolist() == [[pytest.approx(1 / (3 * len(names)))] * len(names)] * 3


def test_every_level_learns_from_its_own_depth_alone(toy_spec, toy_bank):
    spec = toy_spec((None,), BLOCKS, (32, 48))
    bank = toy_bank(spec).apply(lambda value: value.requires_grad_())
    head = Levels(spec, 16).double()
    maps = head(bank).maps
    for number, value in enumerate(maps.values()):
        head.zero_grad()
        for tap in spec.taps:
            bank[tap].grad = None
        (value * torch.randn_like(value)).sum().backward(retain_graph=True)
        reached = [bank[tap].grad is not None and bool(bank[tap].grad.any()) for tap in spec.taps]
        assert reached == [place == number for place in range(4)]


def test_class_tokens_are_no_levels(toy_spec):
    spec = toy_spec((None,), (("blocks.2", 12, 8), ("blocks.2.class", 12, 32)), (32, 32))
    with pytest.raises(BankError, match=r"blocks\.2\.class is a class token: set encoder.class_token=false"):
        Levels(spec, 16)
