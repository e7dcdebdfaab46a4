"""Progress on the terminal: a bar with rate and time left, and a line for each evaluation."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)
FIRST_SECONDS, QUIET_SECONDS = 10.0, 60.0  # until the first line, and between lines, where there is no bar


def say(text: str) -> None:
    """A line for the user as it is: paths and ids may have brackets, and are not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class Rate(ProgressColumn):
    """Items a second, or `each` times as much."""

    def __init__(self, unit: str, each: float = 1.0) -> None:
        super().__init__()
        self.unit, self.each = unit, each

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * self.each:.1f} {self.unit}/s" if task.speed else "")


def live() -> bool:
    """Whether a bar can be drawn: on a terminal, and not in a file, whatever the environment says of colours."""
    file = console.file
    return console.is_terminal and not console.is_dumb_terminal and hasattr(file, "isatty") and file.isatty()


class Reported(Progress):
    """A bar on a terminal; elsewhere a line of a task that goes on, the first soon and then one a minute."""

    def __init__(self, *columns: ProgressColumn, unit: str, quiet: bool) -> None:
        super().__init__(*columns, console=console, disable=quiet or not live(), transient=True)
        self._unit, self._lines = unit, not quiet and not live()
        self._due = time.monotonic() + FIRST_SECONDS

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if not self._lines or now < self._due:
            return
        self._due = now + QUIET_SECONDS
        task = next(task for task in self.tasks if task.id == task_id)
        total = "" if task.total is None else f"/{task.total:.0f}"
        rate = f", {task.speed:.1f} {self._unit}/s" if task.speed else ""
        left = task.time_remaining
        end = "" if left is None or task.finished else f", {left / 60:.0f} min left"
        say(f"{task.description}: {task.completed:.0f}{total} {self._unit}{rate}{end}")


def bar(unit: str, quiet: bool = False) -> Progress:
    """The project's progress bar; where there is no terminal it is a line a minute."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(unit), TimeRemainingColumn())
    return Reported(*columns, unit=unit, quiet=quiet)


class Shown:
    """What shows its bar inside a `with`."""

    _bar: Progress

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class Watch(Shown):
    """A bar over work that others may do, and a line for each piece that ends: it looks every `seconds`.

    Those who inherit say in `look` what has ended since the last one.
    """

    def __init__(self, unit: str, name: str, total: int, seconds: float) -> None:
        self._bar = bar(unit)
        self._task = self._bar.add_task(name, total=total)
        self._seconds, self._stop = seconds, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
        super().__exit__(kind, error, trace)

    def _work(self) -> None:
        while not self._stop.wait(self._seconds):
            self.look()

    def ended(self, text: str) -> None:
        self._bar.advance(self._task)
        say(text)

    def look(self) -> None:
        """Call `ended` for each piece that has ended since the last look."""
        raise NotImplementedError


class ExtractProgress(Shown):
    """The bar of an extraction: images and bytes a second, time and space left; a line a minute without a terminal."""

    def __init__(self, total: int, done: int, sample_bytes: int, folder: Path, process: str | None = "") -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate("images"),
            Rate("MB", sample_bytes / 1e6),
            TimeRemainingColumn(),
            TextColumn("{task.fields[free]}"),
        )
        self._quiet = process is None
        self._bar = Progress(*columns, console=console, disable=self._quiet or not live(), transient=True)
        self._name, self._folder, self._bytes = f"extracting{process or ''}", folder, sample_bytes
        self._task = self._bar.add_task(self._name, total=total, completed=done, free="")
        self._total, self._done, self._began = total, done, done
        self._start = self._said = time.monotonic()

    def advance(self, images: int) -> None:
        self._done += images
        free = f"{shutil.disk_usage(self._folder).free / 1e9:.0f} GB free"
        self._bar.update(self._task, completed=self._done, free=free)
        now = time.monotonic()
        if not self._quiet and not live() and now - self._said >= QUIET_SECONDS:
            self._said = now
            rate = (self._done - self._began) / (now - self._start)
            left = (self._total - self._done) / rate
            speed = f"{rate:.1f} images/s, {rate * self._bytes / 1e6:.0f} MB/s, {left / 60:.0f} min left, {free}"
            say(f"{self._name} {self._done}/{self._total}: {speed}")


class TrainProgress(Shown):
    """The bar of a training run."""

    def __init__(self, total: int, done: int, quiet: bool) -> None:
        self._bar, self._quiet = bar("steps", quiet), quiet
        self._task = self._bar.add_task("training", total=total, completed=done)

    def step(self, step: int, loss: float) -> None:
        self._bar.update(self._task, completed=step, description=f"training  loss {loss:.3f}")

    def say(self, step: int, row: Mapping[str, float]) -> None:
        if not self._quiet:
            scores = "  ".join(
                f"{name.removeprefix('val/')} {v:.4f}" for name, v in row.items() if name.startswith("val/")
            )
            say(f"step {step}  {scores}")
