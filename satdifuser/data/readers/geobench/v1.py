"""GEO-Bench v1: a file of HDF5 for each sample, its bands each on its own grid, and its label in a record or a mask."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.files.fitting import AGAIN, BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.readers.base import Answer, Raw, Reader
from satdifuser.data.readers.geobench.inert import RefusedError, label_in
from satdifuser.data.readers.geobench.partition import names_in
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, checked

DATE = r"(_\d{4}-\d\d-\d\d.*|_NoDate)?"


class GeoBench(Reader):
    """The samples that a partition names, in its order; a sample's id is its name there.

    Every band of the sensor is read by its name in the file (`bands`), so that a sensor with fewer reads fewer; what
    the file holds besides is left. Labels come from the file's record (`label`, `multilabel`), of which nothing is run,
    or from its mask.
    """

    name = "geobench"

    @checked("data")
    def __init__(
        self,
        root: Place,
        task: Annotated[str, Len(1)],
        split: str = "train",
        *,
        folder: Annotated[str, Len(1)],
        label: Answer,
        sensor: SensorName,
        bands: dict[str, str],
        partition: Annotated[str, Len(1)] = "default",
        **above: Above,
    ) -> None:
        self.task, self.split = task, split
        known = find_sensor(sensor)
        lacking = [name for name in known.names if name not in bands]
        if lacking:
            raise UserError(
                f"data.bands has no {', '.join(lacking)}, which {known.name} has: it has {', '.join(bands)}; set"
                " data.sensor to some of these bands, or name the others in data.bands"
            )
        self.bands = {name: bands[name] for name in known.names}
        self.folder = Path(root) / folder
        super().__init__(names_in(self.folder, partition, split), sensor=known, label=label, **above)

    @property
    def about(self) -> dict[str, Any]:
        return {"task": self.task, "split": self.split, "in the files": self.bands}

    def files(self, name: str) -> list[Path]:
        return [self.folder / f"{name}.hdf5"]

    def read(self, name: str) -> Raw:
        with self._opened(name) as file:
            found = [_dataset(file, band) for band in self.bands.values()]
            height, width = max(band.shape[0] for band in found), max(band.shape[1] for band in found)
            self.fitting.check(len(found), height, width)
            self.fitting.check_room(len(found) * height * width, height, width)
            return Raw([band[()] for band in found], self._in(file))

    def answer(self, name: str) -> Any:
        with self._opened(name) as file:
            return self._in(file)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        import h5py

        path = self.files(name)[0]
        try:
            with h5py.File(path, "r") as file:
                yield file
        except (BadImageError, FileNotFoundError):
            raise
        except RefusedError as fault:
            raise BadImageError(str(fault)) from fault
        except Exception as error:  # damaged files make h5py and pickle raise all kinds
            reason = shown(" ".join(str(error).replace(str(path), "the file").split()))
            raise BadImageError(f"cannot be read ({reason}): {AGAIN}, or remove it") from error

    def _in(self, file: Any) -> Any:
        """The mask, or the label of the file's record."""
        if self.label == "mask":
            return _dataset(file, "label")[()]
        value, classes = label_in(file.attrs.get("pickle")), len(self.labels.classes)
        if value is None:
            raise BadImageError("has no label in its record: of a set with masks, set data.label=mask")
        found = np.asarray(value)
        if found.dtype.kind not in "biuf" or found.shape != (() if self.label == "label" else (classes,)):
            said = f"{found.size} numbers" if found.dtype.kind in "biuf" else f"a {type(value).__name__}"
            wanted = "one class" if self.label == "label" else f"0 or 1 for each of {classes} classes"
            raise BadImageError(
                f"has a label of {said} in its record, but data.label={self.label} is {wanted}: set data.label, and"
                " data.classes to the set's"
            )
        if self.label == "multilabel" and not np.isin(found, (0, 1)).all():
            raise BadImageError(f"has a label with {found.max():g} in its record, but there are 0 and 1: {AGAIN}")
        return found.item() if self.label == "label" else found


def _dataset(file: Mapping[str, Any], name: str) -> Any:
    """The one data set of a name, with a date behind it or not."""
    found = [key for key in file if re.fullmatch(re.escape(name) + DATE, key)]
    if not found:
        raise BadImageError(f"has no {name!r}: it has {', '.join(map(repr, file)) or 'nothing'}; set data.bands")
    if len(found) > 1:
        raise BadImageError(f"has {len(found)} dates of {name!r}, and several dates are not read")
    if len(file[found[0]].shape) != 2 or not file[found[0]].size or file[found[0]].dtype.kind not in "biuf":
        raise BadImageError(f"has {found[0]!r} with the shape {file[found[0]].shape}: a band is a table of numbers")
    return file[found[0]]
