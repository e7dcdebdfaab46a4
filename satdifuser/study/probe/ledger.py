"""What probes have scored so far, one line each as it comes: a run that is killed goes on after the last whole line."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.engine.files import aside, writing
from satdifuser.errors import UserError
from satdifuser.study.folder import changed
from satdifuser.study.saved import FILES, made, plain

NAME, WORK = "points.jsonl", "work"
OWN = (NAME, "probe.json")
Arrays = dict[str, NDArray[Any]]


class Ledger:
    """`points.jsonl` (first the key of all that the answers depend on) and a folder with their numbers of each sample.

    What is in the folder `work` goes when all is done.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder, self.path, self.work = folder, folder / NAME, folder / WORK
        self.key: dict[str, Any] = json.loads(json.dumps(plain(key)))
        if any((folder / name).exists() for kind, name in FILES.items() if name not in OWN):
            raise UserError(f"{folder} holds what satdifuser cka has found: give another output=")
        with writing(folder):
            if overwrite:
                self.remove()
            self.values = self._read()
            if not self.path.is_file():
                shutil.rmtree(self.work, ignore_errors=True)
                self._append({"key": self.key})
            self.work.mkdir(exist_ok=True)

    def remove(self) -> None:
        """All that there is, so that no result of other settings is left."""
        for name in OWN:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def _read(self) -> dict[str, dict[str, Any]]:
        """Name -> values, of the lines that are whole and of these settings."""
        another = "give another output=, or overwrite=true to replace it"
        if not self.path.is_file():
            if (self.folder / "probe.json").exists():
                raise UserError(f"{self.folder} holds a probe.json, and not what it was made of: {another}")
            return {}
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        first = _line(lines[0]) if lines else None
        if first is None or "key" not in first:
            raise UserError(f"{self.path} is damaged (its first line says nothing of its settings): {another}")
        different = changed(first["key"], self.key)
        if different:
            words = ", ".join(name.removeprefix("settings.") for name in different[:4])
            raise UserError(f"{self.folder} holds probes with another {words}: {another}")
        rows = [_line(line) for line in lines[1:]]
        if rows and rows[-1] is None:  # of a process that was killed while it wrote
            with self.path.open("rb+") as file:
                file.truncate(len("".join(lines[:-1]).encode()))
        return {row["name"]: made(Any, row["values"]) for row in rows if row is not None and "name" in row}

    def _append(self, row: Mapping[str, Any]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self, name: str) -> bool:
        return name in self.values and self.arrays(name) is not None

    def add(self, name: str, values: Mapping[str, Any], statistics: NDArray[Any]) -> None:
        """A finished probe: its numbers for each sample first, then its line."""
        self.keep(name, {"statistics": statistics})
        self.values[name] = dict(values)
        self._append({"name": name, "values": plain(values)})

    def statistics(self, name: str) -> NDArray[np.float64]:
        found = self.arrays(name)
        if found is None:
            raise UserError(f"{self.work} has lost the numbers of {name} while it was read: start again")
        return found["statistics"]

    def keep(self, name: str, arrays: Arrays) -> None:
        """Arrays under a name, written aside."""
        path = self._file(name)
        with aside(path, path.with_suffix(".partial")) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def arrays(self, name: str) -> Arrays | None:
        """What was kept; None where it is not there, or damaged."""
        try:
            with np.load(self._file(name), allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except Exception:  # a damaged archive fails in many ways, and is made again
            return None

    def _file(self, name: str) -> Path:
        words = "".join(letter if letter.isalnum() else "-" for letter in name)[:120]
        return self.work / f"{words}-{zlib.crc32(name.encode()):08x}.npz"

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


def _line(text: str) -> dict[str, Any] | None:
    """A line that was written to its end."""
    try:
        row = json.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) and text.endswith("\n") else None
