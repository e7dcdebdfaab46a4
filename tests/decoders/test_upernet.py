from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from satdifuser.decoders import UPerNet
from satdifuser.errors import UserError
from satdifuser.fusion import PyramidSpec


def pyramid_maps(strides=(2, 4, 8), channels=6, image_size=(16, 24), batch=2):
    sizes = {s: (image_size[0] // s, image_size[1] // s) for s in strides}
    maps = {s: torch.randn(batch, channels, *size, dtype=torch.float64) for s, size in sizes.items()}
    return PyramidSpec(strides, channels, image_size), maps


def pooled(x, scale):
    """Adaptive average pooling of one sample: cell i covers floor(i * n / scale) to ceil((i + 1) * n / scale)."""
    height, width = x.shape[1:]
    out = np.zeros((x.shape[0], scale, scale))
    for i in range(scale):
        for j in range(scale):
            rows = slice(i * height // scale, -(-(i + 1) * height // scale))
            columns = slice(j * width // scale, -(-(j + 1) * width // scale))
            out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


def slow_upernet(slow, decoder, maps, strides):
    """UPerNet of one sample in evaluation, from the paper: PPM, laterals, top-down sums, smoothing, fusion."""
    p = slow.parameters(decoder)

    def conv(x, name):
        y = slow.group_norm(slow.conv(x, p[f"{name}.0.weight"]), p[f"{name}.1.weight"], p[f"{name}.1.bias"])
        return np.maximum(y, 0)

    coarsest = maps[strides[-1]]
    parts = [
        slow.resize(conv(pooled(coarsest, scale), f"pooled.{i}"), coarsest.shape[1:])
        for i, scale in enumerate(decoder.pool_scales)
    ]
    top = conv(np.concatenate([coarsest, *parts]), "bottleneck")
    levels = [top]
    for stride in strides[-2::-1]:
        top = conv(maps[stride], f"lateral.{stride}") + slow.resize(top, maps[stride].shape[1:])
        levels.append(conv(top, f"smooth.{stride}"))
    finest = np.concatenate([slow.resize(level, maps[strides[0]].shape[1:]) for level in levels])
    return slow.conv(conv(finest, "fuse"), p["classify.weight"], p["classify.bias"])


@pytest.mark.parametrize("strides", [(4,), (4, 8), (2, 4, 8)])
def test_upernet_agrees_with_a_slow_one(randomised, slow, strides):
    pyramid, maps = pyramid_maps(strides)
    decoder = randomised(UPerNet(pyramid, 3, dense=True, neck=False, channels=8)).eval()
    logits = decoder(maps).detach().numpy()
    for sample in range(2):
        one = {stride: value[sample].numpy() for stride, value in maps.items()}
        expected = slow_upernet(slow, decoder, one, strides)
        np.testing.assert_allclose(logits[sample], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strides", [(4,), (4, 8), (2, 4, 8)])
@pytest.mark.parametrize(("size", "expected"), [(None, None), ((16, 24), (16, 24)), ((13, 9), (13, 9))])
def test_upernet_gives_a_map_at_the_finest_stride_or_of_the_size_asked_for(strides, size, expected):
    pyramid, maps = pyramid_maps(strides)
    logits = UPerNet(pyramid, 5, dense=True, neck=False, channels=16).double()(maps, size)
    assert logits.shape == (2, 5, *(expected or (16 // strides[0], 24 // strides[0])))


@pytest.mark.parametrize("image_size", [(8, 8), (16, 24)])
@pytest.mark.parametrize(("width", "channels"), [(6, 16), (8, 33), (24, 32)])
def test_upernet_trains_on_a_batch_of_one(image_size, width, channels):
    pyramid, maps = pyramid_maps((4, 8), width, image_size, batch=1)
    decoder = UPerNet(pyramid, 3, dense=True, channels=channels).double().train()
    logits = decoder(maps)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in decoder.parameters())


@pytest.mark.parametrize("strides", [(4,), (2, 4, 8)])
def test_upernet_gradients_reach_every_parameter(strides):
    pyramid, maps = pyramid_maps(strides)
    decoder = UPerNet(pyramid, 3, dense=True, neck=False, channels=16).double()
    logits = decoder(maps)
    (logits * torch.randn_like(logits)).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_upernet_refuses_a_task_with_one_answer_for_each_image():
    pyramid, _ = pyramid_maps()
    with pytest.raises(UserError, match=r"decoder=upernet gives a map.* use decoder=linear"):
        UPerNet(pyramid, 3, dense=False)


@pytest.mark.parametrize("training", [False, True])
def test_upernet_result_of_a_sample_does_not_depend_on_its_batch(randomised, training):
    pyramid, maps = pyramid_maps(batch=4)
    dropout = 0.0 if training else 0.5
    decoder = randomised(UPerNet(pyramid, 3, dense=True, channels=8, dropout=dropout)).train(training)
    whole = decoder(maps)
    for sample in range(4):
        alone = decoder({stride: value[sample : sample + 1] for stride, value in maps.items()})
        torch.testing.assert_close(alone[0], whole[sample], rtol=1e-9, atol=1e-9)


def test_upernet_drops_channels_in_training_only(randomised):
    pyramid, maps = pyramid_maps()
    decoder = randomised(UPerNet(pyramid, 3, dense=True, channels=8, dropout=0.5))
    assert not torch.equal(decoder.train()(maps), decoder(maps))
    assert torch.equal(decoder.eval()(maps), decoder(maps))


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_upernet_uses_every_scale(randomised, stride):
    pyramid, maps = pyramid_maps()
    decoder = randomised(UPerNet(pyramid, 3, dense=True, channels=8)).eval()
    changed = {**maps, stride: torch.randn_like(maps[stride])}
    assert not torch.allclose(decoder(changed), decoder(maps))


def test_upernet_pools_at_the_scales_asked_for(randomised, slow):
    pyramid, maps = pyramid_maps((4, 8), batch=1)
    decoder = randomised(UPerNet(pyramid, 3, dense=True, channels=8, pool_scales=[2])).eval()
    expected = slow_upernet(slow, decoder, {stride: value[0].numpy() for stride, value in maps.items()}, (4, 8))
    assert len(decoder.pooled) == 1
    np.testing.assert_allclose(decoder(maps)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strides", [(4,), (4, 8), (2, 4, 8)])
def test_upernet_with_batch_norm_is_a_slow_one_with_running_statistics(randomised, slow, strides):
    pyramid, maps = pyramid_maps(strides)
    decoder = randomised(UPerNet(pyramid, 3, dense=True, neck=False, channels=8, norm="batch")).eval()
    for module in decoder.modules():
        assert not isinstance(module, torch.nn.GroupNorm)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    logits = decoder(maps).detach().numpy()
    p = slow.parameters(decoder)

    def batch_norm(x, weight, bias):
        name = next(n for n, value in p.items() if value is weight).removesuffix(".weight")
        mean, deviation = p[f"{name}.running_mean"], np.sqrt(p[f"{name}.running_var"] + 1e-5)
        return ((x.T - mean) / deviation * weight + bias).T

    other = SimpleNamespace(**{**vars(slow), "group_norm": batch_norm, "parameters": lambda _: p})
    for sample in range(2):
        one = {stride: value[sample].numpy() for stride, value in maps.items()}
        np.testing.assert_allclose(logits[sample], slow_upernet(other, decoder, one, strides), rtol=1e-9, atol=1e-9)


def test_upernet_with_batch_norm_learns_its_statistics_over_the_batch(randomised):
    pyramid, maps = pyramid_maps((4, 8), batch=3)
    decoder = randomised(UPerNet(pyramid, 3, dense=True, channels=8, norm="batch", dropout=0.0)).train()
    convolution, norm, _ = decoder.lateral["4"]
    before = convolution(maps[4]).detach()
    whole = decoder(maps)
    np.testing.assert_allclose(norm.running_mean, 0.1 * before.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * before.transpose(0, 1).flatten(1).var(1), atol=1e-12)
    alone = decoder({stride: value[:1] for stride, value in maps.items()})
    assert not torch.allclose(alone[0], whole[0])


@pytest.mark.parametrize("strides", [(8,), (4, 8)])
def test_upernet_with_batch_norm_trains_on_a_batch_of_one(strides):
    pyramid, maps = pyramid_maps(strides, 8, (16, 16), batch=1)
    decoder = UPerNet(pyramid, 3, dense=True, channels=8, norm="batch").double().train()
    assert not any(isinstance(module, torch.nn.GroupNorm) for module in decoder.modules())  # the neck's neither
    logits = decoder(maps)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in decoder.parameters())


def test_upernet_refuses_another_norm():
    pyramid, _ = pyramid_maps()
    with pytest.raises(UserError, match=r"decoder\.norm is 'layer': it can be group or batch"):
        UPerNet(pyramid, 3, dense=True, norm="layer")
