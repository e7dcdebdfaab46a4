"""What there is to do: each scene, or each of its parts, with its output and the notes that workers leave of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satdifuser.engine.files import stamp, write_text
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found

NOTES = "notes"


@dataclass(frozen=True)
class Item:
    """A scene's part: its output, and what is known of it below `notes`."""

    found: Found
    part: int
    parts: int
    out: Path
    notes: Path

    @property
    def key(self) -> str:
        return self.found.name if self.parts == 1 else f"{self.found.name}.{self.part + 1}of{self.parts}"

    @property
    def lock(self) -> Path:
        return self.notes / f"{self.key}.lock"

    @property
    def note(self) -> Path:
        return self.notes / f"{self.key}.json"

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What a worker has noted: `seconds`, `pixels`, `windows`, or an `error`; None while nobody has.

        A note counts for the very scene that it is of, and of what is done for as long as the output is there, whole or
        half done.
        """
        try:
            found = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or any(found.get(name) != value for name, value in self._scene.items()):
            return None
        there = self.out.exists() or (self.parts > 1 and self.out.with_name(self.out.name + ".partial").exists())
        return found if there or "error" in found else None

    @property
    def open(self) -> bool:
        return self.state is None

    def tell(self, **values: Any) -> None:
        write_text(self.note, json.dumps({**self._scene, **values}) + "\n")

    @property
    def _scene(self) -> dict[str, Any]:
        """The very scene that a note is of."""
        when = stamp(self.found.words)
        return {"scene": self.found.words, "stamp": None if when is None else list(when)}


def items_of(found: Sequence[Found], parts: int, out: Path, suffix: str, notes: Path) -> list[Item]:
    """All parts of all scenes. One scene goes to the file that was asked for, several to files of their names."""
    names = [one.name.casefold() for one in found]  # some disks know no capitals
    twice = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    if twice is not None:
        same = [one.words for one in found if one.name.casefold() == twice]
        raise UserError(f"{same[0]} and {same[1]} would both be written to {twice}{suffix}: give them apart")
    files = [out if len(found) == 1 and out.suffix == suffix else out / f"{one.name}{suffix}" for one in found]
    return [
        Item(one, part, parts, file, notes) for one, file in zip(found, files, strict=True) for part in range(parts)
    ]
