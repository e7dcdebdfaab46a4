"""Spectral indices against spyndex on NumPy, and what becomes of them where spyndex divides by zero."""

from __future__ import annotations

import ast
import logging
import random

import numpy as np
import pytest
import spyndex
import torch

from deflect.bands import Band, as_bands
from deflect.indices import DEFAULT, SpectralIndices
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2

BANDS = as_bands(SENTINEL2)
NAMES = {"A": 0, "B": 1, "G": 2, "R": 3, "RE1": 4, "RE2": 5, "RE3": 6, "N": 7, "N2": 8, "WV": 9, "S1": 11, "S2": 12}
WIDE = (-1e9, 1e9)
AWKWARD = (0.0, -0.0, 1e-8, -1e-8, 1e-4, -1e-4, 0.01, 0.1, 0.3, -0.2, 1.0, -1.0, 7.0)


def constant(name: str) -> float | None:
    return spyndex.constants[name].default if name in spyndex.constants else None


COMPUTABLE = [
    name
    for name in spyndex.indices
    if all(need in NAMES or constant(need) is not None for need in spyndex.indices[name].bands)
]


def by_spyndex(name: str, image: np.ndarray) -> np.ndarray:
    """The index of an image `[bands, ...]` in float64, by spyndex alone."""
    with np.errstate(all="ignore"):
        return spyndex.computeIndex(name, given(name, image))


def given(name: str, image: np.ndarray) -> dict[str, object]:
    return {need: image[NAMES[need]] if need in NAMES else constant(need) for need in spyndex.indices[name].bands}


def is_plain(name: str, image: np.ndarray) -> np.ndarray:
    """Where no denominator of the index is close to zero, and no root is of a number below that."""
    plain = np.ones(image.shape[1:], dtype=bool)
    for node in ast.walk(ast.parse(spyndex.indices[name].formula, mode="eval")):
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Pow)):
            part = node.right if isinstance(node.op, ast.Div) else node.left
            with np.errstate(all="ignore"):
                value = eval(ast.unparse(part), {"__builtins__": {}}, given(name, image))
                power = eval(ast.unparse(node.right), {"__builtins__": {}}, given(name, image))
            if isinstance(node.op, ast.Div):
                plain &= ~(np.abs(value) < 2e-4)
            elif not float(power).is_integer():
                plain &= np.asarray(value) > 2e-4
    return plain


def test_the_default_set_is_complete_with_the_bands_of_sentinel2() -> None:
    indices = SpectralIndices(BANDS)
    assert indices.names == DEFAULT
    assert indices.omitted == ()
    assert len(indices) == len(DEFAULT) <= len(set(COMPUTABLE))


@pytest.mark.parametrize("names", [DEFAULT, None], ids=["default", "others"])
def test_indices_are_those_of_spyndex_wherever_nothing_vanishes(names: tuple[str, ...] | None) -> None:
    names = names or tuple(random.sample(sorted(set(COMPUTABLE) - set(DEFAULT)), 20))
    image = torch.rand(2, 13, 9, 7, dtype=torch.float64) * 0.9 + 0.02
    found = SpectralIndices(BANDS, names, WIDE)(image)
    assert found.shape == (2, len(names), 9, 7)
    for sample in range(2):
        for number, name in enumerate(names):
            here = is_plain(name, image[sample].numpy())
            expected = by_spyndex(name, image[sample].numpy())
            np.testing.assert_allclose(
                found[sample, number].numpy()[here], expected[here], rtol=1e-9, atol=1e-9, err_msg=name
            )
            assert here.mean() > (0.9 if name in DEFAULT else 0.0), name


def test_single_precision_is_as_near_as_it_can_be() -> None:
    image = torch.rand(1, 13, 16, 16) * 0.4 + 0.05
    found = SpectralIndices(BANDS)(image)
    assert found.dtype == torch.float32
    for number, name in enumerate(DEFAULT):
        expected = by_spyndex(name, image[0].double().numpy()).clip(-2, 2)
        scale = np.abs(expected) + 1
        assert (np.abs(found[0, number].numpy() - expected) / scale)[np.isfinite(expected)].mean() < 1e-5, name


def test_the_order_of_channels_does_not_matter() -> None:
    order = random.sample(range(13), 13)
    image = torch.rand(1, 13, 4, 4)
    shuffled = SpectralIndices([BANDS[i] for i in order])(image[:, order])
    assert torch.equal(shuffled, SpectralIndices(BANDS)(image))


def test_gradients_are_the_finite_differences() -> None:
    image = (torch.rand(1, 13, 1, 2, dtype=torch.float64) * 0.3 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(SpectralIndices(BANDS, limits=WIDE), (image,), rtol=1e-4, atol=1e-4, fast_mode=True)


def test_no_value_and_no_slope_is_ever_undefined_for_any_index() -> None:
    image = torch.tensor(AWKWARD)[torch.randint(len(AWKWARD), (1, 13, 24, 24))]
    image[..., :3, :] = 0  # no data
    image[..., 3:6, :] = image[:, :1, 3:6, :]  # every difference vanishes
    image[..., 6:9, :] = image[:, :1, 6:9, :] * torch.tensor([1.0, -1.0])[torch.randint(2, (1, 13, 3, 24))]  # sums too
    image.requires_grad_()
    for name in COMPUTABLE:
        found = SpectralIndices(BANDS, [name])(image)
        (slope,) = torch.autograd.grad(found.sum(), image)
        assert bool(found.isfinite().all()), name
        assert bool(slope.isfinite().all()), name


def test_pixels_without_data_have_finite_default_indices_without_slope_where_they_are_clamped() -> None:
    image = torch.zeros(1, 13, 2, 2, requires_grad=True)
    found = SpectralIndices(BANDS)(image)
    found.square().sum().backward()
    assert bool(found.isfinite().all())
    assert bool(image.grad.isfinite().all())
    assert float(found[0, DEFAULT.index("NDVI")].detach().abs().max()) == 0.0


@pytest.mark.parametrize("nir", [-0.1, -0.1 + 1e-6, -0.1 - 1e-6])
def test_a_vanishing_denominator_keeps_the_numerators_sign(nir: float) -> None:
    red = 0.1
    image = torch.tensor([red, nir], dtype=torch.float64).view(1, 2, 1, 1)
    value = SpectralIndices([Band("r", "red", 665), Band("n", "nir", 840)], ["NDVI"], WIDE)(image)
    denominator = 1e-4 if nir + red >= 0 else -1e-4
    assert float(value) == pytest.approx((nir - red) / denominator, rel=1e-6)


def test_values_are_clamped_to_the_limits_and_to_nothing_else() -> None:
    image = torch.rand(1, 13, 16, 16, dtype=torch.float64) + 0.01
    free = SpectralIndices(BANDS, ["SR", "NDVI", "EVI"], WIDE)(image)
    low, high = sorted(random.uniform(-1, 3) for _ in range(2))
    assert torch.equal(SpectralIndices(BANDS, ["SR", "NDVI", "EVI"], (low, high))(image), free.clamp(low, high))
    assert float(SpectralIndices(BANDS)(image).abs().max()) <= 2.0


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, -2.0), (float("nan"), 1.0)])
def test_limits_in_the_wrong_order_are_an_error(limits: tuple[float, float]) -> None:
    with pytest.raises(BankError, match="the second must be above the first"):
        SpectralIndices(BANDS, limits=limits)


def test_an_index_asked_for_by_name_needs_its_bands() -> None:
    camera = [Band("c1", "red", 650), Band("c2", "green", 560), Band("c3", "blue", 480), Band("c4", "nir", 840)]
    with pytest.raises(BankError, match=r"the index NDMI needs S1 .* give R, G, B, N \(c1, c2, c3, c4\): leave it out"):
        SpectralIndices(camera, ["NDVI", "NDMI"])


def test_of_the_default_set_what_the_bands_do_not_allow_is_left_out_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rgbn = {"R": 0, "G": 1, "B": 2, "N": 3}
    camera = [Band("c1", "red", 650), Band("c2", "green", 560), Band("c3", "blue", 480), Band("c4", "nir", 840)]
    with caplog.at_level(logging.INFO, logger="deflect.indices"):
        indices = SpectralIndices(camera)

    def allowed(name: str) -> bool:
        return all(need in rgbn or constant(need) is not None for need in spyndex.indices[name].bands)

    assert indices.names == tuple(name for name in DEFAULT if allowed(name))
    assert indices.omitted == tuple(name for name in DEFAULT if not allowed(name))
    assert indices.names
    assert indices.omitted
    assert all(name in caplog.text for name in indices.omitted)
    assert indices(torch.rand(1, 4, 2, 2)).shape == (1, len(indices.names), 2, 2)


def test_an_unknown_index_lists_near_ones() -> None:
    with pytest.raises(BankError, match=r"spyndex has no index 'NDVII'; it has .*NDVI"):
        SpectralIndices(BANDS, ["NDVII"])


def test_an_index_with_a_constant_that_has_no_value_is_an_error() -> None:
    needs = [name for name in spyndex.indices if "PAR" in spyndex.indices[name].bands]
    with pytest.raises(BankError, match=f"the index {needs[0]} needs .*PAR"):
        SpectralIndices(BANDS, needs[:1])


def test_no_names_are_no_indices() -> None:
    indices = SpectralIndices(BANDS, [])
    assert (len(indices), indices.names, indices.omitted) == (0, (), ())
    assert indices(torch.rand(2, 13, 3, 5)).shape == (2, 0, 3, 5)
