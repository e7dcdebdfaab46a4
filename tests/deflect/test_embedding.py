"""Untangled patch embedding against a slow loop over patches and pixels."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deflect.bands import as_bands
from deflect.embedding import SMALLEST, PixelSetEncoder, UntangledPatchEmbedding, match_norm
from deflect.indices import SpectralIndices
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2

BANDS = as_bands(SENTINEL2)


def embedding(hidden: int = 8, width: int = 12, patch: int = 4) -> UntangledPatchEmbedding:
    return UntangledPatchEmbedding(SpectralIndices(BANDS), 13, hidden, width, patch)


def shuffled_inside(images: torch.Tensor, patch: int) -> torch.Tensor:
    """The same pixels in each patch, in another order in each."""
    images = images.clone()
    for row in range(0, images.shape[2], patch):
        for column in range(0, images.shape[3], patch):
            here = images[:, :, row : row + patch, column : column + patch]
            flat = here.flatten(2)[:, :, torch.randperm(patch * patch)]
            images[:, :, row : row + patch, column : column + patch] = flat.view_as(here)
    return images


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 4), (9, 6, 3)])
def test_a_token_is_made_of_the_mean_and_spread_of_its_pixels_features(
    randomised, slow: SimpleNamespace, height: int, width: int, patch: int
) -> None:
    encoder = randomised(PixelSetEncoder(5, 7, 6, patch))
    spectra = torch.randn(2, 5, height, width, dtype=torch.float64)
    tokens = encoder(spectra).detach().numpy()
    p, x = slow.parameters(encoder), spectra.numpy()
    erf = np.vectorize(math.erf)
    for sample in range(2):
        for number in range((height // patch) * (width // patch)):
            row, column = divmod(number, width // patch)
            features = []
            for i in range(patch):
                for j in range(patch):
                    pixel = x[sample, :, row * patch + i, column * patch + j]
                    h = p["pixel.weight"][:, :, 0, 0] @ pixel + p["pixel.bias"]
                    features.append(0.5 * h * (1 + erf(h / math.sqrt(2))))
            mean = sum(features) / patch**2
            spread = np.sqrt(sum((f - mean) ** 2 for f in features) / patch**2 + SMALLEST)
            expected = p["token.weight"] @ np.concatenate((mean, spread)) + p["token.bias"]
            np.testing.assert_allclose(tokens[sample, number], expected, rtol=1e-9, atol=1e-9)


def test_tokens_do_not_depend_on_where_in_its_patch_a_pixel_lies() -> None:
    upe = embedding().double()
    images = torch.rand(2, 13, 12, 8, dtype=torch.float64)
    moved = shuffled_inside(images, 4)
    assert not torch.equal(images, moved)
    torch.testing.assert_close(upe(moved), upe(images), rtol=1e-12, atol=1e-12)


def test_tokens_depend_on_their_own_patch_alone() -> None:
    upe = embedding().double()
    images = torch.rand(1, 13, 8, 8, dtype=torch.float64)
    other = images.clone()
    other[:, :, 4:, :4] += 0.1
    changed = (upe(images) != upe(other)).any(-1)[0]
    assert changed.tolist() == [False, False, True, False]


def test_the_indices_enter_beside_the_bands() -> None:
    upe = embedding(hidden=5)
    assert upe.encoder.pixel.in_channels == 13 + len(SpectralIndices(BANDS))
    images = torch.rand(1, 13, 4, 4)
    spectra = torch.cat((images, SpectralIndices(BANDS)(images)), dim=1)
    torch.testing.assert_close(upe(images), upe.encoder(spectra))


def test_flat_patches_have_finite_values_and_slopes() -> None:
    upe = embedding()
    images = (torch.rand(2, 13, 1, 1) * 0.3).repeat(1, 1, 8, 8)
    images[1] = 0  # no data
    images.requires_grad_()
    tokens = upe(images)
    tokens.square().sum().backward()
    assert bool(tokens.isfinite().all())
    assert bool(images.grad.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in upe.parameters())


def test_gradients_are_the_finite_differences(randomised) -> None:
    encoder = randomised(PixelSetEncoder(3, 4, 5, 2))
    spectra = torch.randn(1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: encoder(x), (spectra, *encoder.parameters()))


@pytest.mark.parametrize("shape", [(13, 8, 8), (1, 12, 8, 8), (1, 1, 13, 8, 8)])
def test_spectra_of_other_bands_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(BankError, match=r"shape .*: \[batch, 13, height, width\] is needed"):
        embedding()(torch.rand(shape))


@pytest.mark.parametrize("size", [(8, 10), (6, 8)])
def test_spectra_that_are_not_divisible_into_patches_are_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(BankError, match=f"{size[0]} x {size[1]} px are not divisible into patches of 4 px"):
        embedding()(torch.rand(1, 13, *size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_trains_with_finite_gradients(dtype: torch.dtype) -> None:
    upe = embedding()
    images = torch.rand(2, 13, 8, 8)
    images[0, :, :4] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = upe(images.to(dtype))
        loss = tokens.float().square().mean()
    loss.backward()
    assert bool(tokens.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in upe.parameters())


def test_indices_keep_their_digits_in_mixed_precision() -> None:
    upe = embedding()
    seen: list[torch.Tensor] = []
    upe.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.rand(1, 13, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        upe(images)
    assert torch.equal(seen[0], torch.cat((images, SpectralIndices(BANDS)(images)), dim=1))


def test_matched_tokens_have_the_others_length_and_their_own_direction() -> None:
    tokens, like = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64) * 7
    matched, own, other = (x.numpy() for x in (match_norm(tokens, like), tokens, like))
    for sample in range(2):
        for number in range(5):
            scale = np.linalg.norm(other[sample, number]) / np.linalg.norm(own[sample, number])
            np.testing.assert_allclose(matched[sample, number], own[sample, number] * scale, rtol=1e-9)


def test_tokens_of_no_length_are_matched_without_anything_undefined() -> None:
    tokens = torch.zeros(1, 2, 4, requires_grad=True)
    like = torch.cat((torch.randn(1, 1, 4), torch.zeros(1, 1, 4)), dim=1).requires_grad_()
    matched = match_norm(tokens, like)
    matched.sum().backward()
    assert bool((matched == 0).all())
    assert bool(tokens.grad.isfinite().all())
    assert bool(like.grad.isfinite().all())


def test_matched_tokens_have_the_others_precision() -> None:
    matched = match_norm(torch.randn(1, 2, 4), torch.randn(1, 2, 4).bfloat16())
    assert matched.dtype == torch.bfloat16
