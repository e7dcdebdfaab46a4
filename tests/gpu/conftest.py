"""A device beside the CPU: which it is, how near the two must come, and tiny models and images for both.

SATDIFUSER_TEST_DEVICE says which device (`cuda`, `cpu`); without it, it is a GPU if there is one. What is compared with
is computed in float64 on the CPU, where the code allows it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

# How far a value may be from the reference, as a share of its tensor's largest value. float32 is meant with TF32 off:
# sums in another order, and a GPU's own functions. A mantissa of 8 bits (bfloat16) and of 11 (float16) rounds by up to
# 4e-3 and 5e-4 at every layer. `again`: the same kernels on the same device; see where it is used.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3, "again": 1e-6}
SMALLEST = 1e-3  # a tensor with less than this share of the largest of all is rounding alone
NO_DEVICE = "no GPU here: SATDIFUSER_TEST_DEVICE=cpu runs them on the CPU"
RGB = ("B04", "B03", "B02")


@pytest.fixture(scope="session")
def device() -> torch.device:
    named = os.environ.get("SATDIFUSER_TEST_DEVICE")
    if not named and not torch.cuda.is_available():
        pytest.skip(NO_DEVICE)
    found = torch.device(named or "cuda")
    return torch.device("cuda", torch.cuda.current_device()) if found == torch.device("cuda") else found


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """Of tests that mean nothing on a CPU."""
    if device.type != "cuda":
        pytest.skip("about CUDA alone: its streams, its memory or its types")
    return device


@pytest.fixture(autouse=True)
def _plain_float32(device: torch.device) -> Iterator[None]:
    """float32 is float32, and an error that the device tells late is told in the test that made it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@pytest.fixture
def agree(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`agree(got, wanted, "bfloat16")`: tensors, or mappings of them, as near as that precision allows.

    Another `tolerance` than the table's needs a reason beside it.
    """

    def check(got: Any, wanted: Any, precision: str = "float32", tolerance: float | None = None) -> None:
        allowed = TOLERANCE[precision] if tolerance is None else tolerance
        found, exact = _by_name(got), _by_name(wanted)
        assert found.keys() == exact.keys()
        least = SMALLEST * max(map(_largest, exact.values()), default=0.0)
        for name, value in exact.items():
            assert found[name].shape == value.shape, name
            assert found[name].isfinite().all(), f"{name} is not finite"
            share = _largest(found[name] - value) / (max(_largest(value), least) or 1.0)
            record_property("agreement", [share / allowed, share, allowed, name])
            assert share <= allowed, f"{name}: off by {share:.1e} of the largest value; {allowed:.0e} is allowed"

    return check


def _by_name(values: Any) -> dict[str, Tensor]:
    named = values if isinstance(values, Mapping) else {"": values}
    return {str(name): value.detach().cpu().double() for name, value in named.items()}


def _largest(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What came nearest to its tolerance: a number that creeps up is seen before it is a failure."""
    passed = terminalreporter.stats.get("passed", [])
    nearest = {}
    for report in passed:
        rows = [value for name, value in report.user_properties if name == "agreement"]
        if rows:
            nearest[report.nodeid.rpartition("/")[2]] = max(rows)
    if nearest:
        terminalreporter.section("nearest to their tolerance (of each test the nearest value)")
    for test, (part, share, allowed, name) in sorted(nearest.items(), key=lambda item: item[1], reverse=True)[:15]:
        terminalreporter.write_line(f"{100 * part:5.1f} %  {share:.1e} of {allowed:.0e}  {test}  {name}")


@pytest.fixture
def busy(device: torch.device) -> Callable[[], None]:
    """Give a GPU some 30 ms to do, so that what is asked of it next is not done yet when the host goes on."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda._sleep(50_000_000)

    return wait


@pytest.fixture
def some() -> Callable[..., tuple[Tensor, list[str], Tensor]]:
    """`some(count, size)`: images of Sentinel-2 on the CPU, ids, and DiffusionSat's seven numbers."""

    def make(count: int = 3, size: int = 32) -> tuple[Tensor, list[str], Tensor]:
        lowest = torch.tensor([-180.0, -90.0, 0.0, 0.0, 1980.0, 0.0, 0.0])
        range_ = torch.tensor([360.0, 180.0, 1.0, 1.0, 120.0, 12.0, 31.0])
        ids = [f"tile-{number}" for number in torch.randint(10**9, (count,)).tolist()]
        return torch.rand(count, 13, size, size) * 0.3, ids, lowest + torch.rand(count, 7) * range_

    return make


@pytest.fixture
def diffusion() -> Callable[..., Any]:
    """`diffusion(kind, mode=...)`: an encoder of its own for each call, always with the same weights.

    `kind`: small (the shipped weights), pixels (unconditional), latent (text to image), satellite (with metadata), or
    one_block, which compiles in seconds.
    """
    pytest.importorskip("diffusers")
    from satdifuser.data.inputs import ImageInput
    from satdifuser.diffusion.encoder import DiffusionEncoder

    def make(kind: str, **settings: Any) -> DiffusionEncoder:
        if kind not in _BACKBONES:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                _BACKBONES[kind] = _backbone(kind)
        taps = ["mid_block", "up_blocks.0.resnets.0.conv2", "up_blocks.1.resnets.1"]
        common: dict[str, Any] = {"taps": taps, "timesteps": [21, 261], "image_size": 32, "steps": 10, "seed": 3}
        common |= {"metadata": "samples"} if kind == "satellite" else {}
        return DiffusionEncoder(
            copy.deepcopy(_BACKBONES[kind]), prepare=ImageInput(RGB), **{**common, **settings}
        ).eval()

    return make


_BACKBONES: dict[str, Any] = {}
WIDTHS: dict[str, Any] = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}


def _backbone(kind: str) -> Any:
    """Attention has heads of 8 channels, as the fused kernels of a GPU want them."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel, UNet2DModel

    from satdifuser.diffusion.loading import Backbone, unconditional
    from satdifuser.diffusion.satunet import SatUNet

    if kind == "small":
        return unconditional("small")
    scheduler = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear")
    if kind in ("pixels", "one_block"):
        down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
        settings = {**WIDTHS, "attention_head_dim": 8, "in_channels": 3, "out_channels": 3}
        if kind == "one_block":
            down, up, settings["block_out_channels"] = down[:1], up[1:], (16,)
        unet = UNet2DModel(sample_size=32, down_block_types=down, up_block_types=up, **settings)
        return Backbone(unet.eval(), scheduler, "tiny", "none")
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    heads = {"attention_head_dim": (2, 4), "cross_attention_dim": 24, "use_linear_projection": True}
    build = SatUNet if kind == "satellite" else UNet2DConditionModel
    unet = build(sample_size=8, down_block_types=down, up_block_types=up, **heads, **WIDTHS)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = AutoencoderKL(block_out_channels=(8, 8, 16), latent_channels=4, norm_num_groups=4, **blocks)
    return Backbone(
        unet.eval(),
        scheduler,
        "tiny",
        "none",
        vae=vae.eval(),
        prompt=torch.randn(1, 7, 24),
        num_metadata=7 if kind == "satellite" else 0,
    )


@pytest.fixture
def exactly() -> Callable[[nn.Module], Any]:
    """A copy of a module that computes in float64 on the CPU (a diffusion encoder's latents stay in float32)."""

    def copied(module: nn.Module) -> Any:
        exact: Any = copy.deepcopy(module).cpu().double()
        network, latents = getattr(exact, "network", None), getattr(exact, "latents", None)
        if network is not None:
            network.dtype = network.output_dtype = torch.float64
        if isinstance(latents, nn.Module):
            encode = latents.vae.encode
            latents.vae.encode = lambda images: encode(images.double())
        return exact

    return copied


@pytest.fixture
def slopes() -> Callable[..., tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """`slopes(module, forward, inputs, targets)`: outputs, and the slopes of their distance from the targets.

    `forward(inputs)` gives outputs by name; slopes are those at the inputs that want them, and at what trains.
    """

    def compute(
        module: nn.Module,
        forward: Callable[[dict[str, Tensor]], Mapping[Any, Tensor]],
        inputs: dict[str, Tensor],
        targets: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        module.zero_grad(set_to_none=True)
        outputs = {str(name): value for name, value in forward(inputs).items()}
        errors = [(value.double() - targets[name].to(value.device)).square().mean() for name, value in outputs.items()]
        torch.stack(errors).sum().backward()
        found = {name: value.grad for name, value in [*module.named_parameters(), *inputs.items()]}
        return outputs, {name: value for name, value in found.items() if value is not None}

    return compute


@pytest.fixture
def scattered() -> Callable[[nn.Module], Any]:
    """Every parameter that trains away from where it begins: weights that are all alike hide what is mixed up."""

    def fill(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        return module

    return fill
