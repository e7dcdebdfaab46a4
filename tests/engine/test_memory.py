"""Keeping memory changes nothing but where it comes from."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import pathlib, re, torch
from satdifuser.engine.memory import keep_memory
kept = keep_memory()
def heap():
    found = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]", pathlib.Path("/proc/self/maps").read_text(), re.M)
    return int(found[1], 16), int(found[2], 16)
x = torch.ones(64 * 2**20 // 4)
assert float(x.sum()) == 2.0**24
inside = heap()[0] <= x.data_ptr() < heap()[1]
del x
print(kept, inside, heap()[1] - heap()[0] >= 64 * 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="only on a CPU under Linux")
@pytest.mark.parametrize("wanted", ["0", "1"])
def test_large_tensors_come_from_memory_that_the_process_keeps(wanted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SATDIFUSER_KEEP_MEMORY": wanted},
    )
    kept, inside, still_there = (word == "True" for word in re.findall("True|False", done.stdout))
    if wanted == "0":
        assert not kept
    if kept:  # not so with another C library
        assert inside
        assert still_there
    else:
        assert not inside
