from __future__ import annotations

import numpy as np
import torch

from satdifuser.decoders.linear import LinearDecoder
from satdifuser.fusion import Concatenated


def test_concat_is_one_linear_map_of_every_map_divided_by_its_root_mean_square(toy_spec, toy_bank, randomised, close):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(Concatenated(spec, 16))
    fused = head(bank)
    for stride, names in {8: ("mid", "up.1"), 4: ("up.0",)}.items():
        weight = head.mix[str(stride)].weight.detach().numpy()[:, :, 0, 0]
        bias = head.mix[str(stride)].bias.detach().numpy()
        for sample in range(2):
            rows = []
            for name in names:
                for timestep in (21, 61, 97):
                    value = bank[spec.find(name, timestep)][sample].numpy()
                    rows.append(value / np.sqrt((value**2).mean()))
            expected = np.einsum("oc,chw->ohw", weight, np.concatenate(rows)) + bias[:, None, None]
            close(fused.maps[stride][sample], expected)


def test_concat_and_a_linear_decoder_are_one_linear_classifier(toy_spec, toy_bank, randomised):
    """The logits of maps that are the mean of two others, all of one size, are the mean of the others' logits."""
    spec = toy_spec()
    head = randomised(Concatenated(spec, 16))
    decoder = LinearDecoder(head.pyramid, 5, dense=False).double()

    def unit(value):
        return value / value.square().mean((1, 2, 3), keepdim=True).sqrt()

    one, two = (toy_bank(spec, batch=3).apply(unit) for _ in range(2))
    between = type(one)(spec, {tap: (one[tap] + two[tap]) / 2 for tap in one})
    sizes = {tap: between[tap].square().mean((1, 2, 3), keepdim=True).sqrt() for tap in between}
    head.mix.requires_grad_(False)
    bias = decoder.decode(head(one.apply(torch.zeros_like)).maps)

    def logits(bank, scale=None):
        scaled = {tap: bank[tap] * (1.0 if scale is None else 1.0 / scale[tap]) for tap in bank}
        return decoder.decode(head(type(bank)(spec, scaled)).maps) - bias

    # the head brings `between` to size one: taps of another size than one are weighed by hand, one at a time
    total = torch.zeros(3, 5, dtype=torch.float64)
    for tap in between:
        alone = type(one)(
            spec, {other: between[other] if other == tap else torch.zeros_like(between[other]) for other in one}
        )
        total += (decoder.decode(head(alone).maps) - bias) * sizes[tap][:, :, 0, 0]
    torch.testing.assert_close(total, (logits(one) + logits(two)) / 2)


def test_concat_weights_are_shares_of_the_squared_filters(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    head = randomised(Concatenated(spec, 16))
    weights = head(toy_bank(spec)).weights
    squares = {stride: head.mix[str(stride)].weight.detach().square().sum((0, 2, 3)) for stride in (4, 8)}
    total = float(sum(value.sum() for value in squares.values()))
    # stride 8: mid (12 channels) at three timesteps, then up.1 (8 channels) at three
    places = {("mid", t): slice(12 * i, 12 * (i + 1)) for i, t in enumerate((21, 61, 97))}
    places |= {("up.1", t): slice(36 + 8 * i, 36 + 8 * (i + 1)) for i, t in enumerate((21, 61, 97))}
    for column, name in enumerate(("mid", "up.1")):
        for row, timestep in enumerate((21, 61, 97)):
            expected = float(squares[8][places[name, timestep]].sum()) / total
            assert abs(float(weights[8][row, column]) - expected) < 1e-6
