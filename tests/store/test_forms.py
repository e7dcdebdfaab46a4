"""What of a bank is kept, in which numbers: against plain NumPy on random maps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.store import Form
from satdifuser.store.forms import alternatives, bytes_text

TINY = float(np.finfo(np.float32).tiny)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of a float32, rounded to nearest and to even where both are as near."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def pooled(values: NDArray[Any], grid: int, function: Callable[..., Any]) -> NDArray[Any]:
    """Cells that overlap where the sides cannot be divided, as torch documents its adaptive pooling."""
    height, width = values.shape[2:]
    found = np.zeros((*values.shape[:2], grid, grid))
    for row in range(grid):
        for column in range(grid):
            down = slice(row * height // grid, math.ceil((row + 1) * height / grid))
            across = slice(column * width // grid, math.ceil((column + 1) * width / grid))
            found[:, :, row, column] = function(values[:, :, down, across], axis=(2, 3))
    return found


def one_tap(values: torch.Tensor, stride: int = 1) -> FeatureBank:
    _, channels, height, width = values.shape
    spec = BankSpec((Tap("mid", 21, 0, channels, stride),), "toy", "none", (height * stride, width * stride))
    return FeatureBank(spec, {spec.taps[0]: values})


@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_are_rounded_to_the_nearest_that_there_is(made: Any, dtype: str, source: torch.dtype) -> None:
    bank = made.bank.to(source)
    unpacked = Form(dtype).pack(bank).unpack()
    assert unpacked.spec == bank.spec
    for tap in bank.spec.taps:
        values = bank[tap].double().numpy()
        found = unpacked[tap]
        assert found.dtype == getattr(torch, dtype)
        if dtype == "bfloat16":
            wanted = bfloat16_bits(values.astype(np.float32)).astype(np.uint32) << 16
            assert (found.float().numpy() == wanted.view(np.float32)).all()
        else:
            assert (found.numpy() == values.astype(dtype)).all()


@pytest.mark.parametrize("power", [-44, -41, -39, -38, -37, -36, -30, -5, 0, 5, 30, 38])
def test_int8_is_within_half_a_step_of_a_channels_largest_value(power: int) -> None:
    values = torch.from_numpy(np.random.default_rng(power + 50).uniform(-3, 3, (4, 6, 9, 7)) * 10.0**power).float()
    values[1, 2] = 0.0
    values[2, 3, 1:] = 0.0
    found = Form("int8").pack(one_tap(values)).unpack().map("mid", 21)
    assert found.dtype == torch.float32
    exact = values.double().numpy()
    step = np.maximum(np.abs(exact).max((2, 3), keepdims=True) / 127, TINY)  # no float32 can hold a smaller one well
    error = np.abs(found.double().numpy() - exact)
    assert (error <= step * 0.5 * (1 + 2e-5)).all(), (error / step).max()
    assert (found[1, 2] == 0).all()


def test_int8_of_channels_of_all_sizes_at_once_is_within_half_a_step_of_each() -> None:
    values = torch.randn(16, 40, 8, 8) * 10.0 ** torch.empty(16, 40, 1, 1).uniform_(-36, 36)
    found = Form("int8").pack(one_tap(values)).unpack().map("mid", 21).double().numpy()
    exact = values.double().numpy()
    step = np.maximum(np.abs(exact).max((2, 3), keepdims=True) / 127, TINY)
    assert (np.abs(found - exact) <= step * 0.5 * (1 + 2e-5)).all()


def test_int8_keeps_the_largest_and_the_smallest_value_of_a_channel() -> None:
    values = torch.randn(5, 4, 6, 6)
    found = Form("int8").pack(one_tap(values)).unpack().map("mid", 21)
    for sample in range(5):
        for channel in range(4):
            largest = values[sample, channel].abs().argmax()
            wanted = values[sample, channel].flatten()[largest].item()
            assert found[sample, channel].flatten()[largest].item() == pytest.approx(wanted, rel=3e-7)


def test_the_largest_float32_stays_finite_in_int8() -> None:
    largest = torch.full((1, 1, 2, 2), torch.finfo(torch.float32).max)
    packed = Form("int8").pack(one_tap(largest))
    assert packed.kept is not None
    assert packed.kept.all()
    assert packed.unpack().map("mid", 21).isfinite().all()


@pytest.mark.parametrize("side", [8, 9, 16])
@pytest.mark.parametrize("channels", [1, 3, 640])
def test_int8_takes_at_most_27_hundredths_of_float32(side: int, channels: int) -> None:
    bank = one_tap(torch.zeros(2, channels, side, side))
    packed = Form("int8").pack(bank)
    taken = sum(value.numel() * value.element_size() for value in packed.stacks.values())
    assert taken <= 0.27 * 4 * bank.map("mid", 21).numel()
    assert taken == 2 * Form("int8").bytes_per_sample(bank.spec)


@pytest.mark.parametrize("size", [(2, 3), (4, 4), (5, 7), (8, 6), (1, 1)])
@pytest.mark.parametrize(
    ("keep", "grid", "function"),
    [("mean", 1, np.mean), ("max", 1, np.max), ("grid2", 2, np.mean), ("grid4", 4, np.mean), ("grid3", 3, np.mean)],
)
def test_pooled_maps_are_the_mean_or_largest_of_each_cell(
    keep: str, grid: int, function: Callable[..., Any], size: tuple[int, int]
) -> None:
    bank = one_tap(torch.randn(3, 5, *size), stride=4)
    form = Form("float32", keep)
    packed = form.pack(bank).unpack()
    assert packed.spec == form.spec(bank.spec)
    (tap,) = packed.spec.taps
    assert packed.spec.shape(tap) == (5, grid, grid)
    wanted = pooled(bank.map("mid", 21).double().numpy(), grid, function)
    np.testing.assert_allclose(packed[tap].double().numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 3), (8, 6), (1, 1)])
def test_moments_are_the_mean_and_the_deviation_of_each_channel(size: tuple[int, int]) -> None:
    bank = one_tap(torch.randn(3, 5, *size) * 2 + 7, stride=4)
    packed = Form("float32", "moments").pack(bank).unpack()
    (tap,) = packed.spec.taps
    assert packed.spec.shape(tap) == (10, 1, 1)
    flat = bank.map("mid", 21).double().flatten(2).numpy()
    wanted = np.concatenate([flat.mean(2), np.sqrt(((flat - flat.mean(2, keepdims=True)) ** 2).mean(2))], axis=1)
    np.testing.assert_allclose(packed[tap][:, :, 0, 0].double().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_pooled_spec_says_how_and_of_what_so_that_it_is_not_taken_for_maps(spec: BankSpec) -> None:
    specs = [Form("float32", keep).spec(spec) for keep in ("mean", "max", "moments", "quantiles", "grid2", "grid4")]
    assert len({spec, *specs}) == 7
    assert [[str(tap) for tap in other.taps] for other in specs] == [[str(tap) for tap in spec.taps]] * 6
    assert Form("int8").spec(spec) == Form("float16", "latents").spec(spec) == spec
    for side in ((24, 16), (16, 48)):
        other = BankSpec(spec.taps, spec.encoder, spec.weights, side, settings=spec.settings)
        assert Form("float32", "mean").spec(other) != specs[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("keep", ["maps", "grid2", "latents"])
def test_columns_have_the_names_types_shapes_and_bytes_of_what_is_packed(made: Any, dtype: str, keep: str) -> None:
    form = Form(dtype, keep)
    packed = form.pack(made.bank)
    columns = form.columns(form.spec(made.spec))
    assert len({column.name for column in columns}) == len(columns)
    for tap in packed.spec.taps:
        mine = [column for column in columns if column.tap == tap]
        assert [column.name for column in mine] == [str(tap), f"{tap}.scale"][: len(mine)]
        assert len(mine) == (2 if dtype == "int8" else 1)
        for column, values in zip(mine, packed.of(tap), strict=True):
            assert values.shape == (packed.batch_size, *column.shape)
            assert np.dtype(column.dtype).itemsize == values.element_size()
            assert column.row_bytes == values[0].numel() * values.element_size()
    taken = sum(value.numel() * value.element_size() for value in packed.stacks.values())
    assert form.bytes_per_sample(packed.spec) * packed.batch_size == taken


def test_dimension_names_differ_wherever_sizes_do(spec: BankSpec) -> None:
    sizes: dict[str, int] = {}
    for column in Form("int8").columns(spec):
        assert len(set(column.dimensions)) == 1 + len(column.shape)
        for name, size in zip(column.dimensions[1:], column.shape, strict=True):
            assert sizes.setdefault(name, size) == size


def test_a_bank_is_not_changed_by_packing_and_does_not_share_memory_with_what_is_packed(made: Any) -> None:
    before = {tap: value.clone() for tap, value in made.bank.items()}
    packed = Form("float32").pack(made.bank)
    for value in packed.stacks.values():
        value.zero_()
    assert all(torch.equal(made.bank[tap], before[tap]) for tap in before)


def test_an_unpacked_bank_gives_all_timesteps_of_a_tap_without_a_copy(made: Any) -> None:
    packed = Form("float16").pack(made.bank)
    bank = packed.unpack()
    stacked = bank.stack("up.0")
    assert torch.equal(stacked, torch.cat([made.bank.map("up.0", t).half() for t in (21, 161)]))
    assert stacked.data_ptr() == packed.stacks["up.0", ""].data_ptr()


def test_unpacking_twice_gives_the_same_twice(made: Any) -> None:
    packed = Form("int8").pack(made.bank)
    first, second = packed.unpack(), packed.unpack()
    assert all(torch.equal(first[tap], second[tap]) for tap in first)


@pytest.mark.parametrize(
    ("dtype", "keep", "words"),
    [
        ("float64", "maps", "float64.*float32, float16, bfloat16, int8"),
        ("bflot16", "maps", "did you mean bfloat16"),
        ("int4", "maps", "int4.*float32, float16, bfloat16, int8"),
        ("float32", "maxx", "maxx.*maps, mean, max, moments, quantiles, grid2, grid4, latents.*did you mean max"),
        ("float32", "grid0", "grid0"),
        ("float32", "latent", "did you mean latents"),
        ("int8", "mean", "int8.*mean"),
        ("int8", "max", "int8.*max"),
        ("int8", "moments", "int8.*moments"),
        ("int8", "quantiles", "int8.*quantiles"),
    ],
)
def test_an_unknown_form_is_a_user_error_that_says_what_there_is(dtype: str, keep: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Form(dtype, keep)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "a b", "", "a:b", "/etc/x"])
def test_a_tap_that_cannot_be_the_name_of_a_file_is_refused(name: str) -> None:
    spec = BankSpec((Tap(name, None, 0, 4, 8),), "toy", "none", (32, 32))
    with pytest.raises(UserError, match="cannot be the name of a file"):
        Form("float32").columns(spec)


def test_alternatives_take_less_than_what_was_asked_for(spec: BankSpec) -> None:
    latents = BankSpec((Tap("latent", 0, 0, 4, 8),), "toy", "abc", (16, 24))
    for dtype in ("float32", "float16", "bfloat16", "int8"):
        form = Form(dtype)
        found = alternatives(form, spec, latents)
        assert found
        assert form not in found
        for other, size in found.items():
            kept = latents if other.latents else other.spec(spec)
            assert size == other.bytes_per_sample(kept) < form.bytes_per_sample(spec)
    assert alternatives(Form("float32", "mean"), spec) == {}


def test_the_words_of_a_form_are_what_one_writes_on_the_command_line() -> None:
    assert Form("int8").words == "store.dtype=int8"
    assert Form("float32", "grid4").words == "store.keep=grid4 store.dtype=float32"


def test_bytes_are_told_in_a_unit_that_leaves_few_digits() -> None:
    for _ in range(200):
        count = 10 ** random.uniform(0, 14)
        number, unit = bytes_text(count).split()
        size = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
        assert float(number) * size == pytest.approx(count, rel=0.06 if unit != "bytes" else 0.5)
        assert float(number) <= 1000
