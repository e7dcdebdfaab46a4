"""The journal of a unit: how many of its rows are on disk, and what must be known about them to go on or to finish.

One safetensors file, written aside and renamed. Rows beyond what it says are cut off when the work is taken up again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Journal:
    """`running` has each column's CRC-32C so far; `files`, once the unit is sealed, the files' sizes and checksums."""

    rows: int = 0
    running: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    checksums: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 0), np.uint32))
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    bands: NDArray[np.float64] | None = None

    @property
    def sealed(self) -> bool:
        return bool(self.files)

    def save(self, path: Path) -> None:
        from safetensors.numpy import save

        tensors = {f"label/{name}": np.ascontiguousarray(values) for name, values in self.labels.items()}
        tensors["checksums"] = np.ascontiguousarray(self.checksums)
        if self.bands is not None:
            tensors["bands"] = self.bands
        text = json.dumps({"rows": self.rows, "running": self.running, "files": self.files})
        partial = path.with_suffix(".partial")
        data = save(tensors, metadata={"journal": text})
        with partial.open("wb") as file:  # not safetensors' own writing, whose errors are not the system's
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Journal:
        """The journal at a path; an empty one where there is none or it cannot be read (the unit then begins anew)."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return cls()
        try:
            with safe_open(path, framework="np") as file:
                values = json.loads(file.metadata()["journal"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return cls(
                rows=int(values["rows"]),
                running={name: int(crc) for name, crc in values["running"].items()},
                files={key: (int(size), int(crc)) for key, (size, crc) in values["files"].items()},
                checksums=tensors["checksums"],
                labels={k.removeprefix("label/"): v for k, v in tensors.items() if k.startswith("label/")},
                bands=tensors.get("bands"),
            )
        except (SafetensorError, KeyError, TypeError, ValueError, OSError):
            return cls()


def compact(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Labels in the smallest type that holds them: a mask of classes and 255 takes one byte a pixel."""
    if name == "multilabel":
        return values.astype(np.uint8)
    if name != "mask" or not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    small = next(
        (kind for kind in (np.uint8, np.int16, np.int32) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max),
        np.int64,
    )
    return values.astype(small)


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Parts of a label column in the type that holds them all."""
    widest = np.result_type(*parts)
    return parts[0] if len(parts) == 1 else np.concatenate([part.astype(widest, copy=False) for part in parts])
