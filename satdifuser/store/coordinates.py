"""What makes a store a labelled data set for xarray and the like: names of samples, their places, what numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from satdifuser.bank import BankSpec, Tap
from satdifuser.pooling import QUANTILES, held_of
from satdifuser.store.layout import CRS, NAMES, SIDES, Place, Places
from satdifuser.store.opened import OpenStore
from satdifuser.store.plan import StorePlan

NOWHERE = -1  # the number of no reference system
MOST_SYSTEMS = 2**15 - 1
SMALL_CHUNK = 65_536  # rows of such arrays, and of small labels, in a file


def small(group: Any, name: str, values: Any, dimensions: Any) -> None:
    group.create_array(
        name,
        data=values,
        chunks=(min(len(values), SMALL_CHUNK), *values.shape[1:]),
        dimension_names=dimensions,
        overwrite=True,
    )


def write(group: Any, plan: StorePlan, attributes: dict[str, Any]) -> None:
    """The coordinates of a store, and in its attributes what they mean."""
    names = np.array([name for _, name in plan.rows], object)
    array = group.create_array(
        NAMES,
        shape=names.shape,
        dtype="string",
        chunks=(min(len(names), SMALL_CHUNK),),
        dimension_names=("sample",),
        overwrite=True,
    )
    array[:] = names
    for column in plan.columns:
        found = statistics_of(plan.spec, column.tap)
        if found:
            group[column.name].attrs["statistics"] = list(found)
    places = [] if plan.places is None else _listed(plan, plan.places())
    if any(place is not None for place in places):
        nowhere: Any = ((np.nan,) * 4, "")
        boxes = np.array([(place or nowhere)[0] for place in places], np.float64)
        systems = list(dict.fromkeys(place[1] for place in places if place is not None))[:MOST_SYSTEMS]
        number = {system: count for count, system in enumerate(systems)}
        for side, values in zip(SIDES, boxes.T, strict=True):
            small(group, side, np.ascontiguousarray(values), ("sample",))
        numbers = [number.get((place or nowhere)[1], NOWHERE) for place in places]
        small(group, CRS, np.array(numbers, np.int16), ("sample",))
        attributes[CRS] = systems
    features = {column.name for column in plan.columns}
    # So xarray takes for data what are features alone, and no mean is one of checksums or class numbers.
    attributes["coordinates"] = " ".join(sorted(name for name in group.array_keys() if name not in features))


def _listed(plan: StorePlan, places: Places) -> list[Place | None]:
    return [places.get(plan.splits[split], {}).get(name) for split, name in plan.rows]


def places_of(store: OpenStore) -> dict[str, dict[str, Place]]:
    """Where the samples of a store lie, of those of which it is known."""
    split, numbers, sides = store.column("split"), store.column(CRS), [store.column(side) for side in SIDES]
    systems = store.attributes.get(CRS)
    found: dict[str, dict[str, Place]] = {name: {} for name in store.splits}
    if split is None or numbers is None or not isinstance(systems, list):
        return found
    boxes = np.stack([side for side in sides if side is not None], 1).tolist()
    for row, name in enumerate(store.ids()):
        if 0 <= numbers[row] < len(systems):
            found[store.splits[split[row]]][name] = (tuple(boxes[row]), str(systems[numbers[row]]))
    return found


def statistics_of(spec: BankSpec, tap: Tap) -> Sequence[str]:
    """What the numbers of a pooled tap are: as many channels for each, in this order; none of maps and of grids.

    >>> from satdifuser.pooling import Pooling
    >>> spec = Pooling("moments").spec(BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (32, 32)))
    >>> statistics_of(spec, spec.taps[0])
    ('mean', 'std')
    """
    quantiles = tuple(f"q{round(100 * share)}" for share in QUANTILES)
    known = {"mean": ("mean",), "max": ("max",), "moments": ("mean", "std"), "quantiles": ("mean", "std", *quantiles)}
    return known.get(held_of(spec, tap) or "", ())
