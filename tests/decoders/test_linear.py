from __future__ import annotations

import numpy as np
import pytest
import torch

from satdifuser.decoders import LinearDecoder
from satdifuser.fusion import PyramidSpec


def pyramid_maps(strides=(2, 4, 8), channels=6, image_size=(16, 24), batch=2):
    sizes = {s: (image_size[0] // s, image_size[1] // s) for s in strides}
    maps = {s: torch.randn(batch, channels, *size, dtype=torch.float64) for s, size in sizes.items()}
    return PyramidSpec(strides, channels, image_size), maps


def summed(slow, maps, strides, sample):
    """The scales of one sample resized to the finest and added up, slowly."""
    size = tuple(maps[strides[0]].shape[-2:])
    return sum(slow.resize(maps[s][sample].numpy(), size) for s in strides)


@pytest.mark.parametrize("strides", [(4,), (4, 8), (2, 4, 8)])
def test_linear_on_pixels_is_one_matrix_on_the_sum_of_the_resized_scales(randomised, slow, strides):
    pyramid, maps = pyramid_maps(strides)
    decoder = randomised(LinearDecoder(pyramid, outputs=3, dense=True))
    logits = decoder(maps).detach().numpy()
    p = slow.parameters(decoder.classify)
    assert logits.shape == (2, 3, 16 // strides[0], 24 // strides[0])
    for sample in range(2):
        total = summed(slow, maps, strides, sample)
        for row in range(total.shape[1]):
            for column in range(total.shape[2]):
                expected = p["weight"][:, :, 0, 0] @ total[:, row, column] + p["bias"]
                np.testing.assert_allclose(logits[sample, :, row, column], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strides", [(4,), (4, 8), (2, 4, 8)])
def test_linear_on_images_is_one_matrix_on_the_average_of_the_sum_of_the_resized_scales(randomised, slow, strides):
    pyramid, maps = pyramid_maps(strides)
    decoder = randomised(LinearDecoder(pyramid, outputs=3, dense=False))
    logits = decoder(maps).detach().numpy()
    p = slow.parameters(decoder.classify)
    assert logits.shape == (2, 3)
    for sample in range(2):
        total = summed(slow, maps, strides, sample)
        average = [sum(channel.flatten()) / channel.size for channel in total]
        np.testing.assert_allclose(logits[sample], p["weight"] @ average + p["bias"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(16, 24), (5, 7), (4, 6), (33, 20)])
def test_linear_on_pixels_brings_its_logits_to_the_size_of_the_label(randomised, slow, size):
    pyramid, maps = pyramid_maps((4, 8))
    decoder = randomised(LinearDecoder(pyramid, outputs=3, dense=True))
    plain, sized = decoder(maps).detach(), decoder(maps, size).detach()
    assert sized.shape == (2, 3, *size)
    for sample in range(2):
        expected = slow.resize(plain[sample].numpy(), size)
        np.testing.assert_allclose(sized[sample].numpy(), expected, rtol=1e-10, atol=1e-10)


def test_linear_on_images_has_no_size(randomised):
    pyramid, maps = pyramid_maps()
    decoder = randomised(LinearDecoder(pyramid, outputs=3, dense=False))
    assert torch.equal(decoder(maps, (16, 24)), decoder(maps))


@pytest.mark.parametrize("dense", [True, False])
def test_linear_result_of_a_sample_does_not_depend_on_its_batch(randomised, dense):
    pyramid, maps = pyramid_maps(batch=4)
    decoder = randomised(LinearDecoder(pyramid, outputs=3, dense=dense))
    whole = decoder(maps)
    for sample in range(4):
        alone = decoder({stride: value[sample : sample + 1] for stride, value in maps.items()})
        torch.testing.assert_close(alone[0], whole[sample])


@pytest.mark.parametrize("dense", [True, False])
def test_linear_has_only_one_matrix_and_one_bias_and_both_learn(dense):
    pyramid, maps = pyramid_maps(channels=6)
    decoder = LinearDecoder(pyramid, outputs=3, dense=dense).double()
    decoder(maps).square().sum().backward()
    assert sum(p.numel() for p in decoder.parameters()) == 3 * 6 + 3
    assert all(bool(p.grad.any()) for p in decoder.parameters())
