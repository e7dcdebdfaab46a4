"""PASTIS and PASTIS-R: crops of France in a year of Sentinel-2, and Sentinel-1 of the nearest dates if asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.dates import day_of
from satdifuser.data.files.fitting import AGAIN, SKIP
from satdifuser.data.files.names import shown
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, one_of, places_of, read_array
from satdifuser.data.sensors import SENTINEL2_LAND
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, checked

SPLITS = {"train": (0, 1, 2), "val": (3,), "test": (4,)}  # of the five folds, counted from the first that is trained on
OPTICAL = {band: ("S2", place) for place, band in enumerate(SENTINEL2_LAND.names)}
RADAR = {"VV": 0, "VH": 1, "VV-VH": 2}
ORBITS = {"ascending": "S1A", "descending": "S1D"}
CHANNELS = {"S2": 10, "S1A": 3, "S1D": 3}


class Pastis(Reader):
    """The patches of a split's folds, by their numbers; of their dates those are read that `dates` leaves.

    `fold` is the first of the three folds that are trained on; the next is for validation, the last for testing. Of
    Sentinel-1 those dates are read that are nearest to Sentinel-2's, in one orbit.
    """

    name = "pastis"

    @checked("data")
    def __init__(
        self,
        root: Place,
        split: str = "train",
        *,
        sensor: SensorName,
        fold: Literal[1, 2, 3, 4, 5] = 1,
        orbit: Literal["ascending", "descending"] = "ascending",
        **above: Above,
    ) -> None:
        self.root, self.split = find_folder(root, "metadata.geojson", "PASTIS-R", "PASTIS"), split
        self.folds = [(fold - 1 + place) % 5 + 1 for place in SPLITS[one_of(split, SPLITS, self.name)]]
        known = find_sensor(sensor)
        radar = {band: (ORBITS[orbit], place) for band, place in RADAR.items()}
        self.bands = places_of(known, OPTICAL | radar, self.name)
        self.series = sorted({series for series, _ in self.bands.values()}, reverse=True)  # S2 leads
        self.days = self._patches()
        super().__init__(list(self.days), sensor=known, **above)

    def _patches(self) -> dict[str, dict[str, list[int]]]:
        """Patch -> series -> days since 1970."""
        file = self.root / "metadata.geojson"
        try:
            patches = [feature["properties"] for feature in json.loads(file.read_text("utf-8"))["features"]]
            chosen = sorted((p for p in patches if int(p["Fold"]) in self.folds), key=lambda p: int(p["ID_PATCH"]))
            found = {
                str(int(p["ID_PATCH"])): {series: _days(p[f"dates-{series}"]) for series in self.series} for p in chosen
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else f"is not as it was published ({error})"
            raise UserError(f"{shown(file)} {shown(reason)}: {AGAIN} (Sentinel-1 is in PASTIS-R)") from error
        if not found:
            raise UserError(f"{shown(file)} has no patches of fold {', '.join(map(str, self.folds))}: {AGAIN}")
        return found

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split, "folds": self.folds, "series": self.series}

    def files(self, name: str) -> list[Path]:
        series = [self.root / f"DATA_{each}" / f"{each}_{name}.npy" for each in self.series]
        return [*series, self.root / "ANNOTATIONS" / f"TARGET_{name}.npy"]

    def read(self, name: str) -> Raw:
        days = self.days[name]
        chosen = self.pick(len(days[self.series[0]]))
        lead = np.array(days[self.series[0]])[chosen]
        found: dict[str, Any] = {}
        for series, file in zip(self.series, self.files(name), strict=False):
            numbers = read_array(file, 4)
            if numbers.shape[:2] != (len(days[series]), CHANNELS[series]):
                said = f"{len(days[series])} dates in metadata.geojson and {CHANNELS[series]} bands"
                raise UserError(f"{shown(file)} has the shape {numbers.shape}, but {said}: {AGAIN} {SKIP}")
            self.fitting.check_room(len(lead) * len(self.bands) * numbers[0, 0].size, *numbers.shape[2:])
            at, own_days = chosen, np.array(days[series])
            if series != self.series[0]:
                at = [int(np.abs(own_days - day).argmin()) for day in lead]
            found |= {band: numbers[at, place] for band, (own, place) in self.bands.items() if own == series}
        return Raw([found[band] for band in self.bands], self.answer(name), dates=lead.tolist())

    def answer(self, name: str) -> Any:
        return None if self.label is None else np.array(read_array(self.files(name)[-1], 3)[0])


def _days(dates: Any) -> list[int]:
    """Of `{"0": 20180924, ...}`, as JSON or as text of it."""
    table = json.loads(dates) if isinstance(dates, str) else dates
    return [day_of(table[key]) for key in sorted(table, key=int)]
