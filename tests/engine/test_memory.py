"""Keeping memory changes nothing but where it comes from."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import resource, torch
from satdifuser.engine.memory import keep_memory
kept = keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    return float(torch.ones(64 * 2**20 // 4).sum())
assert work() == work() == 2.0**24
before = faults()
for _ in range(8):
    assert work() == 2.0**24
print(kept, faults() - before)
"""


def faults(wanted: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SATDIFUSER_KEEP_MEMORY": wanted},
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="only on a CPU under Linux")
def test_freed_memory_is_used_again_instead_of_being_fetched_anew() -> None:
    (refused, before), (kept, after) = faults("0"), faults("1")
    assert not refused
    if kept and before > 10_000:  # else another C library, or a system with huge pages: there it hardly matters
        assert after < before / 2
