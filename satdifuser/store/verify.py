"""Is every byte of a store what was written? And if not, which samples are hit."""

from __future__ import annotations

import re
from collections.abc import Callable

from satdifuser.errors import UserError
from satdifuser.store.checks import PIECE, read
from satdifuser.store.files import StoreFiles, misfit, read_manifest
from satdifuser.store.manifest import Manifest
from satdifuser.store.opened import open_files
from satdifuser.store.reader import FeatureStore
from satdifuser.store.shards import crc32c


def verify(path: str, done: Callable[[int], None] = lambda count: None) -> list[str]:
    """One line for each file that is damaged; `done` is told of the bytes that have been read.

    Where all that are listed are sound, the description has the last word: what it requires must be listed.
    """
    files = open_files(path)
    manifest = read_manifest(files)
    faults, there = {}, files.sizes(manifest.files)
    for key, (size, crc) in manifest.files.items():
        fault = misfit(size, there.get(key)) or _fault(files, key, size, crc, done)
        if fault is not None:
            faults[key] = fault
    if not faults:
        FeatureStore(path)
    return [f"{key} {fault}{_samples(path, manifest, key, faults)}" for key, fault in faults.items()]


def _fault(files: StoreFiles, key: str, size: int, crc: int, done: Callable[[int], None]) -> str | None:
    try:
        found = 0
        for first in range(0, size, PIECE):
            piece = read(files, key, first, min(PIECE, size - first))
            found = crc32c(piece, found)
            done(len(piece))
    except UserError as error:
        return str(error).partition(f"{key} ")[2].partition(":")[0] or str(error)
    except OSError as error:
        return f"cannot be read ({error})"
    return None if found == crc else "is damaged (its checksum differs)"


def _samples(path: str, manifest: Manifest, key: str, faults: dict[str, str]) -> str:
    """The samples that a damaged shard hits, from the checksums of its rows."""
    parts = re.fullmatch(r"(.+)/c\.(\d+)(?:\.0)*", key)
    if parts is None or any(other.split("/")[0] in ("checksum", "id", "zarr.json") for other in faults):
        return ""
    try:
        store = FeatureStore(path, complete=False)
    except (UserError, ValueError, KeyError, IndexError):
        return ""
    names = [column.name for column in store.columns]
    if parts[1] not in names:
        return ""
    column, unit = store.columns[names.index(parts[1])], store.units[int(parts[2])]
    sums, ids = store.column("checksum"), store.ids()
    assert sums is not None
    hit = []
    for row in range(unit.count):
        try:
            data = read(store.files, key, row * column.row_bytes, column.row_bytes)
        except (UserError, OSError):
            hit.append(unit.first + row)
            continue
        if crc32c(data) != sums[unit.first + row, names.index(column.name)]:
            hit.append(unit.first + row)
    if not hit:
        return ": no sample is hit, only what lies around them"
    shown = ", ".join(ids[row] for row in hit[:8]) + (f" and {len(hit) - 8} more" if len(hit) > 8 else "")
    return f": tap {column.tap} of {len(hit)} of its {unit.count} samples ({shown})"
