"""What saves time or memory on the device: lower precisions, memory layout, compilation, kernels of attention."""

from __future__ import annotations

import functools
import shutil
from typing import Any

import pytest
import torch

from satdifuser.errors import UserError

pytestmark = pytest.mark.gpu
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


def on_device(encoder: Any, device: torch.device, images: torch.Tensor, ids: list[str], numbers: torch.Tensor) -> Any:
    """The bank, made on the device; skips where the device cannot compute in the encoder's precision at all."""
    try:
        with torch.no_grad():
            return encoder.to(device)(images.to(device), sample_ids=ids, metadata=numbers.to(device))
    except (RuntimeError, UserError) as error:
        if device.type == "cpu" and "not implemented for 'Half'" in str(error):
            pytest.skip(f"no float16 on this CPU: {error}")
        raise


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["small", "latent", "satellite"])
def test_sixteen_bits_stay_near_the_exact_bank(
    kind: str, precision: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    given = some()
    images, ids, numbers = given
    taps = {"taps": ["mid_block", "up_blocks.1.resnets.1.conv2"]} if kind == "small" else {}
    with torch.no_grad():
        wanted = exactly(diffusion(kind, **taps))(images, sample_ids=ids, metadata=numbers)
    bank = on_device(diffusion(kind, precision=precision, **taps), device, *given)
    assert {value.dtype for value in bank.values()} == {PRECISIONS[precision]}
    agree(bank, wanted, precision)
    whole = on_device(diffusion(kind, precision=precision, output_precision="float32", **taps), device, *given)
    assert {value.dtype for value in whole.values()} == {torch.float32}
    agree(whole, wanted, precision)


@pytest.mark.parametrize("mode", ["inversion", "generation"])
def test_a_path_of_many_steps_in_sixteen_bits_does_not_leave_the_exact_one(
    mode: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    given = some()
    images, ids, numbers = given
    with torch.no_grad():
        wanted = exactly(diffusion("satellite", mode=mode))(images, sample_ids=ids, metadata=numbers)
    bank = on_device(diffusion("satellite", mode=mode, precision="bfloat16"), device, *given)
    agree(bank, wanted, tolerance=2 * 3e-2)  # every step's rounding is carried along


def test_the_vae_stays_in_float32_where_the_unet_is_in_float16(
    device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    images, ids, _ = some()
    encoder = diffusion("latent", precision="float16").to(device)
    assert {parameter.dtype for parameter in encoder.latents.vae.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in encoder.network.unet.parameters()} == {torch.float16}
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):  # a trainer's, which changes nothing
        latents = encoder.encode(images.to(device), sample_ids=ids)
        agree(latents, exactly(diffusion("latent")).encode(images, sample_ids=ids))
    assert diffusion("latent", precision="bfloat16").latents.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["pixels", "latent"])
def test_channels_last_changes_nothing(
    kind: str, precision: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    given = some()
    images, ids, numbers = given
    encoder = diffusion(kind, channels_last=True, precision=precision)
    weight = encoder.network.unet.get_submodule("mid_block.resnets.0.conv1").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = exactly(diffusion(kind))(images, sample_ids=ids, metadata=numbers)
    agree(on_device(encoder, device, *given), wanted, precision)


@pytest.mark.parametrize(("mode", "backend"), [("noise", "inductor"), ("inversion", "eager")])
def test_compilation_changes_nothing(
    mode: str,
    backend: str,
    device: torch.device,
    diffusion: Any,
    some: Any,
    exactly: Any,
    agree: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if backend == "inductor" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("no C compiler, which torch.compile needs")
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))  # eager: traced alone
    given = some()
    images, ids, _ = given
    settings = {"mode": mode, "taps": ["mid_block"], "timesteps": [61], "steps": 1}
    with torch.no_grad():
        wanted = exactly(diffusion("one_block", **settings))(images, sample_ids=ids)
    encoder = diffusion("one_block", compile=True, **settings)
    for _ in range(2):  # compiled now, and used again
        agree(on_device(encoder, device, *given), wanted)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_of_attention_that_runs_here_gives_the_same_bank(
    kernel: str, precision: str, device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    given = some()
    images, ids, _ = given
    with torch.no_grad():
        wanted = exactly(diffusion("latent"))(images, sample_ids=ids)
    try:
        with sdpa_kernel(getattr(SDPBackend, kernel)):
            bank = on_device(diffusion("latent", precision=precision, attention="sdpa"), device, *given)
    except RuntimeError as error:
        if any(words in str(error) for words in ("No available kernel", "No viable backend", "cuDNN Frontend")):
            pytest.skip(f"{kernel.lower()} does not run on {device.type} in {precision}")
        raise
    agree(bank, wanted, precision)


def test_xformers_attention_gives_the_same_bank(
    device: torch.device, diffusion: Any, some: Any, exactly: Any, agree: Any
) -> None:
    pytest.importorskip("xformers.ops")
    given = some()
    images, ids, _ = given
    with torch.no_grad():
        wanted = exactly(diffusion("latent"))(images, sample_ids=ids)
    agree(on_device(diffusion("latent", attention="xformers"), device, *given), wanted)


def test_auto_is_bfloat16_on_a_gpu_and_float32_elsewhere(device: torch.device, diffusion: Any) -> None:
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("the encoder expects to be moved to the GPU that is there")
    expected = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = diffusion("latent", precision="auto")
    assert (encoder.network.dtype, encoder.latents.dtype) == (expected, expected)
