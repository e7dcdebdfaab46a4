"""GEO-Bench v1: a file of HDF5 for each sample, its bands each on its own grid, and its label in a record or a mask."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor
from torch.utils.data import Dataset

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.base import Batch, LabelledDataset, Labels, Sample
from satdifuser.data.budgets import Within
from satdifuser.data.colours import colours
from satdifuser.data.contents import contents
from satdifuser.data.fitting import BadImageError, Fit, Fitting
from satdifuser.data.names import shown
from satdifuser.data.readers.inert import RefusedError, label_in
from satdifuser.data.readers.partition import AGAIN, names_in
from satdifuser.data.reflectance import SKIP
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Place, Positive, Side, Whole, checked

DATE = r"(_\d{4}-\d\d-\d\d.*|_NoDate)?"


class GeoBench(Dataset[Sample]):
    """The samples that a partition names, in its order; a sample's id is its name there.

    Every band of the sensor is read by its name in the file (`bands`), so that a sensor with fewer reads fewer; what
    the file holds besides is left. A number of `unit` is a reflectance of 1. Labels come from the file's record
    (`label`, `multilabel`), of which nothing is run, or from its mask.
    """

    name = "geobench"
    places = ("root",)

    @checked("data")
    def __init__(
        self,
        root: Place,
        task: Annotated[str, Len(1)],
        split: str = "train",
        *,
        folder: Annotated[str, Len(1)],
        label: Literal["label", "multilabel", "mask"],
        sensor: SensorName,
        size: Side,
        unit: Positive,
        bands: dict[str, str],
        classes: Annotated[list[str], Len(1)],
        ignore: Whole | None = None,
        partition: Annotated[str, Len(1)] = "default",
        fit: Fit = "none",
        limit: Count | None = None,
    ) -> None:
        self.task, self.split, self.label = task, split, label
        self.sensor, self.size, self.unit, self.fit = find_sensor(sensor), size, float(unit), fit
        lacking = [name for name in self.sensor.names if name not in bands]
        if lacking:
            raise UserError(
                f"data.bands has no {', '.join(lacking)}, which {self.sensor.name} has: it has {', '.join(bands)}; set"
                " data.sensor to one of these bands, or name the others in data.bands"
            )
        self.bands = {name: bands[name] for name in self.sensor.names}
        self.fitting = Fitting(self.sensor, size, fit)
        self.ignore = ignore
        self.labels = Labels(tuple(classes), colours(len(classes)), 255 if ignore is None else ignore)
        self.folder = Path(root) / folder
        self.names = names_in(self.folder, partition, split)
        if limit is not None and limit < len(self.names):
            self.names = [self.names[place * len(self.names) // limit] for place in range(limit)]

    @property
    def identity(self) -> dict[str, Any]:
        """Which samples they are, and how they are read; wherever they lie, and whatever partition names them."""
        return {
            "name": self.name,
            "task": self.task,
            "split": self.split,
            "samples": len(self.names),
            "names": hashlib.blake2b("\n".join(self.names).encode(), digest_size=8).hexdigest(),
            "contents": self._contents,
            "label": self.label,
            "classes": list(self.labels.classes),
            "ignore": self.ignore,
            "sensor": self.sensor.name,
            "bands": self.bands,
            "unit": self.unit,
            "size": self.size,
            "fit": self.fit,
        }

    @cached_property
    def _contents(self) -> str:
        return contents(len(self.names), lambda place: self._path(self.names[place]))

    def sample_id(self, index: int) -> str:
        return self.names[index]

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """Ids and labels; no band is read."""
        batch: Batch = {"id": [self.sample_id(index) for index in indices]}
        if names is None or self.label in names:
            found = []
            for name in batch["id"]:
                with self._opened(name) as file:
                    found.append(self._label(file))
            batch[self.label] = torch.stack(found)
        return batch

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        return Within(self, indices)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self._opened(self.names[index]) as file:
            sample: Sample = {"id": self.names[index], "image": self._image(file)}
            sample[self.label] = self._label(file)
        return sample

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.hdf5"

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        """The sample's file; whatever is found wrong with it while it is open is one line that names it."""
        import h5py

        path = self._path(name)
        try:
            with h5py.File(path, "r") as file:
                yield file
        except (BadImageError, RefusedError) as fault:
            raise UserError(f"{shown(path)} {fault} {SKIP}") from fault
        except FileNotFoundError as error:
            raise UserError(f"{shown(path)} is not there, but the partition names it: {AGAIN} {SKIP}") from error
        except Exception as error:  # damaged files make h5py and pickle raise all kinds
            reason = shown(" ".join(str(error).replace(str(path), "the file").split()))
            raise UserError(f"{shown(path)} cannot be read ({reason}): {AGAIN}, or remove it {SKIP}") from error

    def _image(self, file: Any) -> Tensor:
        """float32 `[bands, size, size]`: the finest band has the image's size, and others are brought to it."""
        found = [_dataset(file, name) for name in self.bands.values()]
        height, width = max(band.shape[0] for band in found), max(band.shape[1] for band in found)
        self.fitting.check(len(found), height, width)
        self.fitting.check_room(len(found) * height * width, height, width)
        whole = (self.size, self.size) if self.fit == "resize" else (height, width)
        bands = [_resized(torch.from_numpy(band[()].astype(np.float32)), whole) for band in found]
        rows, columns = self.fitting.part(height, width)
        return torch.stack([band[rows, columns] for band in bands]) / self.unit

    def _label(self, file: Any) -> Tensor:
        if self.label == "mask":
            return self._mask(file)
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
        self._check(found, classes - 1 if self.label == "label" else 1, "a label")
        return torch.tensor(found.astype(np.float32 if self.label == "multilabel" else np.int64))

    def _mask(self, file: Any) -> Tensor:
        mask = _dataset(file, "label")
        height, width = mask.shape
        self.fitting.check(len(self.sensor), height, width)
        rows, columns = self.fitting.part(height, width)
        numbers = mask[rows, columns]
        self._check(numbers, len(self.labels.classes) - 1, "a mask")
        classes = torch.from_numpy(numbers.astype(np.int64))
        if self.fit != "resize" or (height, width) == (self.size, self.size):
            return classes
        nearest_to: Tensor = F.interpolate(classes[None, None].double(), (self.size, self.size), mode="nearest-exact")
        return nearest_to[0, 0].long()

    def _check(self, numbers: np.ndarray[Any, Any], most: int, what: str) -> None:
        """Refuse what is no whole number from 0 to `most`, nor the value that is ignored."""
        bad = (numbers < 0) | (numbers > most) | (numbers != np.floor(numbers))
        if what == "a mask" and self.ignore is not None:
            bad &= numbers != self.ignore
        if bad.any():
            ignored = f" and {self.ignore} (ignored)" if what == "a mask" and self.ignore is not None else ""
            raise BadImageError(
                f"has {what} with {numbers[bad].flat[0]:g}, but there are 0 to {most}{ignored}: set data.classes"
                f"{' or data.ignore' if what == 'a mask' else ''} to the set's, or replace the file"
            )


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


def _resized(band: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(band.shape) == size:
        return band
    resized: Tensor = F.interpolate(band[None, None], size, mode="bilinear", antialias=True)[0, 0]
    return resized
