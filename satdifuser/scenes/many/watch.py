"""A bar over scenes, and a line for each that ends, wherever it is done: it looks at their notes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Self

from satdifuser.engine.progress import Shown, bar, say
from satdifuser.scenes.many.work import Item

LOOK_SECONDS = 2.0


class Watch(Shown):
    """It begins with what is open and ends with what is not."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._open, self._bar = [item for item in items if item.open], bar("scenes")
        self._task = self._bar.add_task("scenes", total=len(self._open))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._thread.start()
        return self

    def __exit__(self, *ended: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._say_ended()
        super().__exit__(*ended)

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._say_ended()

    def _say_ended(self) -> None:
        still = []
        for item in self._open:
            state = item.state
            if state is None:
                still.append(item)
                continue
            self._bar.advance(self._task)
            if "error" in state:
                say(f"{item.key}: FAILED: {state['error']}")
            else:
                say(f"{item.key}: {state.get('windows', 0)} windows, {state.get('seconds', 0):.0f} s")
        self._open = still
