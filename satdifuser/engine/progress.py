"""Progress on the terminal: a bar with rate and time left, and a line for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True)


class Rate(ProgressColumn):
    """Items a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self.unit}/s" if task.speed else "")


def bar(unit: str, quiet: bool = False) -> Progress:
    """The project's progress bar; where there is no terminal it prints nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(unit), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)


class TrainProgress:
    """The bar of a training run."""

    def __init__(self, total: int, done: int, quiet: bool) -> None:
        self._bar, self._quiet = bar("steps", quiet), quiet
        self._task = self._bar.add_task("training", total=total, completed=done)

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, step: int, loss: float) -> None:
        self._bar.update(self._task, completed=step, description=f"training  loss {loss:.3f}")

    def say(self, step: int, row: Mapping[str, float]) -> None:
        if not self._quiet:
            scores = "  ".join(
                f"{name.removeprefix('val/')} {v:.4f}" for name, v in row.items() if name.startswith("val/")
            )
            console.print(f"step {step}  {scores}", highlight=False)
