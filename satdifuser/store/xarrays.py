"""A feature store as an xarray data set: numbers in float32 in whatever form they are kept, by the ids of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.bank import BankError, BankSpec, Tap
from satdifuser.errors import UserError
from satdifuser.store.coordinates import places_of, statistics_of
from satdifuser.store.files import damaged
from satdifuser.store.forms import AXES, SCALE, named, plain_axes
from satdifuser.store.layout import CRS, LABEL_COLUMNS, NAMES, SIDES
from satdifuser.store.reader import FeatureStore

if TYPE_CHECKING:
    import xarray

    from satdifuser.store.lazy import Rows


def open_xarray(
    path: str | Path,
    *,
    split: str | None = None,
    taps: Sequence[str] | None = None,
    timesteps: Sequence[int] | None = None,
    check: bool = True,
) -> xarray.Dataset:
    """The samples of a store, or of a split of it, as an `xarray.Dataset` that is read when it is used.

    Features are its variables, `<tap>@<timestep>`, in float32; ids, splits, labels and places are coordinates. Taps
    and timesteps are all, or those given. With Dask, `open_xarray(path).chunk(sample=64)` computes piece by piece.
    """
    try:
        import xarray
    except ImportError as error:
        raise UserError("open_xarray needs xarray, which is not installed: pip install xarray") from error
    from satdifuser.store.lazy import Rows

    store = FeatureStore(path, check=check)
    try:
        spec = store.spec if taps is None and timesteps is None else store.spec.select(timesteps=timesteps, names=taps)
    except BankError as error:
        raise UserError(f"{store.path}: {error}") from None
    parts = [store.split(name, spec, in_memory=False) for name in (store.splits if split is None else [split])]
    rows = Rows(parts)
    coordinates: dict[str, Any] = {
        NAMES: ("sample", _words([name for part in parts for name in part.ids])),
        "split": ("sample", _words([part.split for part in parts for _ in part.ids])),
        **_labels(store, rows),
        **_places(store, rows),
        **_middles(spec),
    }
    attributes = _attributes(store, spec)
    if CRS in coordinates and len(systems := {name for name in coordinates[CRS][1] if name}) == 1:
        attributes[CRS] = systems.pop()
    variables = _features(store, spec, rows)
    if any("statistic" in dimensions for dimensions, _, _ in variables.values()):
        longest = max((statistics_of(spec, tap) for tap in spec.taps), key=len)
        coordinates["statistic"] = ("statistic", _words(longest))
    return xarray.Dataset(variables, coordinates, attributes)


def _features(store: FeatureStore, spec: BankSpec, rows: Rows) -> dict[str, Any]:
    """Dimensions, values and attributes of each tap. Pooled numbers of a channel have a dimension of their own."""
    from satdifuser.store import lazy

    made = {"bfloat16": lazy.of_bits, "int8": lazy.of_levels}.get(store.form.dtype, lazy.as_float32)
    sides = {tap: _sides(spec, tap) for tap in spec.taps}
    plain = plain_axes(sides.values())
    found: dict[str, Any] = {}
    for tap in spec.taps:
        statistics, (channels, height, width) = statistics_of(spec, tap), sides[tap]
        several = len(statistics) > 1
        dates = () if spec.dates is None else (spec.dates,)
        shape = (*dates, *([len(statistics)] if several else []), channels, *(() if statistics else (height, width)))
        dimensions = (
            "sample",
            *("time" for _ in dates),
            *(["statistic"] if several else []),
            *named(sides[tap][: 1 if statistics else 3], plain),
        )
        arrays = [str(tap), str(tap) + SCALE] if store.form.dtype == "int8" else [str(tap)]
        about = {"tap": tap.name, "stride": tap.stride, **({} if tap.timestep is None else {"timestep": tap.timestep})}
        if len(statistics) == 1:
            about["statistic"] = statistics[0]
        found[str(tap)] = (dimensions, lazy.lazily(rows, arrays, shape, np.float32, made), about)
    return found


def _sides(spec: BankSpec, tap: Tap) -> tuple[int, int, int]:
    """Channels of the encoder, height and width."""
    channels, height, width = spec.shape(tap)[-3:]
    return channels // max(1, len(statistics_of(spec, tap))), height, width


def _labels(store: FeatureStore, rows: Rows) -> dict[str, Any]:
    from satdifuser.store import lazy

    found: dict[str, Any] = {}
    for name in (name for name in LABEL_COLUMNS if store.has(name)):
        array = store.array(name)
        dimensions = tuple(array.metadata.get("dimension_names") or ())
        if len(dimensions) != len(array.shape):
            raise damaged(store.path, name, "has no names of its dimensions")
        if store.wide(name) is not None:
            found[name] = (dimensions, lazy.lazily(rows, [name], array.row_shape, array.dtype, lazy.kept))
            continue
        values = np.concatenate([part.small_label(name) for part in rows.parts])
        if name == "dates":
            values = np.where(values < 0, np.datetime64("NaT", "s"), values.astype("datetime64[D]").astype("M8[s]"))
        found[name] = (dimensions, values)
        if "class" in dimensions and values.shape[-1] == len(store.labels.classes):
            found["class"] = ("class", _words(store.labels.classes))
    return found


def _places(store: FeatureStore, rows: Rows) -> dict[str, Any]:
    places = places_of(store)
    if not any(places.values()):
        return {}
    nowhere: Any = ((np.nan,) * 4, "")
    each = [places[part.split].get(name, nowhere) for part in rows.parts for name in part.ids]
    boxes = np.array([box for box, _ in each], np.float64).reshape(-1, 4)
    sides = {side: ("sample", values) for side, values in zip(SIDES, boxes.T, strict=True)}
    return {**sides, CRS: ("sample", _words([system for _, system in each]))}


def _middles(spec: BankSpec) -> dict[str, Any]:
    """Where the cells of maps are: their middles in pixels of the image, where all of one size have one stride."""
    if any(name == "pooled" for name, _ in spec.settings):
        return {}
    plain = plain_axes(spec.shape(tap) for tap in spec.taps)
    found: dict[str, Any] = {}
    strides: dict[str, set[int]] = {}
    for tap in spec.taps:
        sides = spec.shape(tap)[-3:]
        for axis, name, side in zip(AXES[1:], named(sides, plain)[1:], sides[1:], strict=True):
            strides.setdefault(name, set()).add(tap.stride)
            found[name] = (name, (np.arange(side) + 0.5) * tap.stride, {"units": "pixel", "axis": axis.upper()})
    return {name: value for name, value in found.items() if len(strides[name]) == 1}


def _attributes(store: FeatureStore, spec: BankSpec) -> dict[str, Any]:
    """Numbers and texts alone, so that a data set can be written as NetCDF."""
    return {
        "encoder": spec.encoder,
        "weights": spec.weights,
        "mode": spec.mode,
        "image_size": list(spec.image_size),
        "form": store.form.words,
        "classes": list(store.labels.classes),
        "store": store.path,
    }


def _words(values: Sequence[str]) -> Any:
    return np.array(list(values), object)
