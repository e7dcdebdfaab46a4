"""A GPU that is too small for a batch: it goes through in parts, and the features are those of a GPU that is not."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from satdifuser.errors import UserError

pytestmark = pytest.mark.gpu
SIZES = {"pixels": (96, 64), "latent": (24, 256)}  # how many images of which size: some 100 MB and more for all at once


@pytest.fixture
def room(cuda: torch.device) -> Iterator[Callable[[int], None]]:
    """`room(bytes)`: the process may hold so much more than it holds now, until the test is over."""
    total = torch.cuda.get_device_properties(cuda).total_memory

    def limit(more: int) -> None:
        gc.collect()
        torch.cuda.synchronize(cuda)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(cuda) + more) / total, cuda)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    torch.cuda.empty_cache()


def needed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, int]:
    """What a piece of work gives, and the memory that it took beyond what was there."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    found = work()
    torch.cuda.synchronize(device)
    return found, torch.cuda.max_memory_allocated(device) - before


@pytest.mark.parametrize("mode", ["noise", "inversion"])
@pytest.mark.parametrize("kind", ["pixels", "latent"])
def test_a_batch_that_does_not_fit_gives_the_features_of_one_that_does(
    kind: str,
    mode: str,
    cuda: torch.device,
    room: Any,
    diffusion: Any,
    some: Any,
    agree: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count, side = SIZES[kind]
    settings = {"mode": mode, "taps": ["mid_block"], "timesteps": [21, 61], "image_size": side}
    images, ids, _ = some(count, side)
    images = images.to(cuda)

    def features(encoder: Any) -> Any:
        with torch.no_grad():
            return encoder(images, sample_ids=ids)

    few = diffusion(kind, batch=2, **settings).to(cuda)
    features(few)  # what the libraries take for themselves they have taken
    wanted, small = needed(cuda, lambda: features(few))
    whole, large = needed(cuda, lambda: features(diffusion(kind, **settings).to(cuda)))
    agree(whole, wanted)
    assert large > 2.5 * small  # else nothing is proved below
    del whole
    encoder = diffusion(kind, **settings).to(cuda)
    room(small + (large - small) // 3)
    with caplog.at_level(logging.WARNING, "satdifuser.diffusion.memory"):
        bank = features(encoder)
    bound = encoder.network.memory if kind == "pixels" else encoder.latents.memory  # where most of it goes
    assert bound.limit is not None
    assert bound.limit < count * (2 if kind == "pixels" and mode == "noise" else 1)
    assert "out of memory" in caplog.text
    agree(bank, wanted)
    caplog.clear()
    agree(features(encoder), wanted)
    assert "out of memory" not in caplog.text  # what fitted is where the next batch begins


def test_an_image_that_does_not_fit_by_itself_is_one_line(
    cuda: torch.device, room: Any, diffusion: Any, some: Any
) -> None:
    settings = {"taps": ["down_blocks.0.resnets.0"], "timesteps": [21]}  # before any attention
    encoder = diffusion("pixels", image_size=512, **settings).to(cuda)
    images, ids, _ = some(1, 512)
    images = images.to(cuda)
    with torch.no_grad():
        diffusion("pixels", **settings).to(cuda)(images[:, :, :32, :32], sample_ids=ids)  # loads the libraries
        room(64 * 2**20)  # the input takes some 20 MB, and each map 17 MB
        with pytest.raises(UserError, match=r"single input[^\n]*encoder\.batch[^\n]*$"):
            encoder(images, sample_ids=ids)
    torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    with torch.no_grad():
        assert encoder(images, sample_ids=ids).batch_size == 1
