"""Ctrl-C and SIGTERM while a run trains: the step is finished, and what is done is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from satdifuser.errors import UserError

AGAIN = 2.0
"""Seconds after which a further signal counts: torchrun passes on what the terminal has sent to all processes."""
CODE = 128  # of an exit by a signal, to which its number is added
Given = TypeVar("Given")


class Interrupted(KeyboardInterrupt):
    """A run has stopped as it was asked to; its text says where, and `code` is what the command exits with.

    `whole`: no step was in the middle, so the state can be kept.
    """

    def __init__(self, text: str = "", number: int = signal.SIGINT, whole: bool = False) -> None:
        super().__init__(text)
        self.code, self.whole = CODE + number, whole


class Stop:
    """Inside, SIGINT and SIGTERM are noted in `number`; a later one, or any `at_once`, raises `Interrupted`.

    Handlers are for the main thread alone, and one that somebody else has set (a batch system's, say) stays.
    """

    number: int | None = None

    def __init__(self, said: str = "") -> None:
        """`said` goes to the standard error when a signal is noted."""
        self._said, self._eager, self._since = said, False, 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) == usual:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that reads data: whoever has made it ends it
            return
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = number, now
            self._spare_workers()
            if not self._eager and self._said:
                with contextlib.suppress(OSError):
                    os.write(2, f"{self._said}\n".encode())  # print may be in the middle of a line
        elif not self._eager and now - self._since < AGAIN:
            return
        if self._eager or now - self._since >= AGAIN:
            raise Interrupted(number=self.number, whole=self._eager)

    def _spare_workers(self) -> None:
        """A signal to all processes ends the workers too; torch would make an error of that in the middle of a step."""
        children = getattr(signal, "SIGCHLD", None)
        if children is not None and children not in self._before:
            self._before[children] = signal.signal(children, signal.SIG_DFL)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, nothing is lost by stopping in the middle."""
        self._eager = True
        try:
            if self.number is not None:
                raise Interrupted(number=self.number, whole=True)
            yield
        finally:
            self._eager = False

    def reading(self, batches: Iterable[Given], alone: bool) -> Iterator[Given]:
        """The batches; there are no more where the signal has ended those who read them.

        A process that is `alone` does not wait for one when it is told to stop; several do their next step together.
        """
        rest = iter(batches)
        while True:
            try:
                with self.at_once() if alone else contextlib.nullcontext():
                    batch = next(rest)
            except StopIteration:
                return
            except UserError:
                raise
            except Exception:
                if self.number is None:
                    raise
                return
            yield batch
