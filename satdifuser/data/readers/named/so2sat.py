"""So2Sat LCZ42: local climate zones of cities, Sentinel-2 and Sentinel-1 of 32 px in one file of HDF5 a split."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.files.contents import contents
from satdifuser.data.files.fitting import AGAIN, BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, one_of, places_of
from satdifuser.data.sensors import SENTINEL2_LAND
from satdifuser.data.splits.holdout import held_out
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, Rate, checked

FILES = {"train": "training", "val": "validation", "test": "testing"}
BANDS = {band: ("sen2", place) for place, band in enumerate(SENTINEL2_LAND.names)}
BANDS |= {"VH": ("sen1", 4), "VV": ("sen1", 5)}  # Lee-filtered intensities; the other six are complex parts
SHAPES = {"sen1": (32, 32, 8), "sen2": (32, 32, 10), "label": (17,)}


class So2Sat(Reader):
    """The patches of a file in their order, as `training-000012`.

    `partition` null is the set's second version (and fourth): `training.h5` of 42 cities, `validation.h5` and
    `testing.h5` of ten others. Those of the third are folders of a training and a testing file: `val` of the training
    patches is for validation then, by a hash of their ids.
    """

    name = "so2sat"

    @checked("data")
    def __init__(
        self,
        root: Place,
        split: str = "train",
        *,
        sensor: SensorName,
        partition: Literal["random", "block", "culture_10"] | None = None,
        val: Rate = 0.1,
        **above: Above,
    ) -> None:
        one_of(split, FILES, self.name)
        folder = find_folder(root, partition or "training.h5", "so2sat", "So2Sat") / (partition or "")
        self.split, self.partition = split, partition
        self.file = folder / f"{FILES['train' if partition and split == 'val' else split]}.h5"
        known = find_sensor(sensor)
        self.bands = places_of(known, BANDS, self.name)
        self.keys = sorted({key for key, _ in self.bands.values()})
        names = [f"{self.file.stem}-{number:06d}" for number in range(self._count())]
        if partition and split != "test":
            names = held_out({"": names}, val, 0.0)[split]
        if not names:
            raise UserError(f"{shown(self.file)} has no patches for {split}: set another data.val")
        super().__init__(names, sensor=known, **above)

    def _count(self) -> int:
        """How many patches the file has, once it is known to be one of the set."""
        import h5py

        if not self.file.is_file():
            raise UserError(f"{shown(self.file)} is not there: {AGAIN}")
        try:
            with h5py.File(self.file, "r") as file:
                for key in (*self.keys, "label"):  # version 1 has no labels for testing
                    if key not in file or file[key].shape[1:] != SHAPES[key]:
                        said = f"of the shape {file[key].shape}" if key in file else "not there"
                        raise UserError(f"{shown(self.file)}: {key} is {said}, not {['n', *SHAPES[key]]}: {AGAIN}")
                return len(file["label"])
        except OSError as error:
            raise UserError(f"{shown(self.file)} cannot be read ({shown(str(error))}): {AGAIN}") from error

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split, "partition": self.partition}

    def files(self, name: str) -> list[Path]:
        return [self.file]

    def fingerprint(self) -> str:
        return contents([self.file])

    def read(self, name: str) -> Raw:
        import h5py

        with h5py.File(self.file, "r") as file:  # for each read, so that processes share no handle
            patches = {key: file[key][_number(name)] for key in self.keys}
        return Raw([patches[key][..., place] for key, place in self.bands.values()], self.answer(name))

    def answer(self, name: str) -> Any:
        if self.label is None:
            return None
        row = self._zones[_number(name)]
        if row.sum() != 1 or row.max() != 1:
            raise BadImageError(f"has a label of {name} that is not one of its {row.size} zones: {AGAIN}")
        return int(row.argmax())

    @cached_property
    def _zones(self) -> Any:
        """Of all patches, read once: one for each would be slow."""
        import h5py

        with h5py.File(self.file, "r") as file:
            return file["label"][()].astype(np.float32)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
