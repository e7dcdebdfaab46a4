"""How far a study is: a bar, or a line a minute where there is no terminal."""

from __future__ import annotations

import time

from satdifuser.engine.progress import QUIET_SECONDS, Shown, bar, console, say


class Watch(Shown):
    """The bar of one part of the work."""

    def __init__(self, what: str, unit: str, total: int, done: int = 0) -> None:
        self._bar, self._what, self._unit = bar(unit), what, unit
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._total, self._done, self._said = total, done, time.monotonic()

    def step(self, count: int = 1, name: str = "") -> None:
        self._done += count
        self._bar.update(self._task, completed=self._done, description=f"{self._what} {name}".rstrip())
        now = time.monotonic()
        if not console.is_terminal and now - self._said >= QUIET_SECONDS:
            self._said = now
            say(f"{self._what}: {self._done} of {self._total} {self._unit}")
