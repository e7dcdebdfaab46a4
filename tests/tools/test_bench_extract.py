"""The benchmark of extraction: both sides compute the same features, and the table says what was run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion import architectures
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import stable_diffusion

TINY = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": [2, 4],
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "bench_extract.py"
    spec = importlib.util.spec_from_file_location("bench_extract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_extract", module)
    spec.loader.exec_module(module)
    vae = {**architectures.VAE, "block_out_channels": [4, 8], "norm_num_groups": 2, "layers_per_block": 1}
    vae |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    monkeypatch.setitem(architectures.UNETS, "tiny", TINY)
    monkeypatch.setattr(architectures, "VAE", vae)
    return module


def test_the_published_protocol_and_our_inversion_give_the_same_features(bench: ModuleType) -> None:
    backbone = stable_diffusion("random", architecture="tiny", seed=2)
    encoder = DiffusionEncoder(
        backbone,
        prepare=ImageInput(["B04", "B03", "B02"]),
        taps="satdifuser",
        timesteps=bench.TIMESTEPS,
        image_size=16,
        mode="inversion",
    )
    images, ids = torch.rand(2, 13, 16, 16) * 0.3, ["a", "b"]
    with torch.inference_mode():
        assert encoder.latents is not None
        latents = encoder.latents(encoder.prepare(images), ids)
        theirs = bench.published(backbone, encoder.network.names, latents, None)
        ours = encoder(images, sample_ids=ids)
    assert len(theirs) == len(ours)
    for tap, value in ours.items():
        wanted = theirs[str(tap)]
        wanted = wanted if wanted.ndim == 4 else wanted.transpose(1, 2).reshape(value.shape)
        torch.testing.assert_close(value, wanted, atol=1e-4, rtol=1e-4)


def test_work_is_counted_up_to_the_last_tap(bench: ModuleType) -> None:
    shapes = stable_diffusion("nowhere", architecture="sd21", blueprint=True)
    whole = bench.flops(shapes, 64, None)  # the tiny VAE halves
    assert 1.7e11 < whole < 1.9e11  # some 0.18 TFLOP for one 32 x 32 latent
    assert bench.flops(shapes, 64, "mid_block") < 0.6 * whole
    assert bench.flops(shapes, 64, "conv_out") == whole


def test_it_prints_a_row_for_each_variant_with_its_ratio(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["--architecture", "tiny", "--size", "16", "--batch", "2", "--rounds", "1", "--precisions", "float32"]
    monkeypatch.setattr(sys, "argv", ["bench_extract.py", *words])
    monkeypatch.setattr(bench, "matmul_rate", lambda dtype, device: 1e11)
    bench.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows[2:]] == ["published", "ours, noise", "ours, inversion", "ours, generation"]
    assert float(rows[2][4]) == 1.0
    for row in rows[3:]:
        assert float(row[4]) == pytest.approx(float(row[3]) / float(rows[2][3]), rel=0.05)
