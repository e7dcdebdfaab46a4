"""New stores from old ones: several joined to one, or one with fewer taps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from satdifuser.bank import BankError, BankSpec
from satdifuser.errors import UserError
from satdifuser.store import statistics
from satdifuser.store.coordinates import Place, places_of, small
from satdifuser.store.disk import disk_errors, lock
from satdifuser.store.files import located
from satdifuser.store.finish import complete
from satdifuser.store.manifest import NAME, Manifest, checked
from satdifuser.store.place import place_of
from satdifuser.store.plan import StorePlan
from satdifuser.store.reader import FeatureStore, StoredFeatures
from satdifuser.store.writer import StoreWriter

MEMORY = 256 * 2**20  # that rows on their way may take


def merge(out: str | Path, paths: Sequence[str]) -> StorePlan:
    """Join stores of one spec and form; a split gets the samples of all that have it, in the order given."""
    place = place_of(out)
    if place.exists():
        raise UserError(f"{out} already exists: give another name")
    stores = [FeatureStore(path) for path in paths]
    first = stores[0]
    for other in stores[1:]:
        _check_same(first, other)
    splits = list(dict.fromkeys(split for store in stores for split in store.splits))
    parts = [
        (split, store.split(split, in_memory=False)) for split in splits for store in stores if split in store.splits
    ]
    ids = {split: [name for part, data in parts if part == split for name in data.ids] for split in splits}
    _check_unique(ids, paths)
    plan = StorePlan(
        first.spec,
        first.form,
        ids=ids,
        labels=first.labels,
        identity={split: _identity(split, stores) for split in splits},
        config={"merged": [store.attributes["configuration"] for store in stores]},
        skipped=[sample for store in stores for sample in store.attributes.get("skipped", ())],
        bands=first.attributes.get("bands", {}).get("names", ()),
        places=lambda: _places(stores, splits),
    )
    step = max(1, MEMORY // first.form.bytes_per_sample(first.spec))
    sums = _bands(stores, splits)
    with StoreWriter(out, plan, bands=sums) as writer:
        for rows in writer.todo:
            for data, indices in _rows([data for _, data in parts], rows, step):
                batch = data.packed(indices)
                writer.append(batch.pop("bank"), batch)
    return plan


def prune(path: str, out: str | Path, timesteps: Sequence[int] | None, taps: Sequence[str] | None) -> BankSpec:
    """The same store without some taps. Files are linked where the disk can, so that it costs no space."""
    store = FeatureStore(path)
    if "://" in store.path:
        raise UserError(f"{store.path}: prune works on a store on disk: copy it first")
    try:
        spec = store.spec.select(timesteps=timesteps, names=taps)
    except BankError as error:
        raise UserError(f"{store.path}: {error}") from None
    out = Path(located(out))
    if out.exists():
        raise UserError(f"{out} already exists: give another name")
    partial = out.with_name(out.name + ".partial")
    with disk_errors(out):
        partial.mkdir(parents=True, exist_ok=True)
        held = lock(partial / "lock", out)
        root = partial / "store"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        _prune(store, spec, root)
        if store.files.elsewhere() or not store.same():
            raise store.replaced()
        root.rename(out)
        held.close()
        shutil.rmtree(partial)
    return spec


def _prune(store: FeatureStore, spec: BankSpec, root: Path) -> None:
    import zarr

    columns = store.form.columns(spec)
    kept = {column.name for column in columns}
    dropped = {column.name for column in store.columns} - kept | {"checksum", "zarr.json", NAME}
    manifest = Manifest()
    for key, file in store.manifest.files.items():
        if key.split("/")[0] not in dropped:
            _link(checked(Path(store.path), key), root / key)
            manifest.files[key] = file
    group: Any = zarr.open_group(root, mode="a", zarr_format=3)
    listed = store.attributes["columns"]
    places = [number for number, name in enumerate(listed) if name not in dropped]
    names = [listed[place] for place in places]
    group.attrs.update({**store.attributes, "spec": spec.to_dict(), "columns": names})
    sums = store.column("checksum")
    assert sums is not None
    small(group, "checksum", sums[:, places], ("sample", "column"))
    complete(root, manifest)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _check_same(first: FeatureStore, other: FeatureStore) -> None:
    different = first.spec.differences(other.spec)
    if first.form != other.form:
        different = [f"{first.form.words} and {other.form.words}"]
    elif first.labels != other.labels:
        different = [f"classes {first.labels.classes} and {other.labels.classes}"]
    if different:
        raise UserError(f"{first.path} and {other.path} cannot be joined: {'; '.join(different[:3])}")


def _check_unique(ids: dict[str, list[str]], paths: Sequence[str]) -> None:
    for split, names in ids.items():
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise UserError(f"sample {name} of {split} is there twice in {', '.join(map(str, paths))}")
            seen.add(name)


def _identity(split: str, stores: Sequence[FeatureStore]) -> dict[str, Any]:
    found = [dict(store.data[split]) for store in stores if split in store.splits]
    return found[0] if len(found) == 1 else {"merged": found}


def _places(stores: Sequence[FeatureStore], splits: Sequence[str]) -> dict[str, dict[str, Place]]:
    found: dict[str, dict[str, Place]] = {split: {} for split in splits}
    for store in stores:
        for split, places in places_of(store).items():
            found[split].update(places)
    return found


def _bands(stores: Sequence[FeatureStore], splits: Sequence[str]) -> Any:
    """The band statistics of all, if all have them of the same bands."""
    described = [found for store in stores if (found := store.attributes.get("bands"))]
    if len(described) < len(stores) or any(found["names"] != described[0]["names"] for found in described):
        return None
    return statistics.join([statistics.restored(found, splits) for found in described])


def _rows(parts: Sequence[StoredFeatures], rows: range, step: int) -> Iterator[tuple[StoredFeatures, list[int]]]:
    """Which rows of which part make up a range of the joined rows."""
    first = 0
    for part in parts:
        stop = first + len(part)
        low, high = max(rows.start, first), min(rows.stop, stop)
        for begin in range(low, high, step):
            yield part, list(range(begin - first, min(begin + step, high) - first))
        first = stop
