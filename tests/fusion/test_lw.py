from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from satdifuser.errors import UserError
from satdifuser.fusion import LocalizedWeighted, UniformMean

STEPS, NAMES = (21, 61, 97), {8: ("mid", "up.1"), 4: ("up.0",)}


@pytest.mark.parametrize(("projection_dim", "tau"), [(24, 1.0), (24, 0.4), (128, 2.5)])
def test_lw_is_the_weighted_sum_of_each_pixel_with_a_softmax_of_its_own(
    toy_spec, toy_bank, randomised, projections, slow, close, projection_dim, tau
):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(LocalizedWeighted(spec, projection_dim, tau=tau))
    fused = head(bank)
    for stride, names in NAMES.items():
        score = slow.parameters(head.score[str(stride)])
        means = np.zeros((2, 3, len(names)))
        for sample in range(2):
            projected = projections(head, bank, sample)
            pairs = [(t, name) for t in STEPS for name in names]
            mean = sum(projected[pair] for pair in pairs) / len(pairs)
            expected = np.zeros_like(mean)
            height, width = mean.shape[1:]
            for row in range(height):
                for column in range(width):
                    logits = score["weight"][:, :, 0, 0] @ mean[:, row, column] + score["bias"]
                    assert logits.shape == (len(pairs),)
                    weight = softmax(logits / tau)
                    for share, pair in zip(weight, pairs, strict=True):
                        expected[:, row, column] += share * projected[pair][:, row, column]
                    weight = weight.reshape(3, len(names))
                    means[sample] += weight / (height * width)
                    close(fused.details["pixel_weights"][stride][sample, :, :, row, column], weight)
            close(fused.maps[stride][sample], expected)
        close(fused.weights[stride], means.mean(0))


def test_lw_weights_of_a_pixel_sum_to_one_within_its_stride(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    fused = randomised(LocalizedWeighted(spec, 16))(toy_bank(spec, batch=3))
    for stride, (height, width) in {8: (2, 3), 4: (4, 6)}.items():
        pixels = fused.details["pixel_weights"][stride]
        assert pixels.shape == (3, 3, len(NAMES[stride]), height, width)
        assert torch.allclose(pixels.sum((1, 2)), torch.ones(3, height, width, dtype=torch.float64))
        assert float(fused.weights[stride].sum()) == pytest.approx(1.0)


def test_lw_pixels_differ_in_their_weights(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    pixels = randomised(LocalizedWeighted(spec, 16))(toy_bank(spec)).details["pixel_weights"][4]
    assert float(pixels.flatten(3).std(3).mean()) > 0.01


def test_lw_with_a_high_temperature_is_uniform_and_with_a_low_one_chooses(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = randomised(LocalizedWeighted(spec, 16))
    mean = UniformMean(spec, 16).double()
    mean.load_state_dict({k: v for k, v in head.state_dict().items() if k.startswith("project")})
    head.tau = 1e7
    assert all(torch.allclose(head(bank).maps[s], mean(bank).maps[s], atol=1e-5) for s in (4, 8))
    head.tau = 1e-5
    assert float(head(bank).details["pixel_weights"][8].amax((1, 2)).min()) > 0.999


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_lw_refuses_a_temperature_that_is_not_above_zero(toy_spec, tau):
    with pytest.raises(UserError, match=rf"fusion\.tau is {tau}"):
        LocalizedWeighted(toy_spec(), 8, tau=tau)
