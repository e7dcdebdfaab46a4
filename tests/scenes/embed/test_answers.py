"""Windows answered with features: against the encoder's own bank, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.pooling import Pooling
from satdifuser.scenes.embed.answers import BankAnswers
from satdifuser.scenes.embed.scales import LEVELS, Counted, scales_of
from satdifuser.scenes.units import Unit

CPU = torch.device("cpu")


class Toy(nn.Module):
    """Block means of two bands, times a number, at several strides; one tap of the whole image."""

    def __init__(self, strides: dict[str, int], size: int = 16, resize: int | None = None) -> None:
        super().__init__()
        self.prepare = ImageInput(["red", "nir"], size=resize, low=0, high=1)
        taps = tuple(Tap(name, t, depth, 2, s) for t in (3, 9) for depth, (name, s) in enumerate(strides.items()))
        self.spec = BankSpec(taps, "toy", "none", (size, size))

    def forward(self, images: Tensor, *, sample_ids: Any = None, metadata: Any = None) -> FeatureBank:
        x = self.prepare(images, sample_ids, expect=self.spec.image_size)
        pooled = {tap: nn.functional.avg_pool2d(x, tap.stride) * float(tap.timestep or 1) for tap in self.spec.taps}
        return FeatureBank(self.spec, pooled)


def blocks(values: Any, side: int) -> Any:
    n, c, h, w = values.shape
    return values.reshape(n, c, h // side, side, w // side, side).mean((3, 5))


def test_a_vector_is_all_taps_side_by_side_finer_ones_averaged() -> None:
    encoder, images = Toy({"deep": 8, "fine": 2}), torch.rand(3, 13, 16, 16)
    answers = BankAnswers(encoder, encoder.spec, CPU)
    assert (answers.size, answers.step, answers.channels, answers.needed) == (16, 8, 8, ("B04", "B08"))
    assert answers.names[:4] == ("deep@3:0", "deep@3:1", "fine@3:0", "fine@3:1")
    found = answers(images, ["a", "b", "c"])
    x = images[:, [3, 7]].double().numpy() * 2 - 1
    expected = np.concatenate([blocks(x, 8) * t for t in (3, 3, 9, 9)], 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert not answers.exact


def test_a_finer_stride_repeats_coarse_cells_and_a_coarser_one_averages() -> None:
    encoder, images = Toy({"deep": 8, "fine": 2}), torch.rand(2, 13, 16, 16)
    x = images[:, [3, 7]].double().numpy() * 2 - 1
    fine = BankAnswers(encoder, encoder.spec.select(timesteps=[3]), CPU, stride=4)(images, ["a", "b"]).numpy()
    expected = np.concatenate([np.kron(blocks(x, 8), np.ones((2, 2))), blocks(x, 4)], 1) * 3
    np.testing.assert_allclose(fine, expected, atol=1e-5)
    whole = BankAnswers(encoder, encoder.spec, CPU, stride=16)(images, ["a", "b"])
    assert whole.shape == (2, 8, 1, 1)


@pytest.mark.parametrize("name", ["mean", "max", "moments", "quantiles", "grid2"])
def test_a_tile_is_pooled_as_a_store_pools_it(name: str) -> None:
    encoder, images = Toy({"deep": 4, "fine": 2}), torch.rand(2, 13, 16, 16)
    pooling = Pooling(name)
    answers = BankAnswers(encoder, encoder.spec, CPU, pooling=pooling)
    found = answers(images, ["a", "b"])
    bank = pooling.bank(encoder(images))
    expected = torch.cat([maps.flatten(1) for maps in bank.values()], 1)
    assert torch.equal(found[..., 0, 0], expected)
    assert len(answers.names) == expected.shape[1] == answers.channels
    assert answers.step == 16


def test_an_encoder_that_resizes_its_input_has_its_strides_on_the_ground() -> None:
    encoder = Toy({"deep": 8}, size=16, resize=16)
    answers = BankAnswers(encoder, encoder.spec, CPU, size=8)
    assert (answers.size, answers.step, answers.exact) == (8, 4, True)
    assert answers(torch.rand(1, 13, 8, 8), ["a"]).shape == (1, 4, 2, 2)
    with pytest.raises(UserError, match="2 cells a side, and a window 7 px"):
        BankAnswers(encoder, encoder.spec, CPU, size=7)


def test_what_does_not_fit_is_one_line() -> None:
    encoder = Toy({"deep": 8})
    with pytest.raises(UserError, match=r"data.size=32"):
        BankAnswers(encoder, encoder.spec, CPU, size=32)
    with pytest.raises(UserError, match="give a divisor"):
        BankAnswers(encoder, encoder.spec, CPU, stride=3)
    many = Toy({"deep": 6}, size=36)
    with pytest.raises(UserError, match="a pixel of deep is 6 px"):
        BankAnswers(many, many.spec, CPU, stride=9)


class Taken:
    """An output that keeps what it is given."""

    def __init__(self) -> None:
        self.units: list[Unit] = []

    def write(self, unit: Unit, values: Any, valid: Any) -> None:
        self.units.append(unit)


def test_int8_scales_reach_a_little_beyond_the_sample_and_what_lies_farther_is_counted() -> None:
    drawn = np.random.default_rng(3)
    sample = drawn.normal(size=(5, 400)) * np.array([[1e-3], [1.0], [50.0], [0.0], [1.0]])
    scales = scales_of(sample)
    assert scales[3] == pytest.approx(1 / LEVELS)
    assert 1.0 not in scales_of(np.array([[127.0 / 1.05], [3.0]]))  # GDAL takes 1 for no scale
    assert (np.abs(sample) / np.array(scales)[:, None]).max() <= LEVELS
    values = drawn.normal(size=(5, 20, 30)).astype(np.float32) * 2
    valid = drawn.random((20, 30)) < 0.7
    counted = Counted(Taken(), scales)  # type: ignore[arg-type]
    counted.write(Unit(0, 0, slice(0, 20), slice(0, 30)), values, valid)
    slow = sum(
        abs(float(values[k, r, c])) > scales[k] * 127.5
        for k in range(5)
        for r in range(20)
        for c in range(30)
        if valid[r, c]
    )
    assert counted.clipped == slow > 0
    assert counted.count == int(valid.sum()) * 5
