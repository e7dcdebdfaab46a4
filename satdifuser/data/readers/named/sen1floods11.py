"""Sen1Floods11: water by hand in 446 chips of eleven floods, with Sentinel-2 (top of atmosphere) and Sentinel-1."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from satdifuser.data.bands import SENTINEL2, SensorName, find_sensor
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, listed, one_of, places_of, raw_of, read_bands
from satdifuser.data.sensors import SENTINEL1
from satdifuser.kinds import Above, Place, checked

SPLITS = {"train": "train", "val": "valid", "test": "test", "bolivia": "bolivia"}
CHIPS = "data/flood_events/HandLabeled"
FOLDERS = {"S2Hand": SENTINEL2.names, "S1Hand": SENTINEL1.names}
BANDS = {band: (folder, names.index(band)) for folder, names in FOLDERS.items() for band in names}


class Sen1Floods11(Reader):
    """The chips of a split, as `Ghana_103272`; `bolivia` is of a country that no other split has.

    Of the two sensors those are read of which `sensor` has bands: SENTINEL2, SENTINEL1, or SENTINEL2+SENTINEL1.
    """

    name = "sen1floods11"

    @checked("data")
    def __init__(self, root: Place, split: str = "train", *, sensor: SensorName, **above: Above) -> None:
        self.root, self.split = find_folder(root, CHIPS, "v1.1"), one_of(split, SPLITS, self.name)
        known = find_sensor(sensor)
        self.bands = places_of(known, BANDS, self.name)
        table = self.root / "splits" / "flood_handlabeled" / f"flood_{SPLITS[split]}_data.csv"
        super().__init__(listed(table, _chip), sensor=known, **above)

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split}

    def files(self, name: str) -> list[Path]:
        folders = dict.fromkeys(folder for folder, _ in self.bands.values())
        return [self._file(name, folder) for folder in (*folders, "LabelHand")]

    def read(self, name: str) -> Raw:
        found: dict[str, Any] = {}
        for folder, names in FOLDERS.items():
            wanted = {band: place for band, (where, place) in self.bands.items() if where == folder}
            if wanted:
                read = read_bands(self._file(name, folder), self.fitting, list(wanted.values()), len(names))
                found |= dict(zip(wanted, read, strict=True))
        return raw_of((found[band] for band in self.bands), self.answer(name))

    def answer(self, name: str) -> Any:
        return None if self.label is None else read_bands(self._file(name, "LabelHand"), self.fitting)[0][0]

    def _file(self, name: str, folder: str) -> Path:
        return self.root / CHIPS / folder / f"{name}_{folder}.tif"


def _chip(line: str) -> str | None:
    """Of `Ghana_103272_S1Hand.tif,Ghana_103272_LabelHand.tif`: what both have in common."""
    found = re.fullmatch(r"(.+)_S1Hand\.tif\s*,\s*(.+)_LabelHand\.tif", line)
    return found[1] if found and found[1] == found[2] else None
