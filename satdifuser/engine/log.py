"""The log of a run's steps: a row of JSON for each, and TensorBoard's curves if they are wanted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.optional import without

Row = Mapping[str, Any]


@contextlib.contextmanager
def logged(run: RunFolder, step: int, *, main: bool, tensorboard: bool) -> Iterator[Callable[[Row], None]]:
    """What writes a row, from `step` on: later rows are of a run that was killed, and will be logged again."""
    if not main:
        yield lambda row: None
        return
    run.forget_after(step)
    if not tensorboard or without("tensorboard", "the log is metrics.jsonl alone, without its curves"):
        yield run.log
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1) as board:

        def write(row: Row) -> None:
            run.log(row)
            for name, value in row.items():
                if name != "step":
                    board.add_scalar(name, value, row["step"])

        yield write


def check_loss(value: float, step: int, remedy: str) -> None:
    if not math.isfinite(value):
        raise UserError(f"the loss became {value} at step {step}: {remedy}")
