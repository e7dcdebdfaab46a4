"""The benchmark of probes in small: both sides give the same answers, and all maps have a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_both_sides_are_timed_on_the_same_maps_and_agree(tmp_path: Path) -> None:
    words = ["--samples", "80", "--strengths", "5", "--maps", "2", "--threads", "1", "--json", "kept.json"]
    command = [sys.executable, str(TOOLS / "bench_probe.py"), *words]
    plain = {name: value for name, value in os.environ.items() if name != "SATDIFUSER_TEST_DATA"}
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    beside, whole = json.loads((tmp_path / "kept.json").read_text())["tables"]
    *maps, together = beside["rows"]
    assert len(maps) == 2
    assert together[4] == pytest.approx(sum(row[3] for row in maps) / sum(row[2] for row in maps))
    assert all(abs(row[7] - row[8]) <= 0.05 for row in maps)
    (row,) = whole["rows"]
    assert row[0] == 21
    assert 0 < row[5] <= 1
