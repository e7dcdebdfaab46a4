"""What the benchmarks share: gaps between kernels, tables that survive an early end, and each benchmark in small."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def measuring(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("measuring")


def test_gaps_are_what_a_count_of_every_moment_finds(measuring: ModuleType) -> None:
    draw = random.Random()
    for _ in range(200):
        spans = []
        for _ in range(draw.randint(1, 12)):
            start = draw.randint(0, 40)
            spans.append((start, start + draw.randint(1, 9)))
        first, last = min(s for s, _ in spans), max(e for _, e in spans)
        bare = sum(all(not start <= moment < end for start, end in spans) for moment in range(first, last))
        assert measuring.gaps(spans) == pytest.approx(bare / (last - first)), spans
    assert measuring.gaps([]) is None


def test_a_row_is_kept_as_soon_as_it_is_there(measuring: ModuleType, tmp_path: Path) -> None:
    results = measuring.Results(tmp_path / "kept.json", what="a trial")
    add = results.table("speeds", {"what": "", "images/s": ".1f", "share": ".0%"})
    add("ours", 2.04, None)
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["about"]["what"] == "a trial"
    assert kept["tables"][0]["rows"] == [["ours", 2.04, None]]
    assert measuring.as_markdown(kept["tables"][0]).splitlines()[-1] == "| ours | 2.0 |  |"
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        add("ours", 2.0)


@pytest.mark.slow
def test_layouts_are_compared_in_one_table(tmp_path: Path) -> None:
    """The other benchmarks are run by the GPU suite's own test."""
    words = ["--size", "64", "--samples", "4", "--batch", "4", "--layouts", "--json", "kept.json"]
    command = [sys.executable, str(TOOLS / "bench_store.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (table,) = json.loads((tmp_path / "kept.json").read_text())["tables"]
    assert [row[0] for row in table["rows"]] == ["maps"] * 6 + ["mean"] * 6
    assert all(speed > 0 for row in table["rows"] for speed in row[4:])
