"""The last step of a store: labels joined, metadata and manifest written, and the folder renamed to its place."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satdifuser.errors import UserError
from satdifuser.store import coordinates, statistics
from satdifuser.store.coordinates import small
from satdifuser.store.journal import Journal, joined
from satdifuser.store.layout import WIDE, files_key
from satdifuser.store.manifest import NAME, Manifest
from satdifuser.store.place import LocalPlace, RemotePlace
from satdifuser.store.plan import StorePlan
from satdifuser.store.shards import ShardWriter, crc32c, sharded_metadata

DIMENSIONS = {"mask": ("mask_y", "mask_x"), "multilabel": ("class",), "metadata": ("number",), "dates": ("time",)}


def finish(
    place: LocalPlace | RemotePlace, plan: StorePlan, *, overwrite: bool = False, bands: statistics.Sums | None = None
) -> None:
    """Every unit is sealed: complete the store and put it in its place."""
    import zarr

    root = place.root
    journals = [Journal.load(place.partial / "progress" / f"{unit.number}.safetensors") for unit in plan.units]
    unsealed = [unit.number for unit, journal in zip(plan.units, journals, strict=True) if not journal.sealed]
    if unsealed:
        raise UserError(f"{len(unsealed)} of {len(plan.units)} units of {place} are not written: start again to go on")
    manifest = Manifest({key: file for journal in journals for key, file in journal.files.items()})
    attributes = plan.attributes()
    found = [journal.bands for journal in journals if journal.bands is not None] if bands is None else [bands]
    if found:
        names = plan.bands or [str(number) for number in range(found[0].shape[2])]
        attributes["bands"] = statistics.described(statistics.join(found), plan.splits, names)
    group: Any = zarr.open_group(root, mode="a", zarr_format=3)
    for column in plan.columns:
        _create(
            group, column.name, plan, column.shape, column.dtype, column.dimensions, plan.units.chunk(column.row_bytes)
        )
        if column.part == "" and plan.form.dtype == "bfloat16":
            group[column.name].attrs["bits"] = "bfloat16"  # a float32 is these 16 bits and 16 zeros
    ids = np.char.encode(np.array([name for _, name in plan.rows]), "utf-8")  # bytes: every reader of Zarr has them
    small(group, "id", ids.view(np.uint8).reshape(len(ids), -1), ("sample", "byte"))
    small(group, "split", np.array([split for split, _ in plan.rows], np.uint8), ("sample",))
    checksums = [np.concatenate([journal.checksums for journal in journals])]
    for name in _label_names(journals, plan):
        sums = _label(group, root, name, [journal.labels[name] for journal in journals], plan, manifest)
        if sums is not None:
            attributes["columns"].append(name)
            checksums.append(np.array(sums, np.uint32)[:, None])
    small(group, "checksum", np.concatenate(checksums, 1).astype(np.uint32), ("sample", "column"))
    coordinates.write(group, plan, attributes)
    group.attrs.update(attributes)
    complete(root, manifest)
    place.finish(overwrite)


def _label_names(journals: list[Journal], plan: StorePlan) -> list[str]:
    """Labels that all units have, in one shape."""
    first = journals[0].labels
    for journal, unit in zip(journals, plan.units, strict=True):
        name = plan.rows[unit.first][1]
        odd = sorted(first.keys() ^ journal.labels.keys())
        if odd:
            raise UserError(
                f"only some samples have the label {odd[0]!r} (see {name}): a store holds labels for all or none"
            )
        for label, values in journal.labels.items():
            if values.shape[1:] != first[label].shape[1:]:
                raise UserError(
                    f"sample {name} has {label} {values.shape[1:]}, but sample {plan.rows[0][1]} has"
                    f" {first[label].shape[1:]}: samples of a data set must have one size"
                )
    return sorted(first)


def _label(
    group: Any, root: Path, name: str, parts: list[NDArray[Any]], plan: StorePlan, manifest: Manifest
) -> list[int] | None:
    """Write a label; the checksums of its rows where it is wide enough to be read row by row."""
    widest = np.result_type(*parts)
    shape = parts[0].shape[1:]
    row_bytes = widest.itemsize * int(np.prod(shape, dtype=int))
    of_dates = ("time",) if name == "metadata" and len(shape) == 2 else ()
    of_pixels = ("target_y", "target_x") if name == "target" and len(shape) == 2 else ()
    dimensions = ("sample", *of_dates, *of_pixels, *DIMENSIONS.get(name, ()))
    if row_bytes <= WIDE:
        small(group, name, joined(parts), dimensions)
        return None
    chunk = plan.units.chunk(row_bytes)
    while plan.units.size % chunk:
        chunk //= 2
    _create(group, name, plan, shape, widest.name, dimensions, chunk)
    sums: list[int] = []
    for unit, values in zip(plan.units, parts, strict=True):
        key = files_key(name, unit.number, 1 + len(shape))
        shard = ShardWriter(root / key, row_bytes, chunk, plan.units.size)
        try:
            sums += shard.append(values.astype(widest, copy=False))
            manifest.files[key] = shard.seal()
        finally:
            shard.close()
    return sums


def _create(group: Any, name: str, plan: StorePlan, shape: Any, dtype: str, dimensions: Any, chunk: int) -> None:
    if name not in group:
        group.create_array(
            name,
            **sharded_metadata(
                samples=plan.samples, shape=shape, dtype=dtype, chunk=chunk, unit=plan.units.size, dimensions=dimensions
            ),
        )


def complete(root: Path, manifest: Manifest) -> None:
    """Add the files that are not listed yet, make sure of all, and write the manifest last."""
    import zarr

    for left in [*root.rglob("*.partial"), *root.rglob("*.part")]:  # of a kill
        left.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not in Zarr's specification yet, but xarray and Zarr read it
        zarr.consolidate_metadata(root, zarr_format=3)
    for file in sorted(root.rglob("*")):
        key = file.relative_to(root).as_posix()
        if file.is_file() and key not in manifest.files and key != NAME:
            data = np.fromfile(file, np.uint8)
            manifest.files[key] = (len(data), crc32c(data))
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    partial = root / f"{NAME}.partial"
    with partial.open("w") as text:
        text.write(manifest.to_json())
        text.flush()
        os.fsync(text.fileno())
    partial.replace(root / NAME)
