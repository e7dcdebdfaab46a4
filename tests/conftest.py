"""Shared by all tests: toy specs and banks, and slow float64 arithmetic to compare the networks with."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap

torch.set_num_threads(1)  # toy tensors: more threads only wait for each other

# name, channels, stride, in the order of computation; the strides are interleaved so that a stride's taps are no slice
TOY_TAPS = (("mid", 12, 8), ("up.0", 10, 4), ("up.1", 8, 8))


@pytest.fixture(scope="session", autouse=True)
def _thawed():
    yield
    gc.unfreeze()  # else libraries tell their parts as leaks at the end


@pytest.fixture(scope="module", autouse=True)
def _frozen(_thawed):
    """Leave what is imported and collected out of the garbage collection with which every run begins: half its time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def toy_spec():
    """Make a spec of two strides, three taps and three timesteps, or another; the image is not square."""

    def make(timesteps=(21, 61, 97), taps=TOY_TAPS, image_size=(16, 24), **kwargs):
        return BankSpec(
            taps=tuple(Tap(n, t, depth, c, s) for t in timesteps for depth, (n, c, s) in enumerate(taps)),
            encoder=kwargs.pop("encoder", "toy"),
            weights=kwargs.pop("weights", "none"),
            image_size=image_size,
            **kwargs,
        )

    return make


@pytest.fixture
def toy_bank():
    """Fill a spec with random maps."""

    def make(spec, batch=2, dtype=torch.float64):
        return FeatureBank(spec, {tap: torch.randn(batch, *spec.shape(tap), dtype=dtype) for tap in spec.taps})

    return make


@pytest.fixture
def randomised():
    """Give every parameter of a module (norms and biases too) a random value, and make the module float64."""

    def fill(module):
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter.copy_(torch.randn_like(parameter) / fan_in**0.5)
        return module

    return fill


def conv(x, weight, bias=None):
    """Same-size convolution of one sample `[C, H, W]`, pixel by pixel."""
    reach = weight.shape[2] // 2
    height, width = x.shape[1:]
    out = np.zeros((weight.shape[0], height, width))
    for row in range(height):
        for column in range(width):
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    if 0 <= row + i < height and 0 <= column + j < width:
                        out[:, row, column] += weight[:, :, i + reach, j + reach] @ x[:, row + i, column + j]
    return out if bias is None else out + bias[:, None, None]


def group_norm(x, weight, bias):
    """GroupNorm of one sample: 32 groups, or the next power of two that leaves two channels or more in a group."""
    channels = x.shape[0]
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if g == 1 or (channels % g == 0 and channels // g >= 2))
    size = channels // groups
    out = np.zeros_like(x)
    for group in range(groups):
        part = x[group * size : (group + 1) * size]
        out[group * size : (group + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return out * weight[:, None, None] + bias[:, None, None]


def bottleneck(module, x):
    """B(x) of one sample from the parameters of a `Bottleneck`."""
    p = parameters(module)

    def normed(x, layer, norm):
        return group_norm(conv(x, p[f"{layer}.weight"]), p[f"{norm}.weight"], p[f"{norm}.bias"])

    y = np.maximum(normed(x, "reduce", "norm1"), 0)
    y = np.maximum(normed(y, "spread", "norm2"), 0)
    return np.maximum(normed(y, "expand", "norm3") + normed(x, "shortcut", "norm4"), 0)


def resize(x, size):
    """Bilinear resize of one sample, with pixel centres at half integers and the border repeated."""
    out = np.zeros((x.shape[0], *size))
    for row in range(size[0]):
        for column in range(size[1]):
            value = 0.0
            for r, share_r in _neighbours(row, size[0], x.shape[1]):
                for c, share_c in _neighbours(column, size[1], x.shape[2]):
                    value = value + share_r * share_c * x[:, r, c]
            out[:, row, column] = value
    return out


def _neighbours(index, new, old):
    place = min(max((index + 0.5) * old / new - 0.5, 0.0), old - 1.0)
    low = int(place)
    return (low, 1 - (place - low)), (min(low + 1, old - 1), place - low)


def parameters(module):
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


@pytest.fixture
def slow():
    """Slow float64 versions of the building blocks, each for one sample as a NumPy array."""
    return SimpleNamespace(
        conv=conv, group_norm=group_norm, bottleneck=bottleneck, resize=resize, parameters=parameters
    )
