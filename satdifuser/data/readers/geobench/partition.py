"""Which samples a split of GEO-Bench has: a partition is a file of names beside them."""

from __future__ import annotations

import json
from pathlib import Path

from satdifuser.data.files.fitting import AGAIN
from satdifuser.data.files.names import name_fault, shown
from satdifuser.errors import UserError, nearest

SPLITS = {"train": "train", "val": "valid", "test": "test"}


def names_in(folder: Path, partition: str, split: str) -> list[str]:
    """The samples of a split, as the partition has them."""
    if split not in SPLITS:
        raise UserError(f"GEO-Bench has no split {split!r}: it has {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if not folder.is_dir():
        raise UserError(
            f"{shown(folder.absolute())} is no folder: set GEO_BENCH_DIR, or data.root, to the folder that holds"
            " classification_v1.0 and segmentation_v1.0, or data.folder"
        )
    file = folder / f"{partition}_partition.json"
    if not file.is_file():
        known = sorted(path.name.removesuffix("_partition.json") for path in folder.glob("*_partition.json"))
        raise UserError(
            f"{shown(folder)} has no partition {partition!r}: it has {', '.join(known) or f'none, so {AGAIN}'}"
            f"{nearest(partition, known)}"
        )
    try:
        names = json.loads(file.read_text("utf-8"))[SPLITS[split]]
        good = all(isinstance(name, str) and Path(name).name == name and name_fault(name) is None for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(file)} cannot be read as a partition ({type(error).__name__}): {AGAIN}") from error
    if not isinstance(names, list) or not names or not good:
        raise UserError(f"{shown(file)} has no samples for {split}, or names that are no names of files: {AGAIN}")
    return names
