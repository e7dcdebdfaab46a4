"""What a model costs: parameters, operations, memory. Time is the caller's to measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from satdifuser.engine.memory import give_back


def parameter_count(module: nn.Module | None, trainable: bool = False) -> int:
    """How many parameters a module has, or how many of them train."""
    if module is None:
        return 0
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def flops(function: Any, *args: Any, **kwargs: Any) -> int:
    """Floating-point operations of a call, a multiplication and an addition counted as two (matrix products,
    convolutions and attention; what is done element by element is not counted)."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*args, **kwargs)
    return int(counter.get_total_flops())


class PeakMemory:
    """Bytes that were needed beyond those held at the start: of a GPU where there is one, else of the process.

    Of a process on Linux only; elsewhere `bytes` is None.
    """

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        give_back()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before: int | None = torch.cuda.memory_allocated()
        else:
            self._before = _resident() if _forget_peak() else None

    @property
    def bytes(self) -> int | None:
        if self._before is None:
            return None
        peak = torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")
        return None if peak is None else max(0, peak - self._before)


def _resident() -> int | None:
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """A number of the process's status on Linux, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> bool:
    """Let the system count the process's peak anew."""
    if sys.platform != "linux":
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
