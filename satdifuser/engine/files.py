"""The small files of a run: written aside and renamed, JSON without NaN, and damage told in one line."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError


class DamagedError(UserError):
    """A file that was written by this project and cannot be read any more."""


AGAIN = "start again: what was written before is whole"
STRAY_SECONDS = 10.0  # on a disk that machines share, a process that is not one of this machine's may be writing
GOES_ON = "start again with resume=true: the last checkpoint is whole"


@contextlib.contextmanager
def writing(path: str | Path, kept: str = AGAIN) -> Iterator[None]:
    """Errors of the disk in one line, which says what is kept."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
        if full:
            raise UserError(f"the disk filled up while writing {path}: free space and {kept}") from error
        reason = error.strerror or str(error)
        raise UserError(
            f"{path} could not be written ({reason}): mend that or give another folder, and {kept}"
        ) from error


@contextlib.contextmanager
def aside(path: Path, partial: Path, kept: str = AGAIN) -> Iterator[Path]:
    """Where to write what then takes its place at once; what was not written whole goes, least it fills a full disk."""
    with writing(path, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def stamp(path: str | Path) -> tuple[int, int] | None:
    """When a file was written and how large it is, without opening it; None where there is none here."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def write_text(path: Path, text: str) -> Path:
    """Write aside, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write the same
    with aside(path, partial), partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def json_text(values: Any, indent: int | None = None) -> str:
    """JSON that any reader takes: NaN and infinity, which it has no words for, are null.

    >>> json_text({"loss": 0.5, "norm": float("inf")})
    '{"loss": 0.5, "norm": null}'
    """
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path, kind: type, remedy: str) -> Any:
    """What a file holds, which must be of this kind; else the error names the file and the remedy."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged ({type(error).__name__}: {' '.join(str(error).split())}): {remedy}"
        ) from None
    if not isinstance(found, kind):
        raise DamagedError(f"{path} is damaged (it holds a {type(found).__name__}, not a {kind.__name__}): {remedy}")
    return found


def remove_strays(folder: Path) -> None:
    """What `write_text` leaves half written when its process is killed: files of processes that are no more."""
    for part in folder.glob("*.partial"):
        number = part.name.split(".")[-2]
        with contextlib.suppress(OSError):  # another process removes it, too
            if number.isdigit() and not _lives(int(number)) and time.time() - part.stat().st_mtime > STRAY_SECONDS:
                part.unlink()


def _lives(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
