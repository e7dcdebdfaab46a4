"""Keeping the process's memory: on a CPU, large tensors are else given back to the system and fetched anew every step.

The C library maps every large block afresh and unmaps it when it is freed; the system then fills each page with zeros
again. Training a head on features of an SD-2.1-sized UNet spends nearly half of its time so. Measured by
`tools/bench_training.py`, which can leave it out (`--give-back`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # glibc's numbers of its settings
PAD = 64 * 2**20  # fetched beyond what is needed


def keep_memory() -> bool:
    """Ask glibc to keep what is freed for the next tensor. False where there is no glibc, a GPU, or it is unwanted.

    SATDIFUSER_KEEP_MEMORY=0 leaves the system's ways as they are. Peak memory stays about the same; what was needed
    once is not given back before the process ends.
    """
    import torch

    if torch.cuda.is_available() or os.environ.get("SATDIFUSER_KEEP_MEMORY") == "0" or sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1), mallopt(TOP_PAD, PAD)])


def give_back() -> None:
    """Give what is kept back to the system: between two runs of one process, the next of which may need less."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
