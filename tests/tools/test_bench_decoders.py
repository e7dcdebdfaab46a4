"""The benchmark of decoders in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_every_decoder_has_a_row_of_every_pyramid_with_its_parameters_and_its_ratio(tmp_path: Path) -> None:
    words = ["--side", "64", "64", "64", "--rounds", "1", "--batch", "1", "--width", "32", "--json", "kept.json"]
    command = [sys.executable, str(TOOLS / "bench_decoders.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tables = json.loads((tmp_path / "kept.json").read_text())["tables"]
    assert len(tables) == 3
    for table in tables:
        counts = {row[0]: row[1] for row in table["rows"]}
        assert list(counts) == ["upernet", "unet", "dpt", "fpn", "conv", "light", "single", "linear"]
        assert counts["single"] == 32 * 256 + 2 * 256 + 257 * 19
        assert counts["linear"] == 33 * 19
        for name, count, fewer, milliseconds, ratio in table["rows"]:
            assert (fewer is None) if name == "upernet" else fewer == pytest.approx(1 - count / counts["upernet"])
            assert milliseconds > 0
            assert ratio > 0
