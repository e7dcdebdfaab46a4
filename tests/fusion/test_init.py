"""The first weights of the bottlenecks: torch's, or Kaiming's normal by fan out where `init` says so."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from satdifuser.errors import UserError
from satdifuser.fusion import GlobalWeighted, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.fusion.base import Bottleneck

HEADS = {"mean": UniformMean, "gw": GlobalWeighted, "lw": LocalizedWeighted, "moe": MixtureOfExperts}
CONVOLUTIONS = ("reduce", "spread", "expand", "shortcut")


@pytest.fixture(params=list(HEADS))
def make(request):
    return HEADS[request.param]


def bottlenecks(head):
    return [module for module in head.modules() if isinstance(module, Bottleneck)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_msra_draws_a_normal_distribution_by_fan_out(name):
    convolution = getattr(Bottleneck(640, 256, init="msra"), name)
    deviation = math.sqrt(2 / (convolution.out_channels * convolution.kernel_size[0] ** 2))
    assert convolution.bias is None
    assert float(convolution.weight.detach().std()) == pytest.approx(deviation, rel=0.03)
    assert abs(float(convolution.weight.detach().mean())) < deviation / 40
    assert kstest(convolution.weight.detach().flatten().numpy() / deviation, "norm").pvalue > 1e-3


def test_published_width_has_the_published_deviations():
    block = Bottleneck(320, 384, init="msra")
    found = [float(getattr(block, name).weight.detach().std()) for name in CONVOLUTIONS]
    expected = [math.sqrt(2 / 96), math.sqrt(2 / (96 * 9)), math.sqrt(2 / 384), math.sqrt(2 / 384)]
    assert found == pytest.approx(expected, rel=0.03)


def test_head_hands_the_choice_to_every_bottleneck_and_leaves_the_rest_of_it(toy_spec, make):
    head = make(toy_spec(), 128, init="msra")
    assert len(bottlenecks(head)) >= 3
    for block in bottlenecks(head):
        for name in CONVOLUTIONS:
            weight = getattr(block, name).weight.detach()
            assert float(weight.std()) == pytest.approx(math.sqrt(2 / (len(weight) * weight[0, 0].numel())), rel=0.2)
    chosen = dict(head.named_parameters())
    for name, value in make(toy_spec(), 128).named_parameters():
        if not name.endswith(tuple(f"{layer}.weight" for layer in CONVOLUTIONS)):
            assert chosen[name].shape == value.shape
            assert "norm" not in name or torch.equal(chosen[name], value)


def test_default_draws_what_plain_layers_draw_from_the_same_seed(toy_spec, make):
    spec = toy_spec()
    torch.manual_seed(7)
    head = make(spec, 16, init="default").state_dict()
    torch.manual_seed(7)
    assert all(torch.equal(value, head[name]) for name, value in make(spec, 16).state_dict().items())

    torch.manual_seed(7)

    def block(prefix, channels):
        shapes = zip(CONVOLUTIONS, [(channels, 4, 1), (4, 4, 3), (4, 16, 1), (channels, 16, 1)], strict=True)
        return {f"{prefix}.{name}.weight": nn.Conv2d(*shape, bias=False).weight for name, shape in shapes}

    drawn = {}
    if make is MixtureOfExperts:
        for stride, channels in {4: 10, 8: 20}.items():
            drawn[f"gates.{stride}.score.weight"] = nn.Conv2d(channels, 8, 3).weight
        for stride, channels in {4: 10, 8: 20}.items():
            for expert in range(8):
                drawn |= block(f"experts.{stride}.{expert}", channels)
    else:
        for name, channels in (("mid", 12), ("up/0", 10), ("up/1", 8)):
            drawn |= block(f"project.{name}", channels)
    assert all(torch.equal(value, head[name]) for name, value in drawn.items())


def test_init_of_another_name_is_refused(toy_spec, make):
    with pytest.raises(UserError, match=r"fusion\.init is 'kaiming'"):
        make(toy_spec(), 16, init="kaiming")
