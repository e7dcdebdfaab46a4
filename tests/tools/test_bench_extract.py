"""The benchmark of extraction: both sides compute the same features, and the table says what was run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import stable_diffusion

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("bench_extract")


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
    whole = bench.flops(shapes, 256, None)
    assert 1.7e11 < whole < 1.9e11  # some 0.18 TFLOP for one 32 x 32 latent
    assert bench.flops(shapes, 256, "mid_block") < 0.6 * whole
    assert bench.flops(shapes, 256, "conv_out") == whole


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    """The table that it keeps, its rows by column."""
    common = ["--architecture", "tiny", "--size", "32", "--rounds", "1", "--json", str(folder / "kept.json")]
    monkeypatch.setattr(sys, "argv", ["bench_extract.py", *common, *words])
    monkeypatch.setattr(bench, "matmul_rate", lambda dtype, device: 1e11)
    bench.main()
    kept = json.loads((folder / "kept.json").read_text())
    (table,) = kept["tables"]
    return {**kept, "rows": [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]}


def test_it_prints_and_keeps_a_row_for_each_variant_with_its_ratio(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    kept = run(bench, monkeypatch, tmp_path, "--batch", "2", "--precisions", "float32")
    rows = kept["rows"]
    assert [row["what"] for row in rows] == ["published", "ours, noise", "ours, inversion", "ours, generation"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["UNet images/s"] / rows[0]["UNet images/s"])
        assert row["with VAE ratio"] == pytest.approx(row["with VAE images/s"] / rows[0]["with VAE images/s"])
        assert row["of matmul rate"] == pytest.approx(row["UNet GFLOP/image"] * row["UNet images/s"] / 100)
        assert row["with VAE images/s"] < row["UNet images/s"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(printed) == len(rows) + 2  # the head's two
    assert f"| {rows[1]['UNet images/s']:.3f} |" in printed[3]


def test_a_batch_that_does_not_fit_is_said_and_a_larger_one_is_not_tried_for_it(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = []
    whole = bench.published

    def cramped(backbone: Any, names: list[str], latents: torch.Tensor, autocast: Any) -> Any:
        tried.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(backbone, names, latents, autocast)

    monkeypatch.setattr(bench, "published", cramped)
    words = ["--batch", "2", "3", "4", "--precisions", "float32", "--modes", "noise"]
    rows = run(bench, monkeypatch, tmp_path, *words)["rows"]
    found = [(row["what"], row["batch"]) for row in rows]
    expected = [("published", 2), ("ours, noise", 2), ("published: out of memory", 3), ("ours, noise", 3)]
    assert found == [*expected, ("ours, noise", 4)]
    assert tried.count(3) == 1
    assert 4 not in tried
    assert rows[2]["UNet images/s"] is None
    assert rows[3]["ratio"] == pytest.approx(rows[3]["UNet images/s"] / rows[0]["UNet images/s"])


def test_a_machine_that_cannot_be_profiled_keeps_its_speeds(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("LibraryNotLoaded\nand more")

    monkeypatch.setattr(bench, "idle_share", refused)
    rows = run(bench, monkeypatch, tmp_path, "--batch", "2", "--precisions", "float32", "--modes", "noise")["rows"]
    assert [row["what"] for row in rows] == ["published", "ours, noise"]
    assert all(row["UNet images/s"] > 0 and row["between kernels"] is None for row in rows)
    assert "ours, noise: no profile (RuntimeError: LibraryNotLoaded and more)" in capsys.readouterr().out


def test_a_batch_for_which_nothing_is_left_to_try_is_no_error(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: Any, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench.Variant, "run", full)
    words = ["--batch", "2", "4", "--precisions", "float32", "--modes", "noise"]
    rows = run(bench, monkeypatch, tmp_path, *words)["rows"]
    assert [(row["what"], row["batch"]) for row in rows] == [
        ("published: out of memory", 2),
        ("ours, noise: out of memory", 2),
    ]
