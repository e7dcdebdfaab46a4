"""Decoders of smp's blocks (and our `light`) against its own whole decoders, with the same weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.errors import UserError

Make = Callable[..., Any]
WIDTH, FOUR = 12, (4, 8, 16, 32)


@pytest.fixture
def statistics(randomised: Make) -> Make:
    """A module in float64 and evaluation, with random weights, and random statistics where it has BatchNorm."""

    def fill(module: nn.Module) -> nn.Module:
        for part in randomised(module).modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        return module.eval()

    return fill


def given_weights(theirs: nn.Module, ours: dict[str, Tensor], names: list[tuple[str, str]]) -> nn.Module:
    """Their decoder with our weights: each name rewritten by the first pattern that it matches, none left out."""
    state = {}
    for name, value in ours.items():
        new = next(re.sub(pattern, by, name) for pattern, by in names if re.match(pattern, name))
        state[new] = value
    theirs.double().load_state_dict(state)
    return theirs.eval()


def features(given: dict[int, Tensor], image_size: tuple[int, int]) -> list[Tensor]:
    """As smp's encoders give them: the image's own size first, then strides 2, 4, ..."""
    maps = dict(sorted(given.items()))
    first = next(iter(maps.values()))
    empty = [first.new_empty(len(first), 0, image_size[0] // s, image_size[1] // s) for s in (1, 2) if s not in maps]
    return [*empty, *maps.values()]


def trunk(decoder: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in decoder.state_dict().items() if not name.startswith("head.")}


def test_fpn_on_four_scales_is_smps(maps: Make, small: Make, statistics: Make) -> None:
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    pyramid, given = maps(FOUR, (64, 96), WIDTH)
    ours = statistics(small("fpn", pyramid, channels=20, segmentation_channels=64))
    theirs = FPNDecoder([3, 0, *[WIDTH] * 4], 5, pyramid_channels=20, segmentation_channels=64)
    names = [(r"top\.", "p5."), (r"segment\.", "seg_blocks.")]
    names += [(rf"down\.{place}\.", f"p{4 - place}.") for place in range(3)]
    given_weights(theirs, trunk(ours), names)
    torch.testing.assert_close(ours(given), ours.head(theirs(features(given, (64, 96)))), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("strides", "empty"), [((2, 4, 8, 16, 32), 1), (FOUR, 2)])
def test_unet_is_smps_with_its_own_widths(
    maps: Make, small: Make, statistics: Make, strides: tuple[int, ...], empty: int
) -> None:
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    pyramid, given = maps(strides, (64, 96), WIDTH)
    ours = statistics(small("unet", pyramid, channels=256, norm="batch"))
    theirs = UnetDecoder([3, *[0] * (empty - 1), *[WIDTH] * len(strides)], (256, 128, 64, 32, 16))
    given_weights(theirs, trunk(ours), [(r"decoder\.", "")])
    decoded = theirs(features(given, (64, 96)))
    assert decoded.shape[2:] == (64, 96)
    torch.testing.assert_close(ours(given), ours.head(decoded), rtol=1e-10, atol=1e-10)


def test_dpt_is_smps_where_its_reassembly_leaves_maps_as_they_are(maps: Make, small: Make, statistics: Make) -> None:
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead

    pyramid, given = maps(FOUR, (64, 96), WIDTH)
    ours = statistics(small("dpt", pyramid, channels=10, norm="batch"))
    theirs = DPTDecoder([WIDTH] * 4, FOUR, False, "ignore", [WIDTH] * 4, 10).double()
    own = {name: value for name, value in trunk(ours).items() if not name.startswith("smooth.")}
    for place, block in enumerate(theirs.reassemble_blocks):
        block.project_to_out_channel.weight.data.copy_(torch.eye(WIDTH)[:, :, None, None])
        block.project_to_out_channel.bias.data.zero_()
        for kind in ("weight", "bias"):
            own[f"as-is.{place}.project_to_out_channel.{kind}"] = getattr(block.project_to_out_channel, kind).data
    names = [(r"blocks\.", "fusion_blocks."), (r"as-is\.", "reassemble_blocks.")]
    names += [(r"project\.(\d)\.", r"reassemble_blocks.\1.project_to_feature_dim.")]
    given_weights(theirs, own, names)
    head = DPTSegmentationHead(10, 3, upsampling=1)
    whole = {n: v for n, v in ours.state_dict().items() if n.startswith(("smooth.", "head."))}
    given_weights(head, whole, [(r"smooth\.", "head."), (r"head\.classify\.", "head.4.")])
    expected = head(theirs([given[stride] for stride in FOUR], [None] * 4))
    assert expected.shape[2:] == (32, 48)  # twice the finest scale
    torch.testing.assert_close(ours(given), expected, rtol=1e-10, atol=1e-10)


def test_light_with_batch_norm_is_smps_segformer(maps: Make, small: Make, statistics: Make) -> None:
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    pyramid, given = maps(FOUR, (64, 96), WIDTH)
    ours = statistics(small("light", pyramid, channels=10, norm="batch"))
    theirs = SegformerDecoder([3, 0, *[WIDTH] * 4], 5, segmentation_channels=10)
    own = trunk(ours)
    own = {n: v[:, :, 0, 0] if n.startswith("project.") and n.endswith("weight") else v for n, v in own.items()}
    # theirs begins with the coarsest scale
    own["fuse.0.weight"] = torch.cat(list(reversed(own["fuse.0.weight"].split(10, dim=1))), dim=1)
    names = [(rf"project\.{stride}\.", f"mlp_stage.{3 - place}.linear.") for place, stride in enumerate(FOUR)]
    given_weights(theirs, own, [*names, (r"fuse\.", "fuse_stage.")])
    decoded = theirs([torch.empty(2, 3, 64, 96), *features(given, (64, 96))[1:]])
    torch.testing.assert_close(ours(given), ours.head(decoded), rtol=1e-10, atol=1e-10)


def test_dpt_does_not_go_beyond_the_image(maps: Make, small: Make) -> None:
    for strides, size in (((1, 2), (16, 24)), ((2, 4), (16, 24)), ((4, 8), (8, 12))):
        pyramid, given = maps(strides, (16, 24))
        assert small("dpt", pyramid)(given).shape[2:] == size


def test_fpn_refuses_widths_that_smp_cannot_normalise(maps: Make, small: Make) -> None:
    pyramid, _ = maps((4, 8))
    with pytest.raises(UserError, match=r"decoder\.segmentation_channels is 48: it must be a multiple of 32"):
        small("fpn", pyramid, segmentation_channels=48)


def test_a_gap_is_the_maxima_of_the_next_finer_scale(maps: Make, small: Make, randomised: Make) -> None:
    pyramid, given = maps((2, 16), (32, 48))
    levels = small("fpn", pyramid).levels(given)
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert torch.equal(levels[0], given[2])
    assert torch.equal(levels[3], given[16])
    for by, level in ((2, levels[1]), (4, levels[2])):
        assert torch.equal(level, given[2].unflatten(3, (-1, by)).unflatten(2, (-1, by)).amax((3, 5)))
