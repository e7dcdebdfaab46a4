"""What stands between a run and a wrong result: numbers that are none, and a disk that takes no more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from satdifuser.engine import files
from satdifuser.engine.run import RunFolder


def unsound(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that has NaN or infinite values; None if all are numbers."""
    sound = [value.detach().isfinite().all() for value in tensors.values()]
    if not sound or bool(torch.stack(sound).all()):  # a GPU is waited for once
        return None
    return next(name for name, fine in zip(tensors, sound, strict=True) if not fine)


@contextlib.contextmanager
def writing(folder: RunFolder, what: Path) -> Iterator[None]:
    """Errors of the disk in one line, which says what a run still has."""
    from safetensors import SafetensorError

    kept = "start again: there is no checkpoint yet"
    if folder.last.is_file():
        kept = "add resume=true to go on from the last checkpoint, which is whole"
    with files.writing(what, kept):
        try:
            yield
        except SafetensorError as error:  # as which it passes errors of the disk on
            raise OSError(str(error)) from error
