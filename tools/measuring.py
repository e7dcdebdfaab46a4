"""What the benchmarks share: clocks, memory, the rate of a matrix product, and tables that are printed and kept.

A table is written as JSON at every row, so that a benchmark that is ended at any time leaves what it had measured.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from satdifuser.engine.files import write_text

Cell = str | int | float | None


def device_here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine(threads: int | None = None) -> str:
    """What measured: the card's name, or the processor's and how many threads of it."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{_processor()}, {threads or torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def exact_float32() -> None:
    """Float32 means float32: no TF32 in matrix products or convolutions."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(device: torch.device, work: Callable[[], object]) -> float:
    began = clock(device)
    work()
    return clock(device) - began


def reset_peak(device: torch.device) -> float:
    """Begin to watch memory; what is taken now, in GiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30
    Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product, large enough to take a quarter of a second or 8192."""
    side, best = 512, 0.0
    while True:
        a = torch.randn(side, side, device=device).to(dtype)
        a @ a
        seconds = timed(device, lambda a=a: [a @ a for _ in range(3)]) / 3  # type: ignore[misc]
        best = max(best, 2 * side**3 / seconds)
        if seconds > 0.25 or side >= 8192:
            return best
        side *= 2


def idle_share(device: torch.device, work: Callable[[], object]) -> float | None:
    """Share of the time in which no kernel ran, from the first kernel to the end of the last; None without a GPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    kernels = [event for event in recorded.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return gaps([(event.time_range.start, event.time_range.end) for event in kernels])


def gaps(spans: Iterable[tuple[float, float]]) -> float | None:
    """Share of the time from the first start to the last end that no span covers.

    >>> round(gaps([(0, 4), (2, 5), (8, 10)]), 3), gaps([])
    (0.3, None)
    """
    ordered = sorted(spans)
    if not ordered:
        return None
    covered, end = 0.0, ordered[0][0]
    for start, stop in ordered:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - covered / (end - ordered[0][0])


class Results:
    """The tables of one benchmark: each row is printed as Markdown, and kept in a JSON file if one is named."""

    def __init__(self, path: Path | None, **about: Any) -> None:
        self.path, self.tables = path, list[dict[str, Any]]()
        self.about = {"machine": machine(), **about}
        print(", ".join(str(value) for value in self.about.values()), flush=True)

    def table(self, title: str, columns: Mapping[str, str]) -> Callable[..., None]:
        """Begin a table whose columns have a format each ("" for words); gives what adds a row of values to it."""
        kept: dict[str, Any] = {"title": title, "columns": dict(columns), "rows": []}
        self.tables.append(kept)
        print(f"\n{title}\n\n" + "\n".join(head(columns)), flush=True)

        def add(*cells: Cell) -> None:
            if len(cells) != len(columns):
                raise ValueError(f"{len(cells)} cells for {len(columns)} columns")
            kept["rows"].append(list(cells))
            print(row(columns, cells), flush=True)
            self.write()

        return add

    def write(self) -> None:
        if self.path is not None:
            write_json(self.path, {"about": self.about, "tables": self.tables})


def head(columns: Iterable[str]) -> list[str]:
    names = list(columns)
    return [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]


def row(columns: Mapping[str, str], cells: Sequence[Cell]) -> str:
    """A row of a Markdown table; a number in its column's format, words as they are, nothing for None.

    >>> row({"what": "", "share": ".0%", "ms": ".1f"}, ["ours", 0.5, None])
    '| ours | 50% |  |'
    """
    shown = [_shown(cell, form) for cell, form in zip(cells, columns.values(), strict=True)]
    return f"| {' | '.join(shown)} |"


def _shown(cell: Cell, form: str) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else format(cell, form)


def as_markdown(table: Mapping[str, Any]) -> str:
    """A kept table as it was printed."""
    columns, rows = table["columns"], table["rows"]
    return "\n".join([f"{table['title']}\n", *head(columns), *(row(columns, cells) for cells in rows)])


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(values, indent=1) + "\n")
