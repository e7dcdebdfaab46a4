"""The pyramid of an encoder with one scale, and UPerNet on it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from satdifuser.decoders import UPerNet
from satdifuser.decoders.neck import SimpleFeaturePyramid
from satdifuser.errors import UserError
from satdifuser.fusion import PyramidSpec


def single(stride=8, channels=6, image_size=(32, 48), batch=2):
    size = (image_size[0] // stride, image_size[1] // stride)
    return PyramidSpec((stride,), channels, image_size), {stride: torch.randn(batch, channels, *size)}


@pytest.mark.parametrize(
    ("stride", "image_size", "expected"),
    [(8, (32, 48), (2, 4, 8, 16)), (14, (56, 56), (7, 14, 28)), (7, (21, 28), (7, 14)), (16, (16, 16), (4, 8, 16))],
)
def test_a_pyramid_has_the_strides_that_are_whole_numbers(stride, image_size, expected):
    pyramid, maps = single(stride, image_size=image_size)
    neck = SimpleFeaturePyramid(pyramid)
    assert neck.pyramid.strides == expected
    for level, value in neck(maps).items():
        assert value.shape == (2, 6, image_size[0] // level, image_size[1] // level)


def test_the_map_itself_is_a_level_the_coarser_its_maxima_and_the_finer_one_matrix_for_each_corner():
    pyramid, maps = single()
    neck = SimpleFeaturePyramid(pyramid)
    found = neck(maps)
    assert torch.equal(found[8], maps[8])
    torch.testing.assert_close(found[16], maps[8].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5)))
    up = neck.levels["4"][0]
    for row in range(2):
        for column in range(2):
            corner = torch.einsum("io,bihw->bohw", up.weight[:, :, row, column], maps[8]) + up.bias.view(-1, 1, 1)
            torch.testing.assert_close(found[4][:, :, row::2, column::2], corner)
    first, last = neck.levels["2"]
    middle = F.gelu(first[1](first[0](maps[8])))
    torch.testing.assert_close(found[2], F.conv_transpose2d(middle, last.weight, last.bias, stride=2))


def test_upernet_makes_a_pyramid_of_a_single_scale_and_of_no_other():
    pyramid, maps = single()
    decoder = UPerNet(pyramid, 3, dense=True, channels=16)
    logits = decoder(maps)
    assert logits.shape == (2, 3, 16, 24)
    logits.square().sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    assert UPerNet(pyramid, 3, dense=True, channels=16, neck=False)(maps).shape == (2, 3, 4, 6)
    assert UPerNet(PyramidSpec((4, 8), 6, (32, 48)), 3, dense=True).neck is None


def test_a_neck_for_several_scales_is_refused():
    with pytest.raises(UserError, match=r"decoder.neck=true is for features of one stride, not \(4, 8\)"):
        UPerNet(PyramidSpec((4, 8), 6, (32, 48)), 3, dense=True, neck=True)
