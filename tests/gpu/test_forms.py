"""What a store keeps of a bank, packed on the device: the bytes that NumPy gives for the same maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.store import Form

pytestmark = pytest.mark.gpu
DTYPES = ("float32", "float16", "bfloat16", "int8")
LARGE, TINY = 3e4, 1e-6  # below float16's largest number, and among those that it has with fewer bits

Array = NDArray[Any]


def bits(values: Tensor) -> Array:
    return values.cpu().contiguous().view(torch.uint8).numpy()


def rounded(values: Array, dtype: str) -> Array:
    """float32 numbers to the nearest of another type (ties to even), as that type's bytes."""
    if dtype == "bfloat16":
        whole = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        kept: Array = ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype(np.uint16)
    else:
        kept = values.astype(dtype)
    return kept.reshape(-1).view(np.uint8)


def pooled(values: Array, keep: str) -> Array:
    """Means in float64, cell by cell."""
    count, channels, height, width = values.shape
    exact = values.astype(np.float64)
    if keep == "maps":
        return exact
    if keep == "max":
        return exact.max((2, 3), keepdims=True)
    if keep == "moments":
        return np.concatenate([exact.mean((2, 3), keepdims=True), exact.std((2, 3), keepdims=True)], 1)
    cells = 1 if keep == "mean" else int(keep.removeprefix("grid"))
    return exact.reshape(count, channels, cells, height // cells, cells, width // cells).mean((3, 5))


@pytest.fixture
def bank(toy_spec: Any) -> FeatureBank:
    """Maps of many sizes of number, with zeros and ties between neighbours of fewer bits."""
    spec: BankSpec = toy_spec(image_size=(32, 48))
    maps = {}
    for place, tap in enumerate(spec.taps):
        values = torch.randn(5, *spec.shape(tap)) * (LARGE / 6, 1.0, 1e-3, TINY)[place % 4]
        values[0, 0] = 0.0
        values[1, 1] = torch.arange(values[1, 1].numel()).view_as(values[1, 1]) + 0.5  # ties, of int8's steps too
        values[1, 1, 0, 0] = 127.0
        values[2, 2] = 1.0 + torch.arange(values[2, 2].numel()).view_as(values[2, 2]) * 2.0**-11  # and of 16 bits
        maps[tap] = values.clamp(-LARGE, LARGE)
    return FeatureBank(spec, maps)


def on(bank: FeatureBank, device: torch.device) -> FeatureBank:
    return bank.apply(lambda values: values.to(device))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("keep", ["maps", "max", "latents"])
def test_what_is_only_rounded_is_rounded_to_the_same_bytes(
    keep: str, dtype: str, bank: FeatureBank, device: torch.device
) -> None:
    packed = Form(dtype, keep).pack(on(bank, device))
    for tap, kept in zip(bank.spec.taps, packed.spec.taps, strict=True):
        (values,) = packed.of(kept)
        assert values.device.type == device.type
        wanted = pooled(bank[tap].numpy(), "maps" if keep == "latents" else keep).astype(np.float32)  # exact
        assert np.array_equal(bits(values).reshape(-1), rounded(wanted, dtype)), tap
    assert packed.finite is not None
    assert packed.kept is not None
    assert bool(packed.finite.all())
    assert bool(packed.kept.all())


@pytest.mark.parametrize("keep", ["mean", "moments", "grid2"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_means_are_those_of_float64_to_one_step(keep: str, dtype: str, bank: FeatureBank, device: torch.device) -> None:
    """The order of a sum is the device's, so a mean may be rounded to the neighbour of what it is rounded to here."""
    packed = Form(dtype, keep).pack(on(bank, device))
    step = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    least = 2.0**-24 if dtype == "float16" else 0.0  # its smallest number
    for tap, kept in zip(bank.spec.taps, packed.spec.taps, strict=True):
        (values,) = packed.of(kept)
        exact = pooled(bank[tap].numpy(), keep)
        summed = 1e-6 * np.abs(bank[tap].numpy()).max((2, 3), keepdims=True)  # what a sum in float32 may lose
        summed = np.concatenate([summed, summed], 1) if keep == "moments" else summed
        off = np.abs(values.cpu().double().numpy() - exact)
        assert (off <= step * np.abs(exact) + least + summed).all(), tap


@pytest.mark.parametrize("keep", ["maps", "grid2"])
def test_int8_has_the_same_steps_and_scales_to_two_units_in_the_last_place(
    keep: str, bank: FeatureBank, device: torch.device
) -> None:
    """A GPU divides by 127 by multiplying: a scale may be off by a unit or two, and a tie then falls elsewhere."""
    packed = Form("int8", keep).pack(on(bank, device))
    for tap, kept in zip(bank.spec.taps, packed.spec.taps, strict=True):
        steps, scales = (values.cpu().numpy() for values in packed.of(kept))
        values = pooled(bank[tap].numpy(), keep).astype(np.float32)
        largest = np.abs(values).max((2, 3))
        tiny = np.finfo(np.float32).tiny
        wanted = np.maximum(largest / np.float32(127), tiny)
        loss = 0.0 if keep == "maps" else 2e-6  # a mean's own rounding
        np.testing.assert_allclose(scales, wanted, rtol=2.0**-22 + loss, atol=0)
        assert steps.dtype == np.int8
        assert np.abs(steps.astype(int)).max() <= 127
        exact = values / scales[..., None, None]
        off = np.abs(steps - exact)
        assert off.max() <= 0.5 + 1e-4, tap  # to the nearest
        clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
        assert clear.mean() > 0.5
        assert np.array_equal(steps[clear], np.rint(exact)[clear]), tap
        restored = packed.unpack()[kept]
        assert restored.device.type == device.type
        np.testing.assert_array_equal(restored.cpu().numpy(), steps.astype(np.float32) * scales[..., None, None])


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_cannot_be_kept_are_found_on_the_device(
    dtype: str, bank: FeatureBank, device: torch.device
) -> None:
    placed = on(bank, device)
    taps = bank.spec.taps
    placed[taps[0]][1, 2, 0, 0] = torch.nan
    placed[taps[1]][2, 3, 1, 1] = -torch.inf
    placed[taps[2]][3, 0, 0, 1] = 1e5
    packed = Form(dtype).pack(placed).to("cpu")
    assert packed.finite is not None
    assert packed.kept is not None
    assert {tuple(place) for place in (~packed.finite).nonzero().tolist()} == {(1, 0), (2, 1)}
    beyond = {(3, 2)} if dtype == "float16" else set()
    lost = {tuple(place) for place in (~(packed.kept & packed.finite)).nonzero().tolist()}
    assert lost == {(1, 0), (2, 1)} | beyond


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_packed_is_a_copy(dtype: str, bank: FeatureBank, device: torch.device) -> None:
    placed = on(bank, device)
    before = Form(dtype).pack(placed).to("cpu")
    packed = Form(dtype).pack(placed)
    for values in placed.values():
        values.fill_(torch.nan)
    for key, values in packed.stacks.items():
        assert np.array_equal(bits(values), bits(before.stacks[key])), key
