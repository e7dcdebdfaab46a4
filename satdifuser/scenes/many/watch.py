"""A bar over scenes, and a line for each that ends, wherever it is done: it looks at their notes."""

from __future__ import annotations

from collections.abc import Sequence

from satdifuser.engine.progress import Watch
from satdifuser.scenes.many.work import Item

LOOK_SECONDS = 2.0


class Scenes(Watch):
    """It begins with what is open and ends with what is not."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._open = [item for item in items if item.open]
        super().__init__("scenes", "scenes", len(self._open), LOOK_SECONDS)

    def look(self) -> None:
        still = []
        for item in self._open:
            state = item.state
            if state is None:
                still.append(item)
            elif "error" in state:
                self.ended(f"{item.key}: FAILED: {state['error']}")
            else:
                self.ended(f"{item.key}: {state.get('windows', 0)} windows, {state.get('seconds', 0):.0f} s")
        self._open = still
