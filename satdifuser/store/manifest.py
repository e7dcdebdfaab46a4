"""The manifest of a store: every file with its size and CRC-32C. What is not in it, or differs, is damage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from satdifuser.errors import UserError
from satdifuser.store.shards import crc32c

NAME = "manifest.json"


@dataclass
class Manifest:
    """Files by their path inside the store."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)

    def to_json(self) -> str:
        listed = {key: [size, f"{crc:08x}"] for key, (size, crc) in sorted(self.files.items())}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in listed.items())
        own = crc32c(np.frombuffer(lines.encode(), np.uint8))
        return f'{{"checksum": "crc32c", "of_this_list": "{own:08x}", "files": {{\n{lines}\n}}}}\n'

    @classmethod
    def from_json(cls, text: str, store: object) -> Manifest:
        """Read a manifest; a path in it that could lead out of the store is refused."""
        try:
            values: Mapping[str, Any] = json.loads(text)["files"]
            files = {key: (int(size), int(crc, 16)) for key, (size, crc) in values.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            files = {}
        for key in files:
            check_inside(key, store)
        if cls(files).to_json() != text:
            raise UserError(f"{store}: {NAME} is damaged: copy the store again, or extract it again")
        return cls(files)


def check_inside(key: str, store: object) -> None:
    """Refuse a path that is not plainly below the store."""
    path = PurePosixPath(key)
    odd = "\\" in key or ":" in key or "\x00" in key or key != str(path)
    if odd or path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"{store}: {NAME} names {key!r}, which is not a path inside the store: do not use this store")


def checked(root: Path, key: str) -> Path:
    """The place of a file of a store on disk; a link that leads out of the store is refused."""
    check_inside(key, root)
    path = root / key
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{root}: {key} is a link that leads out of the store: copy the file into its place")
    return path
