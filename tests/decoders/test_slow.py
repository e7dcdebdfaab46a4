"""Our own decoders against slow ones in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from satdifuser.errors import UserError

Make = Callable[..., Any]
STRIDES = [(4,), (4, 8), (2, 4, 8), (2, 8)]
IMAGE = (16, 24)


def block(slow: Any, p: dict[str, Any], name: str, x: Any) -> Any:
    """Convolution, GroupNorm, ReLU."""
    y = slow.group_norm(slow.conv(x, p[f"{name}.0.weight"]), p[f"{name}.1.weight"], p[f"{name}.1.bias"])
    return np.maximum(y, 0)


def classified(p: dict[str, Any], x: Any, dense: bool) -> Any:
    """A matrix for each pixel, or for the average."""
    weight, bias = p["head.classify.weight"].reshape(3, -1), p["head.classify.bias"]
    if not dense:
        return weight @ np.array([sum(channel.flatten()) / channel.size for channel in x]) + bias
    out = np.zeros((3, *x.shape[1:]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            out[:, row, column] = weight @ x[:, row, column] + bias
    return out


def slow_conv(slow: Any, p: dict[str, Any], maps: dict[int, Any]) -> Any:
    size = next(iter(maps.values())).shape[1:]
    total = sum(slow.resize(value, size) for value in maps.values())
    return block(slow, p, "convolve.1", block(slow, p, "convolve.0", total))


def slow_light(slow: Any, p: dict[str, Any], maps: dict[int, Any]) -> Any:
    size = next(iter(maps.values())).shape[1:]
    parts = [
        slow.resize(slow.conv(value, p[f"project.{stride}.weight"], p[f"project.{stride}.bias"]), size)
        for stride, value in maps.items()
    ]
    return block(slow, p, "fuse", np.concatenate(parts))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize(("name", "theirs"), [("conv", slow_conv), ("light", slow_light)])
def test_conv_and_light_agree_with_slow_ones(
    maps: Make, small: Make, randomised: Make, slow: Any, name: str, theirs: Any, strides: Any, dense: bool
) -> None:
    pyramid, given = maps(strides, IMAGE)
    decoder = randomised(small(name, pyramid, dense=dense, channels=8)).eval()
    logits, p = decoder(given).detach().numpy(), slow.parameters(decoder)
    for sample in range(2):
        one = {stride: value[sample].numpy() for stride, value in given.items()}
        expected = classified(p, theirs(slow, p, one), dense)
        np.testing.assert_allclose(logits[sample], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("stride", [None, 2, 8])
def test_a_single_level_is_projected_upsampled_and_then_classified(
    maps: Make, small: Make, randomised: Make, slow: Any, stride: int | None, dense: bool
) -> None:
    pyramid, given = maps((2, 4, 8), IMAGE)
    decoder = randomised(small("single", pyramid, dense=dense, channels=8, stride=stride)).eval()
    logits, p = decoder(given, IMAGE).detach().numpy(), slow.parameters(decoder)
    for sample in range(2):
        projected = block(slow, p, "project", given[stride or 2][sample].numpy())
        expected = classified(p, slow.resize(projected, IMAGE) if dense else projected, dense)
        np.testing.assert_allclose(logits[sample], expected, rtol=1e-9, atol=1e-9)


def test_a_single_level_refuses_a_stride_that_is_not_there(maps: Make, small: Make) -> None:
    with pytest.raises(UserError, match=r"decoder\.stride is 16, but the features have 2, 4, 8: choose one of them"):
        small("single", maps((2, 4, 8), IMAGE)[0], stride=16)
