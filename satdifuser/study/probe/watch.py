"""How far a study is: a bar, or a line a minute where there is no terminal."""

from __future__ import annotations

from satdifuser.engine.progress import Shown, bar


class Watch(Shown):
    """The bar of one part of the work."""

    def __init__(self, what: str, unit: str, total: int, done: int = 0) -> None:
        self._bar, self._what = bar(unit), what
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._done = done

    def step(self, count: int = 1, name: str = "") -> None:
        self._done += count
        self._bar.update(self._task, completed=self._done, description=f"{self._what} {name}".rstrip())
