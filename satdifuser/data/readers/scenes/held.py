"""Scenes that are opened where they are read: by each process and thread for itself, and few at once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from satdifuser.scenes.scene import Found, Reading

if TYPE_CHECKING:
    from satdifuser.scenes.scene import Scene

MOST = 8  # scenes that a thread holds open


class Held:
    """Of each scene what opens it; what is open stays in the process that opened it."""

    def __init__(self, found: Sequence[Found], reading: Reading) -> None:
        self.found, self.reading = list(found), reading
        self._open: dict[tuple[int, int], OrderedDict[int, Scene]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, number: int) -> Scene:
        from satdifuser.scenes.source import open_scene

        mine = self._open.setdefault((os.getpid(), threading.get_ident()), OrderedDict())
        if number not in mine:
            mine[number] = open_scene(self.found[number], self.reading)
        mine.move_to_end(number)
        if len(mine) > MOST:
            mine.popitem(last=False)[1].close()
        return mine[number]
