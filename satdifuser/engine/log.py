"""The log of a run's steps: a row of JSON for each, and TensorBoard's curves if they are wanted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from satdifuser.engine.files import GOES_ON, writing
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

    folder = run.path / "tensorboard"
    with writing(folder, GOES_ON):
        board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(row: Row) -> None:
        run.log(row)
        with writing(folder, GOES_ON):
            for name, value in row.items():
                if name != "step":
                    board.add_scalar(name, value, row["step"])

    try:
        yield write
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong before is what is told
            board.close()
        raise
    with writing(folder, GOES_ON):
        board.close()


def check_scores(scores: Mapping[str, float], monitor: str, where: str) -> None:
    """The loss and the score that a run is judged by must be numbers: no checkpoint is better than NaN."""
    for name in ("loss", monitor):
        if not math.isfinite(scores[name]):
            raise UserError(
                f"{name} is {scores[name]} {where}: look at the labels of that split (all the same, or none that"
                " count?), or lower trainer.lr"
            )


def check_loss(value: float, step: int, remedy: str) -> None:
    if not math.isfinite(value):
        raise UserError(f"the loss became {value} at step {step}: {remedy}")
