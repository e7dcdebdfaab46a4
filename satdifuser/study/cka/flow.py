"""A study of likeness, from its settings to its result: two sides -> rows -> CKA and shapes -> cka.json."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.analysis.cka import MinibatchCKA
from satdifuser.build import build_data, of_series, series_of
from satdifuser.data.splits.evenly import evenly
from satdifuser.engine.known import Known
from satdifuser.engine.progress import say
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Likeness, Place
from satdifuser.study.cka import sides as making
from satdifuser.study.cka.shapes import Shapes
from satdifuser.study.cka.sides import Asked, Side
from satdifuser.study.cka.streaming import FLAT, Stream, pooling_of
from satdifuser.study.folder import alone, changed
from satdifuser.study.places import places_of
from satdifuser.study.saved import FILES, load_file, plain, save

if TYPE_CHECKING:
    from satdifuser.data.base import LabelledDataset
    from satdifuser.settings.part import DataPart
    from satdifuser.settings.studies import CkaSettings

# What says where and how fast, and not what comes out.
PASSING = ("output", "overwrite")
ANOTHER = "give another output=, or overwrite=true to replace it"


def likeness(settings: CkaSettings, quiet: bool = False) -> Likeness:
    """Compare both sides, and write `cka.json`; what is there already, of the very same two, is read."""
    first, second = making.asked_of(settings.first), settings.second
    settings = settings.but(first=first, second=None if second is None else making.asked_of(second))
    folder = Path(settings.output).expanduser()
    with alone(folder):
        return _likeness(settings, folder, quiet)


def _likeness(settings: CkaSettings, folder: Path, quiet: bool) -> Likeness:
    began = time.monotonic()
    stream, same_one = opened(settings)
    key = _key(settings, stream)
    known = _known(folder, key, settings.overwrite)
    if known is not None:
        if not quiet:
            say(f"{folder} holds this comparison already")
        return known
    _enough_memory(stream, quiet)
    first, second = stream.sides[0], stream.sides[-1]
    rows, columns = places_of(first.spec), places_of(second.spec)
    cka, shapes = MinibatchCKA(len(rows), len(columns)), Shapes(stream, settings.cka.shapes)
    with torch.no_grad():
        for ids, given in stream.batches():
            if same_one:
                cka.add_alone(given[0])
            else:
                cka.add(given[0], given[1])
            shapes.add(ids, given)
    found = Likeness(
        first=first.name,
        second=second.name,
        rows=rows,
        columns=columns,
        values=cka.value,
        errors=cka.error,
        samples=cka.samples,
        batch=settings.cka.batch,
        pool=settings.cka.pool,
        split=settings.split,
        same=_architecture(rows) == _architecture(columns),
        shapes=shapes.found(),
        about={
            "settings": settings.plain(),
            "sides": [side.about for side in (first, second)],
            "device": str(stream.device),
            "seconds": round(time.monotonic() - began, 3),
            "key": key,
        },
    )
    save(found, folder)
    return found


def opened(settings: CkaSettings) -> tuple[Stream, bool]:
    """Both sides on the samples that they share, and whether they are one and the same, which is then read once."""
    asked = [settings.first] if settings.second is None else [settings.first, settings.second]
    for word in asked:
        if making.is_run(word):
            making.run_of(str(word))
    if settings.second is None and not making.is_run(settings.first):
        raise UserError("second is null: only a run has an origin, so say what to compare first with, as second=...")
    same_one = settings.first == settings.second
    data = _data_of(asked, settings)
    modules = settings.cka.modules
    found = [_side(word, data, settings) for word in asked[: 1 if same_one else 2]]
    if settings.second is None:
        found.append(making.origin_of(str(settings.first), data, modules))
    _known_kinds(found, modules)
    images = build_data(data, settings.split) if any(side.encoder is not None for side in found) else None
    if images is not None:
        _same_data(asked, data, images, settings.split)
        dates = series_of(images).dates
        for side in found:
            if side.encoder is not None:
                side.spec = of_series(side.spec, dates)
    for side in found:
        pooling_of(side.spec, settings.cka.pool)
    ids = evenly(_ids(found, images, settings.split), settings.cka.samples)
    return Stream(found, ids, images, settings.cka.pool, settings.cka.batch, settings.cka.workers), same_one


def _side(asked: Asked, data: DataPart, settings: CkaSettings) -> Side:
    modules = settings.cka.modules
    if isinstance(asked, list):
        return making.of_overrides(asked, data, modules, settings.seed)
    if making.is_store(asked):
        return making.of_store(asked, settings.split, modules)
    return making.of_run(asked, data, modules)


def _data_of(asked: Sequence[Asked], settings: CkaSettings) -> DataPart:
    """The data of a run, else those that a store was made of where an encoder is to read them too, else `data`."""
    run = next((word for word in asked if making.is_run(word)), None)
    if run is not None:
        return making.run_of(str(run)).data
    store = next((word for word in asked if making.is_store(word)), None)
    if store is None or all(making.is_store(word) for word in asked):
        return settings.data
    from satdifuser.store import FeatureStore

    known = FeatureStore(str(store)).attributes.get("configuration", {}).get("data")
    return settings.data if known is None else settings.but(data=known).data


def _same_data(asked: Sequence[Asked], data: DataPart, images: LabelledDataset, split: str) -> None:
    """Every run must have had the images that both sides are going to read."""
    for word in asked:
        if not making.is_run(word) or making.run_of(str(word)).data == data:
            continue
        other = Known.of({split: build_data(making.run_of(str(word)).data, split)})
        different = Known.of({split: images}).difference(other, split)
        if different is not None:
            raise UserError(
                f"{word} is of other data than the first side ({different}): compare runs on the same images"
            )


def _ids(found: Sequence[Side], images: LabelledDataset | None, split: str) -> list[str]:
    """The ids of the split, which all sides must have."""
    lists = [(side.name, side.ids) for side in found if side.ids is not None]
    if images is not None:
        lists.insert(0, ("the images", [images.sample_id(index) for index in range(len(images))]))
    name, ids = lists[0]
    assert ids is not None
    for other, theirs in lists[1:]:
        assert theirs is not None
        missing = sorted(set(ids) ^ set(theirs))
        if missing:
            raise UserError(
                f"split {split}: {name} and {other} are of different images ({len(ids)} and {len(theirs)}, such as"
                f" {missing[0]} in one of both): compare features of the same"
            )
    if not ids:
        raise UserError(f"split {split} of {name} has no samples")
    return list(ids)


def _known_kinds(found: Sequence[Side], modules: Any) -> None:
    """Each kind that is asked for must be one that some side has."""
    if isinstance(modules, str):
        return
    there = {place.kind for side in found for place in places_of(side.spec)}
    unknown = [kind for kind in modules if kind not in there]
    if unknown:
        raise UserError(f"cka.modules: no side has {unknown[0]}: there is {', '.join(sorted(there))} of what was asked")


def _architecture(places: Sequence[Place]) -> list[tuple[str, int, int]]:
    return [(str(place), place.channels, place.stride) for place in places]


def _key(settings: CkaSettings, stream: Stream) -> dict[str, Any]:
    """All that the numbers depend on."""
    kept = {name: value for name, value in settings.plain().items() if name not in (*PASSING, "data")}
    kept["cka"] = {name: value for name, value in kept["cka"].items() if name != "workers"}
    stored = [side.stored for side in stream.sides]
    key = {
        "settings": kept,
        "features": [{"spec": side.spec.to_dict(), "trained": side.weights} for side in stream.sides],
        "data": [asdict(Known.of({settings.split: data})) for data in (stream.images, *stored) if data is not None],
        "samples": hashlib.sha256("\n".join(stream.ids).encode()).hexdigest()[:16],
        "batches": "mixed",
    }
    made: dict[str, Any] = json.loads(json.dumps(plain(key)))
    return made


def _known(folder: Path, key: dict[str, Any], overwrite: bool) -> Likeness | None:
    """The comparison that a folder holds already; that of another two is an error, or goes."""
    path = folder / FILES[Likeness]
    others = [name for kind, name in FILES.items() if kind is not Likeness and (folder / name).exists()]
    if others:
        raise UserError(f"{folder} holds {others[0]}, what satdifuser probe has found: give another output=")
    if overwrite:
        path.unlink(missing_ok=True)
    if not path.is_file():
        return None
    found: Likeness = load_file(path, Likeness)
    different = changed(found.about.get("key", {}), key)
    if different:
        words = ", ".join(name.removeprefix("settings.") for name in different[:4])
        raise UserError(f"{folder} holds a comparison with another {words}: {ANOTHER}")
    return found


def _enough_memory(stream: Stream, quiet: bool) -> None:
    """Whole maps of a batch take memory, of which is told; more than there is would end in the middle."""
    if stream.pool != FLAT:
        return
    needed, there = stream.bytes(), _free(stream.device)
    if there is not None and needed > there:
        fits = int(stream.batch * there / needed)
        raise UserError(
            f"cka.pool=flat keeps the maps of {stream.batch} samples, {needed / 1e9:.1f} GB, and {there / 1e9:.1f} GB"
            f" are free: set cka.batch={max(4, fits)}, fewer taps, or cka.pool=grid4"
        )
    if not quiet:
        say(f"cka.pool=flat: the maps of a batch of {stream.batch} take {needed / 1e9:.2f} GB")


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
