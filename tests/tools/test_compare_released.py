"""The tool that says how far features lie from the released code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("encoder=diffusionsat", "encoder.backbone.weights=random", "encoder.backbone.architecture=tiny"),
    *("encoder.image_size=32", "data.splits.test.length=2", "encoder.timesteps=[21,61]"),
)


@pytest.mark.slow
def test_each_difference_has_a_line_with_its_distance_at_each_timestep() -> None:
    command = [sys.executable, "tools/compare_released.py", "--images", "2", *SMALL]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = {line.split(" | ")[0].lstrip("| "): re.findall(r"\d\.\d\de[+-]\d\d", line) for line in said.splitlines()[2:]}
    none, prediction, first, both, posterior = ([float(x) for x in values] for values in rows.values())
    assert "| t = 21 | t = 61 |" in said
    assert none == [0.0, 0.0]
    assert all(0 < value < 1 for value in prediction)
    assert all(0 < value < 1 for value in first)
    assert all(low < high for low, high in zip(prediction, both, strict=True))
    assert all(value > 0 for value in posterior)
