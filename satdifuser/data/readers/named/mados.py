"""MADOS: marine debris and oil spills, Sentinel-2 in a file a band at its own resolution, and a sparse mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.files.contents import LOOKED_AT, contents
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, listed, one_of, places_of, raw_of, read_bands
from satdifuser.data.splits.evenly import evenly
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, checked

SPLITS = ("train", "val", "test")
BANDS = {  # the folder of its metres, and the nanometres in the name of a file: of Sentinel-2A, and of 2B
    "B01": (60, 443, 442),
    "B02": (10, 492, 492),
    "B03": (10, 560, 559),
    "B04": (10, 665, 665),
    "B05": (20, 704, 704),
    "B06": (20, 740, 739),
    "B07": (20, 783, 780),
    "B08": (10, 833, 833),
    "B8A": (20, 865, 864),
    "B11": (20, 1614, 1610),
    "B12": (20, 2202, 2186),
}


class Mados(Reader):
    """The crops that `splits/SPLIT_X.txt` names, as `Scene_3_14`; bands of 20 and 60 m are brought to 10 m."""

    name = "mados"

    @checked("data")
    def __init__(self, root: Place, split: str = "train", *, sensor: SensorName, **above: Above) -> None:
        self.root, self.split = find_folder(root, "splits", "MADOS"), one_of(split, SPLITS, self.name)
        known = find_sensor(sensor)
        self.bands = places_of(known, BANDS, self.name)
        if min(metres for metres, *_ in self.bands.values()) > 10:  # the grid that the masks have
            raise UserError(f"data.sensor has no band of 10 m ({', '.join(known.names)}): add B02, B03, B04 or B08")
        names = listed(self.root / "splits" / f"{split}_X.txt", lambda line: line if "_" in line.strip("_") else None)
        super().__init__(names, sensor=known, **above)

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split}

    def files(self, name: str) -> list[Path]:
        return [self._file(name, "10", "cl"), *(self._band(name, band) for band in self.bands)]

    def read(self, name: str) -> Raw:
        return raw_of((read_bands(self._band(name, band), self.fitting)[0] for band in self.bands), self.answer(name))

    def answer(self, name: str) -> Any:
        return None if self.label is None else read_bands(self._file(name, "10", "cl"), self.fitting)[0][0]

    def fingerprint(self) -> str:
        return contents(self._band(name, band) for name in evenly(self.names, LOOKED_AT) for band in self.bands)

    def _band(self, name: str, band: str) -> Path:
        metres, *lengths = self.bands[band]
        paths = [self._file(name, str(metres), f"rhorc_{length}") for length in lengths]
        return next((path for path in paths if path.is_file()), paths[0])

    def _file(self, name: str, metres: str, what: str) -> Path:
        scene, _, crop = name.rpartition("_")
        return self.root / scene / metres / f"{scene}_L2R_{what}_{crop}.tif"
