"""The benchmark of CKA in small: it ends with an error if its ways do not agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_all_pairs_at_once_are_timed_against_pair_after_pair_and_memory_has_a_row_for_each_length(
    tmp_path: Path,
) -> None:
    words = ["--batch", "8", "--rounds", "1", "--batches", "2", "5", "--threads", "1", "--json", "kept.json"]
    command = [sys.executable, str(TOOLS / "bench_cka.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    speed, memory = json.loads((tmp_path / "kept.json").read_text())["tables"]
    assert [row[0] for row in speed["rows"]] == ["all at once", "kept Gram matrices", "pair after pair"]
    assert all(seconds > 0 and ratio > 0 for _, seconds, ratio, _ in speed["rows"])
    assert [row[:2] for row in memory["rows"]] == [[2, 16], [5, 40]]
