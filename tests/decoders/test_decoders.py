"""What all decoders do: any pyramid, pixels and images, and they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from satdifuser.errors import UserError

Make = Callable[..., Any]
NAMES = ("linear", "conv", "light", "single", "fpn", "dpt", "unet")
PYRAMIDS = (
    ((1, 2, 4, 8), (16, 24)),
    ((8, 16, 32, 64), (64, 128)),  # the coarsest is one pixel high
    ((4, 16), (32, 48)),
    ((2, 16), (16, 16)),  # a gap of two strides, and one pixel
    ((16,), (64, 32)),
    ((16,), (48, 80)),  # of odd numbers of cells
    ((16,), (16, 16)),  # one pixel
    ((14,), (56, 70)),
    ((7,), (7, 21)),
    ((1,), (5, 3)),
)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("strides", "image_size"), PYRAMIDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_decoder_takes_every_pyramid_in_training_and_evaluation(
    maps: Make, small: Make, name: str, strides: tuple[int, ...], image_size: tuple[int, int], dense: bool
) -> None:
    pyramid, given = maps(strides, image_size)
    decoder = small(name, pyramid, dense=dense)
    shape = (2, 3, *image_size) if dense else (2, 3)
    for training in (True, False):
        logits = decoder.train(training)(given, image_size)
        assert logits.shape == shape
        assert bool(logits.isfinite().all())


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_every_decoder_trains_on_one_pixel_of_one_sample_with_either_norm(
    maps: Make, small: Make, name: str, norm: str
) -> None:
    pyramid, given = maps((8,), (8, 8), batch=1)
    decoder = small(name, pyramid, norm=norm).train()
    logits = decoder(given, (8, 8))
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in decoder.parameters())


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_norm_is_the_one_asked_for_and_no_other(maps: Make, small: Make, name: str) -> None:
    pyramid, _ = maps((4, 8, 16))
    for norm, other in (("group", torch.nn.BatchNorm2d), ("batch", torch.nn.GroupNorm)):
        assert not any(isinstance(module, other) for module in small(name, pyramid, norm=norm).modules())
    with pytest.raises(UserError, match=r"decoder\.norm is 'layer': it can be group or batch"):
        small(name, pyramid, norm="layer")


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("strides", [(4, 8, 16), (4, 16), (16,)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_every_map_that_is_read(
    maps: Make, small: Make, name: str, strides: tuple[int, ...], dense: bool
) -> None:
    pyramid, given = maps(strides)
    given = {stride: value.requires_grad_() for stride, value in given.items()}
    decoder = small(name, pyramid, dense=dense)
    logits = decoder(given)
    (logits * torch.randn_like(logits)).sum().backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    read = [stride for stride, value in given.items() if value.grad is not None and bool(value.grad.any())]
    assert read == ([strides[0]] if name == "single" else list(strides))
    assert list(decoder.read(given)) == read
    assert decoder.sparse == (len(read) < len(strides))  # which two processes must be told


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_result_of_a_sample_does_not_depend_on_its_batch(
    maps: Make, small: Make, randomised: Make, name: str, dense: bool, training: bool
) -> None:
    pyramid, given = maps((4, 8, 16), batch=3)
    decoder = randomised(small(name, pyramid, dense=dense)).train(training)
    whole = decoder(given)
    for sample in range(3):
        alone = decoder({stride: value[sample : sample + 1] for stride, value in given.items()})
        torch.testing.assert_close(alone[0], whole[sample], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", NAMES[1:])
def test_channels_are_dropped_in_training_only(maps: Make, small: Make, name: str, dense: bool) -> None:
    pyramid, given = maps((4, 8))
    decoder = small(name, pyramid, dense=dense, dropout=0.5)
    assert not torch.equal(decoder.train()(given), decoder(given))
    assert torch.equal(decoder.eval()(given), decoder(given))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("strides", [(4, 8), (8,)])
@pytest.mark.parametrize("name", NAMES[1:])
def test_every_decoder_learns_a_few_samples_by_heart(
    maps: Make, small: Make, name: str, strides: tuple[int, ...], dense: bool
) -> None:
    pyramid, given = maps(strides, (16, 24), channels=16, batch=4)
    finest = given[strides[0]].shape[-2:]
    coarse = torch.randint(3, (4, *finest)) if dense else torch.randint(3, (4,))
    truth = coarse.repeat_interleave(strides[0], 1).repeat_interleave(strides[0], 2) if dense else coarse
    decoder = small(name, pyramid, dense=dense)
    given = {stride: value.float() for stride, value in given.items()}
    decoder = decoder.float().train()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(decoder(given, (16, 24)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.parametrize("name", ["fpn", "dpt", "unet"])
def test_strides_that_do_not_double_are_refused_with_what_to_choose(maps: Make, small: Make, name: str) -> None:
    token, _ = maps((16, 224), (224, 224))
    wanted = rf"decoder={name} needs strides .* \(16\) .* stride 224 of one pixel \(a class token\): set"
    with pytest.raises(UserError, match=wanted + r" encoder\.class_token=false, or use decoder=linear"):
        small(name, token)
    three, _ = maps((4, 12), (24, 24))
    with pytest.raises(UserError, match=rf"decoder={name} .* there is stride 12: choose other taps, or use"):
        small(name, three)


@pytest.mark.parametrize("name", ["light", "fpn", "dpt", "unet"])
def test_a_neck_is_for_one_stride_and_can_be_left_out(maps: Make, small: Make, name: str) -> None:
    several, one = maps((4, 8))[0], maps((16,))[0]
    with pytest.raises(UserError, match=r"decoder.neck=true is for features of one stride, not \(4, 8\)"):
        small(name, several, neck=True)
    assert small(name, one, neck=True).pyramid.strides == (4, 8, 16, 32)
    assert small(name, one, neck=False).pyramid.strides == (16,)


@pytest.mark.parametrize("name", ["conv", "light", "single"])
def test_a_class_token_is_a_scale_of_one_pixel_where_no_stride_must_double(maps: Make, small: Make, name: str) -> None:
    pyramid, given = maps((16, 224), (224, 224))
    assert small(name, pyramid)(given, (224, 224)).shape == (2, 3, 224, 224)
